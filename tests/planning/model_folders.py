"""Folders as vLLM and SGLang load them, with the shapes of real models and no weights: files of holes."""

import json
from pathlib import Path
from typing import Any

SHAPES: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "benchmarks" / "planning" / "model_shapes.json").read_text()
)
LLAMA_70B, GPT_OSS_20B, QWEN36_27B = SHAPES["llama-3.3-70b"], SHAPES["gpt-oss-20b"], SHAPES["qwen3.6-27b"]
DEEPSEEK_V3, DEEPSEEK_V4_FLASH = SHAPES["deepseek-v3"], SHAPES["deepseek-v4-flash"]
EAGLE3 = {"architectures": ["LlamaForCausalLMEagle3"], "model_type": "llama", "num_hidden_layers": 1}


def model_folder(path: Path, config: dict[str, Any], gib: dict[str, float], parts: int = 1) -> Path:
    """Writes one.

    Args:
        gib: size of each tensor, by name.
        parts: files that the tensors are spread over, with an index.
    """
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    names = list(gib)
    weight_map = {}
    for part in range(parts):
        name = "model.safetensors" if parts == 1 else f"model-{part + 1:05d}-of-{parts:05d}.safetensors"
        header, at = {}, 0
        for tensor in names[part::parts]:
            size = int(gib[tensor] * (1 << 30))
            header[tensor] = {"dtype": "BF16", "shape": [size // 2], "data_offsets": [at, at + size]}
            at += size
            weight_map[tensor] = name
        text = json.dumps(header).encode()
        with (path / name).open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + at)
    if parts > 1:
        (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return path
