"""A plan for an engine: a command line, what it takes of each device, and why it is so."""

from typing import Literal

from msgspec import Struct

from paceline.engines.llama_cpp_flags import LoadedDrafter, drafting_flags
from paceline.planning.memory import CacheType, Placement, Settings, Use

Aim = Literal["latency", "throughput"]
SplitMode = Literal["none", "layer", "tensor"]


class Wish(Struct, frozen=True, kw_only=True):
    """What a plan is to reach.

    Args:
        context_tokens: of each request; ``None`` for as many as are useful and fit.
        slots: requests decoded at once; ``None`` leaves it to the aim.
        cache_type: ``None`` for the best that fits.
    """

    context_tokens: int | None = None
    slots: int | None = None
    usual_slots: int | None = None
    """Where ``slots`` are not given; they may be fewer then."""
    aim: Aim = "latency"
    cache_type: CacheType | None = None


class Choice(Struct, frozen=True):
    """Something that was decided, and why."""

    subject: str
    reason: str
    """In whole sentences."""
    has_price: bool = False
    """It gives something up so that the rest fits."""


class Budget(Struct, frozen=True, kw_only=True):
    """A line of the plan's table, in bytes."""

    name: str
    free: int | None
    """Before anything of this plan is on it; ``None`` where it is not known."""
    use: Use
    reserved: int = 0
    """For the driver, and left free."""

    @property
    def left(self) -> int | None:
        return None if self.free is None else self.free - self.use.total - self.reserved


class Judgement(Struct, frozen=True, kw_only=True):
    """What the engine itself says."""

    build: int
    took_s: float
    difference: float
    """The largest between it and the formulas, over what a device holds."""


class Plan(Struct, frozen=True, kw_only=True):
    """A command line, what it takes and why it is so.

    Args:
        fits: everything that was asked for has its place.
        devices: only those that are used.
        flags: of ``llama-server``, without the model, its name and its address.
        judgement: ``None`` where there was no dry run.
        largest_context_tokens: of each request, with all else as it is planned; ``None`` where nothing fits.
    """

    model: str
    architecture: str
    is_known: bool
    fits: bool
    wish: Wish
    settings: Settings
    placement: Placement
    split: SplitMode
    devices: tuple[Budget, ...]
    host: Budget
    flags: tuple[str, ...]
    drafters: tuple[LoadedDrafter, ...]
    choices: tuple[Choice, ...]
    warnings: tuple[str, ...] = ()
    judgement: Judgement | None = None
    largest_context_tokens: int | None = None
    checkpoints: int | None = None
    drafted_token_cost: float | None = None
    """What each drafted token is believed to add to a step, in plain steps; ``None`` where the processor computes."""
    used_devices: tuple[int, ...] = ()
    """Their places in the machine."""

    @property
    def context_tokens(self) -> int:
        """Of each request."""
        return self.settings.context_tokens // (1 if self.settings.is_unified else self.settings.slots)

    @property
    def engine_flags(self) -> tuple[str, ...]:
        """With those that load drafters."""
        return (*self.flags, *drafting_flags(self.drafters))


class DoesNotFit(Exception):
    """There is no way to run the model on the machine; ``str()`` says what is missing."""
