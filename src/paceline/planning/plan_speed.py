"""How fast a plan will be, in sentences: what is predicted, from what, and what is not."""

from collections.abc import Iterator
from math import prod

from paceline.planning.architectures import layer_of
from paceline.planning.devices import Machine
from paceline.planning.memory import EXPERTS, HOST, INPUT_TENSORS, Model
from paceline.planning.plan import Plan
from paceline.planning.speed import NotPredicted, Predicted, Step, decode_speed, prefill_seconds


def speed_sentences(plan: Plan, model: Model, machine: Machine) -> Iterator[str]:
    """Decoding of one request at the beginning and at the plan's whole context, and the time to its first token."""
    used = [machine.devices[at] for at in plan.used_devices]
    if not used:
        yield "Speed: not predicted for processors; `paceline calibrate` measures it."
        return
    cards = Machine(devices=tuple(used))
    shallow, deep = (decode_speed(_step(plan, model, is_deep), cards, plan.split) for is_deep in (False, True))
    if isinstance(shallow, NotPredicted):
        yield f"Speed: {shallow.why}."
    else:
        yield f"Speed: {_range(shallow)} tokens/s for one request that does not draft ({shallow.how})."
        if isinstance(deep, Predicted):
            yield f"At {plan.context_tokens:,} tokens: {_range(deep)} tokens/s."
    if plan.placement.host_experts or HOST in plan.placement.layers:
        yield "The first token is not predicted: prompts are read with weights that are copied from the host."
        return
    prefill = prefill_seconds(plan.context_tokens, _parameters(model), _attention_width(model), cards, plan.split)
    if isinstance(prefill, Predicted):
        yield f"First token of a prompt of {plan.context_tokens:,} tokens: after {_range(prefill)} s ({prefill.how})."
    else:
        yield f"{prefill.why[:1].upper()}{prefill.why[1:]}."


def _range(predicted: Predicted) -> str:
    return f"{predicted.low:.0f} to {predicted.high:.0f}"


def _step(plan: Plan, model: Model, is_deep: bool) -> Step:
    """What one token reads: of each device its layers, of experts those that work."""
    placement = plan.placement
    share = model.experts_used / model.expert_count if model.expert_count else 0.0
    reads = [0] * placement.devices
    host = 0
    for index, place in enumerate(placement.layers):
        if index == len(placement.layers) - 1:
            size, experts = model.output_bytes, 0
        elif index < model.trunk_count:
            size, experts = model.layers[index].shared, round(model.layers[index].experts * share)
        else:
            continue
        if placement.is_by_tensor:
            reads = [read + (size + experts) // placement.devices for read in reads]
            continue
        if index < placement.host_experts:
            host += experts
            experts = 0
        if place < 0:
            host += size + experts
        else:
            reads[place] += size + experts
    caches = tuple(budget.use.cache // plan.settings.slots for budget in plan.devices)
    return Step(
        weight_bytes=tuple(reads),
        host_bytes=host,
        cache_bytes=caches if is_deep else (),
        cache_type=plan.settings.key_type,
        architecture=plan.architecture,
        has_experts=model.expert_count > 0,
    )


def _parameters(model: Model) -> float:
    """That each token is multiplied with."""
    share = model.experts_used / model.expert_count if model.expert_count else 0.0
    total = 0.0
    for header in model.headers:
        for tensor in header.tensors:
            layer = layer_of(tensor)
            if tensor.name.startswith(INPUT_TENSORS) or (layer is not None and layer >= model.trunk_count):
                continue
            total += prod(tensor.shape) * (share if EXPERTS.match(tensor.name) else 1)
    return total


def _attention_width(model: Model) -> float:
    """Heads times their width, over the layers that attend to everything."""
    header, architecture = model.header, model.architecture
    if architecture is None:
        return 0.0
    heads = max(header.own_numbers("attention.head_count"), default=header.own_number("attention.head_count"))
    width = header.own_number("attention.key_length_mla") or header.own_number("attention.key_length")
    width = width or (header.own_number("embedding_length") // heads if heads else 0)
    layers = sum(any(not cache.is_window for cache in layer.caches) for layer in architecture.layers)
    return float(layers * heads * width)
