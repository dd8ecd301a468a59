"""The command of a ``vllm serve`` on the CPU with Paceline's scheduler."""

import json
from pathlib import Path
from typing import Any

from benchmarks.engine_environments import in_transformers_format, vllm_python

LONGEST = 6
NGRAM: dict[str, Any] = {
    "method": "ngram",
    "num_speculative_tokens": LONGEST,
    "prompt_lookup_max": 3,
    "prompt_lookup_min": 2,
}
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}


def command(
    gguf: Path, speculative: dict[str, Any] = NGRAM, port: str = "{port}", context_tokens: int = 1024
) -> list[str]:
    """For the model of a GGUF file, named ``smol``; installs vLLM the first time. Wants :data:`ENVIRONMENT`."""
    program = vllm_python().with_name("vllm")
    return [
        *(str(program), "serve", str(in_transformers_format(gguf)), "--served-model-name", "smol", "--port", port),
        *("--dtype", "float32", "--enforce-eager", "--max-model-len", str(context_tokens)),
        *("--max-num-seqs", "4", "--no-enable-prefix-caching"),
        *("--scheduler-cls", "paceline.inside.vllm_scheduler.scheduler"),
        *("--per-request-spec-decode-metrics", "detailed", "--enable-per-request-metrics"),
        *("--speculative-config", json.dumps(speculative)),
    ]
