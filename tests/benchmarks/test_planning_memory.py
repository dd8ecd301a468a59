"""How plans are compared with the engine: what a server's log says, and hollow models."""

from pathlib import Path

import pytest
from benchmarks.planning.hollow_models import write
from benchmarks.planning.memory import READY, Case, logged, off
from benchmarks.planning.shapes import REAL, TINY

from paceline.planning.gguf import read_model

LOG = f"""\
load_tensors:          CPU model buffer size =    30.50 MiB
load_tensors:   CPU_REPACK model buffer size =     2.25 MiB
llama_context: constructing llama_context
llama_kv_cache:        CPU KV buffer size =    16.00 MiB
llama_kv_cache:        CPU KV buffer size =     1.50 MiB
llama_memory_recurrent:        CPU RS buffer size =     0.82 MiB
llama_context: constructing llama_context
llama_kv_cache:        CPU KV buffer size =     8.00 MiB
srv    load_model: {READY} = 2
llama_kv_cache:        CPU KV buffer size =    99.00 MiB
"""


def test_a_servers_log_is_read_until_it_is_ready() -> None:
    assert logged(LOG) == {"weights": 32.75, "context": 18.32, "drafter": 8.0}


def test_errors_are_relative() -> None:
    assert off(100, 101) == pytest.approx(0.01)
    assert off(0, 0) == 0
    assert off(0, 1) == 1


def test_a_case_is_flags() -> None:
    words = Case(4096, slots=2, is_unified=True, cache="q8_0", mtp=3).flags
    assert words[:5] == ["-c", "4096", "-np", "2", "-kvu"]
    assert words[-4:] == ["--spec-type", "draft-mtp", "--spec-draft-n-max", "3"]
    assert str(Case(131072, slots=4, is_unified=True)) == "131,072, f16, 4 slots unified"


@pytest.mark.parametrize("name", REAL)
def test_hollow_models_take_no_room(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, name, REAL[name])
    (header,) = read_model(path)
    assert header.file_bytes == header.whole_bytes > 3e9
    assert path.stat().st_blocks * 512 < 2e6


def test_tiny_ones_have_a_vocabulary(model: Path, tmp_path: Path) -> None:
    (header,) = read_model(write(tmp_path, "tiny", TINY["llama"], model))
    assert header.lengths["tokenizer.ggml.tokens"] == TINY["llama"].vocabulary
