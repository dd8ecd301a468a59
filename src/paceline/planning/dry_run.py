"""What a command line of llama.cpp's server takes, by llama.cpp's own planner: the judge of every plan.

The program is ``engines/llama_cpp_dry_run.cpp``, which ``paceline engine build`` builds beside the server. It loads no
weights and takes no memory of devices, so it answers in a second for any model, and for machines that are not here.
"""

import os
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec
from msgspec import Struct

from paceline.engines.llama_cpp_build import Build
from paceline.planning.devices import Device

TIMEOUT_S = 60.0
"""The largest models take 4 s on two busy cores."""
HOST = "host"
"""The name of the last device of each part."""
MAX_SAID = 600
"""Characters of what the program said, in an error."""
KINDS = {"metal": "metal", "vulkan": "vulkan", "sycl": "vulkan"}
"""What the program knows of backends. A card of which only the size is known is taken for one of CUDA's: none needs
more."""


class DryRunFailed(Exception):
    """There is no answer; ``str()`` says why, in llama.cpp's words where it has some."""


class DeviceUse(Struct, frozen=True):
    """Bytes that one part takes on one device."""

    name: str
    total: int
    free: int
    weights: int
    context: int
    """Cache of keys and values, and recurrent state."""
    compute: int

    @property
    def used(self) -> int:
        return self.weights + self.context + self.compute


class Part(Struct, frozen=True):
    """The target model's context, or the drafter's."""

    part: str
    error: str | None
    devices: tuple[DeviceUse, ...]

    @property
    def host(self) -> DeviceUse:
        return self.devices[-1]

    @property
    def cards(self) -> tuple[DeviceUse, ...]:
        return self.devices[:-1]


class Fit(Struct, frozen=True):
    """What llama.cpp's ``--fit`` would change."""

    succeeded: bool
    context: int
    gpu_layers: int
    overrides: tuple[str, ...]


class DryRun(Struct, frozen=True):
    """Bytes by part and device."""

    build: int
    """llama.cpp's number of the build that answered."""
    fit: Fit | None
    parts: tuple[Part, ...]

    @property
    def target(self) -> Part:
        return self.parts[0]

    @property
    def drafter(self) -> Part | None:
        return self.parts[1] if len(self.parts) > 1 else None


def dry_run(
    program: str | Path, flags: Sequence[str], devices: Sequence[Device] | None = None, timeout_s: float = TIMEOUT_S
) -> DryRun:
    """Ask llama.cpp what a server with these flags would take.

    Args:
        program: as ``Build.dry_run`` names it.
        flags: the server's own, ``--model`` among them.
        devices: that the plan is for; ``None`` for those that the engine itself finds.

    Raises:
        DryRunFailed: the program is not there, the flags are refused, or the model can't be loaded so.
    """
    made_up = ["--devices", ",".join(_device(device) for device in devices)] if devices else []
    try:
        done = subprocess.run(
            [str(program), *made_up, *flags],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            env=os.environ | {"GGML_NO_BACKTRACE": "1"},
        )
    except OSError as error:
        raise DryRunFailed(f"{program} can't be started: {error.strerror or error}") from error
    except subprocess.TimeoutExpired as error:
        raise DryRunFailed(f"{program} has not answered within {timeout_s:.0f} s") from error
    try:
        answer = msgspec.json.decode(done.stdout, type=DryRun)
    except msgspec.MsgspecError as error:
        said = " ".join((done.stderr + done.stdout).split())[-MAX_SAID:]
        raise DryRunFailed(f"the dry run ended with status {done.returncode}: {said}") from error
    for part in answer.parts:
        if part.error is not None:
            raise DryRunFailed(" ".join(part.error.split())[:MAX_SAID])
    return answer


Judge = Callable[[Sequence[str], Sequence[Device]], DryRun]
"""Asks the engine what a command line takes, on devices that may be made up; without any, on those that it finds.
Raises :class:`DryRunFailed`."""


def judge_of(built: Build | None) -> Judge | None:
    """Who judges plans: the engine that was built, if it can."""
    if built is None or not built.dry_run or not Path(built.dry_run).is_file():
        return None
    return partial(dry_run, built.dry_run)


def _device(device: Device) -> str:
    return f"{KINDS.get(device.backend, 'cuda')}:{device.memory_bytes}:{device.free_bytes}"
