"""A request of half a million tokens before llama.cpp's own server, with a model that is made for it: two layers that
attend to a window, random weights, and the bundled model's words."""

from pathlib import Path
from random import Random
from typing import Any

import httpx2
import numpy
import pytest
from tests.conftest import EngineTable, Serving
from training.drafters.gguf_file import ModelFile, matrix, vector, write

CONTEXT = 524_288
WORDS = "the model reads this text again and writes code tests notes for all of its parts without end now".split()
"""A token each."""
ASKED = 510_000
MAX_GATEWAY_BYTES = 200e6
"""Of the gateway's memory at most; it had 69 MB."""


def long_model(like: Path, path: Path) -> None:
    """What ``src/models/gemma3.cpp`` of llama.cpp loads; of six layers the first five have a window."""
    donor, random = ModelFile(like), numpy.random.default_rng(0)
    size, head, layers = 64, 64, 2

    def weights(outputs: int, inputs: int) -> Any:
        return matrix(random.normal(0, 0.05, (outputs, inputs)))

    ones = vector(numpy.ones(size))
    words = donor.tensors["token_embd.weight"].values.shape[0]
    tensors = {"token_embd.weight": weights(words, size), "output_norm.weight": ones}
    for layer in range(layers):
        norms = ("attn_norm", "ffn_norm", "post_attention_norm", "post_ffw_norm", "attn_q_norm", "attn_k_norm")
        matrices = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
        tensors |= {f"blk.{layer}.{name}.weight": ones for name in norms}
        tensors |= {f"blk.{layer}.{name}.weight": weights(size, size) for name in matrices}
    keys: dict[str, Any] = {
        "block_count": layers,
        "context_length": CONTEXT,
        "embedding_length": size,
        "feed_forward_length": size,
        "attention.head_count": 1,
        "attention.head_count_kv": 1,
        "attention.key_length": head,
        "attention.value_length": head,
        "attention.sliding_window": 512,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.dimension_count": head,
        "rope.freq_base": 10_000.0,
    }
    write(path, "gemma3", donor, keys, tensors)


@pytest.mark.slow
def test_it_is_read_and_its_next_turn_is_warm(model: Path, embedded_engine: EngineTable, tmp_path: Path) -> None:
    file = tmp_path / "long.gguf"
    long_model(model, file)
    configuration = tmp_path / "paceline.toml"
    flags = ("--model", str(file), "--parallel", "1", "--ctx-size", str(CONTEXT), "--ctx-checkpoints", "2")
    configuration.write_text(embedded_engine("long", *flags))
    rng = Random(0)
    messages = [{"role": "user", "content": " ".join(rng.choice(WORDS) for _ in range(ASKED))}]
    with Serving("--config", str(configuration), folder=tmp_path) as serving:
        answers = []
        for _ in range(2):
            body = {"messages": messages, "max_tokens": 8}
            answer = httpx2.post(f"{serving.url}/v1/chat/completions", json=body, timeout=300, trust_env=False)
            assert answer.status_code == 200, answer.text[:300]
            answers.append(answer.json())
            said = answers[-1]["choices"][0]["message"]["content"]
            messages += [{"role": "assistant", "content": said}, {"role": "user", "content": "And now?"}]
        first, second = (one["timings"] for one in answers)
        assert first["prompt_n"] > ASKED
        assert second["cache_n"] > ASKED
        assert second["prompt_n"] < 1_000
        status = Path(f"/proc/{serving.process.pid}/status").read_text()
        peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024
        assert peak < MAX_GATEWAY_BYTES
