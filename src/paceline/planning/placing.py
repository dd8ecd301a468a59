"""Which layer goes on which device, and what each device then holds."""

from collections.abc import Callable, Sequence

from msgspec import Struct

from paceline.planning.architectures import Architecture
from paceline.planning.compute_buffers import compute_buffers
from paceline.planning.devices import Device
from paceline.planning.memory import (
    HOST,
    Model,
    Placement,
    Settings,
    Use,
    cache_bytes,
    mtp_cache_bytes,
)

MIB = 1 << 20
CONTEXT_BYTES = 350 * MIB
"""What a driver takes of each card for a process, kernels and work space of its libraries: 311 to 346 MiB were left
over of public reports (sudoingX/qwen38-mtp)."""
MARGIN_BYTES = 512 * MIB
"""Left free of each device; llama.cpp's own ``--fit`` leaves twice that, and does not count the driver's."""
FAST_ENOUGH = 0.77
"""Of the fastest card's bandwidth: slower ones get layers only once the fast ones are full. RTX 4090 and 3090, which
people pair, are closer than that; a 3060 is not. Set by hand."""
SEARCH_STEPS = 24
"""Of a bisection of shares: to a millionth of a card."""


ROUNDS = 3
"""Of laying out layers and what is beside them in turn; the third changes hardly anything."""


class DraftModel(Struct, frozen=True):
    """A drafter with a file of its own, and what it is loaded with."""

    model: Model
    settings: Settings


class Layout(Struct, frozen=True):
    """Layers in their places, and what that takes."""

    placement: Placement
    devices: tuple[Use, ...]
    host: Use
    over: int = 0
    """Bytes by which the fullest device is over what it may hold; 0 where all fit."""


def budget_bytes(device: Device) -> int:
    """What a plan may put on a device."""
    return max(0, device.free_bytes - CONTEXT_BYTES - MARGIN_BYTES)


def laid_out(
    model: Model,
    settings: Settings,
    placement: Placement,
    draft: DraftModel | None = None,
    layers: Sequence[Use] | None = None,
) -> tuple[tuple[Use, ...], Use]:
    """What each device holds, and the host.

    Args:
        layers: what :func:`layer_uses` gives for the same, where it is known already.
    """
    architecture = model.architecture
    if layers is None:
        layers = layer_uses(model, settings, placement.host_experts)
    devices = [Use() for _ in range(placement.devices)]
    host = Use(weights=model.input_bytes)
    # 1. Weights and caches, layer by layer.
    for index, place in enumerate(placement.layers):
        use = layers[index]
        experts = model.layers[index].experts if index < placement.host_experts and index < len(model.layers) else 0
        if placement.is_by_tensor:
            for device in range(placement.devices):
                devices[device] += _part(use, model, settings, index, placement.devices)
        elif place == HOST:
            is_output = index == len(placement.layers) - 1
            host += use + Use(weights=-model.tied_bytes if is_output else 0)
        else:
            devices[place] += use
        host += Use(weights=experts)
    # 2. What is computed with.
    if architecture is not None:
        compute = compute_buffers(model, settings, placement, architecture)
        devices = [use + Use(compute=size) for use, size in zip(devices, compute.devices, strict=True)]
        host += Use(compute=compute.host)
        if settings.loads_mtp:
            drafting = compute_buffers(model, settings, placement, architecture, is_drafter=True)
            last = placement.layers[model.trunk_count]
            for device in range(placement.devices):
                if device == last or placement.is_by_tensor:
                    devices[device] += Use(drafter=drafting.devices[device])
            host += Use(drafter=drafting.host)
    # 3. A drafter of its own is cut in the same proportions.
    if draft is not None:
        cut = proportional(placement, draft.model)
        drafter_devices, drafter_host = laid_out(draft.model, draft.settings, cut)
        devices = [use + Use(drafter=own.total) for use, own in zip(devices, drafter_devices, strict=True)]
        host += Use(drafter=drafter_host.total)
    return tuple(devices), host


def by_layer(
    model: Model,
    settings: Settings,
    devices: Sequence[Device],
    capacities: Sequence[int],
    host_experts: int = 0,
    host_layers: int = 0,
    draft: DraftModel | None = None,
    prefers_fast: bool = False,
) -> Layout:
    """Whole layers, in order: cards as full as one another as far as they fit, or with ``prefers_fast`` the fastest
    ones first.

    Args:
        capacities: bytes that may be put on each device.
        host_layers: so many first layers are on the host.
    """
    fast = max((device.bandwidth_bytes_per_s or 0 for device in devices), default=0)
    is_fast = [(device.bandwidth_bytes_per_s or fast) >= FAST_ENOUGH * fast for device in devices]
    all_alike = all(is_fast) or not prefers_fast
    layers = layer_uses(model, settings, host_experts)

    def placed(places: Sequence[int]) -> Layout:
        placement = Placement(layers=tuple(places), devices=len(devices), host_experts=host_experts)
        uses, host = laid_out(model, settings, placement, draft, layers)
        return Layout(placement, uses, host, _over(uses, capacities))

    def with_share(share: float) -> tuple[Layout, bool]:
        filled = [
            capacity if quick and not all_alike else capacity * share
            for capacity, quick in zip(capacities, is_fast, strict=True)
        ]
        layout = _filled(layers, filled, host_layers, placed)
        return layout, all(use.total <= most for use, most in zip(layout.devices, filled, strict=True))

    if all_alike and (layout := _even(layers, capacities, host_layers, placed)).over == 0:
        return layout
    best, is_within = with_share(1.0)
    low, high = 0.0, 1.0
    for _ in range(SEARCH_STEPS if is_within else 0):
        share = (low + high) / 2
        layout, is_within = with_share(share)
        if is_within:
            high, best = share, layout
        else:
            low = share
    return best


def by_tensor(model: Model, settings: Settings, capacities: Sequence[int], draft: DraftModel | None = None) -> Layout:
    """A part of each tensor on each card."""
    count = len(capacities)
    layers = model.header.own_number("block_count") + 1
    placement = Placement(layers=(0,) * layers, devices=count, is_by_tensor=True)
    devices, host = laid_out(model, settings, placement, draft)
    return Layout(placement, devices, host, _over(devices, capacities))


def proportional(placement: Placement, model: Model) -> Placement:
    """Another model's layers, cut as ``--tensor-split`` has these: llama.cpp gives a drafter the same."""
    count = model.header.own_number("block_count") + 1
    if placement.is_by_tensor:
        return Placement(layers=(0,) * count, devices=placement.devices, is_by_tensor=True)
    shares = placement.layer_counts
    total, ends, end = sum(shares), [], 0
    for share in shares:
        end += share
        ends.append(end)
    if not total:
        return Placement(layers=(HOST,) * count, devices=placement.devices)
    layers = tuple(next(d for d, end in enumerate(ends) if layer * total < end * count) for layer in range(count))
    return Placement(layers=layers, devices=placement.devices)


def layer_uses(model: Model, settings: Settings, host_experts: int) -> list[Use]:
    """What goes where each layer goes; the output's stands last."""
    blocks = model.header.own_number("block_count")
    return [*(_layer(model, settings, index, host_experts) for index in range(blocks)), Use(weights=model.output_bytes)]


def _layer(model: Model, settings: Settings, index: int, host_experts: int) -> Use:
    if index >= len(model.layers):
        return Use()  # counted by the file, and not in it
    weights = model.layers[index]
    size = weights.shared + (0 if index < host_experts else weights.experts)
    architecture = model.architecture
    if index >= model.trunk_count:
        if not settings.loads_mtp:
            return Use()
        kept = architecture.mtp_layers[index - model.trunk_count] if architecture else None
        cache = mtp_cache_bytes(kept, architecture, settings) if kept and architecture else 0
        return Use(drafter=size + cache)
    cache = cache_bytes(architecture.layers[index], architecture, settings) if architecture else 0
    return Use(weights=size, cache=cache)


def _part(use: Use, model: Model, settings: Settings, index: int, count: int) -> Use:
    """One card's part of a layer that all cards share: what can't be cut is on each of them."""
    mirrored = model.layers[index].mirrored if index < len(model.layers) else model.mirrored_output_bytes
    architecture: Architecture | None = model.architecture
    cache = use.cache if architecture is not None and architecture.mirrors_cache else -(-use.cache // count)
    if use.drafter:
        return Use(drafter=mirrored + -(-(use.drafter - mirrored) // count))
    return Use(weights=mirrored + -(-(use.weights - mirrored) // count), cache=cache)


Placed = Callable[[Sequence[int]], Layout]
"""Lays out layers in given places."""


def _even(layers: Sequence[Use], capacities: Sequence[int], host_layers: int, placed: Placed) -> Layout:
    """Each device with its share of all layers, to the nearest layer."""
    count, sizes = len(capacities), [use.total for use in layers[host_layers:]]
    total, room = sum(sizes), max(1, sum(capacities))
    ends = [total * sum(capacities[: at + 1]) / room for at in range(count)]
    places, held, device = [HOST] * host_layers, 0, 0
    for size in sizes:
        while device < count - 1 and held + size / 2 > ends[device]:
            device += 1
        places.append(device if count else HOST)
        held += size
    return placed(places)


def _filled(layers: Sequence[Use], filled: Sequence[float], host_layers: int, placed: Placed) -> Layout:
    """Layers in order onto devices, to the given fill. What is beside the layers follows from where they are, and the
    other way round, so it is done again with what the last round found."""
    count, sizes = len(filled), [use.total for use in layers]
    beside = [0] * count
    for _ in range(ROUNDS):
        places, device, held = [HOST] * host_layers, 0, 0
        for size in sizes[host_layers:]:
            while device < count - 1 and held + size + beside[device] > filled[device]:
                device, held = device + 1, 0
            places.append(device)
            held += size
        layout = placed(places)
        own = [0] * count
        for size, place in zip(sizes, places, strict=True):
            if place != HOST:
                own[place] += size
        found = [use.total - size for use, size in zip(layout.devices, own, strict=True)]
        # a device that has no layers yet will need about what the others do
        found = [size or max(found, default=0) for size in found]
        if found == beside:
            break
        beside = found
    return layout


def _over(devices: Sequence[Use], capacities: Sequence[int]) -> int:
    return max([0, *(use.total - capacity for use, capacity in zip(devices, capacities, strict=True))])
