"""Reads what programs and drivers tell of a machine's devices. Nothing here runs anything."""

import csv
import json
import re
from collections.abc import Mapping
from io import StringIO
from pathlib import Path

from msgspec import Struct

from paceline.planning.devices import Backend

MIB = 1 << 20
ENGINE_LINE = re.compile(r"^\s+(?P<engine>[^\s:]+): (?P<name>.+) \((?P<memory>\d+) MiB, (?P<free>\d+) MiB free\)\s*$")
"""As ``llama-server --list-devices`` prints devices (common/arg.cpp)."""
BACKENDS: tuple[tuple[str, Backend], ...] = (
    ("CUDA", "cuda"), ("ROCm", "rocm"), ("Vulkan", "vulkan"), ("MTL", "metal"), ("Metal", "metal"), ("SYCL", "sycl"),
)  # fmt: skip
NVIDIA_FIELDS = (
    "name", "pci.bus_id", "memory.total", "memory.free", "power.limit", "power.default_limit", "pcie.link.gen.max",
    "pcie.link.width.current", "display_active", "driver_model.current", "compute_cap",
)  # fmt: skip
"""In the order in which :func:`nvidia_cards` reads them. The width is the present one: the most that a link can have
does not tell that its slot is narrower; generations are lowered while a card idles, widths are not."""
PCIE_GB_PER_S_A_LANE = {1: 0.25, 2: 0.5, 3: 0.985, 4: 1.969, 5: 3.938, 6: 7.563}
"""By generation, one direction, after encoding: PCI-SIG's rates of 2.5 to 64 GT/s."""
PCIE_GENERATIONS = {2.5: 1, 5.0: 2, 8.0: 3, 16.0: 4, 32.0: 5, 64.0: 6}
"""By GT/s, as sysfs has them."""


class EngineDevice(Struct, frozen=True):
    """A device that an engine's build can compute on."""

    engine_name: str
    name: str
    memory_bytes: int
    free_bytes: int

    @property
    def backend(self) -> Backend:
        return next((found for prefix, found in BACKENDS if self.engine_name.startswith(prefix)), "other")


class DriverCard(Struct, frozen=True, kw_only=True):
    """A card as its driver tells of it; ``None`` is what it does not tell."""

    name: str
    address: str = ""
    memory_bytes: int | None = None
    free_bytes: int | None = None
    power_limit_w: float | None = None
    default_power_limit_w: float | None = None
    pcie_bytes_per_s: float | None = None
    has_display: bool = False
    pages_silently: bool = False
    """Its driver moves what does not fit into the host's memory, without an error (Windows' WDDM)."""
    compute_capability: float | None = None
    processor: str = ""
    """As LLVM names AMD's: ``gfx1151``."""
    shares_host_memory: bool = False


def engine_devices(text: str) -> list[EngineDevice]:
    """What ``llama-server --list-devices`` printed. Devices without memory (BLAS libraries) are left out, and free
    memory beyond what there is, is not believed: builds have told of 55,372 of 32,106 MiB (ggml-org/llama.cpp #17536),
    and Vulkan gives a budget."""
    devices = []
    for line in text.splitlines():
        if (match := ENGINE_LINE.match(line)) and (memory := int(match["memory"])):
            free = min(int(match["free"]), memory)
            devices.append(EngineDevice(match["engine"], match["name"].strip(), memory * MIB, free * MIB))
    return devices


def nvidia_cards(text: str) -> list[DriverCard]:
    """What ``nvidia-smi --query-gpu=... --format=csv,noheader,nounits`` printed for :data:`NVIDIA_FIELDS`."""
    cards = []
    for row in csv.reader(StringIO(text), skipinitialspace=True):
        if len(row) != len(NVIDIA_FIELDS):
            continue
        fields = dict(zip(NVIDIA_FIELDS, row, strict=True))
        memory, free = _number(fields["memory.total"]), _number(fields["memory.free"])
        cards.append(
            DriverCard(
                name=fields["name"].strip(),
                address=fields["pci.bus_id"].strip().lower().removeprefix("0000"),
                memory_bytes=None if memory is None else int(memory) * MIB,
                free_bytes=None if free is None else int(free) * MIB,
                power_limit_w=_number(fields["power.limit"]),
                default_power_limit_w=_number(fields["power.default_limit"]),
                pcie_bytes_per_s=pcie_bytes_per_s(
                    _number(fields["pcie.link.gen.max"]), _number(fields["pcie.link.width.current"])
                ),
                has_display=fields["display_active"].strip() == "Enabled",
                pages_silently=fields["driver_model.current"].strip() == "WDDM",
                compute_capability=_number(fields["compute_cap"]),
                shares_host_memory=memory is None,  # a GB10's memory is [N/A]
            )
        )
    return cards


def nvlinks(topology: str, states: str) -> dict[tuple[int, int], float]:
    """Bytes per second in one direction between cards, by their places.

    Args:
        topology: what ``nvidia-smi topo -m`` printed: ``NV4`` between two cards is a bond of four links.
        states: what ``nvidia-smi nvlink --status`` printed: ``Link 0: 14.062 GB/s``.
    """
    per_link = [float(found) * 1e9 for found in re.findall(r"Link \d+: ([\d.]+) GB/s", states)]
    if not per_link:
        return {}
    links = {}
    for line in topology.splitlines():
        row = re.match(r"GPU(\d+)\s+(.*)", _without_escapes(line))
        if row is None:
            continue
        for column, cell in enumerate(row[2].split()):
            bond = re.fullmatch(r"NV(\d+)", cell)
            if bond and int(row[1]) < column:
                links[int(row[1]), column] = int(bond[1]) * min(per_link)
    return links


def rocm_cards(text: str) -> list[DriverCard]:
    """What ``rocm-smi --showproductname --showmeminfo vram --showbus --json`` printed."""
    return [
        DriverCard(
            name=str(card.get("Card Series") or card.get("Card series") or card.get("Device Name") or name),
            address=str(card.get("PCI Bus", "")).lower(),
            memory_bytes=(memory := _whole(card.get("VRAM Total Memory (B)"))),
            free_bytes=None if memory is None else memory - (_whole(card.get("VRAM Total Used Memory (B)")) or 0),
            processor=str(card.get("GFX Version", "")),
        )
        for name, card in sorted(_object(text).items())
        if name.startswith("card") and isinstance(card, Mapping)
    ]


def amd_smi_cards(text: str) -> list[DriverCard]:
    """What ``amd-smi static --asic --bus --vram --json`` printed, which takes the place of ``rocm-smi``: a list, or in
    newer versions an object with one under ``gpu_data``."""
    start = min((at for at in (text.find("["), text.find("{")) if at >= 0), default=-1)
    if start < 0:
        return []
    try:
        document, _ = json.JSONDecoder().raw_decode(text[start:])
    except ValueError:
        return []
    entries = document.get("gpu_data") if isinstance(document, dict) else document
    cards = []
    for entry in entries if isinstance(entries, list) else []:
        asic, bus, memory = (_part(entry, name) for name in ("asic", "bus", "vram"))
        size = _part(memory, "size")
        megabytes = _whole(size.get("value"))
        cards.append(
            DriverCard(
                name=str(asic.get("market_name", "AMD GPU")),
                address=str(bus.get("bdf", "")).lower(),
                memory_bytes=None if megabytes is None else megabytes * MIB,
                processor=str(asic.get("target_graphics_version", "")),
            )
        )
    return cards


def amd_cards(drm: Path) -> list[DriverCard]:
    """What Linux's amdgpu driver tells by itself, in the order of the bus.

    Args:
        drm: ``/sys/class/drm``. Files: https://docs.kernel.org/gpu/amdgpu/driver-misc.html
    """
    cards = []
    for folder in sorted(drm.glob("card*/device"), key=lambda path: path.resolve().name):
        memory = _file_number(folder / "mem_info_vram_total")
        if memory is None or not re.fullmatch(r"card\d+", folder.parent.name):
            continue
        power = next(iter(sorted(folder.glob("hwmon/hwmon*/power1_cap"))), None)
        limit = _file_number(power) if power else None
        default = _file_number(power.with_name("power1_cap_default")) if power else None
        speed = re.match(r"[\d.]+", _file_text(folder / "max_link_speed"))
        gtt = _file_number(folder / "mem_info_gtt_total") or 0
        shares = gtt > 2 * memory
        used = (_file_number(folder / "mem_info_vram_used") or 0) + (
            (_file_number(folder / "mem_info_gtt_used") or 0) if shares else 0
        )
        whole = int(memory) + (int(gtt) if shares else 0)
        cards.append(
            DriverCard(
                name=_file_text(folder / "product_name") or "AMD GPU",
                address=folder.resolve().name,
                memory_bytes=whole,
                free_bytes=max(0, whole - int(used)),
                power_limit_w=None if limit is None else limit / 1e6,
                default_power_limit_w=None if default is None else default / 1e6,
                pcie_bytes_per_s=pcie_bytes_per_s(
                    PCIE_GENERATIONS.get(float(speed[0])) if speed else None,
                    _file_number(folder / "current_link_width"),
                ),
                has_display=any(
                    _file_text(connector / "status") == "connected" for connector in drm.glob(f"{folder.parent.name}-*")
                ),
                shares_host_memory=shares,
            )
        )
    return cards


class AppleChip(Struct, frozen=True):
    name: str
    memory_bytes: int
    gpu_limit_bytes: int | None
    """What its owner lets the GPU use; ``None`` leaves it to Metal."""


def apple_chip(text: str) -> AppleChip | None:
    """What ``sysctl machdep.cpu.brand_string hw.memsize iogpu.wired_limit_mb`` printed."""
    values = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    name, memory = values.get("machdep.cpu.brand_string", ""), _whole(values.get("hw.memsize"))
    if memory is None or not name.startswith("Apple"):
        return None
    limit = _whole(values.get("iogpu.wired_limit_mb"))
    return AppleChip(name, memory, limit * MIB if limit else None)


def pcie_bytes_per_s(generation: float | None, lanes: float | None) -> float | None:
    """In one direction; ``None`` where the driver does not tell."""
    per_lane = PCIE_GB_PER_S_A_LANE.get(int(generation)) if generation is not None else None
    return per_lane * lanes * 1e9 if per_lane and lanes else None


def _part(document: object, name: str) -> Mapping[str, object]:
    """An object within another; empty where it is not there."""
    part = document.get(name) if isinstance(document, Mapping) else None
    return part if isinstance(part, Mapping) else {}


def _number(text: str) -> float | None:
    """``None`` for ``[N/A]`` and its like."""
    try:
        return float(text.strip().split(" ")[0])
    except ValueError:
        return None


def _whole(value: object) -> int | None:
    try:
        return int(str(value).strip())
    except ValueError:
        return None


def _object(text: str) -> Mapping[str, object]:
    """JSON's object in a text that may have warnings before it; empty where there is none."""
    start = text.find("{")
    if start < 0:
        return {}
    try:
        value, _ = json.JSONDecoder().raw_decode(text[start:])
    except ValueError:
        return {}
    return value if isinstance(value, Mapping) else {}


def _without_escapes(line: str) -> str:
    """``nvidia-smi topo`` underlines its first line where it writes to a terminal."""
    return re.sub(r"\x1b\[[0-9;]*m", "", line)


def _file_text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _file_number(path: Path) -> float | None:
    return _number(_file_text(path))
