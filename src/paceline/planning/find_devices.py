"""Finds the devices of this machine: an engine says which it can use, drivers say what they are."""

import os
import platform
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec.structs import replace

from paceline.machine import available_memory_bytes
from paceline.planning.cards import amd_class, card_of, nvidia_class
from paceline.planning.device_reports import (
    MIB,
    NVIDIA_FIELDS,
    AppleChip,
    DriverCard,
    EngineDevice,
    amd_cards,
    amd_smi_cards,
    apple_chip,
    engine_devices,
    nvidia_cards,
    nvlinks,
    rocm_cards,
)
from paceline.planning.devices import Backend, CardClass, Device, Link, Machine
from paceline.planning.given_devices import unified_share

RUN_SECONDS = 20.0
"""For a program that tells of devices: a driver that is asleep takes some seconds to wake up."""
DRM = Path("/sys/class/drm")
KERNEL = Path("/proc/version")
INTEGRATED = re.compile(r"UHD Graphics|HD Graphics|Iris|Radeon(\(TM\))? Graphics|Radeon(\(TM\))? \d{3}M\b|Adreno|Mali")
"""Names of graphics within processors."""
SAME_MEMORY = 0.08
"""Share by which an engine and a driver may differ over the memory of one card: an RTX 2080 Ti has 10,817 and 11,264
MiB."""
MIN_MEMORY_BYTES = 1 << 30
"""Less holds no model: graphics within a processor have 64 MiB of their own (mudler/LocalAI #7761)."""
NARROW_LINK_BYTES_PER_S = 8e9
"""Half of PCIe 3.0 x16; below it, two cards that split tensors wait for each other."""
POWER_SLACK = 0.98

Run = Callable[[Sequence[str]], str]
"""Runs a program, and returns what it printed; nothing where it is not there, fails or takes too long."""


def run_program(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, timeout=RUN_SECONDS, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


def find_machine(
    program: str | None = None,
    *,
    run: Run = run_program,
    drm: Path = DRM,
    system: str | None = None,
    host_memory_bytes: int | None = None,
) -> Machine:
    """What an engine can compute on here. Devices that another backend lists too are there once, and graphics within a
    processor count only where there is no other device, as llama.cpp has it.

    Args:
        program: a ``llama-server``; without one, the drivers alone are asked.
        run: how programs are run.
        drm: where Linux tells of graphics cards.
        system: as :func:`platform.system` has it; what runs here, if not given.
        host_memory_bytes: instead of what is available here.
    """
    system = system or _system()
    host_memory_bytes = available_memory_bytes() if host_memory_bytes is None else host_memory_bytes
    cards = _nvidia(run) or []
    cards += _amd(run, drm) if not system.startswith("Darwin") else []
    chip = (
        apple_chip(run(["sysctl", "machdep.cpu.brand_string", "hw.memsize", "iogpu.wired_limit_mb"]))
        if (system == "Darwin")
        else None
    )
    listed = _once(engine_devices(run([program, "--list-devices"]))) if program else []
    if listed:
        devices, places = _matched(listed, cards, chip, host_memory_bytes)
        source = f"{program} --list-devices"
    else:
        devices, places = _of_drivers(cards, chip, host_memory_bytes)
        source = "their drivers" if devices else ""
    used = [cards[place] if place is not None else None for place in places]
    return Machine(
        devices=tuple(devices),
        host_memory_bytes=host_memory_bytes,
        links=_links(places, cards, run),
        warnings=tuple(_warnings(devices, used, system)),
        source=source,
    )


def _system() -> str:
    """``WSL`` for Linux under Windows, whose driver is Windows' own."""
    system = platform.system()
    try:
        return "WSL" if system == "Linux" and "microsoft" in KERNEL.read_text().lower() else system
    except OSError:
        return system


def _nvidia(run: Run) -> list[DriverCard]:
    fields = ",".join(NVIDIA_FIELDS)
    return nvidia_cards(run(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]))


def _amd(run: Run, drm: Path) -> list[DriverCard]:
    """What the kernel knows of cards, with names from ROCm's tools where they are there."""
    named = amd_smi_cards(run(["amd-smi", "static", "--asic", "--bus", "--vram", "--json"]))
    named = named or rocm_cards(run(["rocm-smi", "--showproductname", "--showmeminfo", "vram", "--showbus", "--json"]))
    known = amd_cards(drm)
    if not known:
        return named
    cards: list[DriverCard] = []
    for card in known:
        match = next((other for other in named if other.address == card.address), None)
        if match is None and len(named) == len(known):
            match = named[len(cards)]
        if match:
            card = replace(card, name=match.name, processor=match.processor)
        cards.append(card)
    return cards


def _once(devices: list[EngineDevice]) -> list[EngineDevice]:
    """Without what another backend before listed, and without graphics within a processor beside cards."""
    first_backend: dict[str, Backend] = {}
    for device in devices:
        first_backend.setdefault(_identity(device.name), device.backend)
    once = [device for device in devices if first_backend[_identity(device.name)] == device.backend]
    cards = [device for device in once if not _is_integrated(device.name)]
    return cards or once


def _identity(name: str) -> str:
    card = card_of(name)
    return card.name if card else re.sub(r"\(.*?\)", "", name).strip().lower()


def _is_integrated(name: str) -> bool:
    card = card_of(name)
    return card.is_unified if card else bool(INTEGRATED.search(name))


def _matched(
    listed: list[EngineDevice], cards: list[DriverCard], chip: AppleChip | None, host_bytes: int | None
) -> tuple[list[Device], list[int | None]]:
    """The engine's devices, each with what a driver knows of it, and that card's place among the drivers' cards."""
    devices, places = [], []
    left = list(range(len(cards)))
    for engine in listed:
        place = next((at for at in left if _same(engine, cards[at])), None)
        if place is not None:
            left.remove(place)
        card = cards[place] if place is not None else None
        devices.append(_device(engine, card, chip, host_bytes))
        places.append(place)
    return devices, places


def _same(engine: EngineDevice, card: DriverCard) -> bool:
    if _identity(engine.name) == _identity(card.name):
        return True
    is_amd = engine.backend in ("rocm", "vulkan") and card.compute_capability is None
    if not is_amd or card.memory_bytes is None:
        return False
    return abs(engine.memory_bytes - card.memory_bytes) <= SAME_MEMORY * card.memory_bytes


def _device(engine: EngineDevice, card: DriverCard | None, chip: AppleChip | None, host_bytes: int | None) -> Device:
    known = card_of(engine.name) or (card_of(card.name) if card else None)
    free = engine.free_bytes
    if card and card.free_bytes is not None and not card.shares_host_memory:
        free = min(free, card.free_bytes)  # Vulkan tells of a budget, not of what other programs have left
    is_unified = _is_unified(engine, card)
    if is_unified and host_bytes is not None:
        free = min(free, host_bytes)
    memory = engine.memory_bytes
    if chip and chip.gpu_limit_bytes:
        memory = chip.gpu_limit_bytes
        free = min(free, memory)
    return Device(
        name=engine.name,
        backend=engine.backend,
        engine_name=engine.engine_name,
        memory_bytes=memory,
        free_bytes=free,
        card_class=known.card_class if known else _class(card),
        bandwidth_bytes_per_s=known.bandwidth_gb_per_s * 1e9 if known else None,
        is_unified=is_unified,
        display_bytes=memory - free if card and card.has_display and not is_unified else 0,
        power_limit_w=card.power_limit_w if card else None,
        default_power_limit_w=card.default_power_limit_w if card else None,
        address=card.address if card else "",
    )


def _is_unified(engine: EngineDevice, card: DriverCard | None) -> bool:
    """A part of the host's memory that is set aside for graphics in the firmware (Strix Halo) is not the host's."""
    if card and card.compute_capability is None and card.memory_bytes:
        return card.shares_host_memory
    return _is_integrated(engine.name) or bool(card and card.shares_host_memory)


def _class(card: DriverCard | None) -> CardClass:
    if card and card.compute_capability:
        return nvidia_class(card.compute_capability)
    return amd_class(card.processor) if card and card.processor else "unknown"


def _of_drivers(
    cards: list[DriverCard], chip: AppleChip | None, host_bytes: int | None
) -> tuple[list[Device], list[int | None]]:
    """Where no engine is there to ask."""
    if chip:
        return [_device(_of_chip(chip, host_bytes), None, chip, host_bytes)], [None]
    seen: list[tuple[int, EngineDevice]] = []
    for place, card in enumerate(cards):
        memory = card.memory_bytes if card.memory_bytes is not None else host_bytes
        if memory and memory >= MIN_MEMORY_BYTES:
            free = card.free_bytes if card.free_bytes is not None else memory
            backend = "CUDA" if card.compute_capability is not None else "ROCm"
            seen.append((place, EngineDevice(f"{backend}{place}", card.name, memory, min(free, memory))))
    kept = _once([engine for _, engine in seen])
    chosen = [(place, engine) for place, engine in seen if engine in kept]
    devices = [_device(engine, cards[place], None, host_bytes) for place, engine in chosen]
    return devices, [place for place, _ in chosen]


def _of_chip(chip: AppleChip, host_bytes: int | None) -> EngineDevice:
    known = card_of(chip.name)
    share = unified_share(known, chip.memory_bytes / (1 << 30)) if known else 2 / 3
    limit = chip.gpu_limit_bytes or int(chip.memory_bytes * share)
    return EngineDevice("MTL0", chip.name, limit, limit if host_bytes is None else min(limit, host_bytes))


def _links(places: list[int | None], cards: list[DriverCard], run: Run) -> tuple[Link, ...]:
    """Of each device to the host, and of those that are joined by more than that."""
    links = [
        Link(devices=(device,), kind="pcie", bytes_per_s=speed)
        for device, place in enumerate(places)
        if place is not None and not cards[place].shares_host_memory and (speed := cards[place].pcie_bytes_per_s)
    ]
    nvidia = [device for device, place in enumerate(places) if place is not None and cards[place].compute_capability]
    if len(nvidia) > 1:
        at = {place: device for device, place in enumerate(places) if place is not None}
        bonds = nvlinks(run(["nvidia-smi", "topo", "-m"]), run(["nvidia-smi", "nvlink", "--status"]))
        links += [
            Link(devices=(at[first], at[second]), kind="nvlink", bytes_per_s=speed)
            for (first, second), speed in bonds.items()
            if first in at and second in at
        ]
    return tuple(links)


def _warnings(devices: list[Device], cards: list[DriverCard | None], system: str) -> list[str]:
    """What about a machine spoils plans, and what to do."""
    said = []
    for device, card in zip(devices, cards, strict=True):
        label = f"{device.engine_name or device.name} ({device.name})"
        limit, default = device.power_limit_w, device.default_power_limit_w
        if limit and default and limit < default * POWER_SLACK:
            said.append(
                f"{label} is limited to {limit:.0f} of {default:.0f} W: decoding is a little slower than published for "
                "this card, and verifying drafts costs more (an RTX 5090: 0.24 instead of 0.17 of a step a token)."
            )
        if card and card.has_display and not device.is_unified:
            said.append(
                f"{label} shows a display, which has {device.display_bytes / MIB:,.0f} MiB with what else runs, and "
                "takes more when more is shown: leave some free, or use another connector."
            )
        if card and card.pcie_bytes_per_s and len(devices) > 1 and card.pcie_bytes_per_s < NARROW_LINK_BYTES_PER_S:
            said.append(
                f"{label} is linked to the host at {card.pcie_bytes_per_s / 1e9:.1f} GB/s: splitting tensors over "
                "cards waits for it, and prompts are read slowly where experts are on the host."
            )
    if any(card and card.pages_silently for card in cards) or (devices and system in ("Windows", "WSL")):
        said.append(
            "Windows' driver moves what does not fit on a card into the host's memory without an error, and decoding "
            "then takes twice as long or more: leave 1.3 GiB free on each card, or set 'CUDA - Sysmem Fallback Policy' "
            "to 'Prefer No Sysmem Fallback' in NVIDIA's control panel."
        )
    if devices and all(device.is_unified for device in devices):
        said.append("The device's memory is the host's: what other programs take there is gone for the model.")
    if any(device.backend == "cuda" for device in devices) and os.environ.get("GGML_CUDA_ENABLE_UNIFIED_MEMORY"):
        said.append(
            "GGML_CUDA_ENABLE_UNIFIED_MEMORY is set: what does not fit is moved into the host's memory, slowly, "
            "instead of being refused."
        )
    return said
