"""The least painful settings with which a model fits a machine: arithmetic on the model's header."""

from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from paceline.planning import speed
from paceline.planning.architectures import Architecture
from paceline.planning.devices import Device, Machine
from paceline.planning.drafters import FoundDrafter
from paceline.planning.memory import HOST, CacheType, Model, Settings
from paceline.planning.placing import DraftModel, Layout, budget_bytes, by_layer, by_tensor
from paceline.planning.plan import Aim, DoesNotFit, SplitMode, Wish

GIB = 1 << 30
MICRO_BATCH, SMALL_MICRO_BATCH = 512, 256
"""Tokens: llama.cpp's own, and a smaller one, with which prompts are read slower and buffers take half."""
USUAL_CONTEXT_TOKENS = 131_072
"""Planned for where nobody says how many, and cards compute."""
HOST_CONTEXT_TOKENS = 16_384
"""The same where the processor computes: first requests of coding agents have 8,000 to 20,000 tokens."""
LARGE_HOST_MODEL_BYTES, LARGE_HOST_CONTEXT_TOKENS = 4_000_000_000, 8_192
"""Of weights; a processor would read longer prompts of such a model for minutes. Set by hand."""
SMALL_CONTEXT_TOKENS = 16_384
"""A context that nobody asked for is cut down to this before experts leave the cards: agents need so much."""
MIN_CONTEXT_TOKENS = 4_096
CONTEXT_STEP = 1_024
SLOTS: dict[Aim, int] = {"latency": 1, "throughput": 4}
MORE_EXPERTS = 1.25
"""Layers whose experts may leave the cards for a longer context, over those that have to anyway. Set by hand."""
HOST_MARGIN_BYTES = GIB
LEAST_BITS = 1.5
"""A weight, of the smallest files that are made (IQ1_S)."""
READ_STATES = ("mtp", "eagle3")
"""Drafters that read the target's hidden states: the target keeps a state for each token of theirs."""


class Candidate(Struct, frozen=True, kw_only=True):
    """What the search varies.

    Args:
        context_tokens: of each request.
        used: devices, by their places in the machine.
    """

    context_tokens: int
    slots: int
    cache_type: CacheType
    micro_batch: int = MICRO_BATCH
    with_draft_model: bool = False
    with_mtp: bool = False
    moves_experts: bool = False
    moves_layers: bool = False
    used: tuple[int, ...] = ()
    split: SplitMode = "none"


class Found(Struct, frozen=True):
    """A candidate, and what it takes laid out as well as it goes."""

    candidate: Candidate
    settings: Settings
    layout: Layout

    @property
    def host_experts(self) -> int:
        return self.layout.placement.host_experts

    @property
    def host_layers(self) -> int:
        return self.layout.placement.layers.count(HOST)

    @property
    def on_host(self) -> tuple[int, int]:
        """Whole layers that are on the host, and layers whose experts are: the fewer the better."""
        return self.host_layers, self.host_experts

    @property
    def device_bytes(self) -> int:
        """Of all devices together."""
        return sum(use.total for use in self.layout.devices)


class Step(Struct, frozen=True):
    """A way out, and what was there before it was taken."""

    name: str
    before: Found
    after: Found


class Search:
    """Candidates for one model on one machine.

    Args:
        architecture: the model's, or one that takes no less.
        draft_model: a drafter's own file.
        corrections: by place of a device (:data:`HOST` for the host), bytes that the engine takes beyond the formulas.
    """

    def __init__(
        self,
        model: Model,
        architecture: Architecture,
        machine: Machine,
        wish: Wish,
        drafter: FoundDrafter | None,
        draft_model: Model | None,
        corrections: dict[int, int],
    ) -> None:
        self._model = model
        self._architecture = architecture
        self._machine = machine
        self._wish = wish
        self._drafter = drafter
        self._draft_model = draft_model
        self._corrections = corrections

    def best(self) -> tuple[Found, list[Step]]:
        """What fits with the least pain, and the ways out that it took.

        Raises:
            DoesNotFit: nothing does.
        """
        first = self.tried(self._first())
        found = first
        steps: list[Step] = []
        for name, change in self._ways_out():
            if not found.layout.over:
                break
            candidate = change(found.candidate)
            if candidate is None:
                continue
            after = self.tried(candidate)
            steps.append(Step(name, found, after))
            found = after
        if found.layout.over:
            raise DoesNotFit(self._missing(found))
        found, steps = self._relaxed(found, steps)
        return found, _worth_saying(first, found, steps)

    def tried(self, candidate: Candidate) -> Found:
        """What a candidate takes."""
        settings = self._settings(candidate)
        draft = None
        if candidate.with_draft_model and self._draft_model is not None:
            own = replace(settings, key_type="q8_0", value_type="q8_0", draft_tokens=0, loads_mtp=False)
            draft = DraftModel(self._draft_model, own)
        capacities = [self._capacity(at) for at in candidate.used]
        devices = [self._machine.devices[at] for at in candidate.used]
        if candidate.split == "tensor":
            layout = by_tensor(self._model, settings, capacities, draft)
        elif not devices:
            blocks = self._model.header.own_number("block_count") + 1
            layout = by_layer(self._model, settings, (), (), host_layers=blocks, draft=draft)
        else:
            layout = self._by_layer(candidate, settings, devices, capacities, draft)
        return Found(candidate, settings, self._with_host(layout))

    def largest_context(self, found: Found) -> int:
        """Of each request, with all else as it is, up to what the model was trained for."""
        least = found.candidate.context_tokens
        low, high = 0, max(0, self._architecture.trained_tokens - least) // CONTEXT_STEP
        while low < high:
            middle = (low + high + 1) // 2
            longer = self.tried(replace(found.candidate, context_tokens=least + middle * CONTEXT_STEP))
            if longer.layout.over or longer.on_host > found.on_host:
                high = middle - 1
            else:
                low = middle
        return least + low * CONTEXT_STEP

    def why_not_tensor(self) -> str | None:
        """Why tensors are not split; ``None`` where they may be."""
        devices, header, architecture = self._machine.devices, self._model.header, self._architecture
        heads = {*header.own_numbers("attention.head_count_kv"), header.own_number("attention.head_count_kv")}
        groups = header.own_number("ssm.group_count")
        if architecture.kind == "unknown":
            return f"nothing is known here of how the tensors of {architecture.name} could be cut"
        if not architecture.may_split_tensors:
            return f"llama.cpp does not split the tensors of {architecture.name}"
        if architecture.mirrors_cache:
            return "each card would hold the whole cache of this architecture"
        if len(devices) != 2 or len({(device.name, device.memory_bytes) for device in devices}) > 1:
            return "that is for two equal cards"
        if any(device.backend not in ("cuda", "rocm", "other") for device in devices):
            return "that is tried on CUDA and ROCm alone"
        if any(count % len(devices) for count in heads) or groups % len(devices):
            return "the heads of this model can't be cut in two"
        if self._wish.aim != "latency":
            return "that makes one request faster and several slower"
        return None

    def draft_tokens(self, candidate: Candidate) -> int:
        """Longest draft of the drafter with a model of its own; 0 without one."""
        if self._drafter is None:
            return 0
        if not candidate.used or self._drafter.kind == "draft":
            return self._drafter.n_max
        cards = speed.class_of(used_machine(self._machine, candidate))
        return speed.first_length(cards, has_experts=self._model.expert_count > 0)

    def host_capacity(self) -> int | None:
        """Bytes that may be put on the host; ``None`` where it is not known."""
        host = self._machine.host_memory_bytes
        return None if host is None else max(0, host - HOST_MARGIN_BYTES - self._corrections.get(HOST, 0))

    def _capacity(self, place: int) -> int:
        return max(0, budget_bytes(self._machine.devices[place]) - self._corrections.get(place, 0))

    def _first(self) -> Candidate:
        """All that is wished for."""
        wish, trained = self._wish, self._architecture.trained_tokens
        has_devices = bool(self._machine.devices)
        context = wish.context_tokens
        if context is None:
            context = USUAL_CONTEXT_TOKENS
            if not has_devices:
                is_large = self._model.weight_bytes > LARGE_HOST_MODEL_BYTES
                context = LARGE_HOST_CONTEXT_TOKENS if is_large else HOST_CONTEXT_TOKENS
            context = min(context, trained) if trained else context
        candidate = Candidate(
            context_tokens=context,
            slots=wish.slots or wish.usual_slots or SLOTS[wish.aim],
            cache_type=wish.cache_type or "f16",
            with_mtp=self._drafter is not None and self._drafter.kind == "mtp",
            with_draft_model=self._draft_model is not None,
            used=tuple(range(len(self._machine.devices))),
            split="layer" if len(self._machine.devices) > 1 else "none",
        )
        return self._with_split(candidate)

    def _with_split(self, candidate: Candidate) -> Candidate:
        """Two equal cards read at once where they can; else one card does alone what it can: of cards that take turns,
        a single request has the speed of one."""
        if len(candidate.used) < 2:
            return candidate
        tensor = replace(candidate, split="tensor")
        if self.why_not_tensor() is None and not self.tried(tensor).layout.over:
            return tensor
        if self._wish.aim == "latency":
            devices = self._machine.devices
            fastest = min(candidate.used, key=lambda at: (-(devices[at].bandwidth_bytes_per_s or 0), at))
            alone = replace(candidate, used=(fastest,), split="none")
            if not self.tried(alone).layout.over:
                return alone
        return candidate

    def _ways_out(self) -> Iterator[tuple[str, Callable[[Candidate], Candidate | None]]]:
        """What can be given up, in the order that hurts least."""
        wish, has_devices = self._wish, bool(self._machine.devices)
        has_two_memories = has_devices and not self._machine.is_unified
        if has_devices:
            yield "micro-batch", lambda old: replace(old, micro_batch=SMALL_MICRO_BATCH)
        if wish.slots is None:
            yield "slots", lambda old: replace(old, slots=1) if old.slots > 1 else None
        if wish.cache_type is None and has_devices:
            yield "cache type", lambda old: self._with_split(replace(old, cache_type="q8_0"))
        if wish.context_tokens is None:
            yield "context", lambda old: self._shortened(old, SMALL_CONTEXT_TOKENS)
        yield "draft model", lambda old: replace(old, with_draft_model=False) if old.with_draft_model else None
        if self._model.expert_count and has_two_memories:
            yield "experts", lambda old: replace(old, moves_experts=True)
        yield "context", lambda old: self._shortened(old, MIN_CONTEXT_TOKENS)
        if has_two_memories:
            small = min(SMALL_CONTEXT_TOKENS, wish.context_tokens or SMALL_CONTEXT_TOKENS)
            yield "layers", lambda old: replace(old, moves_layers=True, context_tokens=max(small, old.context_tokens))

    def _shortened(self, candidate: Candidate, least: int) -> Candidate | None:
        """With the longest context that fits, or with the least if none does; ``None`` where it is no longer."""
        if candidate.context_tokens <= least:
            return None
        low, high = -1, (candidate.context_tokens - least) // CONTEXT_STEP
        while low < high:
            middle = (low + high + 1) // 2
            if self.tried(replace(candidate, context_tokens=least + middle * CONTEXT_STEP)).layout.over:
                high = middle - 1
            else:
                low = middle
        return replace(candidate, context_tokens=least + max(0, low) * CONTEXT_STEP)

    def _relaxed(self, found: Found, steps: list[Step]) -> tuple[Found, list[Step]]:
        """Takes back what was given up before something larger was, where all fits now without."""
        first = self._first()
        undone: dict[str, dict[str, object]] = {
            "draft model": {"with_draft_model": first.with_draft_model},
            "cache type": {"cache_type": first.cache_type},
            "slots": {"slots": first.slots},
            "context": {"context_tokens": first.context_tokens},
            "micro-batch": {"micro_batch": first.micro_batch},
        }
        kept = list(steps)
        for step in steps[:-1]:
            if step.name in undone:
                without = self.tried(replace(found.candidate, **undone[step.name]))
                if not without.layout.over and _is_as_good(without, found):
                    found = without
                    kept.remove(step)
        return self._lengthened(found, first), kept

    def _lengthened(self, found: Found, first: Candidate) -> Found:
        """A context that nobody asked for was cut to keep experts on the cards. Where they had to leave all the same,
        a few more of them buy it back."""
        if self._wish.context_tokens is None and found.host_experts and not found.host_layers:
            longer = self.tried(replace(found.candidate, context_tokens=first.context_tokens))
            if not longer.layout.over and longer.host_experts <= found.host_experts * MORE_EXPERTS + 1:
                return longer
        return found

    def _by_layer(
        self,
        candidate: Candidate,
        settings: Settings,
        devices: Sequence[Device],
        capacities: Sequence[int],
        draft: DraftModel | None,
    ) -> Layout:
        def with_host(experts: int, layers: int) -> Layout:
            prefers_fast = self._wish.aim == "latency" and not experts
            return by_layer(self._model, settings, devices, capacities, experts, layers, draft, prefers_fast)

        layout = with_host(0, 0)
        if layout.over and candidate.moves_experts:
            layout = _least(self._model.trunk_count, lambda count: with_host(count, 0))
        if layout.over and candidate.moves_layers:
            experts = self._model.trunk_count if candidate.moves_experts else 0
            blocks = self._model.header.own_number("block_count")
            layout = _least(blocks, lambda count: with_host(experts, count))
        return layout

    def _with_host(self, layout: Layout) -> Layout:
        """Whether the host has room, too."""
        capacity = self.host_capacity()
        if capacity is None:
            return layout
        needed = layout.host.total
        if self._machine.is_unified:
            needed += sum(use.total for use in layout.devices)
        return replace(layout, over=max(layout.over, needed - capacity))

    def _settings(self, candidate: Candidate) -> Settings:
        reads_states = self._drafter is not None and self._drafter.kind in READ_STATES
        drafts = reads_states and (candidate.with_mtp or candidate.with_draft_model)
        draft_type: CacheType = "f16" if candidate.cache_type == "f16" else "q8_0"
        return Settings(
            context_tokens=candidate.context_tokens * candidate.slots,
            slots=candidate.slots,
            key_type=candidate.cache_type,
            value_type=candidate.cache_type,
            micro_batch=candidate.micro_batch,
            draft_tokens=self.draft_tokens(candidate) if drafts else 0,
            loads_mtp=candidate.with_mtp,
            draft_key_type=draft_type,
            draft_value_type=draft_type,
        )

    def _missing(self, found: Found) -> str:
        """What is not there, for people."""
        devices = sum(budget_bytes(device) for device in self._machine.devices)
        room = devices if self._machine.is_unified else devices + (self.host_capacity() or 0)
        return (
            f"{self._model.header.path.name} has {self._model.weight_bytes / GIB:.1f} GiB of weights, and devices and "
            f"host have room for {room / GIB:.1f} GiB. Even with {found.candidate.context_tokens:,} tokens of context, "
            f"{found.layout.over / GIB:.1f} GiB are missing. {self._smaller(found)}"
        )

    def _smaller(self, found: Found) -> str:
        """Which file of the same model would do, as far as there are any."""
        weights, count = self._model.weight_bytes, max(1, self._model.parameters)
        bits = 8 * (weights - found.layout.over) / count
        if bits < LEAST_BITS:
            return "No file of this model is so small."
        return f"A file of it with {bits:.1f} bits a weight would fit; this one has {8 * weights / count:.1f}."


def _is_as_good(without: Found, found: Found) -> bool:
    """Where experts are on the host anyway, those of one more layer are less than what else was given up for it."""
    one_more = 1 if found.host_experts else 0
    return without.host_layers <= found.host_layers and without.host_experts <= found.host_experts + one_more


def _worth_saying(first: Found, found: Found, steps: list[Step]) -> list[Step]:
    """Of several cuts of the context only what they come to, and of what was bought back nothing."""
    kept = [step for step in steps if step.name != "context"]
    if found.candidate.context_tokens < first.candidate.context_tokens:
        kept.append(Step("context", first, found))
    return kept


def used_machine(machine: Machine, candidate: Candidate) -> Machine:
    """With only the devices that are used."""
    return replace(machine, devices=tuple(machine.devices[at] for at in candidate.used))


def _least(most: int, laid_out: Callable[[int], Layout]) -> Layout:
    """With as little on the host as will do; with all of it, where nothing does."""
    low, high = 1, max(1, most)
    while low < high:
        middle = (low + high) // 2
        if laid_out(middle).over:
            low = middle + 1
        else:
            high = middle
    return laid_out(low)
