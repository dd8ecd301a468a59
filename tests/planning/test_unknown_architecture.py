"""Architectures that no formula is known for, as the engine has them."""

from collections.abc import Sequence
from functools import partial

import pytest
from msgspec.structs import replace
from tests.planning.hollow import hollow

from paceline.engines.llama_cpp_build import build
from paceline.paths import cache_directory
from paceline.planning.devices import Device
from paceline.planning.dry_run import DeviceUse, DryRun, Part, dry_run
from paceline.planning.memory import Settings, cache_bytes, state_bytes, token_bytes
from paceline.planning.unknown_architecture import asked_architecture

MIB = 1 << 20


def test_what_grows_and_what_does_not() -> None:
    def judge(words: Sequence[str], devices: Sequence[Device]) -> DryRun:
        tokens = int(words[words.index("--ctx-size") + 1])
        use = DeviceUse("CUDA0", 0, 0, 0, 100 * MIB + tokens * 4096, 0)
        return DryRun(1, None, (Part("target", None, (use, DeviceUse("host", 0, 0, 0, 0, 0))),))

    model = replace(hollow("qwen35"), architecture=None)
    asked = asked_architecture(model, judge)
    assert asked.kind == "unknown"
    assert len(asked.layers) == 8
    assert token_bytes(asked, Settings(context_tokens=1)) == 4096
    assert state_bytes(asked) == 100 * MIB
    assert not asked.may_split_tensors


@pytest.mark.engines
@pytest.mark.parametrize("name", ["gpt-oss-120b", "Qwen3.6-27B-Q4_K", "DeepSeek-V3-Q4_K", "DeepSeek-V4-Flash"])
def test_it_is_right_for_those_that_are_known(name: str) -> None:
    judge = partial(dry_run, build(cache_directory()).dry_run)
    known = hollow(name)
    asked = asked_architecture(replace(known, architecture=None), judge)
    settings = Settings(context_tokens=131072)
    assert known.architecture is not None
    true = sum(cache_bytes(layer, known.architecture, settings) for layer in known.architecture.layers)
    assert sum(cache_bytes(layer, asked, settings) for layer in asked.layers) == pytest.approx(true, rel=0.01)
