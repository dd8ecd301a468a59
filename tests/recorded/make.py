"""Writes anew what is expected of the recorded log: ``python -m tests.recorded.make``."""

from pathlib import Path
from tempfile import TemporaryDirectory

from .behaviour import behaviour_of
from .files import expect, unpacked_log

if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        expect(behaviour_of(unpacked_log(Path(folder)), Path(folder)))
