"""The drafters' files. What stands in them follows llama.cpp's ``src/models`` (b11434)."""

from pathlib import Path
from typing import Any

import numpy

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


def _layer(name: str) -> int:
    return int(name.split(".")[1]) if name.startswith("blk.") else -1
