"""The engines that serve one model in every way that there is a drafter for."""

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from paceline.configuration import EngineSettings
from paceline.planning.drafters import FoundDrafter

NGRAM_SIZE, NGRAM_DRAFT = 4, 12
"""Tokens that have to match, and tokens drafted then: the best of those tried in docs/decisions/0004."""
SPEC_TYPES = {"ngram": "ngram-simple", "draft": "draft-simple", "eagle3": "draft-eagle3", "mtp": "draft-mtp"}


class Wanted(Struct, frozen=True):
    """How a model is to be served."""

    model: Path
    alias: str
    program: str
    """A ``llama-server``, or the embedded engine's name."""
    slots: int
    context_tokens: int
    """Of each slot."""
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


def _command(wanted: Wanted) -> tuple[str, ...]:
    return (
        *(wanted.program, "--model", str(wanted.model), "--alias", wanted.alias, "--port", "{port}"),
        *("--parallel", str(wanted.slots), "--ctx-size", str(wanted.slots * wanted.context_tokens)),
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
