"""Model files with the header and the tensor table of a real model, and nothing behind them: some 100 kB on a disk that
keeps holes, whatever size they claim. llama.cpp plans with them as with the real ones.

Tiny ones can be loaded by a server, given the vocabulary of a real file; their weights are all zero. Shapes of real
models are those of their published configurations.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from gguf import GGUFReader
from msgspec import Struct
from msgspec.structs import replace

from paceline.planning.gguf import DEFAULT_ALIGNMENT, SCALAR_FORMATS, TYPE_SIZES

TYPES = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q5_0": 6, "Q8_0": 8, "Q4_K": 12, "Q6_K": 14, "IQ2_XXS": 16, "I32": 26, "BF16": 30,
    "MXFP4": 39,
}  # fmt: skip
STRING, ARRAY, BOOL, FLOAT32, UINT32 = 8, 9, 7, 6, 4
Value = bool | int | float | str | Sequence[int] | Sequence[float]
Tensors = dict[str, tuple[tuple[int, ...], str]]


class Quantized(Struct, frozen=True):
    """Types of tensors by what they do."""

    attention: str
    experts: str = ""
    embedding: str = ""
    output: str = ""

    def of_experts(self) -> str:
        return self.experts or self.attention

    def of_embedding(self) -> str:
        return self.embedding or self.attention

    def of_output(self) -> str:
        return self.output or self.of_embedding()


class Shape(Struct, frozen=True, kw_only=True):
    """Of a model; names are those of published configurations, shortened.

    Args:
        mtp: layers for multi-token prediction.
        attending: hybrids: which layers attend.
        ratios: DeepSeek-V4: tokens of a cell by layer.
    """

    family: str
    hidden: int
    layers: int
    heads: int
    kept: int
    """Key-value heads."""
    head: int
    vocabulary: int
    context: int
    quantized: Quantized
    feed_forward: int = 0
    experts: int = 0
    used: int = 0
    expert: int = 0
    shared_expert: int = 0
    dense_first: int = 0
    mtp: int = 0
    window: int = 0
    tied: bool = False
    # latent attention
    query_rank: int = 0
    latent: int = 0
    plain: int = 0
    rotated: int = 0
    value_head: int = 0
    # an indexer
    index_heads: int = 0
    index_head: int = 0
    # states
    state: int = 0
    value_heads: int = 0
    groups: int = 0
    attending: tuple[int, ...] = ()
    ratios: tuple[int, ...] = ()


def write(folder: Path, name: str, shape: Shape, vocabulary_of: Path | None = None) -> Path:
    """Write a hollow file; returns its path.

    Args:
        vocabulary_of: a real file whose vocabulary it gets; without one it has none, and no server can load it.
    """
    architecture, keys, tensors = FAMILIES[shape.family](shape)
    extra, extra_count = _vocabulary(vocabulary_of) if vocabulary_of else (_pair("tokenizer.ggml.model", "no_vocab"), 1)
    pairs = [_pair("general.architecture", architecture)]
    pairs += [_pair(f"{architecture}.{key}", value) for key, value in keys.items()]
    infos, at = [], 0
    for tensor, (dimensions, kind) in tensors.items():
        infos.append(
            _text(tensor)
            + struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
            + struct.pack("<IQ", TYPES[kind], at)
        )
        at += -(-_size(dimensions, kind) // DEFAULT_ALIGNMENT) * DEFAULT_ALIGNMENT
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs) + extra_count) + b"".join(pairs) + extra
    head += b"".join(infos)
    head += bytes(-len(head) % DEFAULT_ALIGNMENT)
    path = folder / f"{name}.gguf"
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + at)
    return path


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _pair(key: str, value: Value) -> bytes:
    return _text(key) + _value(value)


def _value(value: Value) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _text(value)
    if isinstance(value, bool | int | float):
        kind = _kind(value)
        return struct.pack(f"<I{SCALAR_FORMATS[kind]}", kind, value)
    kind = _kind(value[0])
    return struct.pack(f"<IIQ{len(value)}{SCALAR_FORMATS[kind]}", ARRAY, kind, len(value), *value)


def _kind(value: float) -> int:
    return BOOL if isinstance(value, bool) else UINT32 if isinstance(value, int) else FLOAT32


def _size(dimensions: Sequence[int], kind: str) -> int:
    values, size = TYPE_SIZES[TYPES[kind]]
    total = 1
    for length in dimensions:
        total *= length
    return total // values * size


@cache
def _vocabulary(path: Path) -> tuple[bytes, int]:
    """The tokenizer's keys of a real file, as they are written, and how many they are."""
    written, count = b"", 0
    for field in GGUFReader(path).fields.values():
        if not field.name.startswith("tokenizer."):
            continue
        kinds, contents = [int(kind) for kind in field.types], field.contents()
        written += _text(field.name)
        if kinds[0] != ARRAY:
            written += struct.pack("<I", kinds[0])
            written += _text(contents) if kinds[0] == STRING else struct.pack("<" + SCALAR_FORMATS[kinds[0]], contents)
        else:
            written += struct.pack("<IIQ", ARRAY, kinds[1], len(contents))
            form = SCALAR_FORMATS.get(kinds[1], "")
            written += b"".join(
                _text(item) if kinds[1] == STRING else struct.pack("<" + form, item) for item in contents
            )
        count += 1
    return written, count


def _type(kind: str, length: int) -> str:
    """What a row of this length is of: llama-quantize falls back where a row has no whole blocks."""
    if length % TYPE_SIZES[TYPES[kind]][0] == 0:
        return kind
    return "Q8_0" if length % 32 == 0 else "F16"


class _Layer:
    """Collects the tensors of a layer."""

    def __init__(self, shape: Shape, index: int, tensors: Tensors) -> None:
        self.shape, self.index, self._tensors = shape, index, tensors
        self.kind = shape.quantized.attention

    def add(self, name: str, *dimensions: int, kind: str = "") -> None:
        self._tensors[f"blk.{self.index}.{name}"] = (dimensions, kind or _type(self.kind, dimensions[0]))

    def norms(self, *names: str) -> None:
        for name in names:
            self.add(f"{name}.weight", self.shape.hidden, kind="F32")

    def attention(
        self, gates: int = 1, has_bias: bool = False, has_norms: bool = False, kept: int | None = None
    ) -> None:
        shape = self.shape
        kept = shape.kept if kept is None else kept
        queries, keys = shape.heads * shape.head, kept * shape.head
        self.add("attn_q.weight", shape.hidden, queries * gates)
        self.add("attn_k.weight", shape.hidden, keys)
        self.add("attn_v.weight", shape.hidden, keys)
        self.add("attn_output.weight", queries, shape.hidden)
        if has_bias:
            for name, length in (("q", queries), ("k", keys), ("v", keys), ("output", shape.hidden)):
                self.add(f"attn_{name}.bias", length, kind="F32")
        if has_norms:
            self.add("attn_q_norm.weight", shape.head, kind="F32")
            self.add("attn_k_norm.weight", shape.head, kind="F32")

    def dense(self, has_gate: bool = True) -> None:
        shape = self.shape
        if has_gate:
            self.add("ffn_gate.weight", shape.hidden, shape.feed_forward)
        self.add("ffn_up.weight", shape.hidden, shape.feed_forward)
        self.add("ffn_down.weight", shape.feed_forward, shape.hidden)

    def experts(self, has_bias: bool = False, has_scores: bool = False) -> None:
        shape, kind = self.shape, self.shape.quantized.of_experts()
        self.add("ffn_gate_inp.weight", shape.hidden, shape.experts, kind="F32")
        for name in ("gate", "up"):
            self.add(
                f"ffn_{name}_exps.weight", shape.hidden, shape.expert, shape.experts, kind=_type(kind, shape.hidden)
            )
        self.add("ffn_down_exps.weight", shape.expert, shape.hidden, shape.experts, kind=_type(kind, shape.expert))
        if has_bias:
            self.add("ffn_gate_inp.bias", shape.experts, kind="F32")
            for name, length in (("gate", shape.expert), ("up", shape.expert), ("down", shape.hidden)):
                self.add(f"ffn_{name}_exps.bias", length, shape.experts, kind="F32")
        if has_scores:
            self.add("exp_probs_b.bias", shape.experts, kind="F32")
        if shape.shared_expert:
            self.add("ffn_gate_shexp.weight", shape.hidden, shape.shared_expert)
            self.add("ffn_up_shexp.weight", shape.hidden, shape.shared_expert)
            self.add("ffn_down_shexp.weight", shape.shared_expert, shape.hidden)

    def mtp(self) -> None:
        hidden = self.shape.hidden
        self.add("nextn.eh_proj.weight", 2 * hidden, hidden)
        self.norms("nextn.enorm", "nextn.hnorm", "nextn.shared_head_norm")

    def latent(self) -> None:
        shape = self.shape
        self.add("attn_kv_a_norm.weight", shape.latent, kind="F32")
        queries = shape.heads * (shape.plain + shape.rotated)
        if shape.query_rank:
            self.add("attn_q_a_norm.weight", shape.query_rank, kind="F32")
            self.add("attn_q_a.weight", shape.hidden, shape.query_rank)
            self.add("attn_q_b.weight", shape.query_rank, queries)
        else:
            self.add("attn_q.weight", shape.hidden, queries)
        self.add("attn_kv_a_mqa.weight", shape.hidden, shape.latent + shape.rotated)
        self.add("attn_k_b.weight", shape.plain, shape.latent, shape.heads)
        self.add("attn_v_b.weight", shape.latent, shape.value_head, shape.heads)
        self.add("attn_output.weight", shape.heads * shape.value_head, shape.hidden)

    def selective(self) -> None:
        """A state-space layer as in Mamba-2."""
        shape = self.shape
        inner = shape.state * shape.value_heads
        channels = inner + 2 * shape.groups * shape.state
        self.add("ssm_in.weight", shape.hidden, inner + channels + shape.value_heads)
        self.add("ssm_conv1d.weight", 4, channels, kind="F32")
        self.add("ssm_conv1d.bias", channels, kind="F32")
        self.add("ssm_dt.bias", shape.value_heads, kind="F32")
        self.add("ssm_a", 1, shape.value_heads, kind="F32")
        self.add("ssm_d", 1, shape.value_heads, kind="F32")
        self.add("ssm_norm.weight", inner // shape.groups, shape.groups, kind="F32")
        self.add("ssm_out.weight", inner, shape.hidden)


Family = tuple[str, dict[str, Value], Tensors]


def _keys(shape: Shape) -> dict[str, Value]:
    keys: dict[str, Value] = {
        "context_length": shape.context,
        "embedding_length": shape.hidden,
        "block_count": shape.layers + shape.mtp,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.kept,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "vocab_size": shape.vocabulary,
        "rope.freq_base": 1e6,
        "feed_forward_length": shape.feed_forward,
    }
    if shape.head:
        keys |= {"attention.key_length": shape.head, "attention.value_length": shape.head}
    if shape.experts:
        keys |= {
            "expert_count": shape.experts,
            "expert_used_count": shape.used,
            "expert_feed_forward_length": shape.expert,
        }
    if shape.mtp:
        keys["nextn_predict_layers"] = shape.mtp
    return keys


def _state_keys(shape: Shape) -> dict[str, Value]:
    return {
        "ssm.conv_kernel": 4,
        "ssm.inner_size": shape.state * shape.value_heads,
        "ssm.state_size": shape.state,
        "ssm.time_step_rank": shape.value_heads,
        "ssm.group_count": shape.groups,
    }


def _ends(shape: Shape) -> Tensors:
    quantized, hidden = shape.quantized, shape.hidden
    tensors: Tensors = {
        "token_embd.weight": ((hidden, shape.vocabulary), _type(quantized.of_embedding(), hidden)),
        "output_norm.weight": ((hidden,), "F32"),
    }
    if not shape.tied:
        tensors["output.weight"] = ((hidden, shape.vocabulary), _type(quantized.of_output(), hidden))
    return tensors


def _layers(shape: Shape, tensors: Tensors) -> list[_Layer]:
    return [_Layer(shape, index, tensors) for index in range(shape.layers + shape.mtp)]


def _dense_family(architecture: str, has_norms: bool = False) -> Callable[[Shape], Family]:
    def family(shape: Shape) -> Family:
        tensors = _ends(shape)
        for layer in _layers(shape, tensors):
            layer.norms("attn_norm", "ffn_norm")
            layer.attention(has_norms=has_norms)
            layer.experts() if shape.experts else layer.dense()
        return architecture, _keys(shape) | {"rope.dimension_count": shape.head}, tensors

    return family


def _gpt_oss(shape: Shape) -> Family:
    tensors = _ends(shape)
    for layer in _layers(shape, tensors):
        layer.norms("attn_norm", "post_attention_norm")
        layer.attention(has_bias=True)
        layer.add("attn_sinks.weight", shape.heads, kind="F32")
        layer.experts(has_bias=True)
    return "gpt-oss", _keys(shape) | {"attention.sliding_window": shape.window}, tensors


def _gemma(architecture: str, has_norms: bool) -> Callable[[Shape], Family]:
    def family(shape: Shape) -> Family:
        tensors = _ends(shape)
        for layer in _layers(shape, tensors):
            layer.norms("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
            layer.attention(has_norms=has_norms)
            layer.dense()
        return architecture, _keys(shape) | {"attention.sliding_window": shape.window}, tensors

    return family


def _gemma4(shape: Shape) -> Family:
    """Layers that see everything have heads twice as wide, and the last ones share the caches of earlier ones."""
    tensors = _ends(shape)
    tensors["rope_freqs.weight"] = ((shape.head,), "F32")
    windows = [(index + 1) % 4 != 0 for index in range(shape.layers)]
    for layer in _layers(shape, tensors):
        wide = replace(shape, head=shape.head if windows[layer.index] else 2 * shape.head)
        layer.norms("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
        _Layer(wide, layer.index, tensors).attention(has_norms=True)
        layer.dense()
    keys: dict[str, Value] = {
        "attention.key_length": 2 * shape.head,
        "attention.value_length": 2 * shape.head,
        "attention.key_length_swa": shape.head,
        "attention.value_length_swa": shape.head,
        "attention.sliding_window": shape.window,
        "attention.sliding_window_pattern": windows,
        "attention.shared_kv_layers": 4,
        "embedding_length_per_layer_input": 0,
        "rope.dimension_count": 2 * shape.head,
        "rope.dimension_count_swa": shape.head,
    }
    return "gemma4", _keys(shape) | keys, tensors


def _llama4(shape: Shape) -> Family:
    tensors = _ends(shape)
    for layer in _layers(shape, tensors):
        layer.norms("attn_norm", "ffn_norm")
        layer.attention()
        layer.experts()
    keys: dict[str, Value] = {"interleave_moe_layer_step": 1, "rope.dimension_count": shape.head}
    return "llama4", _keys(shape) | keys, tensors


def _cohere2(shape: Shape) -> Family:
    tensors = _ends(shape)
    for layer in _layers(shape, tensors):
        layer.norms("attn_norm")
        layer.attention()
        layer.dense()
    keys: dict[str, Value] = {
        "attention.sliding_window": shape.window,
        "logit_scale": 0.25,
        "attention.layer_norm_epsilon": 1e-5,
        "rope.dimension_count": shape.head,
    }
    return "cohere2", _keys(shape) | keys, tensors


def _glm4_moe(shape: Shape) -> Family:
    tensors = _ends(shape)
    for layer in _layers(shape, tensors):
        layer.norms("attn_norm", "post_attention_norm")
        layer.attention()
        layer.dense() if layer.index < shape.dense_first else layer.experts(has_scores=True)
        if layer.index >= shape.layers:
            layer.mtp()
    keys: dict[str, Value] = {
        "expert_shared_count": 1,
        "leading_dense_block_count": shape.dense_first,
        "rope.dimension_count": shape.head // 2,
    }
    return "glm4moe", _keys(shape) | keys, tensors


def _latent_family(architecture: str) -> Callable[[Shape], Family]:
    def family(shape: Shape) -> Family:
        tensors = _ends(shape)
        for layer in _layers(shape, tensors):
            layer.norms("attn_norm", "ffn_norm")
            layer.latent()
            if shape.index_heads:
                layer.add("indexer.k_norm.weight", shape.index_head, kind="F32")
                layer.add("indexer.k_norm.bias", shape.index_head, kind="F32")
                layer.add("indexer.proj.weight", shape.hidden, shape.index_heads)
                layer.add("indexer.attn_k.weight", shape.hidden, shape.index_head)
                layer.add("indexer.attn_q_b.weight", shape.query_rank, shape.index_heads * shape.index_head)
            layer.dense() if layer.index < shape.dense_first else layer.experts(has_scores=True)
            if layer.index >= shape.layers:
                layer.mtp()
        keys: dict[str, Value] = {
            "attention.head_count_kv": 1,
            "attention.key_length": shape.latent + shape.rotated,
            "attention.value_length": shape.latent,
            "attention.key_length_mla": shape.plain + shape.rotated,
            "attention.value_length_mla": shape.value_head,
            "attention.q_lora_rank": shape.query_rank,
            "attention.kv_lora_rank": shape.latent,
            "rope.dimension_count": shape.rotated,
            "expert_shared_count": 1,
            "leading_dense_block_count": shape.dense_first,
            "expert_weights_scale": 2.5,
            "expert_gating_func": 2,
        }
        if shape.index_heads:
            keys |= {
                "attention.indexer.head_count": shape.index_heads,
                "attention.indexer.key_length": shape.index_head,
                "attention.indexer.top_k": 2048,
            }
        return architecture, _keys(shape) | keys, tensors

    return family


def _qwen35(shape: Shape) -> Family:
    tensors = _ends(shape)
    values, keys_width = shape.state * shape.value_heads, shape.state * shape.groups
    channels = 2 * keys_width + values
    for layer in _layers(shape, tensors):
        layer.norms("attn_norm", "post_attention_norm")
        if layer.index >= shape.layers or (layer.index + 1) % 4 == 0:
            layer.attention(gates=2, has_norms=True)
        else:
            layer.add("attn_qkv.weight", shape.hidden, channels)
            layer.add("attn_gate.weight", shape.hidden, values)
            layer.add("ssm_conv1d.weight", 4, channels, kind="F32")
            layer.add("ssm_dt.bias", shape.value_heads, kind="F32")
            layer.add("ssm_a", shape.value_heads, kind="F32")
            layer.add("ssm_beta.weight", shape.hidden, shape.value_heads)
            layer.add("ssm_alpha.weight", shape.hidden, shape.value_heads)
            layer.add("ssm_norm.weight", shape.state, kind="F32")
            layer.add("ssm_out.weight", values, shape.hidden)
        if shape.experts:
            layer.experts()
            layer.add("ffn_gate_inp_shexp.weight", shape.hidden, kind="F32")
        else:
            layer.dense()
        if layer.index >= shape.layers:
            layer.mtp()
    keys = _keys(shape) | _state_keys(shape)
    keys |= {
        "rope.dimension_count": shape.head // 4,
        "rope.dimension_sections": [11, 11, 10, 0],
        "full_attention_interval": 4,
    }
    if shape.experts:
        keys["expert_shared_feed_forward_length"] = shape.shared_expert
    return "qwen35moe" if shape.experts else "qwen35", keys, tensors


def _qwen3_next(shape: Shape) -> Family:
    tensors = _ends(shape)
    values, keys_width = shape.state * shape.value_heads, shape.state * shape.groups
    channels = 2 * keys_width + values
    for layer in _layers(shape, tensors):
        layer.norms("attn_norm", "post_attention_norm")
        if (layer.index + 1) % 4 == 0:
            layer.attention(gates=2, has_norms=True)
        else:
            layer.add("attn_qkv.weight", shape.hidden, channels)
            layer.add("attn_gate.weight", shape.hidden, values)
            layer.add("ssm_conv1d.weight", 4, channels, kind="F32")
            layer.add("ssm_dt.bias", shape.value_heads, kind="F32")
            layer.add("ssm_a", shape.value_heads, kind="F32")
            layer.add("ssm_ba.weight", shape.hidden, 2 * shape.value_heads)
            layer.add("ssm_norm.weight", shape.state, kind="F32")
            layer.add("ssm_out.weight", values, shape.hidden)
        layer.experts()
        layer.add("ffn_gate_inp_shexp.weight", shape.hidden, kind="F32")
    keys = _keys(shape) | _state_keys(shape) | {"rope.dimension_count": shape.head // 4, "full_attention_interval": 4}
    return "qwen3next", keys | {"expert_shared_feed_forward_length": shape.shared_expert}, tensors


def _falcon_h1(shape: Shape) -> Family:
    """Every layer attends and has a state."""
    tensors = _ends(shape)
    for layer in _layers(shape, tensors):
        layer.norms("attn_norm")
        layer.add("ffn_norm", shape.hidden, kind="F32")  # without an ending, as falcon-h1.cpp has it
        layer.attention()
        layer.selective()
        layer.dense()
    return "falcon-h1", _keys(shape) | _state_keys(shape) | {"rope.dimension_count": shape.head}, tensors


def _kimi_linear(shape: Shape) -> Family:
    """Delta attention, and latent attention in some layers."""
    tensors = _ends(shape)
    inner = shape.heads * shape.state
    for layer in _layers(shape, tensors):
        layer.norms("attn_norm", "ffn_norm")
        if layer.index in shape.attending:
            layer.latent()
        else:
            for name in "qkv":
                layer.add(f"ssm_conv1d_{name}.weight", 4, 1, inner, kind="F32")
                layer.add(f"attn_{name}.weight", shape.hidden, inner)
            for name in "fg":
                layer.add(f"ssm_{name}_a.weight", shape.hidden, shape.state)
                layer.add(f"ssm_{name}_b.weight", shape.state, inner)
            layer.add("ssm_beta.weight", shape.hidden, shape.heads)
            layer.add("ssm_a", 1, shape.heads, kind="F32")
            layer.add("ssm_dt.bias", inner, kind="F32")
            layer.add("ssm_norm.weight", shape.state, kind="F32")
            layer.add("attn_output.weight", inner, shape.hidden)
        layer.dense() if layer.index < shape.dense_first else layer.experts(has_scores=True)
    keys: dict[str, Value] = {
        "attention.head_count_kv": [int(index in shape.attending) for index in range(shape.layers)],
        "attention.key_length": shape.latent + shape.rotated,
        "attention.value_length": shape.latent,
        "attention.key_length_mla": shape.plain + shape.rotated,
        "attention.value_length_mla": shape.value_head,
        "attention.kv_lora_rank": shape.latent,
        "rope.dimension_count": shape.rotated,
        "ssm.conv_kernel": 4,
        "kda.head_dim": shape.state,
        "expert_shared_count": 1,
        "leading_dense_block_count": shape.dense_first,
        "expert_weights_scale": 2.5,
        "expert_gating_func": 2,
    }
    return "kimi-linear", _keys(shape) | keys, tensors


def _granite_hybrid(shape: Shape) -> Family:
    tensors = _ends(shape)
    for layer in _layers(shape, tensors):
        layer.norms("attn_norm", "ffn_norm")
        layer.attention() if layer.index in shape.attending else layer.selective()
        layer.dense()
    kept = [shape.kept if index in shape.attending else 0 for index in range(shape.layers)]
    keys: dict[str, Value] = {"attention.head_count_kv": kept, "rope.dimension_count": shape.head}
    return "granitehybrid", _keys(shape) | _state_keys(shape) | keys, tensors


def _nemotron_h(shape: Shape) -> Family:
    """Every third layer only feeds forward."""
    tensors = _ends(shape)
    for layer in _layers(shape, tensors):
        layer.norms("attn_norm")
        if layer.index in shape.attending:
            layer.attention()
        elif layer.index % 3 == 2:
            layer.dense(has_gate=False)
        else:
            layer.selective()
    every = range(shape.layers)
    keys: dict[str, Value] = {
        "attention.head_count_kv": [shape.kept if index in shape.attending else 0 for index in every],
        "feed_forward_length": [
            shape.feed_forward if index % 3 == 2 and index not in shape.attending else 0 for index in every
        ],
        "attention.layer_norm_epsilon": 1e-5,
        "rope.dimension_count": shape.head,
    }
    return "nemotron_h", _keys(shape) | _state_keys(shape) | keys, tensors


def _lfm2(shape: Shape) -> Family:
    tensors = _ends(shape)
    tensors["token_embd_norm.weight"] = tensors.pop("output_norm.weight")
    for layer in _layers(shape, tensors):
        layer.norms("attn_norm", "ffn_norm")
        if layer.index in shape.attending:
            layer.attention(has_norms=True)
        else:
            layer.add("shortconv.conv.weight", 3, shape.hidden, kind="F32")
            layer.add("shortconv.in_proj.weight", shape.hidden, 3 * shape.hidden)
            layer.add("shortconv.out_proj.weight", shape.hidden, shape.hidden)
        layer.dense()
    kept = [shape.kept if index in shape.attending else 0 for index in range(shape.layers)]
    keys: dict[str, Value] = {"attention.head_count_kv": kept, "shortconv.l_cache": 3}
    return "lfm2", _keys(shape) | keys, tensors


def _mamba2(shape: Shape) -> Family:
    tensors = _ends(shape)
    for layer in _layers(shape, tensors):
        layer.norms("attn_norm")
        layer.selective()
    return "mamba2", _keys(shape) | _state_keys(shape), tensors


STREAMS, OUTPUT_GROUPS, OUTPUT_RANK, HASHED = 4, 8, 1024, 3
"""DeepSeek-V4: hyper-connections, groups and width of the output projection, layers that choose experts by token."""


def _deepseek4(shape: Shape) -> Family:
    tensors = _ends(shape)
    hidden, heads, head = shape.hidden, shape.heads, shape.head
    groups = min(OUTPUT_GROUPS, heads)
    rank = min(OUTPUT_RANK, hidden)
    mixed = (2 + STREAMS) * STREAMS
    for name, dimensions in (("fn", (STREAMS * hidden, STREAMS)), ("base", (STREAMS,)), ("scale", (1,))):
        tensors[f"output_hc_{name}.weight"] = (dimensions, "F32")
    for layer in _layers(shape, tensors):
        ratio = shape.ratios[layer.index]
        layer.norms("attn_norm", "ffn_norm")
        layer.add("attn_sinks.weight", heads, kind="F32")
        layer.add("attn_q_a.weight", hidden, shape.query_rank)
        layer.add("attn_q_a_norm.weight", shape.query_rank, kind="F32")
        layer.add("attn_q_b.weight", shape.query_rank, heads * head)
        layer.add("attn_kv.weight", hidden, head)
        layer.add("attn_kv_a_norm.weight", head, kind="F32")
        layer.add("attn_output_a.weight", heads * head // groups, rank, groups)
        layer.add("attn_output_b.weight", groups * rank, hidden)
        for part in ("attn", "ffn"):
            layer.add(f"hc_{part}_fn.weight", STREAMS * hidden, mixed, kind="F32")
            layer.add(f"hc_{part}_base.weight", mixed, kind="F32")
            layer.add(f"hc_{part}_scale.weight", 3, kind="F32")
        if ratio:
            copies = 2 if ratio == 4 else 1
            layer.add("attn_compressor_kv.weight", hidden, copies * head)
            layer.add("attn_compressor_gate.weight", hidden, copies * head)
            layer.add("attn_compressor_ape.weight", copies * head, ratio, kind="F32")
            layer.add("attn_compressor_norm.weight", head, kind="F32")
        if ratio == 4:
            layer.add("indexer.proj.weight", hidden, shape.index_heads)
            layer.add("indexer.attn_q_b.weight", shape.query_rank, shape.index_heads * shape.index_head)
            layer.add("indexer_compressor_kv.weight", hidden, 2 * shape.index_head)
            layer.add("indexer_compressor_gate.weight", hidden, 2 * shape.index_head)
            layer.add("indexer_compressor_ape.weight", 2 * shape.index_head, ratio, kind="F32")
            layer.add("indexer_compressor_norm.weight", shape.index_head, kind="F32")
        is_hashed = layer.index < HASHED
        layer.experts(has_scores=not is_hashed)
        if is_hashed:
            layer.add("ffn_gate_tid2eid.weight", shape.used, shape.vocabulary, kind="I32")
        if layer.index >= shape.layers:
            layer.mtp()
    every = shape.layers + shape.mtp
    keys = _keys(shape) | {
        "attention.head_count_kv": 1,
        "rope.dimension_count": 64,
        "attention.q_lora_rank": shape.query_rank,
        "attention.sliding_window": shape.window,
        "expert_shared_count": 1,
        "expert_weights_scale": 1.5,
        "expert_weights_norm": True,
        "swiglu_clamp_exp": [10.0] * every,
        "attention.indexer.head_count": shape.index_heads,
        "attention.indexer.key_length": shape.index_head,
        "attention.indexer.top_k": 512,
        "attention.output_group_count": groups,
        "attention.output_lora_rank": rank,
        "attention.compress_rope_freq_base": 160000.0,
        "hyper_connection.count": STREAMS,
        "hyper_connection.sinkhorn_iterations": 20,
        "hyper_connection.epsilon": 1e-6,
        "hash_layer_count": HASHED,
        "attention.compress_ratios": list(shape.ratios),
        "expert_gating_func": 4,
    }
    return "deepseek4", keys, tensors


FAMILIES: Mapping[str, Callable[[Shape], Family]] = {
    "llama": _dense_family("llama"),
    "qwen3": _dense_family("qwen3", has_norms=True),
    "qwen3moe": _dense_family("qwen3moe", has_norms=True),
    "gpt-oss": _gpt_oss,
    "gemma2": _gemma("gemma2", has_norms=False),
    "gemma3": _gemma("gemma3", has_norms=True),
    "gemma4": _gemma4,
    "llama4": _llama4,
    "qwen3next": _qwen3_next,
    "falcon-h1": _falcon_h1,
    "kimi-linear": _kimi_linear,
    "cohere2": _cohere2,
    "glm4moe": _glm4_moe,
    "deepseek2": _latent_family("deepseek2"),
    "deepseek32": _latent_family("deepseek32"),
    "glm-dsa": _latent_family("glm-dsa"),
    "qwen35": _qwen35,
    "granitehybrid": _granite_hybrid,
    "nemotron_h": _nemotron_h,
    "lfm2": _lfm2,
    "mamba2": _mamba2,
    "deepseek4": _deepseek4,
}
