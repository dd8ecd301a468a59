"""The flags that a layout is reached with."""

from tests.planning.test_planner import planned

from paceline.engines.llama_cpp_flags import drafters_of
from paceline.planning.command_line import for_dry_run
from paceline.planning.plan import Wish


def test_the_dry_run_has_only_the_devices_that_are_used() -> None:
    plan = planned("Qwen3-32B-Q4_K", "RTX 3060 12GB, RTX 5090", Wish(context_tokens=8192))
    assert "--main-gpu" in plan.flags
    words = for_dry_run(plan.flags)
    assert "--main-gpu" not in words
    assert len(words) == len(plan.flags) - 2
    assert for_dry_run(("--ctx-size", "1")) == ["--ctx-size", "1"]


def test_llama_cpp_is_told_the_cut_by_layers_of_the_file() -> None:
    """MTP layers among them, whether they are loaded or not: it cuts by that number (llama-model.cpp)."""
    plan = planned("Qwen3.6-27B-Q4_K", "RTX 4090, RTX 3090", Wish(context_tokens=131072, cache_type="f16"))
    shares = plan.flags[plan.flags.index("--tensor-split") + 1].split(",")
    assert sum(map(int, shares)) == 64 + 1 + 1


def test_drafters_are_read_back() -> None:
    plan = planned("Qwen3.6-27B-Q4_K", "RTX 5090", Wish(context_tokens=32768))
    assert drafters_of(plan.engine_flags) == plan.drafters
