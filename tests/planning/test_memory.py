"""Bytes of weights, caches and states, against what llama.cpp's server and its planner said of the same shapes."""

import pytest
from tests.planning.hollow import hollow

from paceline.planning.architectures import Architecture
from paceline.planning.memory import (
    CacheType,
    Model,
    Settings,
    cache_bytes,
    checkpoint_bytes,
    mtp_cache_bytes,
    state_bytes,
    token_bytes,
)

MIB, KIB = 1 << 20, 1 << 10


def known(model: Model) -> Architecture:
    assert model.architecture is not None
    return model.architecture


def context(model: Model, settings: Settings) -> float:
    return sum(cache_bytes(layer, known(model), settings) for layer in known(model).layers) / MIB


@pytest.mark.parametrize(
    ("name", "tokens", "cache_type", "slots", "drafted", "mib"),
    [
        # said by dry runs of llama.cpp b11434
        ("Llama-3.3-70B-Q4_K", 131072, "q8_0", 1, 0, 21760.0),
        ("gpt-oss-120b", 131072, "f16", 1, 0, 4635.0),
        ("gpt-oss-20b", 131072, "f16", 1, 0, 3090.0),
        ("DeepSeek-V3-Q4_K", 163840, "q8_0", 1, 0, 5833.1),
        ("Qwen3.6-27B-Q4_K", 8192, "f16", 1, 0, 661.6),
        ("Qwen3.6-27B-Q4_K", 262144, "q4_0", 1, 2, 5056.9),
        ("Qwen3.6-27B-Q4_K", 131072, "f16", 4, 12, 15972.5),
        ("Qwen3.6-35B-A3B-Q4_K", 65536, "f16", 1, 2, 1468.4),
        ("DeepSeek-V4-Flash", 524288, "f16", 1, 0, 3483.9),
        ("DeepSeek-V4-Flash", 1048576, "f16", 1, 0, 6923.9),
        ("DeepSeek-V4-Flash", 524288, "f16", 4, 0, 3615.6),
        ("DeepSeek-V4-Flash", 524288, "q8_0", 1, 0, 1856.3),
    ],
)
def test_caches_and_states(name: str, tokens: int, cache_type: CacheType, slots: int, drafted: int, mib: float) -> None:
    settings = Settings(
        context_tokens=tokens, slots=slots, key_type=cache_type, value_type=cache_type, draft_tokens=drafted
    )
    assert context(hollow(name), settings) == pytest.approx(mib, rel=1e-4)


def test_a_cache_for_all_slots() -> None:
    """But DeepSeek-V4's, of which each slot has its own whatever is asked for."""
    settings = Settings(context_tokens=131072, slots=4, is_unified=True)
    assert context(hollow("gpt-oss-120b"), settings) == pytest.approx(4644.0, rel=1e-4)
    settings = Settings(context_tokens=524288, slots=4, is_unified=True)
    assert context(hollow("DeepSeek-V4-Flash"), settings) == pytest.approx(4 * 3483.9, rel=1e-3)


def test_what_a_token_and_a_slot_take() -> None:
    usual = Settings(context_tokens=131072)
    assert token_bytes(known(hollow("Qwen3.6-27B-Q4_K")), usual) == 64 * KIB
    assert token_bytes(known(hollow("Llama-3.3-70B-Q4_K")), usual) == 320 * KIB
    assert token_bytes(known(hollow("DeepSeek-V3-Q4_K")), usual) / KIB == pytest.approx(68.6, abs=0.05)
    assert state_bytes(known(hollow("Qwen3.6-27B-Q4_K"))) / MIB == pytest.approx(149.6, abs=0.05)
    assert checkpoint_bytes(known(hollow("Qwen3.6-27B-Q4_K")), usual) == state_bytes(known(hollow("Qwen3.6-27B-Q4_K")))
    assert checkpoint_bytes(known(hollow("gpt-oss-120b")), usual) / MIB == pytest.approx(18 * 768 * 2 / 1024, abs=0.1)


def test_a_drafters_cache_has_a_type_of_its_own() -> None:
    model = hollow("Qwen3.6-27B-Q4_K")
    (layer,) = known(model).mtp_layers
    quantized = Settings(context_tokens=131072, key_type="q4_0", value_type="q4_0", loads_mtp=True)
    assert mtp_cache_bytes(layer, known(model), quantized) == 512 * MIB
    both = Settings(context_tokens=131072, draft_key_type="q8_0", draft_value_type="q8_0", loads_mtp=True)
    assert mtp_cache_bytes(layer, known(model), both) == 272 * MIB


@pytest.mark.parametrize(
    ("name", "mib", "host_mib"),
    [
        ("Llama-3.3-70B-Q4_K", 37547.0, 563.6),
        ("gpt-oss-120b", 59852.7, 586.8),
        ("Qwen3.6-27B-Q4_K", 14067.4, 682.0),
        ("Qwen3.6-35B-A3B-Q4_K", 19190.3, 515.3),
        ("DeepSeek-V4-Flash", 147454.7, 536.6),
        ("gemma-3-27b-Q4_K", 14816.0, 1102.7),
    ],
)
def test_weights(name: str, mib: float, host_mib: float) -> None:
    """Tied embeddings (Gemma's) are there twice."""
    model = hollow(name)
    layers = model.layers[: model.trunk_count]
    total = model.output_bytes + sum(layer.shared + layer.experts for layer in layers)
    assert total / MIB == pytest.approx(mib, rel=2e-3)
    assert model.input_bytes / MIB == pytest.approx(host_mib, rel=1e-3)


def test_experts_are_told_from_the_rest() -> None:
    model = hollow("gpt-oss-120b")
    assert model.layers[0].largest_expert == 2880 * 2880 * 128 * 17 // 32
    assert model.layers[0].experts > 3 * model.layers[0].largest_expert
    assert model.layers[0].mirrored < model.layers[0].shared
    assert hollow("llama").layers[0].experts == 0
