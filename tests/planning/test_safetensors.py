from pathlib import Path

import pytest
from tests.planning.model_folders import LLAMA_70B, model_folder

from paceline.planning.safetensors import BadTensors, read_tensors


def test_tensors_are_read_without_their_bytes(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, LLAMA_70B, {"a": 20.0, "b": 40.0, "c": 0.5}, parts=2)
    assert {tensor.name: tensor.size_bytes / (1 << 30) for tensor in read_tensors(folder)} == {
        "a": 20.0,
        "b": 40.0,
        "c": 0.5,
    }


def test_a_whole_file_without_an_index_is_read(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, LLAMA_70B, {"a": 1.0})
    assert [(tensor.name, tensor.dtype) for tensor in read_tensors(folder)] == [("a", "BF16")]


def test_what_is_missing_cut_short_or_damaged_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadTensors, match="has no"):
        read_tensors(tmp_path)
    folder = model_folder(tmp_path / "parts", LLAMA_70B, {"a": 1.0, "b": 1.0}, parts=2)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(BadTensors, match="lacks model-00002-of-00002"):
        read_tensors(folder)
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(BadTensors, match="is damaged"):
        read_tensors(folder)
    folder = model_folder(tmp_path / "short", LLAMA_70B, {"a": 1.0})
    file = folder / "model.safetensors"
    with file.open("r+b") as handle:
        handle.truncate(1 << 20)
    with pytest.raises(BadTensors, match="cut short"):
        read_tensors(folder)
    for content in (
        b"",
        b"\xff" * 64,
        (10).to_bytes(8, "little") + b"not json at all",
        (2).to_bytes(8, "little") + b"[]",
    ):
        file.write_bytes(content)
        with pytest.raises(BadTensors):
            read_tensors(folder)
    text = b'{"a": {"data_offsets": [4, 1]}}'
    file.write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(BadTensors, match="nothing tells where"):
        read_tensors(folder)
