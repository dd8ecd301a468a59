"""What llama.cpp's server takes of each device: weights, caches, states, drafters and compute buffers, from a model's
header alone.

Weights, caches and states are exact (docs/planning.md has the comparison with the server). Compute buffers depend on
what its planner can lay over one another; these are fits to it, and the dry run has the last word. Places in
llama.cpp's source are those of b11434.
"""

import re
from collections.abc import Sequence
from functools import cached_property
from math import prod
from typing import Literal

from msgspec import Struct

from paceline.planning.architectures import Architecture, Cache, Layer, architecture_of, layer_of, mtp_layer_count
from paceline.planning.gguf import TYPE_SIZES, Header, Tensor

CacheType = Literal["f16", "q8_0", "q4_0"]
"""Of those that llama.cpp has, the ones that are planned with."""
GGML_TYPES: dict[CacheType, int] = {"f16": 1, "q8_0": 8, "q4_0": 2}
"""By the numbers of ``ggml_type``, as in :data:`paceline.planning.gguf.TYPE_SIZES`."""
STATE_BYTES = 4
"""Of a value; recurrent states are of F32 (``create_memory``)."""
CELLS_PADDING = 256
"""Caches are padded to so many cells (llama-context.cpp:290, llama-kv-cache-iswa.cpp:73)."""
BATCH_TOKENS = 2048
"""llama.cpp's ``--batch-size``; micro-batches are no larger."""
PIPELINE_COPIES = 4
"""Of inputs, where several cards take turns by layers (``GGML_SCHED_MAX_COPIES``)."""
INPUT_TENSORS = ("token_embd.", "token_types.", "position_embd.", "per_layer_token_embd.")
"""Those of ``LLM_TENSOR_LAYER_INPUT``, by what their names begin with: they stay on the host."""
EXPERTS = re.compile(r"^blk\.\d+\.ffn_(up|down|gate_up|gate)_(ch|)exps")
"""What ``--n-cpu-moe`` keeps on the host (common.h, ``LLM_FFN_EXPS_REGEX``)."""
SPLIT = re.compile(
    r"^(output\.weight|blk\.\d+\.(attn_(q|k|v|qkv|output|gate|q_b|output_a|output_b)"
    r"|ffn_(up|gate|gate_up|down)(_exps)?|ssm_(alpha|beta|ba|conv1d|out))\.weight)$"
)
"""Of these, cards that split tensors have a part each; of all others, each has the whole (llama-model.cpp:385)."""
HOST = -1
"""Among places of layers."""


class Settings(Struct, frozen=True, kw_only=True):
    """What of a server's command line decides what it takes.

    Args:
        context_tokens: of all slots together, as ``--ctx-size``.
        draft_tokens: longest draft of a drafter that reads the target's hidden states (MTP, EAGLE-3); 0 without one.
            Architectures that roll back keep so many snapshots of their states, and one.
        loads_mtp: the model's own layers for multi-token prediction are loaded.
        draft_key_type, draft_value_type: of the drafter's cache.
    """

    context_tokens: int
    slots: int = 1
    is_unified: bool = False
    key_type: CacheType = "f16"
    value_type: CacheType = "f16"
    micro_batch: int = 512
    draft_tokens: int = 0
    loads_mtp: bool = False
    draft_key_type: CacheType = "f16"
    draft_value_type: CacheType = "f16"

    @property
    def padded_tokens(self) -> int:
        return padded(self.context_tokens)

    @property
    def sequence_cells(self) -> int:
        """Of the cache that one sequence has at most."""
        return self.padded_tokens if self.is_unified else padded(self.padded_tokens // self.slots)

    @property
    def streams(self) -> int:
        """Caches beside one another."""
        return 1 if self.is_unified else self.slots

    @property
    def batch(self) -> int:
        """Tokens of a micro-batch."""
        return min(self.micro_batch, BATCH_TOKENS, self.padded_tokens)


class LayerWeights(Struct, frozen=True):
    """Bytes of a layer's tensors."""

    shared: int
    """Of those that work on every token."""
    experts: int = 0
    """Of those that work on some."""
    largest_expert: int = 0
    """Of the largest single tensor of experts, of which a card needs a copy to compute with when it is on the host."""
    mirrored: int = 0
    """Of those that each card has as a whole, where cards split tensors."""


class Model(Struct, frozen=True, dict=True):
    """A model's file, as far as memory goes.

    Args:
        layers: weights by layer, those of layers that draft included.
        input_bytes: of what stays on the host.
        output_bytes: of what stands behind the last layer, with a second copy of tied embeddings.
        unknown_types: numbers of tensor types that are not known, whose bytes are missing here.
    """

    headers: tuple[Header, ...]
    architecture: Architecture | None
    layers: tuple[LayerWeights, ...]
    input_bytes: int
    output_bytes: int
    mtp_layers: int
    tied_bytes: int = 0
    """Of the embeddings, where they are the output's weights as well: a card has a copy of them, the host none."""
    mirrored_output_bytes: int = 0
    """Of what stands behind the last layer, what each card has as a whole where cards split tensors."""
    unknown_types: tuple[int, ...] = ()

    @property
    def header(self) -> Header:
        return self.headers[0]

    @cached_property
    def weight_bytes(self) -> int:
        """Of the whole file."""
        return sum(header.tensor_bytes for header in self.headers)

    @cached_property
    def parameters(self) -> int:
        """Values of all tensors."""
        return sum(prod(tensor.shape) for header in self.headers for tensor in header.tensors)

    @property
    def expert_count(self) -> int:
        return self.header.own_number("expert_count")

    @property
    def experts_used(self) -> int:
        return self.header.own_number("expert_used_count")

    @property
    def trunk_count(self) -> int:
        """Layers that work on every token; those behind them draft."""
        return len(self.layers) - self.mtp_layers

    @cached_property
    def active_bytes(self) -> int:
        """Of weights that are read to decode one token plainly."""
        share = self.experts_used / self.expert_count if self.expert_count else 0.0
        trunk = self.layers[: self.trunk_count]
        return self.output_bytes + sum(layer.shared + round(layer.experts * share) for layer in trunk)


def model_of(headers: Sequence[Header]) -> Model:
    """What memory planning needs to know of a model.

    Args:
        headers: of all its parts, as :func:`paceline.planning.gguf.read_model` gives them.
    """
    header = headers[0]
    count = header.own_number("block_count")
    mtp_count = mtp_layer_count(headers)
    claimed = header.own_number("nextn_predict_layers")
    # Stripped layers have no tensors, and count for nothing.
    kept = count - claimed + mtp_count if claimed else count
    layers = [LayerWeights(0)] * max(0, kept)
    at_input = at_output = mirrored_output = tied = 0
    unknown: set[int] = set()
    tensors = [tensor for part in headers for tensor in part.tensors]
    has_output = any(tensor.name == "output.weight" for tensor in tensors)
    for tensor in tensors:
        size = tensor.size_bytes
        if size is None:
            unknown.add(tensor.type)
            continue
        layer = layer_of(tensor)
        if layer is not None and layer < len(layers):
            layers[layer] = _with(layers[layer], tensor, size)
        elif tensor.name.startswith(INPUT_TENSORS):
            at_input += size
            if tensor.name == "token_embd.weight" and not has_output:
                at_output += size
                tied += size
        else:
            at_output += size
            mirrored_output += 0 if SPLIT.match(tensor.name) else size
    return Model(
        headers=tuple(headers),
        architecture=architecture_of(headers),
        layers=tuple(layers),
        input_bytes=at_input,
        output_bytes=at_output,
        mtp_layers=mtp_count,
        tied_bytes=tied,
        mirrored_output_bytes=mirrored_output,
        unknown_types=tuple(sorted(unknown)),
    )


def _with(layer: LayerWeights, tensor: Tensor, size: int) -> LayerWeights:
    is_expert = EXPERTS.match(tensor.name) is not None
    return LayerWeights(
        shared=layer.shared + (0 if is_expert else size),
        experts=layer.experts + (size if is_expert else 0),
        largest_expert=max(layer.largest_expert, size if is_expert else 0),
        mirrored=layer.mirrored + (0 if SPLIT.match(tensor.name) else size),
    )


class Use(Struct, frozen=True, kw_only=True):
    """Bytes on a device, or on the host."""

    weights: int = 0
    cache: int = 0
    """Of keys and values, and of states."""
    drafter: int = 0
    """All that a drafter takes: its weights, its cache, its compute buffers."""
    compute: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.drafter + self.compute

    def __add__(self, other: "Use") -> "Use":
        return Use(
            weights=self.weights + other.weights,
            cache=self.cache + other.cache,
            drafter=self.drafter + other.drafter,
            compute=self.compute + other.compute,
        )


class Placement(Struct, frozen=True, kw_only=True):
    """Where layers are.

    Args:
        layers: by layer, the place of its device; :data:`HOST` for none. The last one is the output's. There is one
            for each layer that the file counts, whether its tensors are there or not: llama.cpp cuts by that number.
        host_experts: of so many first layers the experts are on the host (``--n-cpu-moe``).
        is_by_tensor: every layer is on all devices, a part of each tensor on each.
    """

    layers: tuple[int, ...]
    devices: int
    host_experts: int = 0
    is_by_tensor: bool = False

    @property
    def layer_counts(self) -> tuple[int, ...]:
        """By device, the output counted as one: what ``--tensor-split`` is given."""
        return tuple(self.layers.count(device) for device in range(self.devices))

    @property
    def used_devices(self) -> int:
        return self.devices if self.is_by_tensor else len({device for device in self.layers if device != HOST})

    @property
    def is_pipeline(self) -> bool:
        """Cards take turns, with copies of the inputs (llama-context.cpp:430): not with tensors kept elsewhere."""
        return not self.is_by_tensor and self.used_devices > 1 and not self.host_experts and HOST not in self.layers


def cache_bytes(layer: Layer, architecture: Architecture, settings: Settings) -> int:
    """What a layer keeps in the target's context: its cache and its state."""
    is_unified = settings.is_unified and not architecture.is_per_sequence
    streams = 1 if is_unified else settings.slots
    cache = sum(
        _cells(cache, architecture.window, settings, is_unified)
        * streams
        * row_bytes(cache, settings.key_type, settings.value_type)
        for cache in layer.caches
    )
    snapshots = settings.draft_tokens if architecture.rolls_back else 0
    return int(cache) + layer.state_values * STATE_BYTES * settings.slots * (1 + snapshots)


def mtp_cache_bytes(layer: Layer, architecture: Architecture, settings: Settings) -> int:
    """What a layer for multi-token prediction keeps in its own context, which no architecture has by sequence."""
    return int(
        sum(
            _cells(cache, architecture.window, settings, settings.is_unified)
            * settings.streams
            * row_bytes(cache, settings.draft_key_type, settings.draft_value_type)
            for cache in layer.caches
        )
    )


def state_bytes(architecture: Architecture) -> int:
    """Of one sequence, without snapshots."""
    return sum(layer.state_values for layer in architecture.layers) * STATE_BYTES


def token_bytes(architecture: Architecture, settings: Settings) -> float:
    """What one further token takes of all caches: windows don't grow."""
    return sum(
        row_bytes(cache, settings.key_type, settings.value_type) / cache.tokens
        for layer in architecture.layers
        for cache in layer.caches
        if not cache.is_window
    )


def checkpoint_bytes(architecture: Architecture, settings: Settings) -> int:
    """Of one copy of a sequence that the server keeps on the host (``--ctx-checkpoints``): its states, and what its
    windows hold."""
    window = sum(
        _cells(cache, architecture.window, settings, is_unified=False)
        * row_bytes(cache, settings.key_type, settings.value_type)
        for layer in architecture.layers
        for cache in layer.caches
        if cache.is_window
    )
    return state_bytes(architecture) + int(window)


def row_bytes(cache: Cache, key_type: CacheType, value_type: CacheType) -> float:
    """Of one cell."""
    return cache.keys * value_bytes(key_type) + cache.values * value_bytes(value_type)


def value_bytes(cache_type: CacheType) -> float:
    values, size = TYPE_SIZES[GGML_TYPES[cache_type]]
    return size / values


def window_cells(window: int, settings: Settings, is_unified: bool) -> int:
    """Of a layer that sees a window, in the cache of one stream."""
    sequences = settings.slots if is_unified else 1
    return padded(min(settings.sequence_cells, window * sequences + settings.batch))


def _cells(cache: Cache, window: int, settings: Settings, is_unified: bool) -> int:
    if cache.is_window:
        return window_cells(window, settings, is_unified)
    if cache.tokens > 1:
        return padded(-(-settings.sequence_cells // cache.tokens))
    return settings.sequence_cells


def padded(count: int) -> int:
    """To whole blocks of cells."""
    return -(-count // CELLS_PADDING) * CELLS_PADDING
