"""What the gateway adds to a request, beside other gateways, in one run against one mock engine.

    python -m benchmarks.gateway_overhead [--starts N] [--rounds N] [--seconds S] [--other-python PATH] [--log-only]

Needs ``wrk``. Gateways that are not installed are left out and named. Each round measures every gateway once in
every load, so that drift of the machine hits all alike; the figures are medians over the rounds. Two processes of one
program differ by up to 5 %, and the one started first is the faster one more often than not, so all gateways are
started anew ``--starts`` times, in alternating order, with so many rounds each.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Mapping
from math import ceil, floor, sqrt
from pathlib import Path
from statistics import median
from typing import NamedTuple

import psutil

from paceline.processes.launch import free_port

HERE = Path(__file__).parent
PROMPT = "def add(left, right):\n    return left + right\n" * 43  # 2,000 characters
_LITELLM_WITHOUT_KEY = {"LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true"}
LOADS = {
    "json": (PROMPT, False),
    "stream": (PROMPT, True),
    "2 MB": ("The quick brown fox jumps over the lazy dog. " * 46_000, False),
}


Results = dict[tuple[str, str, int], list[tuple[float, float]]]
"""Median latency in ms and requests/s, by gateway, load and connections."""
CpuTimes = dict[tuple[str, str], list[float]]
"""Of a gateway's process, in seconds a request, at 32 connections; by gateway and load."""


class Gateway(NamedTuple):
    port: int
    process: "subprocess.Popen[bytes] | None" = None
    """None: it is the engine itself."""

    def cpu_s(self) -> float:
        times = psutil.Process(self.process.pid).cpu_times() if self.process else None
        return times.user + times.system if times else 0.0

    def end(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement")
    parser.add_argument(
        "--other-python", default=sys.executable, help="Python of an environment with vllm-router, litellm, aiohttp"
    )
    parser.add_argument("--log-only", action="store_true", help="only what the decision log costs, at 32 connections")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is needed (Debian: apt-get install wrk)")
    with tempfile.TemporaryDirectory() as folder:
        _run(options, Path(folder))


def _run(options: argparse.Namespace, folder: Path) -> None:
    engine_port = free_port()
    results: Results = defaultdict(list)
    cpu_s: CpuTimes = defaultdict(list)
    engine = _start([sys.executable, str(HERE / "mock_engine.py"), str(engine_port)], folder / "mock.log")
    try:
        _wait(engine_port)
        for number in range(options.starts):
            gateways: dict[str, Gateway] = {}
            try:
                _start_all(options, engine_port, folder, gateways, backwards=number % 2 == 1)
                _measure(options, {"direct": Gateway(engine_port)} | gateways, folder, results, cpu_s)
            finally:
                for gateway in gateways.values():
                    gateway.end()
            print(f"start {number + 1} of {options.starts} done", file=sys.stderr)
    finally:
        engine.kill()
    if not options.log_only:
        _print(results)
    _print_log(results, cpu_s)


def _start_all(
    options: argparse.Namespace, engine_port: int, folder: Path, gateways: "dict[str, Gateway]", backwards: bool
) -> None:
    """Adds to ``gateways`` those that start."""
    commands = list(_gateways(options.other_python, engine_port, folder).items())
    for name, command in commands[:: -1 if backwards else 1]:
        if options.log_only and not name.startswith("Paceline"):
            continue
        port = free_port()
        process = _start([word.replace("PORT", str(port)) for word in command], folder / f"{name}.log")
        gateways[name] = Gateway(port, process)
        if not _wait(port, process):
            print(f"{name} is left out: it does not start here", file=sys.stderr)
            gateways.pop(name).end()


def _gateways(python: str, engine_port: int, folder: Path) -> dict[str, list[str]]:
    url = f"http://127.0.0.1:{engine_port}"
    lanes = "".join(
        f'[[engine]]\nname = "{name}"\nkind = "openai"\nurl = "{url}"\nstrategy = "{strategy}"\n'
        for name, strategy in (("plain", "autoregressive"), ("ngram", "ngram"))
    )
    (folder / "paceline.toml").write_text(lanes)
    (folder / "no-log.toml").write_text(f"evidence.log = false\n{lanes}")
    (folder / "litellm.yaml").write_text(
        "model_list:\n- model_name: m\n  litellm_params:\n"
        f"    model: openai/m\n    api_base: {url}/v1\n    api_key: none\n"
    )
    other = Path(python).parent
    return {
        "Paceline": _paceline(folder / "paceline.toml"),
        "Paceline without its decision log": _paceline(folder / "no-log.toml"),
        "bare relay": [python, str(HERE / "bare_relay.py"), "PORT", url],
        "vllm-router": [str(other / "vllm-router"), "--worker-urls", url, "--host", "127.0.0.1", "--port", "PORT"],
        "LiteLLM": [
            str(other / "litellm"),
            "--config",
            f"{folder}/litellm.yaml",
            "--host",
            "127.0.0.1",
            "--port",
            "PORT",
        ],
    }


def _paceline(configuration: Path) -> list[str]:
    return [sys.executable, "-m", "paceline.cli", "serve", "--config", str(configuration), "--port", "PORT"]


def _start(command: list[str], log: Path) -> "subprocess.Popen[bytes]":
    environment = os.environ | _LITELLM_WITHOUT_KEY | {"XDG_STATE_HOME": str(log.with_suffix(".state"))}
    try:
        with log.open("wb") as file:
            return subprocess.Popen(command, stdout=file, stderr=file, env=environment)
    except FileNotFoundError:
        return subprocess.Popen(["false"])


def _wait(port: int, process: "subprocess.Popen[bytes] | None" = None) -> bool:
    deadline = time.monotonic() + 60
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
    while time.monotonic() < deadline and (process is None or process.poll() is None):
        try:
            headers = {"content-type": "application/json"}
            request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", body, headers)
            with urllib.request.urlopen(request, timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    return False


def _measure(
    options: argparse.Namespace, gateways: Mapping[str, Gateway], folder: Path, results: Results, cpu_s: CpuTimes
) -> None:
    """Adds to ``results`` and ``cpu_s``."""
    scripts = {}
    for load, (prompt, streamed) in LOADS.items():
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": prompt}], "stream": streamed})
        (folder / f"{load}.json").write_text(body)
        scripts[load] = folder / f"{load}.lua"
        scripts[load].write_text(
            f'local file = io.open("{folder}/{load}.json")\nwrk.method = "POST"\nwrk.body = file:read("*a")\n'
            'wrk.headers["content-type"] = "application/json"\n'
        )
    for number in range(options.rounds):
        for load in LOADS:
            for connections in (1, 32) if load != "2 MB" else (1,):
                if options.log_only and connections == 1:
                    continue
                for name, gateway in list(gateways.items())[:: -1 if number % 2 else 1]:
                    if (load == "2 MB" and name == "LiteLLM") or (options.log_only and name == "direct"):
                        continue
                    url = f"http://127.0.0.1:{gateway.port}/v1/chat/completions"
                    before_s = gateway.cpu_s()
                    measured = _wrk(url, scripts[load], connections, options.seconds)
                    results[name, load, connections].append(measured)
                    if connections > 1:
                        cpu_s[name, load].append((gateway.cpu_s() - before_s) / (measured[1] * options.seconds))
        print(f"round {number + 1} of {options.rounds} done", file=sys.stderr)


def _wrk(url: str, script: Path, connections: int, seconds: int) -> tuple[float, float]:
    """Median latency in ms, and requests/s."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--latency", "-s", str(script), url]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in output:
        raise SystemExit(f"{url} answers with errors:\n{output}")
    half = re.search(r"50%\s+([\d.]+)(us|ms|s)", output)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    assert half and rate, output
    return float(half[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[half[2]], float(rate[1])


def _print(results: Results) -> None:
    def latency_ms(name: str, load: str) -> float | None:
        rows = results.get((name, load, 1))
        return median(row[0] for row in rows) if rows else None

    def rate(name: str, load: str) -> float:
        return median(row[1] for row in results[name, load, 32])

    print("| | JSON: p50 added at 1 connection | requests/s at 32 | stream: p50 added | requests/s at 32 | 2 MB: p50 |")
    print("|---|---|---|---|---|---|")
    for name in dict.fromkeys(name for name, _, _ in results):
        cells = []
        for load in ("json", "stream"):
            base, own = latency_ms("direct", load), latency_ms(name, load)
            assert base is not None and own is not None
            cells.append(f"{own:.2f} ms" if name == "direct" else f"+{own - base:.2f} ms")
            cells.append(f"{rate(name, load):,.0f}")
        big = latency_ms(name, "2 MB")
        print(f"| {name} | {' | '.join(cells)} | {'' if big is None else f'{big:.1f} ms'} |")


def _print_log(results: Results, cpu_s: CpuTimes) -> None:
    """What the decision log costs: of pairs that were measured one after the other. Requests/s move with everything
    that runs on the machine; the process's own time, less."""
    on, off = "Paceline", "Paceline without its decision log"
    for load in ("json", "stream"):
        rates = [
            (with_log[1], without[1])
            for with_log, without in zip(results[on, load, 32], results[off, load, 32], strict=True)
        ]
        own = list(zip(cpu_s[off, load], cpu_s[on, load], strict=True))
        for what, pairs in (("requests/s", rates), ("requests per second of its own CPU time", own)):
            ratios = sorted(with_log / without for with_log, without in pairs)
            low, high = _around_median(len(ratios))
            spread = f"{ratios[low]:.3f} to {ratios[high]:.3f}, {len(ratios)} pairs"
            print(f"{what} at 32, {load}: with the decision log {median(ratios):.3f} of without ({spread})")


def _around_median(count: int) -> tuple[int, int]:
    """Between which of so many ordered values the median of what they are drawn from lies, in 95 % of all cases: so
    many of them are smaller as coins show heads."""
    half = 1.96 * sqrt(count) / 2
    return max(0, floor(count / 2 - half)), min(count - 1, ceil(count / 2 + half))


if __name__ == "__main__":
    main()
