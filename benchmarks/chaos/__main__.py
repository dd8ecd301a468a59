"""python -m benchmarks.chaos [--requests N] [--at-a-time N] [--only PHASE ...]: the table of docs/reliability.md.

The result is kept beside this file, in measured.json, with --keep.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks.chaos import Report, chaos
from benchmarks.chaos.phases import PHASES, Result

MEASURED = Path(__file__).parent / "measured.json"
HEAD = (
    "| one engine is | requests | served | broken midway | failed or wrong | reached it | p50 | p99 | slowest "
    "| left alone after | used again after |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=600, help="of each phase")
    parser.add_argument("--at-a-time", type=int, default=32)
    parser.add_argument("--only", nargs="+", metavar="PHASE", choices=[phase.name for phase in PHASES])
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    phases = [phase for phase in PHASES if not options.only or phase.name in options.only]
    began_s = time.monotonic()
    print(HEAD, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        report = asyncio.run(chaos(Path(folder), options.requests, options.at_a_time, phases, say))
    took_s = time.monotonic() - began_s
    tell(report, took_s)
    if options.keep:
        document = asdict(report) | {"at_a_time": options.at_a_time, "took_s": round(took_s, 1)}
        MEASURED.write_text(json.dumps(document, indent=1) + "\n")
    if not report.is_good:
        sys.exit("requests were lost, or something was left behind")


def say(result: Result) -> None:
    """One line of the table, and below it what went wrong."""
    print(
        f"| {result.phase} | {result.requests} | {result.served} | {result.broken} | {result.failed + result.wrong} "
        f"| {result.reached} | {result.p50_ms:.0f} ms | {result.p99_ms:.0f} ms | {result.slowest_s:.1f} s "
        f"| {_seconds(result.left_alone_s)} | {_seconds(result.back_s)} |",
        flush=True,
    )
    beside = {what: count for what, count in result.beside.items() if what != "served"}
    for line in ([f"before and after it: {beside}"] if beside else []) + result.problems:
        print(f"    {line}", file=sys.stderr)
    if result.done:
        print(f"    {result.done}", file=sys.stderr)


def tell(report: Report, took_s: float) -> None:
    """What remains to be said after the table."""
    asked = sum(result.requests + sum(result.beside.values()) for result in report.results)
    print(f"\n{asked} requests in {took_s:.0f} s; skipped: {', '.join(report.skipped) or 'nothing'}")
    print(f"still in flight: {report.in_flight}; engines running: {report.engines_running}")
    print(f"open files: {report.fds_before} before, {report.fds_after} after")
    print(f"memory: {report.rss_before_bytes / 1e6:.1f} MB before, {report.rss_after_bytes / 1e6:.1f} MB after")
    print(f"tracebacks in the gateway's log: {report.tracebacks}; routing failures: {report.routing_failures or 0}")


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"


if __name__ == "__main__":
    main()
