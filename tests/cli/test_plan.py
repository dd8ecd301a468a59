"""``paceline plan``, as people run it."""

import json
from pathlib import Path

import httpx2
import pytest
from benchmarks.planning.hollow_models import write
from benchmarks.planning.shapes import REAL
from tests.conftest import Serving
from tests.planning.model_folders import QWEN36_27B, model_folder

from paceline.cli.commands import run
from paceline.configuration import load
from paceline.engines.bundled_model import bundled_model
from paceline.engines.llama_cpp_build import build
from paceline.paths import cache_directory


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without an engine, whatever was built here."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write(tmp_path, "Qwen3.6-27B", REAL["Qwen3.6-27B-Q4_K"])


def test_a_plan_is_printed(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", str(model), "--gpus", "RTX 3090", "--host-memory", "64", "--context-tokens", "131072"]
    assert run(words) == 0
    said = capsys.readouterr().out
    assert said.startswith("Qwen3.6-27B (qwen35): 64 layers, 14.6 GiB")
    assert "by formulas alone" in said
    assert f"llama-server --model {model} --ctx-size 131072" in said
    assert "--spec-type ngram-simple,draft-mtp" in said
    run([*words, "--draft", "none"])
    assert "draft-mtp" not in capsys.readouterr().out
    run([*words, "--kv", "q4_0", "--slots", "2", "--for", "throughput"])
    said = capsys.readouterr().out
    assert "--cache-type-k q4_0" in said
    assert "--ctx-size 262144 --parallel 2" in said


def test_what_does_not_fit_is_the_exit_status(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", str(model), "--gpus", "16", "--host-memory", "64", "--context-tokens", "262144"]) == 1
    assert "262,144 tokens do not fit; the plan is for" in capsys.readouterr().out
    assert run(["plan", str(model), "--gpus", "8", "--host-memory", "4"]) == 1
    assert "GiB are missing" in capsys.readouterr().err


def test_mistakes_are_told(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        ([str(tmp_path / "no.gguf")], "there is no file"),
        ([str(model), "--gpus", "RTX 9999"], "no card that is known"),
        ([str(model), "--engine", "vllm"], "vllm needs a folder"),
        ([str(model), "--gpus", "24", "--write", str(tmp_path)], "can't be written"),
        ([str(model), "--gpus", "24", "--draft", str(model.with_name("no.gguf"))], "there is no file"),
    ):
        assert run(["plan", *words]) == 1
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("memory", ["nan", "inf", "-1", "0", "much"])
def test_no_memory_is_a_mistake(memory: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(["plan", "model.gguf", "--gpus", "24", "--host-memory", memory])
    assert "argument --host-memory: " in capsys.readouterr().err


def test_drafts_that_nobody_wants_are_not_said_to_be_missing(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", str(model), "--gpus", "24", "--host-memory", "64", "--draft", "none"]) == 0
    said = capsys.readouterr().out
    assert "The file's MTP layers are not used, as was asked." in said
    assert "No drafter" not in said


def test_json(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", str(model), "--gpus", "2x RTX PRO 6000", "--host-memory", "64", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [device["name"] for device in document["machine"]["devices"]] == ["RTX PRO 6000"] * 2
    plan = document["plan"]
    assert plan["fits"] is True
    assert plan["split"] == "tensor"
    assert plan["settings"]["context_tokens"] == 131072
    assert plan["devices"][0]["use"]["weights"] > 7e9


def test_a_written_plan_is_a_configuration(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "paceline.toml"
    words = ["plan", str(model), "--gpus", "RTX 3090", "--host-memory", "64", "--write", str(file)]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(words) == 0
    said = capsys.readouterr().err
    assert f"paceline serve --config {file}" in said
    assert "llama-server, which is not on this machine's PATH" in said
    (engine,) = load(file).engine
    assert engine.name == "llama"
    assert engine.device == "gpu"
    assert engine.drafted_token_cost == pytest.approx(0.28)
    assert engine.launch[:3] == ("llama-server", "--model", str(model))
    assert "{port}" in engine.launch
    assert (engine.strategy, engine.n_max) == ("ngram", 2)
    assert "# weights" in file.read_text()
    file.write_text("# of mine\n")
    assert run(words) == 1
    assert "--force overwrites it" in capsys.readouterr().err
    assert file.read_text() == "# of mine\n"
    assert run([*words, "--force"]) == 0
    assert load(file).engine == (engine,)


def test_a_folder_is_planned_for_vllm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = model_folder(tmp_path / "qwen", QWEN36_27B, {"model.layers.0.mlp": 15.0, "mtp.layers.0.mlp": 0.4})
    file = tmp_path / "paceline.toml"
    words = ["plan", str(folder), "--gpus", "2x RTX 3090", "--context-tokens", "32768", "--write", str(file)]
    assert run(words) == 0
    said = capsys.readouterr().out
    assert "Fits. 32,768 tokens for each request" in said
    assert f"vllm serve {folder} --tensor-parallel-size 2" in said  # the port is left to whoever copies it
    (engine,) = load(file).engine
    assert (engine.kind, engine.strategy) == ("vllm", "mtp")
    assert run([*words[:-2], "--engine", "sglang", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["plan"]["engine"] == "sglang"
    assert run(["plan", str(folder), "--engine", "llama.cpp"]) == 1


@pytest.mark.engines
def test_a_plan_is_written_served_and_answered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On this machine's processor, whatever cards it has."""
    monkeypatch.undo()  # with the engine that was built here
    build(cache_directory())
    file = tmp_path / "paceline.toml"
    model = bundled_model(cache_directory(), lambda: None)
    assert run(["plan", str(model), "--context-tokens", "4096", "--slots", "1", "--write", str(file)]) == 0
    with Serving("--config", str(file), folder=tmp_path) as serving:
        lanes = [one["lane"] for one in serving.lanes()]
        assert lanes == ["llama/plain", "llama/ngram"]  # it controls its drafts
        asked = {"messages": [{"role": "user", "content": "Count to ten."}], "max_tokens": 16}
        answer = httpx2.post(f"{serving.url}/v1/chat/completions", json=asked, timeout=60, trust_env=False)
        assert answer.status_code == 200, answer.text
        assert answer.json()["usage"]["completion_tokens"] > 0
