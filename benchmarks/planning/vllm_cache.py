"""Is what a plan says of vLLM's cache what vLLM itself says?

    python -m benchmarks.planning.vllm_cache

Describes the layers of five models to vLLM 0.32 as its models do, with the plan's blocks where there are states, has
vLLM's own functions group them and count what a request takes, and compares that with the plan's. Runs in the
environment that ``benchmarks.engine_environments`` makes (minutes, the first time); no GPU and no weights are needed.
Prints a line for each setting, and ends with 1 if one is off by more than 0.2 %.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

from paceline.planning.model_folder import ModelFolder, read_folder
from paceline.planning.vllm_plan import VLLM_BLOCK_TOKENS, CacheLayout

SHAPES = Path(__file__).with_name("model_shapes.json")
RANKS = (1, 2, 4, 8, 16)
CONTEXTS = (4_096, 131_072)
BATCH_TOKENS = 2_048
CACHE_BYTES = 2
WITHIN = 0.002


def folder_of(path: Path, config: dict[str, Any]) -> ModelFolder:
    """A folder with this configuration, and one empty tensor."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    header = b'{"a":{"dtype":"BF16","shape":[0],"data_offsets":[0,0]}}'
    (path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    return read_folder(path)


def settings() -> Iterator[tuple[str, ModelFolder, int, int, int, int]]:
    """Model, cards, drafted tokens, layers that draft, context."""
    with TemporaryDirectory() as scratch:
        for name, config in json.loads(SHAPES.read_text()).items():
            folder = folder_of(Path(scratch) / name, config)
            if folder.unknown:
                continue
            for ranks in RANKS:
                if folder.attention_heads % ranks or ("linear" in folder.layers and folder.state_heads % ranks):
                    continue
                for drafted, layers in ((0, 0), (4, 1)):
                    for tokens in CONTEXTS:
                        yield name, folder, ranks, drafted, layers, tokens


def engines_own(folder: ModelFolder, layout: CacheLayout, ranks: int, drafted: int, layers: int, tokens: int) -> int:
    """Bytes that vLLM's own functions count for one request."""
    interface, utils = import_module("vllm.v1.kv_cache_interface"), import_module("vllm.v1.core.kv_cache_utils")
    torch = import_module("torch")
    heads = max(1, folder.kv_heads // ranks)
    block = layout.block_tokens if "linear" in folder.layers else VLLM_BLOCK_TOKENS
    common = {"block_size": block, "dtype": torch.bfloat16}
    sized = common | {"num_kv_heads": heads, "head_size": folder.head_size}
    specs: dict[str, Any] = {}
    own = "latent" if folder.latent_width else "full"
    for number, kind in enumerate((*folder.layers, *([own] * layers))):
        if kind == "latent":
            spec = interface.MLAAttentionSpec(**common, num_kv_heads=1, head_size=folder.latent_width)
        elif kind == "full":
            spec = interface.FullAttentionSpec(**sized)
        elif kind == "sliding":
            spec = interface.SlidingWindowSpec(**sized, sliding_window=folder.window)
        else:
            kept = folder.convolution_width - 1 + drafted
            spec = interface.MambaSpec(
                block_size=tokens,
                shapes=(
                    (folder.convolution_values // ranks, kept),
                    (folder.state_heads // ranks, folder.state_values // folder.state_heads),
                ),
                dtypes=(torch.bfloat16, torch.float32),
                page_size_padded=2 * heads * folder.head_size * CACHE_BYTES * block,
                num_speculative_blocks=drafted,
            )
        specs[f"layers.{number}"] = spec
    config = MagicMock()
    config.model_config.max_model_len = tokens
    config.max_in_flight_tokens = config.scheduler_config.max_num_batched_tokens = BATCH_TOKENS
    config.scheduler_config.disable_hybrid_kv_cache_manager = False
    config.parallel_config.decode_context_parallel_size = config.parallel_config.prefill_context_parallel_size = 1
    config.cache_config.mamba_cache_mode = "none"
    config.cache_config.get_resolved_kv_cache_layout.return_value = SimpleNamespace(is_block_outermost=False)
    config.attention_config.hisparse_config = config.speculative_config = None
    groups = utils.get_kv_cache_groups(config, specs)
    return int(utils._max_memory_usage_bytes_from_groups(config, groups))


def main() -> int:
    worst = 0.0
    for name, folder, ranks, drafted, layers, tokens in settings():
        layout = CacheLayout(folder, ranks, CACHE_BYTES, drafted, BATCH_TOKENS, layers)
        own, ours = engines_own(folder, layout, ranks, drafted, layers, tokens), layout.request_bytes(tokens)
        error = ours / own - 1
        worst = max(worst, abs(error))
        print(
            f"{name:16} {ranks:2} cards, {drafted} drafted, {tokens:7,} tokens: vLLM {own / 2**20:9.1f} MiB, "
            f"plan {ours / 2**20:9.1f} ({error:+.2%})"
        )
    print(f"worst {worst:.2%}")
    return int(worst > WITHIN)


if __name__ == "__main__":
    if find_spec("vllm") is None:
        from benchmarks.engine_environments import vllm_python

        sys.exit(subprocess.run([str(vllm_python()), "-m", "benchmarks.planning.vllm_cache"], check=False).returncode)
    sys.exit(main())
