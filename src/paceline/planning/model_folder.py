"""A model as vLLM and SGLang load it: a folder with ``config.json`` and safetensors."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

from paceline.planning.safetensors import BadTensors, read_tensors

LayerKind = Literal["full", "sliding", "linear", "latent"]
"""What a layer keeps of the text before: keys and values of all, of a window, a state, or a latent of all (MLA)."""
SPARSE = ("index_topk", "compress_ratios", "index_n_heads")
"""Keys of models with sparse attention: their caches are not planned here."""
NAMED_KINDS: Mapping[str, LayerKind] = {
    "full_attention": "full",
    "attention": "full",
    "sliding_attention": "sliding",
    "linear_attention": "linear",
    "mamba": "linear",
}
"""By the names in ``layer_types``."""
MTP_NAMES = re.compile(r"(^|\.)(mtp|nextn|model_mtp)(_layers|_block)?(\.|$)")
LAYER_NUMBER = re.compile(r"(?:^|\.)layers\.(\d+)\.")
EXPERTS = re.compile(r"\.experts?\.")
DRAFTER_ARCHITECTURES = re.compile(r"eagle3", re.IGNORECASE)


class BadModelFolder(Exception):
    """A folder that can't be planned with; ``str()`` says why."""


class ModelFolder(Struct, frozen=True, kw_only=True):
    """What a plan has to know of it.

    Args:
        layers: of those that decode; not those that draft.
        weight_bytes: of all tensors but those that draft.
        expert_bytes: of those, what is experts'.
        mtp_bytes, mtp_layers: of the layers that draft; 0 where the file has none, whatever its configuration says.
        latent_width: of MLA: values that a token and layer keep.
        state_values: of a linear layer: values of its state, and of its convolution's for each tensor-parallel rank
            together.
        unknown: what of it is not known here; empty where all is.
    """

    path: Path
    architecture: str
    model_type: str
    layers: tuple[LayerKind, ...]
    attention_heads: int
    kv_heads: int
    head_size: int
    max_tokens: int
    weight_bytes: int
    expert_bytes: int = 0
    mtp_bytes: int = 0
    mtp_layers: int = 0
    window: int = 0
    latent_width: int = 0
    state_heads: int = 0
    state_values: int = 0
    convolution_values: int = 0
    convolution_width: int = 0
    experts: int = 0
    experts_used: int = 0
    quantization: str = ""
    is_multimodal: bool = False
    unknown: str = ""

    @property
    def name(self) -> str:
        return self.path.name


def read_folder(path: Path) -> ModelFolder:
    """
    Raises:
        BadModelFolder: it lacks its configuration or weights, or they are damaged.
    """
    outer = read_config(path)
    text = outer.get("text_config")
    config: Mapping[str, Any] = text if isinstance(text, dict) else outer
    layer_count, heads = _number(config, "num_hidden_layers"), _number(config, "num_attention_heads")
    if not layer_count or not heads:
        raise BadModelFolder(f"{path / 'config.json'} names no number of layers and heads: it is no text model's")
    try:
        tensors = read_tensors(path)
    except BadTensors as error:
        raise BadModelFolder(str(error)) from error
    mtp = [tensor for tensor in tensors if _drafts(tensor.name, layer_count)]
    rest = [tensor for tensor in tensors if not _drafts(tensor.name, layer_count)]
    kinds, window = _kinds(config, layer_count)
    head_size = _number(config, "head_dim") or _number(config, "hidden_size") // heads
    latent = _number(config, "kv_lora_rank")
    key_heads, value_heads = _number(config, "linear_num_key_heads"), _number(config, "linear_num_value_heads")
    key_size, value_size = _number(config, "linear_key_head_dim"), _number(config, "linear_value_head_dim")
    unknown = next((f"{key} in its configuration: sparse attention" for key in SPARSE if config.get(key)), "")
    if "linear" in kinds and not value_heads:
        unknown = unknown or "the size of its recurrent layers' states"
    quantization = outer.get("quantization_config") or config.get("quantization_config") or {}
    return ModelFolder(
        path=path,
        architecture=str((outer.get("architectures") or [""])[0]),
        model_type=str(config.get("model_type", outer.get("model_type", ""))),
        layers=tuple("latent" if latent and kind == "full" else kind for kind in kinds),
        attention_heads=heads,
        kv_heads=_number(config, "num_key_value_heads") or heads,
        head_size=head_size,
        max_tokens=_number(config, "max_position_embeddings"),
        weight_bytes=sum(tensor.size_bytes for tensor in rest),
        expert_bytes=sum(tensor.size_bytes for tensor in rest if EXPERTS.search(tensor.name)),
        mtp_bytes=sum(tensor.size_bytes for tensor in mtp),
        mtp_layers=len({tuple(LAYER_NUMBER.findall(tensor.name)) for tensor in mtp}),
        window=window,
        latent_width=latent + _number(config, "qk_rope_head_dim") if latent else 0,
        state_heads=value_heads,
        state_values=value_heads * value_size * key_size,
        convolution_values=2 * key_heads * key_size + value_heads * value_size,
        convolution_width=_number(config, "linear_conv_kernel_dim"),
        experts=next((found for key in EXPERT_COUNTS if (found := _number(config, key))), 0),
        experts_used=_number(config, "num_experts_per_tok") or _number(config, "num_experts_per_token"),
        quantization=str(quantization.get("quant_method", "")) if isinstance(quantization, dict) else "",
        is_multimodal="vision_config" in outer,
        unknown=unknown,
    )


EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")


def read_config(path: Path) -> dict[str, Any]:
    """
    Raises:
        BadModelFolder: there is none, or it is damaged.
    """
    file = path / "config.json"
    try:
        config = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise BadModelFolder(f"{path} has no config.json") from None
    except OSError as error:
        raise BadModelFolder(f"{file} can't be read: {error.strerror or error}") from error
    except ValueError as error:
        raise BadModelFolder(f"{file} is damaged: it is no JSON") from error
    if not isinstance(config, dict):
        raise BadModelFolder(f"{file} is damaged: it holds no settings")
    return config


def _kinds(config: Mapping[str, Any], count: int) -> tuple[tuple[LayerKind, ...], int]:
    """Of each layer, and the window of those that have one."""
    window = _number(config, "sliding_window") if config.get("use_sliding_window", True) else 0
    named = config.get("layer_types")
    if isinstance(named, list) and len(named) >= count:
        kinds: tuple[LayerKind, ...] = tuple(NAMED_KINDS.get(str(name), "full") for name in named[:count])
        return kinds, window
    interval = _number(config, "full_attention_interval")
    if interval > 1 and _number(config, "linear_num_value_heads"):
        return tuple("full" if (layer + 1) % interval == 0 else "linear" for layer in range(count)), 0
    period = _number(config, "sliding_window_pattern")
    if window and period > 1:
        return tuple("full" if (layer + 1) % period == 0 else "sliding" for layer in range(count)), window
    everywhere: LayerKind = "sliding" if window else "full"
    return (everywhere,) * count, window


def _drafts(name: str, layer_count: int) -> bool:
    """Whether a tensor is of a layer for multi-token prediction: by its name, or numbered beyond the model's layers."""
    number = LAYER_NUMBER.search(name)
    return bool(MTP_NAMES.search(name)) or (
        number is not None and int(number[1]) >= layer_count and "visual" not in name and "vision" not in name
    )


def _number(config: Mapping[str, Any], key: str) -> int:
    """0 where it is not there."""
    value = config.get(key)
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else 0
