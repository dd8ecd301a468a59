"""The engines that serve one model in every way that there is a drafter for."""

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from paceline.configuration import EngineSettings
from paceline.planning.drafters import FoundDrafter
from paceline.planning.gguf import Header

NGRAM_SIZE, NGRAM_DRAFT = 4, 12
"""Tokens that have to match, and tokens drafted then: the best of those tried in docs/decisions/0004."""
SPEC_TYPES = {"ngram": "ngram-simple", "draft": "draft-simple", "eagle3": "draft-eagle3", "mtp": "draft-mtp"}

AGENTS_CONTEXT_TOKENS = 16_384
"""First requests of coding agents have 8,000 to 20,000 tokens with the tools that they offer."""
LARGE_MODEL_BYTES = 4_000_000_000
LARGE_MODEL_CONTEXT_TOKENS = 8_192
"""For models above that size, whose caches are larger, too."""
MIN_CONTEXT_TOKENS = 4_096
MAX_CACHE_SHARE = 0.25
"""Of the memory that can be had, for the key-value caches of all engines."""
CACHE_VALUE_BYTES = 2
"""llama.cpp's caches are of F16 unless it is told otherwise."""


class Wanted(Struct, frozen=True):
    """How a model is to be served."""

    model: Path
    alias: str
    program: str
    """A ``llama-server``, or the embedded engine's name."""
    slots: int
    context_tokens: int
    """Of each slot."""
    threads: int | None = None
    """Threads it computes with; ``None`` leaves that to the engine."""
    flags: tuple[str, ...] = ()
    """Further ones for the engine's command line; where they repeat one of Paceline's, the engine takes the later."""
    device: str = "cpu"


def one_engine(wanted: Wanted, drafter: FoundDrafter | None) -> EngineSettings:
    """One engine with all drafters loaded, which takes its strategy from each request."""
    kinds = ["ngram", *([drafter.kind] if drafter else [])]
    flags = [*_ngram_flags(), *_draft_flags(drafter)]
    return EngineSettings(
        "llama",
        "llama.cpp",
        launch=(*_command(wanted), "--spec-type", ",".join(SPEC_TYPES[kind] for kind in kinds), *flags),
        strategy="ngram",
        n_max=NGRAM_DRAFT,
        device=wanted.device,
    )


def an_engine_each(wanted: Wanted, drafter: FoundDrafter | None) -> tuple[EngineSettings, ...]:
    """An engine for each way, whose processes map the same pages of the file."""
    common = _command(wanted)
    engines = [
        EngineSettings("plain", "llama.cpp", launch=common, device=wanted.device),
        EngineSettings(
            "ngram",
            "llama.cpp",
            launch=(*common, "--spec-type", SPEC_TYPES["ngram"], *_ngram_flags()),
            strategy="ngram",
            n_max=NGRAM_DRAFT,
            device=wanted.device,
        ),
    ]
    if drafter:
        engines.append(
            EngineSettings(
                drafter.kind,
                "llama.cpp",
                launch=(*common, "--spec-type", SPEC_TYPES[drafter.kind], *_draft_flags(drafter)),
                strategy=drafter.kind,
                n_max=drafter.n_max,
                device=wanted.device,
            )
        )
    return tuple(engines)


def context_for(header: Header, model_bytes: int, sequences: int, memory_bytes: int | None) -> tuple[int, str]:
    """Tokens of context for each slot where nobody says how many, and why so many: what agents need, but no more than
    the model was trained for, nor than there is memory for.

    Args:
        model_bytes: of all weights.
        sequences: slots of all engines together; each has a cache of its own.
        memory_bytes: that can be had; ``None`` where that is not known.
    """
    tokens, why = AGENTS_CONTEXT_TOKENS, "agents send so much"
    if model_bytes > LARGE_MODEL_BYTES:
        tokens, why = LARGE_MODEL_CONTEXT_TOKENS, f"the model has {model_bytes / 1e9:.0f} GB"
    trained = header.own_number("context_length")
    if 0 < trained <= tokens:
        tokens, why = trained, "the model was made for no more"
    per_token = _cache_bytes(header) * sequences
    if memory_bytes is not None:
        while tokens > MIN_CONTEXT_TOKENS and tokens * per_token > MAX_CACHE_SHARE * memory_bytes:
            tokens = max(MIN_CONTEXT_TOKENS, tokens // 2)
            why = f"{memory_bytes / 1e9:.1f} GB of memory are free"
    return tokens, why


def _cache_bytes(header: Header) -> int:
    """Of one token of one sequence, if all layers keep a cache of their own: no model has more. 0 where the file does
    not say."""
    layers, heads = header.own_number("block_count"), header.own_number("attention.head_count")
    width = header.own_number("embedding_length") // heads if heads else 0
    kept = header.own_number("attention.head_count_kv") or heads
    keys = header.own_number("attention.key_length") or width
    values = header.own_number("attention.value_length") or width
    return layers * kept * (keys + values) * CACHE_VALUE_BYTES


def _command(wanted: Wanted) -> tuple[str, ...]:
    return (
        *(wanted.program, "--model", str(wanted.model), "--alias", wanted.alias, "--port", "{port}"),
        *("--parallel", str(wanted.slots), "--ctx-size", str(wanted.slots * wanted.context_tokens)),
        *(("--threads", str(wanted.threads)) if wanted.threads else ()),
        *wanted.flags,
    )


def _ngram_flags() -> Sequence[str]:
    return (
        *("--spec-ngram-simple-size-n", str(NGRAM_SIZE)),
        *("--spec-ngram-simple-size-m", str(NGRAM_DRAFT)),
    )


def _draft_flags(drafter: FoundDrafter | None) -> Sequence[str]:
    if drafter is None:
        return ()
    own = ("--spec-draft-model", str(drafter.file)) if drafter.file else ()
    return (*own, "--spec-draft-n-max", str(drafter.n_max))
