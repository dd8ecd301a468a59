"""A worker's process: ``python -m paceline.workers CONTROL LISTENING``, both descriptors; the keeper starts it."""

import logging
import sys

from paceline.http.own_process import loop_factory
from paceline.workers.worker import run

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    sys.exit(run(int(sys.argv[1]), int(sys.argv[2]), loop_factory()))
