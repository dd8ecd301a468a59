"""Asking the engine what a command line takes: what is sent, what is read, and what goes wrong."""

from pathlib import Path

import pytest
from benchmarks.planning.shapes import REAL
from tests.planning.hollow import hollow

from paceline.engines.llama_cpp_build import build
from paceline.paths import cache_directory
from paceline.planning.devices import Device
from paceline.planning.dry_run import DryRunFailed, dry_run, judge_of

CARD = Device(name="a card", backend="cuda", memory_bytes=96 << 30, free_bytes=95 << 30)
ANSWER = (
    '{"build":11434,"fit":null,"parts":[{"part":"target","error":null,"devices":['
    '{"name":"CUDA0","total":10,"free":9,"weights":1,"context":2,"compute":3},'
    '{"name":"host","total":20,"free":19,"weights":4,"context":5,"compute":6}]}]}'
)


def script(folder: Path, *lines: str) -> Path:
    file = folder / "llama-dry-run"
    file.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    file.chmod(0o755)
    return file


def test_an_answer_is_read(tmp_path: Path) -> None:
    program = script(tmp_path, f'echo "$@" > {tmp_path}/words', f"echo '{ANSWER}'")
    answer = dry_run(program, ["--model", "x.gguf", "-c", "4096"], [CARD])
    assert (answer.build, answer.drafter) == (11434, None)
    assert answer.target.cards[0].used == 6
    assert answer.target.host.weights == 4
    assert (tmp_path / "words").read_text() == (
        f"--devices cuda:{CARD.memory_bytes}:{CARD.free_bytes} --model x.gguf -c 4096\n"
    )
    dry_run(program, ["-c", "4096"])
    assert (tmp_path / "words").read_text() == "-c 4096\n"


def test_what_goes_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(DryRunFailed, match="can't be started"):
        dry_run(tmp_path / "nowhere", [])
    with pytest.raises(DryRunFailed, match="ended with status 3: no such flag"):
        dry_run(script(tmp_path, "echo no such flag >&2", "exit 3"), [])
    with pytest.raises(DryRunFailed, match="within 0 s"):
        dry_run(script(tmp_path, "sleep 5"), [], timeout_s=0.1)
    failed = ANSWER.replace('"error":null', '"error":"no tensor \\"a\\""')
    with pytest.raises(DryRunFailed, match='no tensor "a"'):
        dry_run(script(tmp_path, f"echo '{failed}'"), [])


def test_nobody_judges_without_a_build() -> None:
    assert judge_of(None) is None


@pytest.mark.engines
@pytest.mark.parametrize("name", REAL)
def test_the_engine_answers_for_cards_that_are_not_here(name: str) -> None:
    program = build(cache_directory()).dry_run
    model = hollow(name)
    words = ["--model", str(model.header.path), "-c", "8192", "-ngl", "999", "-fa", "on", "--fit", "off", "-np", "1"]
    answer = dry_run(program, words, [CARD] * 4)
    assert [device.name for device in answer.target.devices] == ["CUDA0", "CUDA1", "CUDA2", "CUDA3", "host"]
    weights = model.output_bytes + sum(layer.shared + layer.experts for layer in model.layers[: model.trunk_count])
    assert sum(device.weights for device in answer.target.cards) == pytest.approx(weights, rel=1e-3)


@pytest.mark.engines
def test_the_engine_says_what_it_refuses() -> None:
    program = build(cache_directory()).dry_run
    words = ["--model", str(hollow("DeepSeek-V3-Q4_K").header.path), "-sm", "tensor", "--fit", "off"]
    with pytest.raises(DryRunFailed, match="not implemented for architecture 'deepseek2'"):
        dry_run(program, words, [CARD, CARD])
