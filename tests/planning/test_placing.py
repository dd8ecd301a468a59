"""Which layer goes where."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.planning.hollow import hollow

from paceline.planning.devices import Device
from paceline.planning.memory import HOST, Placement, Settings
from paceline.planning.placing import by_layer, by_tensor, laid_out, proportional

GIB = 1 << 30
USUAL = Settings(context_tokens=32768)


def card(gib: float, gb_per_s: float | None = None) -> Device:
    speed = gb_per_s * 1e9 if gb_per_s else None
    size = int(gib * GIB)
    return Device(name="a card", backend="cuda", memory_bytes=size, free_bytes=size, bandwidth_bytes_per_s=speed)


def test_equal_cards_are_equally_full() -> None:
    model = hollow("Llama-3.3-70B-Q4_K")
    layout = by_layer(model, USUAL, [card(32)] * 4, [31 * GIB] * 4)
    assert layout.over == 0
    assert max(layout.placement.layer_counts) - min(layout.placement.layer_counts) <= 1
    assert sum(layout.placement.layer_counts) == 81


def test_cards_are_full_in_proportion() -> None:
    layout = by_layer(hollow("Llama-3.3-70B-Q4_K"), USUAL, [card(48), card(24)], [47 * GIB, 23 * GIB])
    large, small = layout.devices
    assert large.total / 47 == pytest.approx(small.total / 23, rel=0.05)


def test_fast_cards_come_first() -> None:
    cards = [card(24, 300), card(32, 1800)]
    layout = by_layer(hollow("Qwen3-32B-Q4_K"), USUAL, cards, [23 * GIB, 20 * GIB], prefers_fast=True)
    slow, fast = layout.devices
    assert layout.over == 0
    assert fast.total > 0.9 * 20 * GIB
    assert slow.total < 0.5 * 23 * GIB


def test_what_is_missing_is_told() -> None:
    layout = by_layer(hollow("Llama-3.3-70B-Q4_K"), USUAL, [card(24)] * 2, [23 * GIB] * 2)
    held = sum(use.total for use in layout.devices)
    assert layout.over > 0
    assert held - layout.over <= 46 * GIB


def test_without_a_card_all_is_on_the_host() -> None:
    model = hollow("Qwen3.6-27B-Q4_K")
    layout = by_layer(model, USUAL, (), (), host_layers=66)
    assert layout.devices == ()
    assert set(layout.placement.layers) == {HOST}
    loaded = model.weight_bytes - sum(layer.shared for layer in model.layers[64:])
    assert layout.host.weights == loaded


def test_split_tensors_are_halved_and_the_rest_is_on_both() -> None:
    model = hollow("Qwen3.6-27B-Q4_K")
    layout = by_tensor(model, USUAL, [23 * GIB] * 2)
    one, other = layout.devices
    whole = laid_out(model, USUAL, Placement(layers=(0,) * 66, devices=1))[0][0]
    assert one == other
    assert whole.weights < 2 * one.weights < 1.01 * whole.weights
    assert whole.cache <= 2 * one.cache <= whole.cache + 2 * 66
    assert by_tensor(model, USUAL, [GIB] * 2).over > 0


def test_a_draft_model_is_cut_in_the_same_proportions() -> None:
    placement = Placement(layers=(0,) * 20 + (1,) * 61, devices=2)
    cut = proportional(placement, hollow("gpt-oss-20b"))
    assert len(cut.layers) == 25
    assert cut.layer_counts == (7, 18)


@settings(max_examples=50)
@given(
    gib=st.lists(st.integers(4, 96), min_size=1, max_size=5),
    experts=st.integers(0, 36),
    tokens=st.sampled_from([4096, 131072]),
)
def test_every_layer_has_a_place_and_what_is_not_over_fits(gib: list[int], experts: int, tokens: int) -> None:
    model, wanted = hollow("gpt-oss-120b"), Settings(context_tokens=tokens)
    capacities = [size * GIB for size in gib]
    layout = by_layer(model, wanted, [card(size) for size in gib], capacities, host_experts=experts)
    assert len(layout.placement.layers) == 37
    assert list(layout.placement.layers) == sorted(layout.placement.layers)
    over = max(use.total - capacity for use, capacity in zip(layout.devices, capacities, strict=True))
    assert layout.over == max(0, over)
    weights = sum(use.weights for use in layout.devices) + layout.host.weights
    assert weights == model.weight_bytes
