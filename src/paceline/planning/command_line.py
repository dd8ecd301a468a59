"""The flags of llama.cpp's server that a layout is reached with."""

from msgspec import Struct

from paceline.engines.llama_cpp_flags import LoadedDrafter
from paceline.planning.architectures import Architecture
from paceline.planning.devices import Machine
from paceline.planning.drafters import FoundDrafter
from paceline.planning.memory import HOST, checkpoint_bytes
from paceline.planning.search import HOST_MARGIN_BYTES, MICRO_BATCH, Found
from paceline.types import Strategy

ALL_LAYERS = 999
MIB = 1 << 20
NGRAM_TOKENS, NGRAM_MATCH = 12, 4
"""Of lookup: tokens drafted, and that have to match before; the best of those tried in docs/decisions/0004."""
CHECKPOINTS, CHECKPOINT_SHARE = 32, 0.25
"""Copies of a sequence's state that the server keeps on the host by default, and what they may take of the memory that
the host has left."""
PROMPT_CACHE_MIB, PROMPT_CACHE_SHARE = 8_192, 0.5
"""The server's own limit for prompts that it keeps on the host, and what it may take of what is left after those."""
NEARLY = 0.9
"""Of that limit: a little less is not worth a flag."""


class HostCaches(Struct, frozen=True):
    """What the server keeps on the host beside what it needs.

    Args:
        checkpoints: of each slot; ``None`` where the server makes none.
        checkpoint_bytes: of one.
    """

    checkpoints: int | None
    checkpoint_bytes: int
    prompt_cache_mib: int


def host_caches(found: Found, architecture: Architecture, machine: Machine) -> HostCaches:
    """As much as the host has room for, and no more than the server's own limits."""
    size = checkpoint_bytes(architecture, found.settings) if architecture.makes_checkpoints else 0
    host = machine.host_memory_bytes
    if host is None:
        return HostCaches(CHECKPOINTS if size else None, size, PROMPT_CACHE_MIB)
    left = host - HOST_MARGIN_BYTES - found.layout.host.total
    if machine.is_unified:
        left -= found.device_bytes
    left = max(0, left)
    checkpoints = None
    if size:
        of_all_slots = size * found.settings.slots
        checkpoints = min(CHECKPOINTS, int(left * CHECKPOINT_SHARE) // of_all_slots)
        left -= checkpoints * of_all_slots
    prompt_cache = int(left * PROMPT_CACHE_SHARE) // MIB
    return HostCaches(checkpoints, size, prompt_cache if prompt_cache < NEARLY * PROMPT_CACHE_MIB else PROMPT_CACHE_MIB)


def flags(found: Found, machine: Machine, caches: HostCaches) -> tuple[str, ...]:
    """Without those that name the model, and without those that load drafters."""
    settings, candidate, placement = found.settings, found.candidate, found.layout.placement
    words = ["--ctx-size", str(settings.context_tokens), "--parallel", str(settings.slots), "--no-kv-unified"]
    if candidate.used:
        layers = ALL_LAYERS if HOST not in placement.layers else sum(place != HOST for place in placement.layers)
        words += ["--n-gpu-layers", str(layers), "--flash-attn", "on", "--split-mode", candidate.split]
        if len(candidate.used) > 1:
            shares = placement.layer_counts if candidate.split == "layer" else (1,) * len(candidate.used)
            words += ["--tensor-split", ",".join(map(str, shares))]
        elif len(machine.devices) > 1:
            words += ["--main-gpu", str(candidate.used[0])]
        if placement.host_experts:
            words += ["--n-cpu-moe", str(placement.host_experts)]
        words += ["--fit", "off"]
    if settings.key_type != "f16":
        words += ["--cache-type-k", settings.key_type, "--cache-type-v", settings.value_type]
    if candidate.with_draft_model:
        words += ["--spec-draft-type-k", "q8_0", "--spec-draft-type-v", "q8_0"]
    elif candidate.with_mtp and settings.draft_key_type != "f16":
        words += ["--spec-draft-type-k", settings.draft_key_type, "--spec-draft-type-v", settings.draft_value_type]
    if settings.micro_batch != MICRO_BATCH:
        words += ["--ubatch-size", str(settings.micro_batch)]
    if caches.checkpoints is not None and caches.checkpoints < CHECKPOINTS:
        words += ["--ctx-checkpoints", str(caches.checkpoints)]
    if caches.prompt_cache_mib < PROMPT_CACHE_MIB:
        words += ["--cache-ram", str(caches.prompt_cache_mib)]
    return tuple(words)


def for_dry_run(words: tuple[str, ...]) -> list[str]:
    """The same on a machine that has only the devices that are used."""
    at = words.index("--main-gpu") if "--main-gpu" in words else len(words)
    return [*words[:at], *words[at + 2 :]]


def drafters(
    found: Found, architecture: Architecture, drafter: FoundDrafter | None, draft_tokens: int
) -> tuple[LoadedDrafter, ...]:
    """Lookup, and the drafter with a model of its own. Where states are kept for the tokens of that one's drafts,
    longer lookups would cost a checkpoint each."""
    snapshots = found.settings.draft_tokens if architecture.rolls_back else 0
    lookup = min(NGRAM_TOKENS, snapshots) if snapshots else NGRAM_TOKENS
    loaded = [LoadedDrafter(Strategy("ngram", lookup), match_tokens=NGRAM_MATCH)]
    if drafter is not None and (found.candidate.with_mtp or found.candidate.with_draft_model):
        loaded.append(LoadedDrafter(Strategy(drafter.kind, draft_tokens), model=drafter.file))
    return tuple(loaded)
