"""Headers of model files: what is read, how little that takes, and what is said of files that are none."""

import contextlib
import resource
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gguf.constants import GGML_QUANT_SIZES
from hypothesis import given
from hypothesis import strategies as st
from tests.model_files import ARRAY, F32, STRING, UINT32, model_file, pair, small_model, strings, text
from tests.patient import shortest_s

from paceline.machine import available_memory_bytes, engine_threads
from paceline.planning.gguf import TYPE_SIZES, BadModelFile, Header, Tensor, read_header, read_model
from paceline.planning.one_model import context_for


def test_what_is_read(tmp_path: Path) -> None:
    header = read_model(small_model(tmp_path / "model.gguf"))[0]
    assert header.architecture == "llama"
    assert header.own_number("context_length") == 8192
    assert header.own_number("block_count") == 0
    assert header.metadata["llama.rope.freq_base"] == 0.5
    assert header.metadata["tokenizer.ggml.add_bos_token"] is True
    assert header.lengths == {"tokenizer.ggml.tokens": 3, "tokenizer.ggml.scores": 3, "nested": 1}
    assert header.tensors == (Tensor("output.weight", (4, 64), F32, 0),)
    assert header.tensor_bytes == 1024
    assert header.whole_bytes == header.file_bytes


def test_the_bundled_model(model: Path) -> None:
    header = read_model(model)[0]
    assert header.lengths["tokenizer.ggml.tokens"] == 49152
    assert header.file_bytes == header.whole_bytes


def test_sizes_of_types_are_those_of_ggml() -> None:
    assert {int(kind): size for kind, size in GGML_QUANT_SIZES.items() if int(kind) in TYPE_SIZES} == TYPE_SIZES


def test_a_large_vocabulary_takes_neither_time_nor_memory(tmp_path: Path) -> None:
    words = [f"word{number}" for number in range(262_144)]
    path = model_file(tmp_path / "large.gguf", [strings("tokens", words), strings("merges", words)])
    code = (
        "import resource, sys; from pathlib import Path; from paceline.planning.gguf import read_header\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "read_header(Path(sys.argv[1]))\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print(used.ru_maxrss - before, used.ru_utime + used.ru_stime)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    grown_kb, cpu_s = map(float, done.stdout.split())
    assert grown_kb < 8_000
    assert cpu_s < 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"hello", "no model in the GGUF format"),
        (b"PK\3\4" + bytes(100), "no model in the GGUF format"),
        (b"GGUF", "no model in the GGUF format"),
        (b"GGUF\3\0\0\0", "is cut short"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
        (b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "version 9"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "is damaged"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1 << 63), "is cut short"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + pair("k", 99, b""), "is damaged"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + pair("k", STRING, struct.pack("<Q", 1 << 62)), "is cut short"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + pair("k", ARRAY, struct.pack("<IQ", 8, 1 << 62)), "is cut short"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + pair("k", ARRAY, struct.pack("<IQ", 10, 1 << 62)), "is cut short"),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + pair("general.alignment", UINT32, struct.pack("<I", 0)),
            "is damaged",
        ),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + pair("k", ARRAY, struct.pack("<IQ", 9, 1) * 40), "is damaged"),
    ],
)
def test_files_that_are_no_models(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(BadModelFile, match=said) as caught:
        read_model(path)
    assert str(path) in str(caught.value)


@given(at=st.integers(0, 400), flipped=st.integers(1, 255))
def test_any_flipped_byte_is_read_or_refused(at: int, flipped: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = small_model(tmp_path_factory.mktemp("flipped") / "model.gguf")
    content = bytearray(path.read_bytes())
    content[at] ^= flipped
    path.write_bytes(content)

    def read() -> None:
        with contextlib.suppress(BadModelFile):
            read_model(path)

    assert shortest_s(read, 1.0, time.process_time) <= 1.0


def test_a_download_that_was_cut(tmp_path: Path) -> None:
    path = small_model(tmp_path / "model.gguf", rows=1 << 16)
    whole = path.read_bytes()
    path.write_bytes(whole[: 600 * 1024])
    with pytest.raises(BadModelFile, match=r"model\.gguf is cut short: 0\.6 of 1\.0 MB are there"):
        read_model(path)
    path.write_bytes(whole[:100])
    with pytest.raises(BadModelFile, match="ends within its header"):
        read_model(path)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadModelFile, match="is a directory"):
        read_model(tmp_path)
    with pytest.raises(BadModelFile, match=r"there is no file .*nowhere\.gguf"):
        read_model(tmp_path / "nowhere.gguf")


def test_a_split_model_names_the_part_that_is_missing(tmp_path: Path) -> None:
    parts = [small_model(tmp_path / f"big-{number:05d}-of-00003.gguf") for number in (1, 2, 3)]
    assert [header.path for header in read_model(parts[0])] == parts
    with pytest.raises(BadModelFile, match=r"part 2 of 3 of a model; name the first, big-00001-of-00003\.gguf"):
        read_model(parts[1])
    parts[2].unlink()
    with pytest.raises(BadModelFile, match=r"big-00003-of-00003\.gguf is not beside it"):
        read_model(parts[0])
    renamed = model_file(
        tmp_path / "renamed.gguf",
        [pair("general.architecture", STRING, text("llama")), pair("split.count", UINT32, struct.pack("<I", 3))],
    )
    with pytest.raises(BadModelFile, match="one of 3 parts"):
        read_model(renamed)


def of_size(path: Path, context: int, layers: int = 30, heads: int = 3) -> Header:
    numbers = {
        "context_length": context,
        "block_count": layers,
        "embedding_length": 64 * heads,
        "attention.head_count": heads,
    }
    pairs = [pair("general.architecture", STRING, text("llama"))]
    pairs += [pair(f"llama.{key}", UINT32, struct.pack("<I", value)) for key, value in numbers.items()]
    return read_header(model_file(path, pairs))


def test_context_is_what_agents_need_and_the_machine_has(tmp_path: Path) -> None:
    large, small = of_size(tmp_path / "a.gguf", 131_072), of_size(tmp_path / "b.gguf", 8192)
    plenty = 64 << 30
    assert context_for(large, 10**9, 8, plenty)[0] == 16_384
    assert context_for(large, 5 * 10**9, 8, plenty)[0] == 8_192
    assert context_for(small, 10**9, 8, plenty)[0] == 8_192
    assert context_for(large, 10**9, 8, None)[0] == 16_384
    per_token = 30 * 3 * 128 * 2
    tokens, why = context_for(large, 10**9, 8, 4 * 8 * 8_192 * per_token)
    assert tokens == 8_192
    assert "memory" in why
    assert context_for(large, 10**9, 8, 1 << 20)[0] == 4_096


def test_the_machine_has_memory_and_threads() -> None:
    assert (available_memory_bytes() or 0) > resource.getpagesize()
    assert engine_threads() >= 1
