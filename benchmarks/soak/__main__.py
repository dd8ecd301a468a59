"""python -m benchmarks.soak [--requests N] [--at-a-time N]: the soak on two lanes of the embedded engine."""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from benchmarks.gateways import NGRAM, NGRAM_DRAFT, engine, gateway
from benchmarks.soak import soak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--at-a-time", type=int, default=64)
    options = parser.parse_args()
    configuration = engine("plain") + engine("ngram", *NGRAM, strategy="ngram", n_max=NGRAM_DRAFT)
    with tempfile.TemporaryDirectory() as folder, gateway(configuration, Path(folder)) as running:
        kill_at = (options.requests // 4, options.requests * 6 // 10)
        report = asyncio.run(soak(running.url, running.pid, options.requests, options.at_a_time, kill_at))
    print(", ".join(f"{count} {what}" for what, count in report.outcomes.items()))
    print(f"killed engines: {report.kills}; engines running at the end: {report.children}")
    print(f"still in flight: {report.in_flight}; open files: {report.fds_before} before, {report.fds_after} after")
    print(
        f"memory: {report.rss_warm_bytes / 1e6:.1f} MB after a quarter, {report.rss_end_bytes / 1e6:.1f} MB at the end"
    )
    if report.lost or report.in_flight or report.kills != len(kill_at) or report.children != 2:
        sys.exit("something was lost or left behind")


if __name__ == "__main__":
    main()
