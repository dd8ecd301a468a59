"""What a model is to run on: devices with their memory, what links them, and the memory of the host."""

from typing import Literal

from msgspec import Struct

Backend = Literal["cuda", "rocm", "vulkan", "metal", "sycl", "other"]
"""What an engine computes with on a device."""

CardClass = Literal[
    "blackwell",
    "hopper",
    "ada",
    "ampere",
    "turing",
    "volta",
    "pascal",
    "rdna2",
    "rdna3",
    "rdna4",
    "cdna",
    "strix-halo",
    "gb10",
    "apple",
    "unknown",
]
"""Cards of one design: what a verification step costs depends on it (:mod:`paceline.planning.speed`)."""


class Device(Struct, frozen=True, kw_only=True):
    """One device that computes, as a plan sees it.

    Args:
        name: of the card, as its maker has it: ``NVIDIA GeForce RTX 5090``.
        memory_bytes: what an engine sees in all; of unified memory, what a device may use of it.
        free_bytes: what an engine can still get; never more than ``memory_bytes``. What a display and other programs
            have taken is not in it.
    """

    name: str
    backend: Backend
    memory_bytes: int
    free_bytes: int
    engine_name: str = ""
    """What llama.cpp calls it after ``--device``: ``CUDA0``. Empty where the machine is only thought of."""
    card_class: CardClass = "unknown"
    bandwidth_bytes_per_s: float | None = None
    """Of its memory, by its maker's figures; ``None`` for a card that is not known."""
    is_unified: bool = False
    """Its memory is the host's: what is planned on the one is gone from the other."""
    display_bytes: int = 0
    """Of ``memory_bytes``, what a display holds: it is not free, and grows and shrinks with what is shown."""
    power_limit_w: float | None = None
    default_power_limit_w: float | None = None
    """A card that is set below it computes slower than cards of its name do."""
    address: str = ""
    """On the PCI bus; tells a card that two backends list from two cards."""


class Link(Struct, frozen=True, kw_only=True):
    """How data gets from one device to another, or to the host.

    Args:
        devices: places in :attr:`Machine.devices`; a single one for the link of a device to the host.
        bytes_per_s: in one direction, by the standard's figures.
    """

    devices: tuple[int, ...]
    kind: Literal["pcie", "nvlink", "infinity-fabric"]
    bytes_per_s: float


class Machine(Struct, frozen=True, kw_only=True):
    """Devices of one host.

    Args:
        host_memory_bytes: what the host's programs can still get; of unified memory, the same bytes as the devices'.
        warnings: whole sentences: what about this machine spoils plans.
    """

    devices: tuple[Device, ...]
    host_memory_bytes: int | None = None
    links: tuple[Link, ...] = ()
    warnings: tuple[str, ...] = ()
    source: str = ""
    """Where the devices are known from: a program's name, or that they were given."""

    @property
    def is_unified(self) -> bool:
        """All devices take their memory from the host's."""
        return bool(self.devices) and all(device.is_unified for device in self.devices)

    @property
    def free_bytes(self) -> int:
        return sum(device.free_bytes for device in self.devices)
