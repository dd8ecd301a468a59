"""What the endpoint picker adds to a request through Envoy, beside Envoy alone, in one run before engines that take no
time.

    python -m benchmarks.scale.endpoint_picker [--rounds N]

Needs the packages of ``make test-picker``: it is to be run with ``.venv-picker/bin/python``. In each round every way is
asked once with every load, so that what else the machine does hits all alike. The figures are medians over the rounds.
"""

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median, quantiles

import httpx2

from benchmarks.scale.real_envoy import LARGE_BUFFER_BYTES, RealEnvoy, Way
from paceline.processes.launch import free_port

WAYS = (
    Way(name="Envoy alone", picker=None),
    Way(name="picker, full duplex"),
    Way(name="picker, buffered", body="BUFFERED", buffer_bytes=LARGE_BUFFER_BYTES),
)
LOADS = {"2 kB": (2_000, False), "2 kB, stream": (2_000, True), "100 kB": (100_000, False), "2 MB": (2_000_000, False)}
"""By name: characters of the prompt, and whether the answer is streamed."""
WARM_UP = 20
"""Rounds that do not count: connections are made, and the strategies were tried."""
START_TIMEOUT_S = 30.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300)
    rounds = parser.parse_args().rounds
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
        engines = [running.enter_context(_engine()) for _ in range(2)]
        picker = running.enter_context(_picker(engines, folder))
        envoy = running.enter_context(RealEnvoy(WAYS, engines, {"picker": picker}, folder))
        _show(_measured(envoy, rounds))


def _measured(envoy: RealEnvoy, rounds: int) -> dict[tuple[str, str], list[float]]:
    """Milliseconds of each request, by load and way."""
    clients = {way.name: http.client.HTTPConnection("127.0.0.1", envoy.ports[way.name], timeout=30) for way in WAYS}
    bodies = {name: _body(size, is_stream) for name, (size, is_stream) in LOADS.items()}
    took_ms: dict[tuple[str, str], list[float]] = defaultdict(list)
    for number in range(WARM_UP + rounds):
        for load, body in bodies.items():
            for way, client in clients.items():
                began_s = time.perf_counter()
                client.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
                answer = client.getresponse()
                text = answer.read()
                if answer.status != 200 or (answer.getheader("x-paceline-lane") is None) != (way == WAYS[0].name):
                    raise SystemExit(f"{way}, {load}: {answer.status} {text[:200]!r}")
                if number >= WARM_UP:
                    took_ms[load, way].append(1000 * (time.perf_counter() - began_s))
    return took_ms


def _show(took_ms: dict[tuple[str, str], list[float]]) -> None:
    print(f"{'prompt':14} {'way':22} {'median ms':>10} {'added':>8} {'p95 ms':>8}   ({os.cpu_count()} cores)")
    for (load, way), times in took_ms.items():
        added = median(times) - median(took_ms[load, WAYS[0].name])
        p95 = quantiles(times, n=20)[-1] if len(times) > 1 else times[0]
        print(f"{load:14} {way:22} {median(times):10.2f} {added:8.2f} {p95:8.2f}")


def _body(chars: int, is_stream: bool) -> bytes:
    text = "def add(left, right):\n    return left + right\n" * (chars // 46 + 1)
    messages = [{"role": "user", "content": text[:chars]}]
    return json.dumps({"model": "m", "stream": is_stream, "messages": messages}).encode()


@contextmanager
def _engine() -> Iterator[str]:
    """Its address."""
    port = free_port()
    with _process("-m", "benchmarks.scale.instant_engine", str(port)):
        _wait_for(f"http://127.0.0.1:{port}/v1/models", lambda answer: answer.status_code == 200)
        yield f"127.0.0.1:{port}"


@contextmanager
def _picker(engines: list[str], folder: Path) -> Iterator[str]:
    """Its address for gateways."""
    grpc, port = free_port(), free_port()
    words = [word for engine in engines for word in ("--endpoint", f"openai={engine}")]
    own = ("-m", "paceline", "endpoint-picker", "--grpc-port", str(grpc), "--port", str(port))
    with _process(*own, *words, state=folder):
        up = f"paceline_picker_endpoints_up {len(engines)}.0"
        _wait_for(f"http://127.0.0.1:{port}/metrics", lambda answer: up in answer.text)
        yield f"127.0.0.1:{grpc}"


@contextmanager
def _process(*words: str, state: Path | None = None) -> Iterator[None]:
    environment = os.environ | ({"XDG_STATE_HOME": str(state)} if state else {})
    process = subprocess.Popen([sys.executable, *words], env=environment, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(url: str, is_there: Callable[[httpx2.Response], bool]) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        try:
            if is_there(httpx2.get(url, trust_env=False)):
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"nothing answers at {url}")


if __name__ == "__main__":
    main()
