"""llama.cpp's flags, written and read by one table."""

import itertools
from pathlib import Path
from typing import get_args

import pytest

from paceline.engines.embedded import check as check_embedded
from paceline.engines.llama_cpp_flags import (
    CONTEXT,
    DRAFT_MODEL,
    DRAFT_N_MAX,
    FLAGS,
    MODEL,
    SPECULATIVE_TYPES,
    LoadedDrafter,
    drafters_of,
    drafting_flags,
    flag_values,
    kind_of,
    unknown_flags,
)
from paceline.settings import StrategyKind
from paceline.types import Strategy

DRAFTERS = [
    LoadedDrafter(
        Strategy(speculative_type.kind, 12 if speculative_type.n_max else None),
        match_tokens=4 if speculative_type.match else None,
        model=Path("/models/draft.gguf") if speculative_type.n_max is DRAFT_N_MAX else None,
    )
    for speculative_type in SPECULATIVE_TYPES
]


@pytest.mark.parametrize("drafter", DRAFTERS, ids=lambda drafter: drafter.strategy.kind)
def test_a_strategy_becomes_flags_and_is_read_from_them(drafter: LoadedDrafter) -> None:
    assert drafters_of(drafting_flags([drafter])) == (drafter,)
    by_default = LoadedDrafter(Strategy(drafter.strategy.kind))
    assert drafters_of(drafting_flags([by_default])) == (by_default,)
    words = ["llama-server", "-m", "m.gguf", *drafting_flags([drafter]), "--parallel", "2"]
    assert drafters_of(words) == (drafter,)


@pytest.mark.parametrize("drafters", list(itertools.combinations(DRAFTERS, 2)))
def test_two_drafters_are_loaded_together(drafters: tuple[LoadedDrafter, ...]) -> None:
    assert drafters_of(drafting_flags(drafters)) == drafters


def test_no_drafter_needs_no_flag() -> None:
    assert drafting_flags([]) == ()
    assert drafters_of(["-m", "m.gguf"]) == drafters_of(["--spec-type", "none"]) == ()


def test_what_llama_cpp_cannot_load_is_refused() -> None:
    mtp, draft = (LoadedDrafter(Strategy(kind, n_max)) for kind, n_max in (("mtp", 3), ("draft", 8)))
    with pytest.raises(ValueError, match="--spec-draft-n-max can't be both 3 and 8"):
        drafting_flags([mtp, draft])
    with pytest.raises(ValueError, match="no flag for 8 of ngram-cache"):
        drafting_flags([LoadedDrafter(Strategy("ngram-cache", 8))])
    with pytest.raises(ValueError, match="no drafter of kind 'autoregressive'"):
        drafting_flags([LoadedDrafter(Strategy())])


def test_every_kind_that_can_be_configured_is_a_drafter_of_llama_cpps() -> None:
    kinds = [speculative_type.kind for speculative_type in SPECULATIVE_TYPES]
    assert ["autoregressive", *kinds] == list(get_args(StrategyKind))
    assert [kind_of(speculative_type.name) for speculative_type in SPECULATIVE_TYPES] == kinds
    assert kind_of("draft-novel") == "draft-novel"


def test_flags_are_read_by_whatever_name_they_have() -> None:
    words = ["-m", "a.gguf", "--model-draft", "b.gguf", "--draft-max=8", "--ctx-size", "--verbose"]
    assert list(flag_values(words)) == [
        (MODEL, "a.gguf"),
        (DRAFT_MODEL, "b.gguf"),
        (DRAFT_N_MAX, "8"),
        (CONTEXT, "--verbose"),
    ]
    assert drafters_of(["--spec-type", "draft-simple", "--draft-max", "8", "-md", "b.gguf"]) == (
        LoadedDrafter(Strategy("draft", 8), model=Path("b.gguf")),
    )


def test_an_unknown_flag_is_named_with_what_the_build_calls_it() -> None:
    older, newer = {"-m", "--model", "--draft-max"}, {"-m", "--model", "--spec-draft-n-max"}
    assert unknown_flags(["-m", "x", "--spec-draft-n-max", "8"], older) == ["--spec-draft-n-max (it has --draft-max)"]
    assert unknown_flags(["-m", "x", "--draft-max", "-1"], newer) == ["--draft-max (it has --spec-draft-n-max)"]
    assert unknown_flags(["--modle", "x"], newer) == ["--modle (it has --model)"]
    assert unknown_flags(["--no-such"], []) == []


def test_no_name_is_two_flags() -> None:
    names = [name for flag in FLAGS for name in (*flag.names, *flag.former_names)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("drafter", DRAFTERS, ids=lambda drafter: drafter.strategy.kind)
def test_the_embedded_engine_takes_what_is_written(drafter: LoadedDrafter, tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.touch()
    on_disk = LoadedDrafter(drafter.strategy, drafter.match_tokens, drafter.model and file)
    check_embedded(["--model", str(file), "--port", "1", *drafting_flags([on_disk])])
