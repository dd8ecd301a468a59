"""Reads what ``--gpus`` names: cards that a plan is for, here or elsewhere."""

import re
from pathlib import Path

import msgspec

from paceline.planning.cards import Card, card_meant, nearest_names
from paceline.planning.devices import Device, Machine

GIB = 1 << 30
FREE_SHARE = 0.97
"""Of a card's memory that nothing else uses: recorded cards had 0.945 (RTX 2080 Ti) to 0.99 (RTX PRO 6000) free when
idle, of what they are sold with."""
MAX_DEVICES = 64
COUNT = re.compile(r"^\s*(\d+)\s*[x×*]\s*(.+)$", re.IGNORECASE)
SIZE = re.compile(r"^(?P<name>.*?)\s*[,(]?\s*(?P<gib>\d+(?:\.\d+)?)\s*(?:gib|gb|g)\)?\s*$", re.IGNORECASE)
BARE_SIZE = re.compile(r"^(?P<gib>-?\d+(?:\.\d+)?)\s*(?:gib|gb|g)?$", re.IGNORECASE)
MAX_BARE_GIB = 1000
"""From which on a number alone is a name: ``4090``."""
GIVEN = "given by --gpus"
SMALL_UNIFIED_GIB, SMALL_UNIFIED_SHARE = 32, 2 / 3
"""Up to this size Metal lets a GPU use two thirds of the memory (10,923 MB of 16 GB, an M1 Pro), above it three
quarters (51,540 MB of 64 GB, an M1 Max; 103,079 MB of 128 GB, an M4 Max)."""
LARGE_UNIFIED_SHARE = 0.75
UNIFIED_SHARE = 0.95
"""Of a machine's memory that a GB10 or Strix Halo may use: 122,548 of 131,072 MiB (GB10), and 126,976 (Strix Halo with
its limit set so)."""


class BadDevices(Exception):
    """``--gpus`` names what can't be; ``str()`` says what, and what would do."""


def given_machine(gpus: str, host_memory_bytes: int | None = None) -> Machine:
    """The machine that ``--gpus`` means: ``2x RTX PRO 6000``, ``24,24`` (GiB), ``RTX 3090, RTX 5090 32GB``, or a file
    in JSON: a :class:`Machine`, or what has one under ``machine``, as ``paceline plan --json`` prints.

    Args:
        host_memory_bytes: of the host that the cards are in, where it is known.

    Raises:
        BadDevices: no such card, no such file, or more devices than any machine has.
    """
    path = Path(gpus)
    if gpus.endswith(".json") or "/" in gpus:
        return _from_file(path)
    devices = [device for part in _parts(gpus) for device in _devices(part)]
    if not devices:
        raise BadDevices("--gpus names no card; write auto, '2x RTX 3090', '24,24' (GiB each) or a file")
    if len(devices) > MAX_DEVICES:
        raise BadDevices(f"--gpus names {len(devices)} devices; more than {MAX_DEVICES} are not planned for")
    if host_memory_bytes is None and all(device.is_unified for device in devices):
        host_memory_bytes = sum(device.free_bytes for device in devices)
    return Machine(devices=tuple(devices), host_memory_bytes=host_memory_bytes, source=GIVEN)


def _parts(gpus: str) -> list[str]:
    return [part.strip() for part in re.split(r"[,;]|\s\+\s", gpus) if part.strip()]


def _devices(part: str) -> list[Device]:
    count = 1
    if counted := COUNT.match(part):
        count, part = int(counted[1]), counted[2].strip()
    if not 1 <= count <= MAX_DEVICES:
        raise BadDevices(f"{count} devices are not planned for; 1 to {MAX_DEVICES} are")
    if (size := BARE_SIZE.match(part)) and float(size["gib"]) < MAX_BARE_GIB:
        return [_nameless(float(size["gib"]))] * count
    return [_named(part)] * count


def _nameless(gib: float) -> Device:
    if gib <= 0:
        raise BadDevices(f"{gib:g} GiB is no card's memory; '24,24' means two cards of 24 GiB")
    memory = int(gib * GIB)
    return Device(name=f"{gib:g} GiB card", backend="other", memory_bytes=memory, free_bytes=int(memory * FREE_SHARE))


def _named(text: str) -> Device:
    sized = SIZE.match(text)
    wanted_gib = float(sized["gib"]) if sized else None
    card = card_meant(text) or (card_meant(sized["name"]) if sized else None)
    if card is None:
        near = nearest_names(text)
        like = f"; like it are {', '.join(near)}" if near else ""
        raise BadDevices(f"{text!r} is no card that is known{like}. '24,24' gives cards by their memory in GiB")
    return device_of(card, _memory_gib(card, wanted_gib))


def _memory_gib(card: Card, wanted_gib: float | None) -> float:
    if wanted_gib is not None:
        return wanted_gib
    if len(card.memory_gib) > 1:
        sizes = ", ".join(str(size) for size in card.memory_gib[:-1])
        example = f"{card.name} {card.memory_gib[-1]}GB"
        raise BadDevices(f"{card.name} comes with {sizes} or {card.memory_gib[-1]} GB; say which: '{example}'")
    return card.memory_gib[0]


def device_of(card: Card, memory_gib: float) -> Device:
    """A card of the table as a device that nothing else uses."""
    whole = memory_gib * GIB
    memory = whole * unified_share(card, memory_gib) if card.is_unified else whole
    return Device(
        name=card.name,
        backend=card.backend,
        memory_bytes=int(memory),
        free_bytes=int(memory * FREE_SHARE),
        card_class=card.card_class,
        bandwidth_bytes_per_s=card.bandwidth_gb_per_s * 1e9,
        is_unified=card.is_unified,
    )


def unified_share(card: Card, memory_gib: float) -> float:
    """Of a machine's memory, what a GPU that shares it may use."""
    if card.card_class == "apple":
        return SMALL_UNIFIED_SHARE if memory_gib <= SMALL_UNIFIED_GIB else LARGE_UNIFIED_SHARE
    return UNIFIED_SHARE


def _from_file(path: Path) -> Machine:
    try:
        document = msgspec.json.decode(path.read_bytes())
        machine = document.get("machine", document) if isinstance(document, dict) else document
        given = msgspec.convert(machine, Machine)
    except FileNotFoundError:
        raise BadDevices(f"there is no file {path}") from None
    except OSError as error:
        raise BadDevices(f"{path} can't be read: {error.strerror or error}") from error
    except msgspec.MsgspecError as error:
        raise BadDevices(f"{path} describes no machine: {error}") from error
    for device in given.devices:
        if not 0 <= device.free_bytes <= device.memory_bytes or not device.memory_bytes:
            raise BadDevices(
                f"{path}: {device.name} can't have {device.free_bytes:,} bytes free of {device.memory_bytes:,}"
            )
    return given
