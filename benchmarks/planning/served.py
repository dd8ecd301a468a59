"""A plan, written, served and asked: ``python -m benchmarks.planning.served [MODEL] [--virtual-devices 2]``.

With ``--virtual-devices``, llama.cpp splits one CUDA card into so many, so that plans for several are tried on one.
Needs the engine of ``paceline engine build``, for cards with their backend. Takes a minute.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from paceline.engines.bundled_model import bundled_model
from paceline.paths import cache_directory
from paceline.planning.find_devices import run_program
from paceline.processes.launch import free_port

WAIT_S = 120.0
PROMPT = "Count from one to ten, and then from one to ten again."
VIRTUAL_DEVICES = "GGML_CUDA_DEVICES"
MIB = 1 << 20


def used_mib() -> int | None:
    """Of all NVIDIA cards; ``None`` without one."""
    said = run_program(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"])
    return sum(map(int, said.split())) if said else None


def asked(url: str) -> dict[str, object]:
    body = {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 64, "temperature": 0}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    answer: dict[str, object] = json.load(urllib.request.urlopen(request, timeout=WAIT_S))
    return answer


def wait_for(url: str, process: "subprocess.Popen[str]") -> None:
    """
    Raises:
        TimeoutError: it does not serve.
    """
    end_s = time.monotonic() + WAIT_S
    while time.monotonic() < end_s and process.poll() is None:
        try:
            urllib.request.urlopen(f"{url}/readyz", timeout=1)
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return
    raise TimeoutError(f"nothing serves at {url}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", type=Path, help="GGUF file (default: the bundled one)")
    parser.add_argument("--virtual-devices", type=int, help="CUDA cards to make of one")
    parser.add_argument("--plan", nargs="*", default=[], metavar="OPTION", help="further words for `paceline plan`")
    options = parser.parse_args()
    environment = dict(os.environ)
    if options.virtual_devices:
        environment[VIRTUAL_DEVICES] = str(options.virtual_devices)
    paceline = [sys.executable, "-m", "paceline.cli"]
    model = options.model or bundled_model(cache_directory(), lambda: None)
    with tempfile.TemporaryDirectory(prefix="paceline-served-") as folder:
        file = Path(folder) / "paceline.toml"
        done = subprocess.run(
            [*paceline, "plan", str(model), "--write", str(file), *options.plan],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        print(done.stdout + done.stderr)
        if not file.exists():
            return 1
        planned = json.loads(
            subprocess.run(
                [*paceline, "plan", str(model), "--json", *options.plan],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            ).stdout
        )["plan"]
        before, port = used_mib(), free_port()
        process = subprocess.Popen(
            [*paceline, "serve", "--config", str(file), "--port", str(port)],
            env=environment | {"XDG_STATE_HOME": folder},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            wait_for(f"http://127.0.0.1:{port}", process)
            answer = asked(f"http://127.0.0.1:{port}")
            after = used_mib()
        finally:
            process.terminate()
            said, _ = process.communicate(timeout=WAIT_S)
    text = re.findall(r'"content": ?"(.*?)"', json.dumps(answer))
    print(said[-1500:])
    print(f"answered: {text[0] if text else answer}")
    if before is not None and after is not None:
        total = sum(sum(device["use"].values()) for device in planned["devices"]) / MIB
        print(f"cards hold {after - before:,} MiB more; planned {total:,.0f} MiB and the driver's own")
    return 0 if text else 1


if __name__ == "__main__":
    sys.exit(main())
