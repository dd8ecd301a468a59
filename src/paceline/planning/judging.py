"""The engine's own figures in place of the formulas', and how far the two are apart."""

from msgspec.structs import replace

from paceline.planning.dry_run import DeviceUse, DryRun
from paceline.planning.memory import Model, Use
from paceline.planning.placing import Layout

MIN_COMPARED_BYTES = 1 << 30
"""Differences are told in parts of at least this much: of a device that holds little, a few MiB are many percent."""


def measured(layout: Layout, answer: DryRun, model: Model, loads_mtp: bool) -> Layout:
    """A layout with what the dry run says of each device."""
    target, drafter = answer.target, answer.drafter
    if layout.placement.is_by_tensor:
        beside = drafter.devices[0] if drafter else None
        devices = tuple(_of_all(use, layout, target.devices[0], beside, model, loads_mtp) for use in layout.devices)
    else:
        devices = tuple(
            _use(own, drafter.devices[at] if drafter else None, _mtp_weights(layout, model, at) if loads_mtp else 0)
            for at, own in enumerate(target.cards)
        )
    return replace(layout, devices=devices, host=_use(target.host, drafter.host if drafter else None, 0), over=0)


def difference(planned: Layout, actual: Layout) -> float:
    """The largest of all devices, over what they hold."""
    pairs = zip(planned.devices, actual.devices, strict=True)
    return max(
        (abs(mine.total - its.total) / max(its.total, MIN_COMPARED_BYTES) for mine, its in pairs),
        default=abs(planned.host.total - actual.host.total) / max(actual.host.total, MIN_COMPARED_BYTES),
    )


def _use(own: DeviceUse, beside: DeviceUse | None, mtp_weights: int) -> Use:
    """The engine counts the weights of layers that draft as the target's."""
    return Use(
        weights=own.weights - mtp_weights,
        cache=own.context,
        compute=own.compute,
        drafter=mtp_weights + (beside.used if beside else 0),
    )


def _mtp_weights(layout: Layout, model: Model, device: int) -> int:
    return sum(
        model.layers[index].shared + model.layers[index].experts
        for index in range(model.trunk_count, len(model.layers))
        if layout.placement.layers[index] == device
    )


def _of_all(use: Use, layout: Layout, own: DeviceUse, beside: DeviceUse | None, model: Model, loads_mtp: bool) -> Use:
    """Of cards that split tensors, the engine tells sums, in which what each card has as a whole is there once; its
    buffers are as large on each card. So only what is missing from our own sums is shared out."""
    count = layout.placement.devices
    loaded = model.layers if loads_mtp else model.layers[: model.trunk_count]
    weights = sum(layer.shared + layer.experts for layer in loaded) + model.output_bytes
    cache = sum(each.cache for each in layout.devices)
    drafter = 0
    if beside is not None:
        drafting = model.layers[model.trunk_count :] if loads_mtp else ()
        parts = (layer.mirrored + (layer.shared + layer.experts - layer.mirrored) // count for layer in drafting)
        drafter = sum(parts) + (beside.weights + beside.context) // count + beside.compute
    return Use(
        weights=use.weights + max(0, own.weights - weights) // count,
        cache=use.cache + max(0, own.context - cache) // count,
        drafter=drafter,
        compute=own.compute,
    )
