import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.engine_environments import vllm_python
from msgspec.structs import replace
from tests.planning.model_folders import (
    DEEPSEEK_V3,
    DEEPSEEK_V4_FLASH,
    EAGLE3,
    GPT_OSS_20B,
    LLAMA_70B,
    QWEN36_27B,
    model_folder,
)

from paceline.planning.devices import Link
from paceline.planning.given_devices import given_machine
from paceline.planning.model_folder import BadModelFolder, ModelFolder, read_folder
from paceline.planning.vllm_plan import (
    GIB,
    CacheLayout,
    EngineKind,
    Wish,
    plan_parallel,
    sglang_reserve,
    tensor_parallel_sizes,
)

ENGINES: list[EngineKind] = ["vllm", "sglang"]


@pytest.fixture
def llama(tmp_path: Path) -> ModelFolder:
    """In eight bits."""
    return read_folder(model_folder(tmp_path / "llama", LLAMA_70B, {"model.layers.0.mlp": 66.0, "lm_head": 2.0}))


@pytest.fixture
def qwen(tmp_path: Path) -> ModelFolder:
    """In four bits, with its layer for multi-token prediction."""
    tensors = {"model.layers.0.mlp": 15.0, "model.visual.layers.70.mlp": 0.5, "mtp.layers.0.mlp": 0.4}
    return read_folder(model_folder(tmp_path / "qwen", QWEN36_27B, tensors))


def test_a_configuration_tells_what_layers_keep(llama: ModelFolder, qwen: ModelFolder, tmp_path: Path) -> None:
    assert (llama.layers, llama.kv_heads, llama.head_size) == (("full",) * 80, 8, 128)
    assert (qwen.layers.count("linear"), qwen.layers.count("full"), qwen.is_multimodal) == (48, 16, True)
    assert (qwen.weight_bytes / GIB, round(qwen.mtp_bytes / GIB, 3), qwen.mtp_layers) == (15.5, 0.4, 1)
    oss = read_folder(model_folder(tmp_path / "oss", GPT_OSS_20B, {"model.layers.0.mlp.experts.x": 11.0, "rest": 2.0}))
    assert (oss.layers.count("sliding"), oss.window, oss.experts, oss.experts_used) == (12, 128, 32, 4)
    assert oss.expert_bytes == 11 * GIB
    v3 = read_folder(
        model_folder(tmp_path / "v3", DEEPSEEK_V3, {"model.layers.60.x": 640.0, "model.layers.61.x": 11.0})
    )
    assert (v3.layers, v3.latent_width, v3.mtp_bytes, v3.quantization) == (("latent",) * 61, 576, 11 * GIB, "fp8")
    v4 = read_folder(model_folder(tmp_path / "v4", DEEPSEEK_V4_FLASH, {"a": 140.0}))
    assert "sparse attention" in v4.unknown


def test_a_state_is_as_large_as_llama_cpp_s(qwen: ModelFolder) -> None:
    """149.6 MiB for the 48 layers of Qwen3.6-27B, in 32 bits; vLLM keeps the convolution's part in 16."""
    state = 48 * (4 * qwen.state_values + 4 * qwen.convolution_values * (qwen.convolution_width - 1))
    assert state / (1 << 20) == pytest.approx(149.6, abs=0.1)


def test_cards_share_out_heads(llama: ModelFolder, qwen: ModelFolder) -> None:
    assert tensor_parallel_sizes(24, 5) == [4, 3, 2, 1]
    assert plan_parallel(llama, given_machine("2x RTX PRO 6000"), Wish()).tensor_parallel == 2
    five = plan_parallel(qwen, given_machine("5x RTX 3090"), Wish())
    assert five.tensor_parallel == 4
    assert any("4 of 5 cards are used: the 24 attention heads" in note for note in five.notes)
    mixed = plan_parallel(qwen, given_machine("RTX 5090, 2x RTX 3090"), Wish())
    assert mixed.cards == (1, 2)
    assert any("1 of 3 devices are left out" in note for note in mixed.notes)


def test_a_dense_model_s_cache_is_320_kib_a_token(llama: ModelFolder) -> None:
    assert CacheLayout(llama, 1, 2).request_bytes(131072) == 131072 * 320 * 1024
    assert CacheLayout(llama, 2, 2).request_bytes(131072) == 131072 * 160 * 1024
    assert CacheLayout(llama, 16, 2).request_bytes(131072) == 131072 * 40 * 1024  # eight heads, two copies each
    assert CacheLayout(llama, 1, 1).request_bytes(131072) == 131072 * 160 * 1024


def test_windows_states_and_latents_keep_less(tmp_path: Path, qwen: ModelFolder) -> None:
    oss = read_folder(model_folder(tmp_path / "oss", GPT_OSS_20B, {"a": 13.0}))
    per_layer = 2 * 8 * 64 * 2
    assert CacheLayout(oss, 1, 2).request_bytes(131072) == pytest.approx(
        12 * per_layer * (131072 + 2048 + 128), rel=0.01
    )
    v3 = read_folder(model_folder(tmp_path / "v3", DEEPSEEK_V3, {"a": 640.0}))
    assert CacheLayout(v3, 8, 2).request_bytes(163840) == 61 * 576 * 2 * 163840  # not shared out
    deep, shallow = (CacheLayout(qwen, 1, 2, draft_tokens=0).request_bytes(tokens) for tokens in (131072, 16))
    assert deep == pytest.approx(131072 * 64 * 1024 + 3 * 16 * 3.1 * (1 << 20), rel=0.02)
    assert shallow < deep / 20
    assert CacheLayout(qwen, 1, 2, draft_tokens=4).request_bytes(16) > 3 * shallow  # a state for each drafted token


def test_the_largest_context_is_the_largest(qwen: ModelFolder, llama: ModelFolder) -> None:
    for folder in (qwen, llama):
        layout = CacheLayout(folder, 2, 2, 2)
        for available in (0, 1 << 28, 1 << 32, 1 << 36):
            tokens = layout.largest_context(available)
            assert tokens == 0 or layout.request_bytes(tokens) <= available
            assert tokens == folder.max_tokens or layout.request_bytes(tokens + 1) > available


def test_llama_70b_on_two_cards_of_96_gb(llama: ModelFolder) -> None:
    plan = plan_parallel(llama, given_machine("2x RTX PRO 6000"), Wish(context_tokens=131072, slots=2))
    assert plan.fits
    assert plan.need.weights == 34 * GIB
    assert plan.need.budget == int(0.92 * 96 * GIB)
    assert plan.capacity_tokens is not None
    assert plan.capacity_tokens // 1000 == (plan.need.cache // (160 * 1024)) // 1000
    assert plan.command[:3] == ("vllm", "serve", str(llama.path))
    flags = dict(zip(plan.command[3:], plan.command[4:], strict=False))
    assert (flags["--tensor-parallel-size"], flags["--max-model-len"], flags["--max-num-seqs"]) == ("2", "131072", "2")
    assert "--disable-custom-all-reduce" in plan.command
    assert json.loads(flags["--speculative-config"])["method"] == "ngram"
    assert "--gpu-memory-utilization" not in plan.command


def test_nvlink_leaves_all_reduce_alone(llama: ModelFolder) -> None:
    machine = given_machine("2x A100 80GB")
    joined = replace(machine, links=(Link(devices=(0, 1), kind="nvlink", bytes_per_s=300e9),))
    for engine in ENGINES:
        assert "--disable-custom-all-reduce" in plan_parallel(llama, machine, Wish(), engine).command
        assert "--disable-custom-all-reduce" not in plan_parallel(llama, joined, Wish(), engine).command


def test_mtp_is_believed_by_its_tensors(qwen: ModelFolder, tmp_path: Path) -> None:
    plan = plan_parallel(qwen, given_machine("RTX 3090"), Wish(context_tokens=32768))
    flags = dict(zip(plan.command[3:], plan.command[4:], strict=False))
    assert json.loads(flags["--speculative-config"]) == {"method": "mtp", "num_speculative_tokens": 2}
    assert flags["--scheduler-cls"] == "paceline.inside.vllm_scheduler.scheduler"
    stripped = read_folder(model_folder(tmp_path / "stripped", DEEPSEEK_V3, {"model.layers.60.x": 20.0}))
    assert "ngram" in " ".join(plan_parallel(stripped, given_machine("RTX 5090"), Wish()).command)
    assert "--speculative-config" not in plan_parallel(qwen, given_machine("RTX 3090"), Wish(draft="none")).command


def test_a_drafter_beside_it_is_used(llama: ModelFolder, tmp_path: Path) -> None:
    drafter = model_folder(tmp_path / "eagle", EAGLE3, {"fc": 2.0})
    plan = plan_parallel(llama, given_machine("2x RTX PRO 6000"), Wish(draft=str(drafter)))
    assert plan.need.drafter == GIB
    assert f'"method":"eagle3","model":"{drafter}","num_speculative_tokens":4' in " ".join(plan.command)
    command = " ".join(plan_parallel(llama, given_machine("2x H100"), Wish(draft=str(drafter)), "sglang").command)
    assert "--speculative-algorithm EAGLE3" in command
    assert "--speculative-num-steps 3 --speculative-eagle-topk 1 --speculative-num-draft-tokens 4" in command
    with pytest.raises(BadModelFolder, match=r"no config\.json"):
        plan_parallel(llama, given_machine("2x H100"), Wish(draft=str(tmp_path / "missing")))


@pytest.mark.parametrize("engine", ENGINES)
def test_what_does_not_fit_is_said_with_the_most_that_does(llama: ModelFolder, engine: EngineKind) -> None:
    plan = plan_parallel(llama, given_machine("2x L40S"), Wish(context_tokens=131072), engine)
    assert plan.fits is False
    assert 0 < plan.context_tokens < 131072
    assert any("131,072 tokens do not fit" in note for note in plan.notes)
    layout = CacheLayout(llama, 2, 2, 6)
    assert layout.request_bytes(plan.context_tokens) <= plan.need.cache
    small = plan_parallel(llama, given_machine("RTX 5090"), Wish(), engine)
    assert small.fits is False
    assert any("smaller quantization, or more cards" in note for note in small.notes)


def test_what_is_taken_already_is_not_planned_with(qwen: ModelFolder) -> None:
    machine = given_machine("RTX 3090")
    busy = replace(machine, devices=(replace(machine.devices[0], free_bytes=20 * GIB),))
    plan = plan_parallel(qwen, busy, Wish())
    assert plan.need.budget == 20 * GIB
    assert "--gpu-memory-utilization 0.83" in " ".join(plan.command)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_unknown_cache_is_left_to_the_engine(tmp_path: Path, engine: EngineKind) -> None:
    folder = read_folder(model_folder(tmp_path / "v4", DEEPSEEK_V4_FLASH, {"a": 140.0}))
    plan = plan_parallel(folder, given_machine("2x RTX PRO 6000"), Wish(context_tokens=524288), engine)
    assert (plan.fits, plan.capacity_tokens, plan.context_tokens) == (None, None, 524288)
    assert any("sparse attention" in note for note in plan.notes)
    assert plan_parallel(folder, given_machine("RTX PRO 6000"), Wish(), engine).fits is False


def test_sglang_leaves_by_the_size_of_the_card() -> None:
    small, large = given_machine("RTX 3090, H100").devices
    assert sglang_reserve(small, 1, drafts=False) == (512 + 3072 + 48 + 128) * (1 << 20)
    assert sglang_reserve(large, 1, drafts=False) == (512 + 12288 + 512 + 128) * (1 << 20)
    assert sglang_reserve(large, 1, drafts=True) - sglang_reserve(large, 1, drafts=False) == 4 * GIB


def test_a_cache_in_eight_bits_holds_twice_as_much(llama: ModelFolder) -> None:
    machine = given_machine("2x RTX PRO 6000")
    half, quarter = (plan_parallel(llama, machine, Wish(context_tokens=32768, cache=name)) for name in ("f16", "q8_0"))
    assert quarter.capacity_tokens == pytest.approx(2 * (half.capacity_tokens or 0), rel=0.01)
    assert "--kv-cache-dtype fp8" in " ".join(quarter.command)
    assert any(
        "no cache in 4 bits" in note or "4 bits" in note
        for note in plan_parallel(llama, machine, Wish(cache="q4_0")).notes
    )


@pytest.mark.parametrize(
    ("config", "said"),
    [(None, "no config"), ("[]", "holds no settings"), ("{", "no JSON"), ("{}", "no number of layers")],
)
def test_a_folder_that_is_none_is_said(tmp_path: Path, config: str | None, said: str) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(BadModelFolder, match=said):
        read_folder(tmp_path)


def test_a_gpu_is_needed(llama: ModelFolder) -> None:
    with pytest.raises(BadModelFolder, match="needs a GPU"):
        plan_parallel(llama, replace(given_machine("24"), devices=()), Wish())


@pytest.mark.engines
def test_vllm_counts_the_same() -> None:
    """Its own functions, of five models on 1 to 16 cards, with and without drafts."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.planning.vllm_cache"], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "worst 0.00%" in done.stdout


PARSE = """
import json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
options = make_arg_parser(FlexibleArgumentParser()).parse_args(sys.argv[1:])
print(json.dumps([options.tensor_parallel_size, options.max_model_len, options.speculative_config]))
"""


@pytest.mark.engines
def test_vllm_takes_the_command(qwen: ModelFolder) -> None:
    plan = plan_parallel(qwen, given_machine("2x RTX 3090"), Wish(context_tokens=32768, cache="q8_0"))
    words = [word.replace("{port}", "8000") for word in plan.command[2:]]
    done = subprocess.run([str(vllm_python()), "-c", PARSE, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [2, 32768, {"method": "mtp", "num_speculative_tokens": 2}]
