"""The engines that serve one model in every way that there is a drafter for."""

from pathlib import Path
from typing import cast

from msgspec import Struct

from paceline.engines.llama_cpp import LlamaCppSettings
from paceline.engines.llama_cpp_flags import (
    ALIAS,
    CONTEXT,
    MODEL,
    PARALLEL,
    PORT,
    THREADS,
    LoadedDrafter,
    drafting_flags,
)
from paceline.planning.drafters import FoundDrafter
from paceline.planning.gguf import Header
from paceline.settings import StrategyKind
from paceline.types import Strategy

NGRAM = LoadedDrafter(Strategy("ngram", 12), match_tokens=4)
"""Tokens drafted, and tokens that have to match before: the best of those tried in docs/decisions/0004."""

AGENTS_CONTEXT_TOKENS = 16_384
"""First requests of coding agents have 8,000 to 20,000 tokens with the tools that they offer."""
LARGE_MODEL_BYTES = 4_000_000_000
"""Of weights; set by hand."""
LARGE_MODEL_CONTEXT_TOKENS = 8_192
"""For models above that size, whose caches are larger, too."""
MIN_CONTEXT_TOKENS = 4_096
"""However short memory is; set by hand."""
MAX_CACHE_SHARE = 0.25
"""Of the memory that can be had, for the key-value caches of all engines."""
CACHE_VALUE_BYTES = 2
"""llama.cpp's caches are of F16 unless it is told otherwise."""


class Wanted(Struct, frozen=True, kw_only=True):
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


def one_engine(wanted: Wanted, drafter: FoundDrafter | None) -> LlamaCppSettings:
    """One engine with all drafters loaded, which takes its strategy from each request; for a model that no plan fits
    (``planner.py``)."""
    drafters = [NGRAM, *([_loaded(drafter)] if drafter else [])]
    return _engine("llama", wanted, drafters, NGRAM.strategy)


def an_engine_each(wanted: Wanted, drafter: FoundDrafter | None) -> tuple[LlamaCppSettings, ...]:
    """An engine for each way, whose processes map the same pages of the file."""
    engines = [_engine("plain", wanted, [], Strategy()), _engine("ngram", wanted, [NGRAM], NGRAM.strategy)]
    if drafter:
        loaded = _loaded(drafter)
        engines.append(_engine(drafter.kind, wanted, [loaded], loaded.strategy))
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


def _engine(name: str, wanted: Wanted, drafters: list[LoadedDrafter], strategy: Strategy) -> LlamaCppSettings:
    command = [
        *(wanted.program, MODEL.name, str(wanted.model), ALIAS.name, wanted.alias, PORT.name, "{port}"),
        *(PARALLEL.name, str(wanted.slots), CONTEXT.name, str(wanted.slots * wanted.context_tokens)),
        *((THREADS.name, str(wanted.threads)) if wanted.threads else ()),
        *wanted.flags,
    ]
    return LlamaCppSettings(
        name=name,
        launch=(*command, *drafting_flags(drafters)),
        strategy=cast(StrategyKind, strategy.kind),
        n_max=strategy.n_max,
        device=wanted.device,
    )


def _loaded(drafter: FoundDrafter) -> LoadedDrafter:
    return LoadedDrafter(Strategy(drafter.kind, drafter.n_max), model=drafter.file)
