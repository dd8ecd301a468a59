"""What workers bring: requests/s of one gateway with one process and with several, before an engine that costs nothing.

    python -m benchmarks.scale.workers [--workers N] [--rounds N] [--seconds S] [--json FILE]

Needs ``wrk``. Both gateways run all the time, and are measured in turn, in alternating order, so that drift of the
machine hits both alike. Each round gives a ratio; printed are their median and the interval in which the median lies
with 95 %. The engine and ``wrk`` take a part of the same processor cores: what they need for a request is measured
without a gateway, and says how much can be gained at most. A round in which other programs had more than 0.15 of a
core is left out, and counted.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import ceil, floor, sqrt
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import httpx2
import psutil

from paceline.bench.own_gateway import Running, own_gateway
from paceline.processes.launch import free_port

CONNECTIONS = (32, 128)
ENGINE = Path(__file__).parents[1] / "gateway_overhead" / "mock_engine.py"
PROMPT = "def add(left, right):\n    return left + right\n" * 43  # 2,000 characters
MAX_SECONDS_TO_AGREE = 10.0
MAX_OTHERS = 0.15
"""Cores that other programs may have in a round that counts."""


class Rate(NamedTuple):
    """Of one run."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    """Of the gateway's processes, for a request."""
    balance: float
    """Least share of the processor time that a worker had, in an even share; 1 is even."""
    others: float
    """Cores that programs had which are not part of this."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement")
    parser.add_argument("--json", type=Path, help="where the result is written")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is needed (Debian: apt-get install wrk)")
    with TemporaryDirectory() as name:
        result = _measured(options, Path(name))
    _print(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def _measured(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    script = folder / "post.lua"
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": PROMPT}]})
    (folder / "body.json").write_text(body)
    script.write_text(
        f'local file = io.open("{folder}/body.json")\nwrk.method = "POST"\nwrk.body = file:read("*a")\n'
        'wrk.headers["content-type"] = "application/json"\n'
    )
    rates: dict[tuple[int, int], list[Rate]] = defaultdict(list)
    direct: dict[int, list[float]] = defaultdict(list)
    with (
        _engine() as engine_url,
        _gateway(engine_url, 1, folder) as one,
        _gateway(engine_url, options.workers, folder) as several,
    ):
        gateways = {1: one, options.workers: several}
        for running in gateways.values():
            _wrk(running.url, script, 32, 2)
        for number in range(options.rounds):
            for connections in CONNECTIONS:
                for workers in sorted(gateways, reverse=number % 2 == 1):
                    rates[workers, connections].append(_rate(gateways[workers], script, connections, options.seconds))
                direct[connections].append(_wrk(engine_url, script, connections, 1)[0])
        agreement = _agreement(several, options.workers)
    return {
        "workers": options.workers,
        "cores": psutil.cpu_count(),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "direct": {str(connections): median(found) for connections, found in direct.items()},
        "rates": {
            f"{workers} x {connections}": [rate._asdict() for rate in found]
            for (workers, connections), found in rates.items()
        },
        "agreement": agreement,
    }


def _rate(running: Running, script: Path, connections: int, seconds: int) -> Rate:
    keeper = psutil.Process(running.pid)
    workers = [child for child in keeper.children() if "paceline.workers" in child.cmdline()] or [keeper]
    before = [_cpu_s(worker) for worker in workers]
    before_s = _cpu_s(keeper)
    all_before_s, own_before_s, began_s = _all_cpu_s(), _own_cpu_s(), time.monotonic()
    rate, p50_ms, p99_ms = _wrk(running.url, script, connections, seconds)
    took_s = time.monotonic() - began_s
    others = (_all_cpu_s() - all_before_s - (_own_cpu_s() - own_before_s)) / took_s
    used = [_cpu_s(worker) - used_before for worker, used_before in zip(workers, before, strict=True)]
    total_s = sum(used) + (0.0 if workers == [keeper] else _cpu_s(keeper) - before_s)
    return Rate(rate, p50_ms, p99_ms, 1000 * total_s / (rate * seconds), min(used) / (sum(used) / len(used)), others)


def _all_cpu_s() -> float:
    """Of all programs, and of the system for them."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)


def _own_cpu_s() -> float:
    """Of this program, of what it has started, and of what those have started, ended or not."""
    own = psutil.Process()
    times = own.cpu_times()
    running = sum(_cpu_s(child) for child in own.children(recursive=True))
    return float(times.user + times.system + times.children_user + times.children_system) + running


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _wrk(url: str, script: Path, connections: int, seconds: int) -> tuple[float, float, float]:
    """Requests/s, and the median and 99 % quantile of the latency in ms."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--latency", "-s", str(script)]
    output = subprocess.run([*command, f"{url}/v1/chat/completions"], capture_output=True, text=True, check=True).stdout
    failed = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
    if "Non-2xx" in output or (failed and any(map(int, failed.groups()[:3]))):  # a timeout is a latency of 2 s
        raise SystemExit(f"{url} answers with errors:\n{output}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    p50, p99 = (re.search(rf"{share}%\s+([\d.]+)(us|ms|s)", output) for share in (50, 99))
    assert rate and p50 and p99, output
    in_ms = {"us": 0.001, "ms": 1.0, "s": 1000.0}
    return float(rate[1]), float(p50[1]) * in_ms[p50[2]], float(p99[1]) * in_ms[p99[2]]


def _agreement(running: Running, workers: int) -> dict[str, Any]:
    """What each worker knows, asked until all know the same, and how long that took from the last request on."""
    began_s = time.monotonic()
    while True:
        by_worker: dict[int, dict[str, int]] = {}
        while len(by_worker) < workers:
            with httpx2.Client(trust_env=False) as http, http.stream("GET", f"{running.url}/paceline/lanes") as answer:
                pid = _worker_of(answer, running.pid)
                lanes = json.loads(answer.read())["lanes"]
            by_worker[pid] = {lane["lane"]: lane["measured"]["requests"] for lane in lanes}
        took_s = time.monotonic() - began_s
        is_equal = len({json.dumps(known) for known in by_worker.values()}) == 1
        if is_equal or took_s > MAX_SECONDS_TO_AGREE:
            return {"equal": is_equal, "after_s": took_s, "outcomes": list(by_worker.values())}


def _worker_of(answer: httpx2.Response, keeper: int) -> int:
    """Which worker has an answer's connection."""
    _, port = answer.extensions["network_stream"].get_extra_info("client_addr")
    for child in psutil.Process(keeper).children():
        if any(connection.raddr and connection.raddr.port == port for connection in child.net_connections("tcp")):
            return child.pid
    raise SystemExit("no worker has the connection")


@contextmanager
def _engine() -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen([sys.executable, str(ENGINE), str(port)])
    try:
        url = f"http://127.0.0.1:{port}"
        while True:
            try:
                httpx2.get(f"{url}/v1/models", trust_env=False)
                break
            except httpx2.ConnectError:
                time.sleep(0.05)
        yield url
    finally:
        process.kill()


@contextmanager
def _gateway(engine_url: str, workers: int, folder: Path) -> Iterator[Running]:
    own = folder / f"{workers}-workers"
    own.mkdir()
    file = own / "paceline.toml"
    file.write_text(
        "server.log_requests = false\n"
        + "".join(
            f'[[engine]]\nname = "{name}"\nkind = "openai"\nurl = "{engine_url}"\nstrategy = "{strategy}"\n'
            for name, strategy in (("plain", "autoregressive"), ("ngram", "ngram"))
        )
    )
    with own_gateway(["--config", str(file), "--workers", str(workers)], own) as running:
        yield running


def _print(result: dict[str, Any]) -> None:
    workers = result["workers"]
    print(f"| connections | requests/s, 1 process | {workers} workers | ratio (95 %) | CPU ms/request | balance | of |")
    print("|---|---|---|---|---|---|---|")
    for connections in CONNECTIONS:
        one, several = (result["rates"][f"{number} x {connections}"] for number in (1, workers))
        rounds = zip(one, several, strict=True)
        pairs = [pair for pair in rounds if max(rate["others"] for rate in pair) <= MAX_OTHERS]
        if not pairs:
            print(f"| {connections} | other programs were at work in all {len(one)} rounds |")
            continue
        one, several = ([pair[number] for pair in pairs] for number in (0, 1))
        ratios = sorted(b["requests_per_s"] / a["requests_per_s"] for a, b in pairs)
        low, high = _around_median(ratios)
        print(
            f"| {connections} | {_median(one, 'requests_per_s'):,.0f} "
            f"| {_median(several, 'requests_per_s'):,.0f} "
            f"| {median(ratios):.2f} ({low:.2f} to {high:.2f}) "
            f"| {_median(one, 'cpu_ms'):.3f}, {_median(several, 'cpu_ms'):.3f} | {_median(several, 'balance'):.2f} "
            f"| {len(pairs)} of {result['rounds']} |"
        )
    print(f"\nwithout a gateway: {', '.join(f'{rate:,.0f}' for rate in result['direct'].values())} requests/s")
    agreement = result["agreement"]
    print(f"knowledge equal: {agreement['equal']}, seen {agreement['after_s']:.1f} s after the last request:")
    for known in agreement["outcomes"]:
        print(f"  {known}")


def _median(rates: Sequence[dict[str, float]], name: str) -> float:
    return median(rate[name] for rate in rates)


def _around_median(ordered: Sequence[float]) -> tuple[float, float]:
    """Between which of the ordered values the median of what they are drawn from lies, in 95 % of all cases."""
    half = 1.96 * sqrt(len(ordered)) / 2
    middle = len(ordered) / 2
    return ordered[max(0, floor(middle - half))], ordered[min(len(ordered) - 1, ceil(middle + half))]


if __name__ == "__main__":
    main()
