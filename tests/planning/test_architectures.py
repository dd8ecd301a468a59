"""What models keep of a sequence, by their architecture."""

from pathlib import Path

import pytest
from benchmarks.planning.hollow_models import write
from benchmarks.planning.shapes import REAL, TINY
from msgspec.structs import replace
from tests.model_files import STRING, model_file, pair, text
from tests.planning.hollow import hollow

from paceline.planning.architectures import Cache, architecture_of, assumed_architecture, mtp_layer_count
from paceline.planning.drafters import find_drafter
from paceline.planning.gguf import read_model

KINDS = {
    "llama": "full", "qwen3moe": "full", "glm4moe": "full", "gpt-oss": "window", "gemma2": "window",
    "gemma3": "window", "gemma4": "window", "cohere2": "window", "llama4": "window", "deepseek2": "mla",
    "deepseek32": "sparse", "glm-dsa": "sparse", "qwen3next": "hybrid", "qwen35": "hybrid", "qwen35moe": "hybrid",
    "granitehybrid": "hybrid", "nemotron_h": "hybrid", "lfm2": "hybrid", "falcon-h1": "hybrid",
    "kimi-linear": "hybrid", "mamba2": "recurrent", "deepseek4": "compressed",
}  # fmt: skip


def test_all_that_is_compared_with_the_engine_is_here() -> None:
    assert KINDS.keys() == TINY.keys()


@pytest.mark.parametrize("family", KINDS)
def test_every_family_is_known(family: str) -> None:
    architecture = hollow(family).architecture
    assert architecture is not None
    assert architecture.kind == KINDS[family]
    assert len(architecture.layers) == TINY[family].layers
    assert len(architecture.mtp_layers) == TINY[family].mtp


def test_layers_that_see_a_window() -> None:
    gemma = hollow("gemma-3-27b-Q4_K").architecture
    assert gemma is not None
    full = [index for index, layer in enumerate(gemma.layers) if not layer.caches[0].is_window]
    assert full == list(range(5, 62, 6))
    assert gemma.window == 1024


def test_one_latent_vector_a_token() -> None:
    deepseek = hollow("DeepSeek-V3.2-Q4_K").architecture
    assert deepseek is not None
    assert deepseek.layers[0].caches == (Cache(keys=576), Cache(keys=128))
    assert deepseek.needs_equal_types
    assert not deepseek.may_split_tensors


def test_layers_that_only_feed_forward_keep_nothing() -> None:
    nemotron = hollow("nemotron_h").architecture
    assert nemotron is not None
    kept = [("cache" if layer.caches else "state" if layer.state_values else "nothing") for layer in nemotron.layers]
    assert kept == ["state", "state", "nothing", "state", "cache", "nothing", "state", "state", "nothing"]


def test_mtp_layers_are_believed_by_their_tensors(tmp_path: Path) -> None:
    whole = read_model(write(tmp_path, "whole", TINY["qwen35"]))
    assert mtp_layer_count(whole) == 1
    assert find_drafter(whole) is not None
    tensors = [tensor for tensor in whole[0].tensors if not tensor.name.startswith("blk.8.")]
    stripped = [replace(whole[0], tensors=tuple(tensors))]
    assert stripped[0].own_number("nextn_predict_layers") == 1
    assert mtp_layer_count(stripped) == 0
    assert find_drafter(stripped) is None
    architecture = architecture_of(stripped)
    assert architecture is not None
    assert (len(architecture.layers), len(architecture.mtp_layers), architecture.block_count) == (8, 0, 9)


def test_an_architecture_that_is_not_known(tmp_path: Path) -> None:
    file = model_file(tmp_path / "new.gguf", [pair("general.architecture", STRING, text("new"))])
    headers = read_model(file)
    assert architecture_of(headers) is None
    assert assumed_architecture(headers).layers == ()


def test_the_most_that_an_unknown_one_can_be() -> None:
    """As if every layer attended to everything."""
    headers = hollow("Qwen3.6-27B-Q4_K").headers
    assumed = assumed_architecture(headers)
    assert all(layer.caches == (Cache(keys=1024, values=1024),) for layer in assumed.layers)
    assert len(assumed.layers) == REAL["Qwen3.6-27B-Q4_K"].layers
