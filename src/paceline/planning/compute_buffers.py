"""What llama.cpp's graph planner takes for intermediate results: fits to what it says itself (b11434, flash attention).

It lays buffers over one another, so that the widest step of a layer decides, with the inputs that live through the
whole graph beside it. How far the fits are off is in docs/planning.md; the dry run has the last word.
"""

from msgspec import Struct

from paceline.planning.architectures import Architecture, Cache
from paceline.planning.memory import PIPELINE_COPIES, Model, Placement, Settings, window_cells

VALUE_BYTES = 4
"""Of an intermediate result (F32)."""
MASK_BYTES = 2
"""Of the attention mask, by token of a micro-batch and cell (F16, as flash attention takes it)."""
F16_BYTES = 2
COMPRESSED_MASK_BYTES, COMPRESSED_SCORE_BYTES = 1.02, 2.15
"""Of DeepSeek-V4's masks, and of its indexer's scores and choices, by token of a micro-batch and token of context;
fitted."""
COMPRESSED_WIDTHS = 7.0
"""Widths of its hyper-connections that are held at once; fitted."""
LATENT_WIDTHS, LATENT_WIDTHS_QUANTIZED = 2.7, 3.55
"""Widths of all heads' queries that latent attention holds at once, with a cache of F16 and with another; fitted."""
SPARSE_WIDTHS = 5.0
"""The same with an indexer beside it; fitted."""


class Compute(Struct, frozen=True):
    """Bytes by device, and on the host."""

    devices: tuple[int, ...]
    host: int


class _Widths(Struct, frozen=True):
    """Values of a token, of the widest layer."""

    hidden: int
    queries: int
    feed_forward: int
    experts: int
    """Of all experts that work at once."""
    experts_used: int
    recurrent_inner: int
    recurrent_channels: int
    latent_queries: int
    """Of latent attention: queries of all heads in the latent's width."""
    hyper_connections: int


def compute_buffers(
    model: Model, settings: Settings, placement: Placement, architecture: Architecture, is_drafter: bool = False
) -> Compute:
    """What the target's context takes, or with ``is_drafter`` that of its layers for multi-token prediction."""
    widths, batch = _widths(model), settings.batch
    per_width = batch * VALUE_BYTES
    hidden = widths.hidden * per_width
    masks = _masks(architecture, settings)
    key_type = settings.draft_key_type if is_drafter else settings.key_type
    is_quantized = key_type != "f16"
    copied = _f16_copies(architecture, settings) if is_quantized else 0
    working = max(
        _feed_forward(widths) * per_width,
        _recurrent(widths) * per_width,
        _attention(widths, architecture, is_quantized) * per_width + copied,
    )
    if architecture.kind == "compressed":
        scores = COMPRESSED_SCORE_BYTES * settings.sequence_cells * batch
        working = round(COMPRESSED_WIDTHS * widths.hyper_connections * hidden + scores)
    copies = PIPELINE_COPIES if placement.is_pipeline else 1
    inputs = copies * (masks + (hidden if placement.is_pipeline else 0))
    last = placement.layers[-1] if placement.layers else -1
    devices = []
    for device in range(placement.devices):
        if not placement.is_by_tensor and device not in placement.layers:
            devices.append(0)
            continue
        size = inputs + working + _copied_experts(model, placement, device)
        if placement.is_pipeline and device == last:
            size += copies * hidden * (2 * widths.hyper_connections or 1)
        devices.append(size)
    host = copies * masks + (PIPELINE_COPIES + 1 if placement.is_pipeline else 2) * hidden
    if placement.used_devices == 0:
        host = masks + working
    elif placement.host_experts or -1 in placement.layers:
        host += _feed_forward(widths) * per_width
    return Compute(tuple(devices), host)


def _feed_forward(widths: _Widths) -> int:
    dense = 3 * widths.feed_forward + 3 * widths.hidden
    if not widths.experts_used:
        return dense
    return max(dense, 3 * widths.experts + (widths.experts_used + 3) * widths.hidden)


def _recurrent(widths: _Widths) -> int:
    return 3 * widths.recurrent_channels + 2 * widths.recurrent_inner + widths.hidden if widths.recurrent_inner else 0


def _attention(widths: _Widths, architecture: Architecture, is_quantized: bool) -> int:
    if architecture.kind == "sparse":
        return round(SPARSE_WIDTHS * widths.latent_queries)
    if widths.latent_queries:
        return round((LATENT_WIDTHS_QUANTIZED if is_quantized else LATENT_WIDTHS) * widths.latent_queries)
    return 2 * widths.hidden + (11 if widths.recurrent_inner else 4) * widths.queries // 2


def _masks(architecture: Architecture, settings: Settings) -> int:
    """One mask for layers that see everything, with one more for an indexer, and one for those that see a window."""
    is_unified = settings.is_unified and not architecture.is_per_sequence
    tokens = settings.batch
    if architecture.kind == "compressed":
        return round(settings.sequence_cells * tokens * COMPRESSED_MASK_BYTES)
    caches = [cache for layer in architecture.layers for cache in layer.caches]
    masks = 0
    if any(not cache.is_window for cache in caches):
        masks += settings.sequence_cells * tokens * MASK_BYTES * (2 if architecture.kind == "sparse" else 1)
    if any(cache.is_window for cache in caches):
        masks += window_cells(architecture.window, settings, is_unified) * tokens * MASK_BYTES
    return masks


def _f16_copies(architecture: Architecture, settings: Settings) -> int:
    """CUDA turns the whole cache of a layer into F16 for batches (fattn-common.cuh)."""

    def copied(cache: Cache) -> int:
        cells = settings.sequence_cells // cache.tokens
        if cache.is_window:
            cells = window_cells(architecture.window, settings, settings.is_unified)
        return cells * (cache.keys + cache.values) * F16_BYTES

    streams = settings.slots if architecture.is_per_sequence else settings.streams
    return max((copied(cache) for layer in architecture.layers for cache in layer.caches), default=0) * streams


def _copied_experts(model: Model, placement: Placement, device: int) -> int:
    """Prompts are computed on the card also where experts are on the host: it needs room for one tensor of them."""
    places = placement.layers[: placement.host_experts]
    sizes = [layer.largest_expert for layer, place in zip(model.layers, places, strict=False) if place == device]
    return max(sizes, default=0)


def _widths(model: Model) -> _Widths:
    header = model.header

    def widest(key: str, otherwise: int = 0) -> int:
        return max(header.own_numbers(key), default=header.own_number(key) or otherwise)

    hidden, heads = header.own_number("embedding_length"), widest("attention.head_count")
    key_length = header.own_number("attention.key_length") or (hidden // heads if heads else 0)
    inner = header.own_number("ssm.inner_size")
    state, groups = header.own_number("ssm.state_size"), header.own_number("ssm.group_count")
    used = header.own_number("expert_used_count")
    is_latent = header.own_number("attention.key_length_mla") > 0
    return _Widths(
        hidden=hidden,
        queries=heads * key_length,
        feed_forward=widest("feed_forward_length")
        if not used
        else header.own_number("expert_shared_feed_forward_length"),
        experts=used * widest("expert_feed_forward_length"),
        experts_used=used,
        recurrent_inner=inner,
        recurrent_channels=inner + 2 * groups * state,
        latent_queries=heads * key_length if is_latent else 0,
        hyper_connections=header.own_number("hyper_connection.count"),
    )
