"""The tensors of Qwen 3.5 and 3.6 models, dense and mixtures of experts, with a layer for multi-token prediction; and
those of Qwen 3 models, which are dense and have no such layer.

Names and dimensions are those of llama.cpp's architectures ``qwen35``, ``qwen35moe`` and ``qwen3`` (src/models of
b11434, qwen35.cpp and so on). In the first two, three of four layers keep a recurrent state instead of a cache.
"""

from collections.abc import Iterator, Mapping

from msgspec import Struct

MetadataValue = int | float | list[int]


class TensorShape(Struct, frozen=True):
    name: str
    dimensions: tuple[int, ...]
    """The innermost first."""
    type: str
    """As ggml names it: ``"Q4_K"``."""


class Shape(Struct, frozen=True, kw_only=True):
    """A model without its weights."""

    hidden: int
    """Length of a token's vector between layers."""
    layers: int
    """Without the one for multi-token prediction."""
    heads: int
    kv_heads: int
    head: int
    """Length of an attention head's vectors."""
    state: int = 0
    """Length of a recurrent head's vectors; 0 where all layers have a cache. Here only models with such heads have a
    layer for multi-token prediction."""
    value_heads: int = 0
    """Recurrent heads of values."""
    key_heads: int = 0
    feed_forward: int
    """Width of a dense layer, or of one expert."""
    experts: int = 0
    """0 for a dense model."""
    experts_used: int = 0
    vocabulary: int
    context: int
    weights: str
    """Type of the layers' weights, but for the experts'."""
    expert_weights: str = ""
    output_weights: str = ""
    """Empty where the output has the weights of the embedding."""

    @property
    def predicts_tokens(self) -> bool:
        """Whether it has a layer for multi-token prediction."""
        return self.state > 0

    @property
    def architecture(self) -> str:
        if not self.predicts_tokens:
            return "qwen3"
        return "qwen35moe" if self.experts else "qwen35"


SHAPES: Mapping[str, Shape] = {
    "0.4b-f16": Shape(
        hidden=1024,
        layers=24,
        heads=8,
        kv_heads=2,
        head=128,
        state=128,
        value_heads=8,
        key_heads=4,
        feed_forward=3072,
        vocabulary=49_152,
        context=32_768,
        weights="F16",
        output_weights="F16",
    ),
    "0.6b-f16": Shape(
        hidden=1024,
        layers=28,
        heads=16,
        kv_heads=8,
        head=128,
        feed_forward=3072,
        vocabulary=151_936,
        context=40_960,
        weights="F16",
    ),
    "27b-q4": Shape(
        hidden=5120,
        layers=64,
        heads=24,
        kv_heads=4,
        head=256,
        state=128,
        value_heads=48,
        key_heads=16,
        feed_forward=17_408,
        vocabulary=248_320,
        context=262_144,
        weights="Q4_K",
        output_weights="Q6_K",
    ),
    "35b-a3b-q4": Shape(
        hidden=2048,
        layers=40,
        heads=16,
        kv_heads=2,
        head=256,
        state=128,
        value_heads=32,
        key_heads=16,
        feed_forward=512,
        experts=256,
        experts_used=8,
        vocabulary=248_320,
        context=262_144,
        weights="Q8_0",
        expert_weights="Q4_K",
        output_weights="Q6_K",
    ),
    "tiny": Shape(
        hidden=256,
        layers=4,
        heads=2,
        kv_heads=1,
        head=128,
        state=128,
        value_heads=2,
        key_heads=1,
        feed_forward=256,
        experts=8,
        experts_used=2,
        vocabulary=49_152,
        context=32_768,
        weights="Q8_0",
        expert_weights="Q4_K",
        output_weights="Q6_K",
    ),
}
"""The first two are bound by memory on two CPU cores, as large models are on a GPU; the second is Qwen3-0.6B, the next
are Qwen3.6-27B and Qwen3.6-35B-A3B (config.json of each). The last is for trying out whether anything runs at all."""
DRAFT_MODEL = Shape(
    hidden=256,
    layers=8,
    heads=4,
    kv_heads=2,
    head=64,
    feed_forward=768,
    vocabulary=151_936,
    context=40_960,
    weights="F16",
)
"""Of Qwen3-0.6B: 0.05 billion weights, most of them the vocabulary's."""
FULL_ATTENTION_INTERVAL = 4
CONVOLUTION = 4
"""Tokens that the recurrent layers' convolution sees."""


def metadata(shape: Shape) -> dict[str, MetadataValue]:
    """The keys that stand under the architecture's name."""
    keys: dict[str, MetadataValue] = {
        "context_length": shape.context,
        "embedding_length": shape.hidden,
        "block_count": shape.layers + shape.predicts_tokens,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.kv_heads,
        "attention.key_length": shape.head,
        "attention.value_length": shape.head,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.freq_base": 1e6,
        "vocab_size": shape.vocabulary,
    }
    if shape.predicts_tokens:
        keys |= {
            "nextn_predict_layers": 1,
            "full_attention_interval": FULL_ATTENTION_INTERVAL,
            "rope.dimension_count": shape.head // 4,
            "rope.dimension_sections": [11, 11, 10, 0],
            "ssm.conv_kernel": CONVOLUTION,
            "ssm.inner_size": shape.state * shape.value_heads,
            "ssm.state_size": shape.state,
            "ssm.time_step_rank": shape.value_heads,
            "ssm.group_count": shape.key_heads,
        }
    if shape.experts:
        keys |= {
            "expert_count": shape.experts,
            "expert_used_count": shape.experts_used,
            "expert_feed_forward_length": shape.feed_forward,
            "expert_shared_feed_forward_length": shape.feed_forward,
        }
    else:
        keys["feed_forward_length"] = shape.feed_forward
    return keys


def tensors(shape: Shape) -> Iterator[TensorShape]:
    hidden = shape.hidden
    yield TensorShape("token_embd.weight", (hidden, shape.vocabulary), shape.weights)
    if shape.output_weights:
        yield TensorShape("output.weight", (hidden, shape.vocabulary), shape.output_weights)
    yield TensorShape("output_norm.weight", (hidden,), "F32")
    for layer in range(shape.layers + shape.predicts_tokens):
        is_for_drafts = layer == shape.layers
        has_cache = is_for_drafts or not shape.state or (layer + 1) % FULL_ATTENTION_INTERVAL == 0
        parts = [*_norms(shape)]
        parts += _attention(shape) if has_cache else _recurrent(shape)
        parts += _experts(shape) if shape.experts else _dense(shape, "", shape.feed_forward)
        if is_for_drafts:
            parts += _next_token(shape)
        for part in parts:
            yield TensorShape(f"blk.{layer}.{part.name}", part.dimensions, part.type)


def _norms(shape: Shape) -> list[TensorShape]:
    second = "post_attention_norm" if shape.predicts_tokens else "ffn_norm"
    return [TensorShape(f"{name}.weight", (shape.hidden,), "F32") for name in ("attn_norm", second)]


def _attention(shape: Shape) -> list[TensorShape]:
    hidden, queries, keys = shape.hidden, shape.heads * shape.head, shape.kv_heads * shape.head
    return [
        # Qwen 3.5 has a gate of the same size beside the queries.
        TensorShape("attn_q.weight", (hidden, 2 * queries if shape.predicts_tokens else queries), shape.weights),
        TensorShape("attn_k.weight", (hidden, keys), shape.weights),
        TensorShape("attn_v.weight", (hidden, keys), shape.weights),
        TensorShape("attn_output.weight", (queries, hidden), shape.weights),
        TensorShape("attn_q_norm.weight", (shape.head,), "F32"),
        TensorShape("attn_k_norm.weight", (shape.head,), "F32"),
    ]


def _recurrent(shape: Shape) -> list[TensorShape]:
    hidden, values, keys = shape.hidden, shape.state * shape.value_heads, shape.state * shape.key_heads
    return [
        TensorShape("attn_qkv.weight", (hidden, 2 * keys + values), shape.weights),
        TensorShape("attn_gate.weight", (hidden, values), shape.weights),
        TensorShape("ssm_conv1d.weight", (CONVOLUTION, 2 * keys + values), "F32"),
        TensorShape("ssm_dt.bias", (shape.value_heads,), "F32"),
        TensorShape("ssm_a", (shape.value_heads,), "F32"),
        TensorShape("ssm_beta.weight", (hidden, shape.value_heads), shape.weights),
        TensorShape("ssm_alpha.weight", (hidden, shape.value_heads), shape.weights),
        TensorShape("ssm_norm.weight", (shape.state,), "F32"),
        TensorShape("ssm_out.weight", (values, hidden), shape.weights),
    ]


def _dense(shape: Shape, suffix: str, width: int) -> list[TensorShape]:
    return [
        TensorShape(f"ffn_gate{suffix}.weight", (shape.hidden, width), shape.weights),
        TensorShape(f"ffn_up{suffix}.weight", (shape.hidden, width), shape.weights),
        TensorShape(f"ffn_down{suffix}.weight", (width, shape.hidden), shape.weights),
    ]


def _experts(shape: Shape) -> list[TensorShape]:
    hidden, width, count = shape.hidden, shape.feed_forward, shape.experts
    return [
        TensorShape("ffn_gate_inp.weight", (hidden, count), "F32"),
        TensorShape("ffn_gate_exps.weight", (hidden, width, count), shape.expert_weights),
        TensorShape("ffn_up_exps.weight", (hidden, width, count), shape.expert_weights),
        TensorShape("ffn_down_exps.weight", (width, hidden, count), shape.expert_weights),
        *_dense(shape, "_shexp", width),
        TensorShape("ffn_gate_inp_shexp.weight", (hidden,), "F32"),
    ]


def _next_token(shape: Shape) -> list[TensorShape]:
    hidden = shape.hidden
    return [
        TensorShape("nextn.eh_proj.weight", (2 * hidden, hidden), shape.weights),
        *(TensorShape(f"nextn.{name}.weight", (hidden,), "F32") for name in ("enorm", "hnorm", "shared_head_norm")),
    ]
