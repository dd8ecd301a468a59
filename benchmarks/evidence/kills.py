"""Does the decision log survive? A gateway under load is killed (SIGKILL), again and again.

    python -m benchmarks.evidence.kills [--times N]

Each time the log must open, be whole, and hold every request that was answered more than a second before.
"""

import argparse
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from random import Random
from uuid import uuid4

import httpx2

from benchmarks import gateway_overhead
from paceline.bench.own_gateway import own_gateway
from paceline.paths import DECISION_LOG
from paceline.processes.launch import free_port
from paceline.records.read import LogReader

CLIENTS = 4
MAY_BE_LOST_S = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=100)
    options = parser.parse_args()
    port, rng = free_port(), Random(0)
    mock = Path(gateway_overhead.__file__).parent / "mock_engine.py"
    engine = subprocess.Popen([sys.executable, str(mock), str(port)])
    answered = logged = 0
    try:
        with tempfile.TemporaryDirectory() as folder:
            configuration = Path(folder) / "paceline.toml"
            configuration.write_text(f'[[engine]]\nname = "mock"\nkind = "openai"\nurl = "http://127.0.0.1:{port}"\n')
            for number in range(options.times):
                done = one_life(configuration, Path(folder), 1.5 + rng.random())
                answered += len(done)
                in_log = checked(Path(folder) / "paceline" / DECISION_LOG)
                logged = len(in_log)
                if missing := done - in_log:
                    raise SystemExit(f"kill {number + 1}: {len(missing)} answered requests are not in the log")
    finally:
        engine.kill()
    print(f"{options.times} kills: the log opened each time and was whole; {logged} entries")
    print(f"all {answered} requests that were answered more than {MAY_BE_LOST_S:g} s before a kill are in it")


def one_life(configuration: Path, folder: Path, seconds: float) -> set[str]:
    """Load a gateway and kill it; the requests that it had answered a second before."""
    done: list[tuple[float, str]] = []
    over = threading.Event()
    with own_gateway(["--config", str(configuration)], folder) as running:
        clients = [threading.Thread(target=ask_on, args=(running.url, done, over)) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        time.sleep(seconds)
        killed_s = time.monotonic()
        os.kill(running.pid, signal.SIGKILL)
        over.set()
        for client in clients:
            client.join()
    return {name for at_s, name in done if at_s < killed_s - MAY_BE_LOST_S}


def ask_on(url: str, done: list[tuple[float, str]], over: threading.Event) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello."}]}
    with httpx2.Client(base_url=url, timeout=10, trust_env=False) as http:
        while not over.is_set():
            name = str(uuid4())
            try:
                answer = http.post("/v1/chat/completions", json=body, headers={"x-request-id": name})
            except httpx2.TransportError:
                return
            if answer.status_code == 200:
                done.append((time.monotonic(), name))


def checked(path: Path) -> set[str]:
    """The names of the requests in a log.

    Raises:
        SystemExit: it is corrupt.
    """
    with closing(sqlite3.connect(path)) as connection:
        if (verdict := connection.execute("PRAGMA integrity_check").fetchone()[0]) != "ok":
            raise SystemExit(f"the log is corrupt: {verdict}")
    return {record.id for record in LogReader(path) if record.id is not None}


if __name__ == "__main__":
    main()
