"""Why a plan is as it is: each choice in whole sentences, with the price of what was given up."""

from collections.abc import Iterator, Sequence

from paceline.engines.llama_cpp_flags import LoadedDrafter
from paceline.planning import speed
from paceline.planning.architectures import Architecture
from paceline.planning.command_line import CHECKPOINTS, NGRAM_TOKENS, PROMPT_CACHE_MIB, HostCaches
from paceline.planning.devices import Machine
from paceline.planning.drafters import FoundDrafter
from paceline.planning.memory import Model, state_bytes
from paceline.planning.plan import Choice
from paceline.planning.search import MICRO_BATCH, Found, Search, Step, used_machine

GIB, MIB = 1 << 30, 1 << 20
HAS_TWO_KERNELS = ("cuda", "rocm", "other")
"""Backends that read quantized caches with a slower kernel for plain steps than for batches (fattn.cu)."""


def choices(
    model: Model,
    architecture: Architecture,
    machine: Machine,
    found: Found,
    steps: Sequence[Step],
    search: Search,
    drafter: FoundDrafter | None,
    drafters: Sequence[LoadedDrafter],
    caches: HostCaches,
) -> Iterator[Choice]:
    """In the order in which they are worth reading."""
    for step in steps:
        yield Choice(step.name, _price(step, found, model, machine), has_price=True)
    if split := _split(found, machine, search):
        yield Choice("split", split)
    yield Choice("drafting", _drafting(model, architecture, machine, found, drafter, drafters))
    if caches.checkpoints is not None and (caches.checkpoints < CHECKPOINTS or architecture.has_state):
        total = caches.checkpoints * caches.checkpoint_bytes * found.settings.slots
        yield Choice(
            "checkpoints",
            f"The server keeps {caches.checkpoints} checkpoints a slot of {_size(caches.checkpoint_bytes)} each on the "
            f"host ({_size(total)} in all): its past can't be cut off at any token, so that is what a changed prompt "
            "goes back to.",
        )
    if caches.prompt_cache_mib < PROMPT_CACHE_MIB:
        yield Choice(
            "prompt cache",
            f"Prompts that are kept on the host may take {_size(caches.prompt_cache_mib * MIB)} instead of 8 GiB.",
        )


def _price(step: Step, found: Found, model: Model, machine: Machine) -> str:
    """Of a way out: what it brings, and what it costs."""
    before, after = step.before, step.after
    gained = max(0, before.device_bytes - after.device_bytes)
    if step.name == "micro-batch":
        return (
            f"Prompts are read {after.settings.micro_batch} tokens at a time instead of {MICRO_BATCH}: that frees "
            f"{_size(gained)} of buffers, and long prompts are read somewhat slower."
        )
    if step.name == "slots":
        return f"One request is decoded at a time instead of {before.candidate.slots}: that frees {_size(gained)}."
    if step.name == "cache type":
        text = f"The cache is of 8 bits instead of 16: that frees {_size(gained)}. Answers hardly change"
        if any(machine.devices[at].backend in HAS_TWO_KERNELS for at in found.candidate.used):
            text += "; plain decoding at a long context reads such a cache at half the speed, drafted decoding does not"
        return f"{text}."
    if step.name == "draft model":
        return f"The draft model is left out: with a cache for the whole context it takes {_size(gained)}."
    if step.name == "experts":
        moved = sum(layer.experts for layer in model.layers[: found.host_experts])
        share = model.experts_used / model.expert_count
        return (
            f"The experts of the first {found.host_experts} of {model.trunk_count} layers are on the host "
            f"({_size(moved)}): for each token, {_size(round(moved * share))} of them are read there, at the speed of "
            "its memory."
        )
    if step.name == "layers":
        return (
            f"{found.host_layers} of {len(found.layout.placement.layers)} layers are on the host, and computed there: "
            "each token waits for them."
        )
    wished = before.candidate.context_tokens
    return f"{found.candidate.context_tokens:,} tokens of context fit; {wished:,} do not."


def _split(found: Found, machine: Machine, search: Search) -> str:
    if len(machine.devices) < 2:
        return ""
    if found.candidate.split == "tensor":
        return (
            "Split by tensors: both cards read at once. It needs flash attention and no NCCL: llama.cpp adds up over "
            "NCCL where its build has it, else by a way of its own for exactly two cards. Public: 68 % faster than by "
            "layers on two RTX 5060 Ti."
        )
    why = search.why_not_tensor() or "that does not fit"
    if found.candidate.split == "none":
        name = machine.devices[found.candidate.used[0]].name
        alone = f"One card, {name}, holds everything; cards that take turns by layers are no faster."
        return f"{alone} Not by tensors: {why}."
    counts = found.layout.placement.layer_counts
    return f"Split by layers, {_listed(counts)} (the output counts as one). Not by tensors: {why}."


def _drafting(
    model: Model,
    architecture: Architecture,
    machine: Machine,
    found: Found,
    drafter: FoundDrafter | None,
    drafters: Sequence[LoadedDrafter],
) -> str:
    lookup, *own = drafters
    said = [f"Lookup drafts up to {_tokens(lookup.strategy.n_max)}"]
    if own:
        said.append(f"{own[0].strategy.kind} up to {own[0].strategy.n_max}")
        if machine.devices and own[0].strategy.kind != "draft":
            cards = speed.class_of(used_machine(machine, found.candidate))
            said[-1] += (
                ", a first length for cards of an unknown class"
                if cards == "unknown"
                else f", the best first length on cards like these ({cards})"
            )
    text = " and ".join(said) + "."
    if architecture.rolls_back and found.settings.draft_tokens:
        size = state_bytes(architecture)
        text += (
            f" Each drafted token keeps a state of {_size(size)} a slot; longer lookups would cost a checkpoint each."
        )
    elif architecture.has_state and (lookup.strategy.n_max or 0) == NGRAM_TOKENS:
        text += " Each draft of lookup costs a checkpoint of the state; whether that pays is learned."
    if drafter is None:
        claimed = model.header.own_number("nextn_predict_layers")
        if model.mtp_layers:
            return f"{text} The file's MTP layers are not used, as was asked."
        text += (
            " The file names layers for multi-token prediction, and has no tensors of them."
            if claimed
            else " No drafter with a model of its own is in the file or beside it."
        )
    return text


def _tokens(count: int | None) -> str:
    return f"{count} token{'s' * (count != 1)}"


def _size(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / MIB:.0f} MiB"


def _listed(counts: Sequence[int]) -> str:
    return " and ".join(map(str, counts)) if len(counts) == 2 else ", ".join(map(str, counts))
