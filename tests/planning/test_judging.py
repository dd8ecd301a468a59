"""The engine's figures in place of the formulas'."""

import pytest
from tests.planning.hollow import hollow

from paceline.planning.dry_run import DeviceUse, DryRun, Part
from paceline.planning.judging import difference, measured
from paceline.planning.memory import Placement, Settings, Use
from paceline.planning.placing import Layout, by_tensor

GIB, MIB = 1 << 30, 1 << 20
HOST = DeviceUse("host", 0, 0, 5, 6, 7)


def answer(*target: DeviceUse, drafter: tuple[DeviceUse, ...] = ()) -> DryRun:
    parts = [Part("target", None, (*target, HOST))]
    if drafter:
        parts.append(Part("drafter", None, (*drafter, HOST)))
    return DryRun(1, None, tuple(parts))


def test_weights_of_layers_that_draft_are_the_drafters() -> None:
    model = hollow("qwen35")
    layout = Layout(Placement(layers=(0,) * 10, devices=1), (Use(),), Use())
    mtp = sum(layer.shared for layer in model.layers[8:])
    told = answer(DeviceUse("CUDA0", 0, 0, 1000 + mtp, 20, 3), drafter=(DeviceUse("CUDA0", 0, 0, 0, 40, 50),))
    found = measured(layout, told, model, loads_mtp=True)
    assert found.devices == (Use(weights=1000, cache=20, compute=3, drafter=mtp + 90),)
    assert found.host == Use(weights=5, cache=6, compute=7, drafter=18)


def test_sums_of_split_tensors_are_shared_out() -> None:
    """What the engine takes beyond the formulas, half on each; its buffers are as large on both."""
    model, wanted = hollow("Llama-3.3-70B-Q4_K"), Settings(context_tokens=8192)
    layout = by_tensor(model, wanted, [40 * GIB] * 2)
    weights = model.output_bytes + sum(layer.shared for layer in model.layers)
    cache = sum(use.cache for use in layout.devices)
    told = answer(DeviceUse("Meta()", 0, 0, weights + 100 * MIB, cache + 50 * MIB, 300 * MIB))
    found = measured(layout, told, model, loads_mtp=False)
    for before, after in zip(layout.devices, found.devices, strict=True):
        assert after.weights - before.weights == 50 * MIB
        assert after.cache - before.cache == 25 * MIB
        assert after.compute == 300 * MIB


def test_differences_are_over_what_a_device_holds() -> None:
    placement = Placement(layers=(0, 1), devices=2)
    planned = Layout(placement, (Use(weights=10 * GIB), Use(weights=100 * MIB)), Use())
    actual = Layout(placement, (Use(weights=10 * GIB + 512 * MIB), Use(weights=120 * MIB)), Use())
    assert difference(planned, actual) == pytest.approx(0.5 / 10.5)
    assert difference(actual, actual) == 0
