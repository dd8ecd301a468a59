"""Looks at the machine around Paceline: its clock, its limits, and the variables of its user."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from paceline.doctor.finding import Finding, fault, fine, note, warning
from paceline.doctor.scene import Scene

EARLIEST_S = 1_764_547_200.0
"""2025-12-01, before this was written: no clock that is right shows less."""
FILES_PER_CONNECTION = 2
"""A client's and an engine's."""
OWN_FILES = 100
"""Of the gateway itself: logs, databases, pipes; counted as some 30 under load."""
GOVERNORS = Path("/sys/devices/system/cpu")
RELATIVE = ("XDG_STATE_HOME", "XDG_CACHE_HOME")
RUN_SECONDS = 5.0


def clock_is_right(scene: Scene) -> Iterator[Finding]:
    """Certificates, budgets and the log live on it."""
    now_s = time.time()
    if now_s < EARLIEST_S:
        yield fault(
            "clock-wrong",
            "clock",
            f"It shows {time.strftime('%Y-%m-%d', time.gmtime(now_s))}: certificates of providers seem invalid, and "
            "the log gets out of order.",
            "sudo timedatectl set-ntp true; then compare: date -u",
        )
        return
    said = _run("timedatectl", "show", "--property=NTPSynchronized", "--value")
    if said == "no":
        yield note(
            "clock-not-synchronized",
            "clock",
            "It is not synchronized with a time server.",
            "sudo timedatectl set-ntp true",
        )
    else:
        yield fine("clock", f"It shows {time.strftime('%Y-%m-%d %H:%M', time.gmtime(now_s))} UTC.")


def files_can_be_opened(scene: Scene) -> Iterator[Finding]:
    """As many as there may be connections."""
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = scene.configuration.server.max_connections * FILES_PER_CONNECTION + OWN_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        yield fine("open files", f"{'as many as one likes' if soft == resource.RLIM_INFINITY else soft} may be open.")
        return
    is_enough = hard == resource.RLIM_INFINITY or hard >= wanted
    yield warning(
        "few-open-files",
        "open files",
        f"{soft} may be open, and {scene.configuration.server.max_connections} connections "
        f"(server.max_connections) may take {wanted}: beyond that, clients are turned away.",
        f"ulimit -n {wanted} before paceline starts"
        if is_enough
        else f"raise the limit in /etc/security/limits.conf to {wanted}, or write a smaller server.max_connections",
    )


def variables_are_meant(scene: Scene) -> Iterator[Finding]:
    """Variables that are passed over, or would keep the gateway from its engines."""
    for name in RELATIVE:
        value = scene.environment.get(name)
        if value and not Path(value).is_absolute():
            yield warning(
                "variable-ignored",
                "variables",
                f"{name} is {value!r}, which is no absolute path, so it is passed over.",
                f"export {name}=$HOME/{value}",
            )
    key = scene.environment.get("PACELINE_API_KEY")
    if key is not None and (not key.strip() or any(character.isspace() for character in key)):
        yield warning(
            "bad-key-variable",
            "variables",
            "PACELINE_API_KEY is empty or holds a space, which no key may.",
            "export PACELINE_API_KEY=... again, or unset PACELINE_API_KEY",
        )


def processor_runs_free(scene: Scene) -> Iterator[Finding]:
    """Clocks that are held down make every engine slower, and measured times depend on the load before."""
    governors = set()
    for file in GOVERNORS.glob("cpu[0-9]*/cpufreq/scaling_governor"):
        try:
            governors.add(file.read_text().strip())
        except OSError:
            continue
    if governors == {"powersave"} and not (GOVERNORS / "intel_pstate").exists():
        yield note(
            "slow-governor",
            "processor",
            "Its clock is held at the lowest (governor powersave).",
            "sudo cpupower frequency-set --governor schedutil",
        )


def swap_is_not_needed(scene: Scene) -> Iterator[Finding]:
    """An engine whose pages are swapped out decodes at a disk's pace."""
    values = {}
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, rest = line.partition(":")
            values[name] = int(rest.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        return
    used = values.get("SwapTotal", 0) - values.get("SwapFree", 0)
    if used > 0.5 * values.get("SwapTotal", 0) > 0:
        yield warning(
            "memory-swapped",
            "memory",
            f"{used / 1e9:.1f} GB of memory are swapped out: engines that are among them decode at the disk's pace.",
            "end programs that are not needed, or start engines with --mlock",
        )


def _run(*command: str) -> str | None:
    """What a program prints; ``None`` where it is not there, fails or takes too long."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=RUN_SECONDS, check=False, env=os.environ | {"LC_ALL": "C"}
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
