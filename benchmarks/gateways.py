"""Paceline processes for benchmarks: started from a configuration, asked, stopped."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from paceline.cli.common import cache_directory
from paceline.engines.bundled_model import bundled_model
from paceline.engines.supervisor import free_port


def engine(
    name: str,
    *flags: str,
    strategy: str = "autoregressive",
    n_max: int | None = None,
    threads: int | None = None,
    slots: int = 4,
    alias: str = "m",
    program: str = "embedded",
) -> str:
    """An ``[[engine]]`` table of the embedded engine, or another ``llama-server``, with the bundled model."""
    command = [program, "--model", str(bundled_model(cache_directory())), "--alias", alias, "--port", "{port}"]
    command += ["--parallel", str(slots), "--ctx-size", str(2048 * slots), *flags]
    if threads:
        command += ["--threads", str(threads)]
    table: dict[str, object] = {
        "name": name,
        "kind": "llama.cpp",
        "launch": command,
        "strategy": strategy,
        "device": "cpu",
    }
    if n_max:
        table["n_max"] = n_max
    return "[[engine]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())


NGRAM_DRAFT = 12
NGRAM = (
    *("--spec-type", "ngram-simple", "--spec-ngram-simple-size-n", "4"),
    *("--spec-ngram-simple-size-m", str(NGRAM_DRAFT)),
)


class Running(NamedTuple):
    url: str
    pid: int


@contextmanager
def gateway(configuration: str, folder: Path) -> Iterator[Running]:
    """A running Paceline with all lanes up."""
    port = free_port()
    file = folder / f"{port}.toml"
    file.write_text(configuration)
    command = [sys.executable, "-m", "paceline.cli", "serve", "--config", str(file), "--port", str(port)]
    with (folder / f"{port}.log").open("wb") as log:
        environment = os.environ | {"XDG_STATE_HOME": str(folder)}  # knows nothing of what earlier runs have taught
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_up(url, process)
        yield Running(url, process.pid)
    finally:
        process.terminate()
        process.wait(30)


def _wait_until_up(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
                if b"starting" not in answer.read():
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.2)
    raise SystemExit(f"{url} did not come up")
