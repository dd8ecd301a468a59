"""Fits to the buffers that llama.cpp's planner asks for (dry runs of b11434, MiB)."""

import pytest
from tests.planning.hollow import hollow

from paceline.planning.compute_buffers import compute_buffers
from paceline.planning.memory import CacheType, Placement, Settings

MIB = 1 << 20


@pytest.mark.parametrize(
    ("name", "tokens", "cache_type", "batch", "slots", "cards", "expected", "host", "allowed"),
    [
        ("Llama-3.3-70B-Q4_K", 131072, "f16", 512, 1, 1, [344], 160, 0.01),
        ("Llama-3.3-70B-Q4_K", 131072, "f16", 128, 1, 1, [86], 40, 0.01),
        ("Llama-3.3-70B-Q4_K", 131072, "q8_0", 512, 1, 2, [1152, 1216], 592, 0.01),
        ("Llama-3.3-70B-Q4_K", 131072, "f16", 512, 4, 1, [248], 64, 0.01),
        ("gpt-oss-120b", 131072, "f16", 512, 1, 2, [624, 647], 543, 0.04),
        ("DeepSeek-V3-Q4_K", 131072, "q8_0", 512, 1, 2, [1218, 1274], 582, 0.01),
        ("DeepSeek-V3.2-Q4_K", 131072, "f16", 512, 1, 2, [1854, 1890], 1094, 0.05),
        ("Qwen3.6-27B-Q4_K", 524288, "q8_0", 512, 1, 2, [4217, 4257], 2099, 0.01),
        ("Qwen3.6-35B-A3B-Q4_K", 131072, "f16", 512, 1, 1, [196], 136, 0.01),
        ("DeepSeek-V4-Flash", 524288, "f16", 512, 1, 2, [1826, 2050], 1083, 0.05),
    ],
)
def test_buffers(
    name: str,
    tokens: int,
    cache_type: CacheType,
    batch: int,
    slots: int,
    cards: int,
    expected: list[int],
    host: int,
    allowed: float,
) -> None:
    model = hollow(name)
    assert model.architecture is not None
    blocks = model.header.own_number("block_count") + 1
    places = tuple(at * cards // blocks for at in range(blocks))
    wanted = Settings(context_tokens=tokens, slots=slots, key_type=cache_type, value_type=cache_type, micro_batch=batch)
    found = compute_buffers(model, wanted, Placement(layers=places, devices=cards), model.architecture)
    assert [size / MIB for size in found.devices] == pytest.approx(expected, rel=allowed)
    assert found.host / MIB == pytest.approx(host, rel=allowed)


def test_a_copy_of_experts_that_are_on_the_host() -> None:
    """And no copies of inputs, which cards that take turns have otherwise."""
    model, wanted = hollow("gpt-oss-120b"), Settings(context_tokens=131072)
    assert model.architecture is not None
    places = (0,) * 27 + (1,) * 10
    placement = Placement(layers=places, devices=2, host_experts=20)
    found = compute_buffers(model, wanted, placement, model.architecture)
    assert [size / MIB for size in found.devices] == pytest.approx([731, 208], rel=0.15)


def test_a_card_without_layers_needs_none() -> None:
    model, wanted = hollow("llama"), Settings(context_tokens=4096)
    assert model.architecture is not None
    found = compute_buffers(model, wanted, Placement(layers=(0,) * 5, devices=2), model.architecture)
    assert found.devices[1] == 0
