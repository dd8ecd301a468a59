"""The drafters' files. What stands in them follows llama.cpp's ``src/models`` (b11434)."""

from pathlib import Path
from typing import Any

import numpy
from gguf import GGMLQuantizationType

from training.drafters.gguf_file import ModelFile, Tensor, matrix, vector, write

DRAFT_LAYERS = 6
EAGLE3_LAYERS = [2, 15, 27]
"""Layers of the target whose inputs EAGLE-3 reads, as its authors choose them: an early, a middle and a late one."""
SEED = 0


def draft_model(target: ModelFile, path: Path, layers: int = DRAFT_LAYERS) -> None:
    """The target's first layers as a model of its own: a fifth of the size, with the same words."""
    kept = {name: one for name, one in target.tensors.items() if _layer(name) < layers}
    write(path, target.architecture, target, {"block_count": layers}, kept)


def eagle3_head(target: ModelFile, path: Path) -> None:
    """An EAGLE-3 head with random weights (``src/models/eagle3.cpp``): it shares the target's words."""
    size, inner = target.number("embedding_length"), target.number("feed_forward_length")
    heads, kv_heads = target.number("attention.head_count"), target.number("attention.head_count_kv")
    head_size = size // heads
    random = numpy.random.default_rng(SEED)

    def weights(outputs: int, inputs: int) -> Tensor:
        return matrix(random.normal(0, 0.02, (outputs, inputs)))

    ones = vector(numpy.ones(size))
    tensors = {
        "fc.weight": weights(size, len(EAGLE3_LAYERS) * size),
        "output_norm.weight": target.tensors["output_norm.weight"],
        "blk.0.attn_norm.weight": ones,
        "blk.0.attn_norm_2.weight": ones,
        "blk.0.attn_q.weight": weights(heads * head_size, 2 * size),
        "blk.0.attn_k.weight": weights(kv_heads * head_size, 2 * size),
        "blk.0.attn_v.weight": weights(kv_heads * head_size, 2 * size),
        "blk.0.attn_output.weight": weights(size, heads * head_size),
        "blk.0.ffn_norm.weight": ones,
        "blk.0.ffn_gate.weight": weights(inner, size),
        "blk.0.ffn_up.weight": weights(inner, size),
        "blk.0.ffn_down.weight": weights(size, inner),
    }
    keys: dict[str, Any] = {"block_count": 1, "target_layers": EAGLE3_LAYERS, "target_hidden_size": size}
    write(path, "eagle3", target, keys, tensors)


def model_with_mtp(target: ModelFile, path: Path, projection: Any = None) -> None:
    """The target as a model of an architecture that has an MTP layer: MiMo's dense form (``src/models/mimo2.cpp``),
    which computes the same, with positions rotated in another order.

    Its MTP layer only projects: attention and feed-forward add nothing.

    Args:
        projection: of shape (size, 2 x size), from the normalized embedding of the last token and the normalized hidden
            state before it to the hidden state that follows; random by default.
    """
    size, inner, layers = (target.number(key) for key in ("embedding_length", "feed_forward_length", "block_count"))
    heads, kv_heads = target.number("attention.head_count"), target.number("attention.head_count_kv")
    head_size = size // heads
    if projection is None:
        projection = numpy.random.default_rng(SEED).normal(0, 0.02, (size, 2 * size))
    pairs = numpy.concatenate([numpy.arange(0, head_size, 2), numpy.arange(1, head_size, 2)])
    tensors = {"output.weight": target.tensors["token_embd.weight"]}
    for name, one in target.tensors.items():
        if name.endswith((".attn_q.weight", ".attn_k.weight")):
            count = one.data.shape[0] // head_size
            one = one.rows((numpy.arange(count)[:, None] * head_size + pairs).ravel())
        tensors[name] = one
    ones = vector(numpy.ones(size))
    block = f"blk.{layers}"
    tensors |= {
        f"{block}.nextn.eh_proj.weight": matrix(projection),
        f"{block}.nextn.enorm.weight": ones,
        f"{block}.nextn.hnorm.weight": ones,
        f"{block}.attn_norm.weight": ones,
        f"{block}.attn_qkv.weight": matrix(numpy.zeros(((heads + 2 * kv_heads) * head_size, size))),
        f"{block}.attn_output.weight": matrix(numpy.zeros((size, heads * head_size))),
        f"{block}.ffn_norm.weight": ones,
        f"{block}.ffn_gate.weight": matrix(numpy.zeros((inner, size))),
        f"{block}.ffn_up.weight": matrix(numpy.zeros((inner, size))),
        f"{block}.ffn_down.weight": matrix(numpy.zeros((size, inner))),
    }
    context = target.number("context_length")
    keys: dict[str, Any] = {
        "block_count": layers + 1,
        "nextn_predict_layers": 1,
        "expert_feed_forward_length": 0,
        # some layer has to have a window; it is as wide as the context
        "attention.sliding_window": context,
        "attention.sliding_window_pattern": [0] * layers + [1],
        "rope.freq_base_swa": target.number("rope.freq_base"),
    }
    write(path, "mimo2", target, keys, tensors)


def dflash_head(target: ModelFile, path: Path, block: int = 8) -> None:
    """A DFlash drafter of one layer with random weights (``src/models/dflash.cpp``): it shares the target's words.

    Args:
        block: tokens that it looks at in one pass; it drafts one less.
    """
    size, inner = target.number("embedding_length"), target.number("feed_forward_length")
    heads, kv_heads = target.number("attention.head_count"), target.number("attention.head_count_kv")
    head_size = size // heads
    random = numpy.random.default_rng(SEED)

    def weights(outputs: int, inputs: int) -> Tensor:
        return matrix(random.normal(0, 0.02, (outputs, inputs)))

    ones, of_head = vector(numpy.ones(size)), vector(numpy.ones(head_size))
    tensors = {
        "fc.weight": weights(size, len(EAGLE3_LAYERS) * size),
        "enc.output_norm.weight": ones,
        "output_norm.weight": target.tensors["output_norm.weight"],
        "blk.0.attn_norm.weight": ones,
        "blk.0.attn_q.weight": weights(heads * head_size, size),
        "blk.0.attn_k.weight": weights(kv_heads * head_size, size),
        "blk.0.attn_v.weight": weights(kv_heads * head_size, size),
        "blk.0.attn_output.weight": weights(size, heads * head_size),
        "blk.0.attn_q_norm.weight": of_head,
        "blk.0.attn_k_norm.weight": of_head,
        "blk.0.ffn_norm.weight": ones,
        "blk.0.ffn_gate.weight": weights(inner, size),
        "blk.0.ffn_up.weight": weights(inner, size),
        "blk.0.ffn_down.weight": weights(size, inner),
    }
    keys: dict[str, Any] = {"block_count": 1, "target_layers": EAGLE3_LAYERS, "block_size": block}
    write(path, "dflash", target, keys, tensors, more={"tokenizer.ggml.mask_token_id": 0})


def random_hybrid(like: ModelFile, path: Path, size: int = 256, layers: int = 4) -> None:
    """A small hybrid model with an MTP layer (Qwen 3.5's dense form, ``src/models/qwen35.cpp``), all of it random: of
    four layers three have a recurrent state and the last one attention. It has the words of ``like``."""
    heads, kv_heads, head_size, inner, state = 4, 2, size // 4, 2 * size, 64
    value_heads, key_heads = 4, 2
    value, key = state * value_heads, state * key_heads
    random = numpy.random.default_rng(SEED)

    def weights(outputs: int, inputs: int, kind: GGMLQuantizationType | None = None) -> Tensor:
        values = random.normal(0, 0.05, (outputs, inputs))
        return vector(values) if kind == GGMLQuantizationType.F32 else matrix(values)

    ones = vector(numpy.ones(size))
    words = like.tensors["token_embd.weight"].data.shape[0]
    tensors = {"token_embd.weight": weights(words, size), "output_norm.weight": ones}
    for layer in range(layers + 1):
        block = f"blk.{layer}"
        tensors |= {f"{block}.attn_norm.weight": ones, f"{block}.post_attention_norm.weight": ones}
        if layer == layers or layer % 4 == 3:
            tensors |= {
                f"{block}.attn_q.weight": weights(2 * heads * head_size, size),
                f"{block}.attn_k.weight": weights(kv_heads * head_size, size),
                f"{block}.attn_v.weight": weights(kv_heads * head_size, size),
                f"{block}.attn_output.weight": weights(size, heads * head_size),
                f"{block}.attn_q_norm.weight": vector(numpy.ones(head_size)),
                f"{block}.attn_k_norm.weight": vector(numpy.ones(head_size)),
            }
        else:
            tensors |= {
                f"{block}.attn_qkv.weight": weights(2 * key + value, size),
                f"{block}.attn_gate.weight": weights(value, size),
                f"{block}.ssm_conv1d.weight": weights(2 * key + value, 4, GGMLQuantizationType.F32),
                f"{block}.ssm_dt.bias": vector(numpy.zeros(value_heads)),
                f"{block}.ssm_a": vector(-numpy.ones(value_heads)),
                f"{block}.ssm_beta.weight": weights(value_heads, size),
                f"{block}.ssm_alpha.weight": weights(value_heads, size),
                f"{block}.ssm_norm.weight": vector(numpy.ones(state)),
                f"{block}.ssm_out.weight": weights(size, value),
            }
        tensors |= {
            f"{block}.ffn_gate.weight": weights(inner, size),
            f"{block}.ffn_up.weight": weights(inner, size),
            f"{block}.ffn_down.weight": weights(size, inner),
        }
    block = f"blk.{layers}"
    tensors |= {
        f"{block}.nextn.eh_proj.weight": weights(size, 2 * size),
        f"{block}.nextn.enorm.weight": ones,
        f"{block}.nextn.hnorm.weight": ones,
        f"{block}.nextn.shared_head_norm.weight": ones,
    }
    keys: dict[str, Any] = {
        "block_count": layers + 1,
        "nextn_predict_layers": 1,
        "embedding_length": size,
        "feed_forward_length": inner,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.key_length": head_size,
        "attention.value_length": head_size,
        "rope.dimension_count": head_size // 2,
        "rope.dimension_sections": [6, 5, 5, 0],
        "ssm.conv_kernel": 4,
        "ssm.inner_size": value,
        "ssm.state_size": state,
        "ssm.time_step_rank": value_heads,
        "ssm.group_count": key_heads,
        "full_attention_interval": 4,
    }
    write(path, "qwen35", like, keys, tensors)


def _layer(name: str) -> int:
    return int(name.split(".")[1]) if name.startswith("blk.") else -1
