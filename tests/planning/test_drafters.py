"""Drafters that are found with a model, on real engines: a draft model, an EAGLE-3 head, MTP layers."""

import os
import shutil
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.conftest import Serving
from training.drafters.gguf_file import ModelFile, write
from training.drafters.models import draft_model, eagle3_head, model_with_mtp

from paceline.engines.llama_cpp_build import build
from paceline.paths import cache_directory
from paceline.planning.drafters import NoDrafter, find_drafter
from paceline.planning.gguf import BadModelFile, read_header

SERVER_NAMES = {"draft": "simple", "eagle3": "eagle3", "mtp": "mtp"}
KINDS = tuple(SERVER_NAMES)
PROMPT = "Write a Python function that reverses a string."


@pytest.fixture(scope="session")
def folders(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By the kind of its drafter, a model file with that drafter beside it or within."""
    target = ModelFile(model)
    found = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp(kind)
        found[kind] = folder / "model.gguf"
        if kind == "mtp":
            model_with_mtp(target, found[kind])
        else:
            found[kind].symlink_to(model)
    draft_model(target, found["draft"].with_name("model-draft.gguf"))
    eagle3_head(target, found["eagle3"].with_name("model-eagle3.gguf"))
    return found


@pytest.mark.slow
def test_drafters_are_found(folders: dict[str, Path], model: Path) -> None:
    for kind, path in folders.items():
        drafter = find_drafter((read_header(path),))
        assert drafter is not None
        assert drafter.kind == kind
        assert (drafter.file is None) == (kind == "mtp")
    assert find_drafter((read_header(model),)) is None


@pytest.mark.slow
def test_a_head_goes_before_a_draft_model(folders: dict[str, Path], tmp_path: Path) -> None:
    for kind in ("draft", "eagle3"):
        (tmp_path / f"a-{kind}.gguf").symlink_to(folders[kind].with_name(f"model-{kind}.gguf"))
    (tmp_path / "model.gguf").symlink_to(folders["draft"])
    drafter = find_drafter((read_header(tmp_path / "model.gguf"),))
    assert drafter and drafter.kind == "eagle3"
    given = find_drafter((read_header(tmp_path / "model.gguf"),), tmp_path / "a-draft.gguf")
    assert given and given.kind == "draft"


@pytest.mark.slow
def test_a_file_that_does_not_fit_is_told(folders: dict[str, Path], tmp_path: Path) -> None:
    broken = tmp_path / "draft.gguf"
    broken.write_bytes(b"no model")
    with pytest.raises(BadModelFile, match=r"draft\.gguf"):
        find_drafter((read_header(folders["draft"]),), broken)
    head = folders["eagle3"].with_name("model-eagle3.gguf")
    with pytest.raises(NoDrafter, match="another vocabulary or hidden size"):
        find_drafter((read_header(_of_another_size(folders["eagle3"], tmp_path / "wider.gguf")),), head)


def _of_another_size(model: Path, path: Path) -> Path:
    like = ModelFile(model)
    write(path, like.architecture, like, {"embedding_length": 640}, {})
    return path


@pytest.mark.engines
@pytest.mark.parametrize("kind", KINDS)
def test_serve_finds_them_on_the_embedded_engine(kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    with Serving(
        "--model", str(folders[kind]), "--llama-server", "embedded", "--slots", "1", folder=tmp_path
    ) as serving:
        assert f"drafts by {kind}" in serving.said
        assert [one["lane"] for one in serving.lanes()] == ["plain", "ngram", kind]
        plain, drafting = (ask(serving, lane) for lane in ("plain", kind))
        assert drafting["timings"]["draft_n"] > 0
        assert drafting["choices"] == plain["choices"]
        assert not [warning for one in serving.lanes() for warning in one["engine"]["warnings"]]


@pytest.mark.engines
@pytest.mark.parametrize("kind", KINDS)
def test_serve_offers_them_by_request(kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    if not (os.environ.get("CXX") or shutil.which("c++") or shutil.which("clang++")):
        pytest.skip("no C++ compiler")
    build(cache_directory())
    with Serving("--model", str(folders[kind]), "--slots", "1", folder=tmp_path) as serving:
        longest = {"draft": 8, "eagle3": 4, "mtp": 4}[kind]
        lanes = [one["lane"] for one in serving.lanes()]
        assert lanes == ["llama/plain", "llama/ngram", f"llama/{kind}", "llama/all"]
        plain = ask(serving, "llama/plain")
        assert "draft_n" not in plain["timings"]
        answer = ask(serving, f"llama/{kind}")
        assert answer["choices"] == plain["choices"]
        # Random weights draft little that is worth a step, so the engine seldom has them draft; here, nothing costs.
        free = {"speculative.control": {f"draft-{SERVER_NAMES[kind]}": {"costs": [1.0] * longest, "acceptance": [0.9]}}}
        answer = ask(serving, f"llama/{kind}", **free)
        assert answer["choices"] == plain["choices"]
        assert answer["timings"]["draft_n"] >= 20
        assert answer["timings"]["draft_n"] <= longest * answer["timings"]["draft_n_steps"]


def ask(serving: Serving, lane: str, **fields: Any) -> Any:
    asked = {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 32, "temperature": 0} | fields
    headers = {"x-paceline-lane": lane}
    answer = httpx2.post(f"{serving.url}/v1/chat/completions", json=asked, headers=headers, timeout=60, trust_env=False)
    assert answer.status_code == 200, answer.text
    return answer.json()
