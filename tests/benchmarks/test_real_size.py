"""Real shapes without weights, the mix of tasks, and what is run where the GPU is."""

import json
import lzma
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.llama_server import LlamaServer
from benchmarks.real_size.__main__ import main as of_this_machine
from benchmarks.real_size.filling import fill
from benchmarks.real_size.gpu import on_the_gpu
from benchmarks.real_size.gpu.mixed import CONTROL as CONTROLLED
from benchmarks.real_size.gpu.mixed import ORACLE, ROUTED, results
from benchmarks.real_size.gpu.on_the_gpu import CONCURRENCIES, LENGTHS, Setting
from benchmarks.real_size.gpu.prepare import PROGRAM, prepare
from benchmarks.real_size.gpu.samples import CONTROL, ONE_DEVICE, PLAIN, STATIC, s_per_step, s_per_token, step_costs
from benchmarks.real_size.gpu.show import costs, main, measured, missing, mix, read, speeds
from benchmarks.real_size.random_model import hollow
from benchmarks.real_size.shapes import DRAFT_MODEL, SHAPES
from benchmarks.real_size.tasks import ACCEPTED, LONGEST, recorded_mix, usual_acceptance
from benchmarks.real_size.tasks import mix as mix_of_tasks
from benchmarks.worlds.published import tokens_per_step

from paceline.engines.llama_cpp_build import build
from paceline.paths import cache_directory

Row = dict[str, Any]
PLAIN_STEP_MS = 10.0
COSTS = {1: 1.1, 2: 1.2, 3: 1.3, 4: 1.4, 6: 1.6, 8: 1.8}
"""Of the samples that are made here."""


def sample(way: str, acceptance: float, n_max: int = 0, prior: float = 0.0, steps: int = 20, **more: Any) -> Row:
    """As it is written, of answers with so many steps that accept what their acceptance makes likely."""
    accepted = round(steps * sum(acceptance**place for place in range(1, n_max + 1)))
    cost = COSTS[n_max] if n_max else 1.0
    answer = {"tokens": 1 + steps + accepted, "accepted": accepted, "decode_ms": PLAIN_STEP_MS * cost * steps}
    known = {"shape": "27b-q4", "server": ONE_DEVICE, "concurrency": 1, "round": 0}
    said = {"way": way, "acceptance": acceptance, "n_max": n_max, "prior": prior, "answers": [answer, answer]}
    return known | said | more


def samples(acceptance: float) -> list[Row]:
    static = [sample(STATIC, acceptance, length) for length in LENGTHS]
    return [sample(PLAIN, acceptance), *static, sample(CONTROL, acceptance, 8, prior=acceptance)]


@pytest.mark.parametrize(("name", "gib"), [("0.6b-f16", 1.1), ("27b-q4", 14.6), ("35b-a3b-q4", 19.7)])
def test_shapes_are_as_large_as_the_models(name: str, gib: float, model: Path, tmp_path: Path) -> None:
    laid_out = hollow(SHAPES[name], model, tmp_path)
    assert round(laid_out.size_bytes / 2**30, 1) == gib
    ends = [place.at + place.size_bytes for place in laid_out.places]
    assert all(end <= place.at for end, place in zip(ends, laid_out.places[1:], strict=False))


def test_random_weights_are_numbers(model: Path, tmp_path: Path) -> None:
    gguf: Any = pytest.importorskip("gguf")
    fill(hollow(SHAPES["tiny"], model, tmp_path), tmp_path / "tiny.gguf")
    for tensor in gguf.GGUFReader(tmp_path / "tiny.gguf").tensors:
        assert np.isfinite(gguf.dequantize(tensor.data, tensor.tensor_type)).all(), tensor.name


def test_the_mix_accepts_as_published() -> None:
    for task, acceptance in usual_acceptance().items():
        published = ACCEPTED[task]
        share = (tokens_per_step(acceptance, published.drafted) - 1) / published.drafted
        assert share == pytest.approx(published.share, abs=0.001)
        assert len(acceptance) == LONGEST
    asked = mix_of_tasks(2, 0, seed=1)
    assert [one.task for one in asked] == [*ACCEPTED, *ACCEPTED]
    assert len({one.acceptance for one in asked}) == len(asked)  # each has its own


def test_recorded_turns_are_asked_with_their_answers(tmp_path: Path) -> None:
    names = [f"mt-bench/{number}-{category}" for category in ("coding", "writing") for number in range(20)]
    rows = [recorded("MT-Bench", name, turn) for name in names for turn in (1, 3)]
    rows += [recorded("aider chats", f"chat {number}", 1) for number in range(20)] + [recorded("tau", "5", 1)]
    long = [recorded("aider chats", f"long {number}", 1, content="so " * 5000) for number in range(20)]
    short = [recorded("aider chats", f"short {number}", 1, answer="No") for number in range(20)]
    file = tmp_path / "turns.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *long, *short]))
    halves = [recorded_mix(file, 3, half, seed=1) for half in (0, 1)]
    for half in halves:
        assert [one.task for one in half] == ["code", "create", "edit"] * 3
        assert all(one.messages == [{"role": "user", "content": "Please"}] for one in half)
        assert all(one.answer.startswith(("chat ", "mt-bench/")) for one in half)
        assert all(":1 " in one.answer for one in half)  # first turns come first
    asked = [{one.answer.split(":")[0] for one in half} for half in halves]
    assert len(asked[0]) == len(asked[1]) == 9 and not asked[0] & asked[1]
    assert [":3 " in one.answer for one in recorded_mix(file, 40, 0, seed=1) if one.task == "code"].count(True) > 3


def recorded(source: str, conversation: str, turn: int, content: str = "Please", answer: str = "") -> Row:
    messages = [{"role": "user", "content": content}]
    said = answer or f"{conversation}:{turn} " + "The cat sat on the mat, and looked at the moon. " * 20
    return {
        "source": source,
        "conversation": conversation,
        "turn": turn,
        "body": {"messages": messages},
        "answer": said,
    }


def test_a_sample_tells_what_a_token_and_a_step_took() -> None:
    row = sample(STATIC, 1.0, 3)  # 20 steps of 4 tokens, at 1.3 plain steps
    assert s_per_step(row) == pytest.approx(0.013)
    assert s_per_token(row) == pytest.approx(0.013 / 4)


def test_costs_are_those_that_were_measured_and_lines_between() -> None:
    rows = samples(0.8)
    assert step_costs(rows, 1) == pytest.approx([1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8])
    assert step_costs(rows, 4) == []
    assert step_costs(rows[:1], 1) == []
    assert step_costs(rows[1:], 1) == []
    noisy = [rows[0], sample(STATIC, 0.8, 4), sample(STATIC, 0.8, 6) | {"answers": rows[1]["answers"]}]
    assert step_costs(noisy, 1)[3:] == pytest.approx([1.4, 1.4, 1.4])  # no longer draft is cheaper


def test_tables_show_speed_over_plain() -> None:
    rows = [*samples(1.0), *samples(0.0), sample(PLAIN, 0.5, server="no drafter loaded")]
    table = speeds(measured(rows, "27b-q4"), 1)
    assert table[0] == ("acceptance", "1", "2", "3", "4", "6", "8", "control", "control, told wrong")
    assert table[1][:3] == ("0.00", "0.91", "0.83")
    assert table[2] == ("1.00", "1.82", "2.50", "3.08", "3.57", "4.38", "5.00", "5.00", "–")
    assert costs(measured(rows, "27b-q4"))[1][:4] == ("1", "10.00", "1.10", "1.20")


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    rows = [
        {"left_out": sample(PLAIN, 0.5)},
        {"shape": "27b-q4", "server": "two", "failed": "it did not\nabc\nno memory"},
    ]
    file = tmp_path / "results.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"cut of')
    assert [*missing(read(file))] == [
        "27b-q4, two: it did not no memory",
        "27b-q4, one device: 1 left out for want of time",
        "The run did not end by itself.",
    ]


def test_the_mix_is_played_at_the_measured_costs() -> None:
    cheap = results(0.01, [1.01, 1.02, 1.03, 1.04, 1.05, 1.06], 120, range(2))
    assert {one.best for one in cheap} == {"mtp-6"}
    dear = results(0.01, [2.5, 3.5, 4.5, 5.5, 6.5, 7.5], 120, range(2))
    assert {one.best for one in dear} == {"plain"}
    middle = results(0.01, [1.3, 1.55, 1.8, 2.05, 2.3, 2.55], 120, range(2))
    for one in (*cheap, *dear, *middle):
        ways = (one.best, *one.seconds)
        assert one.over_best(ORACLE) == max(
            one.over_best(way) for way in ways if way not in (CONTROLLED, "routed, controlled")
        )
        assert one.over_best(ROUTED) > 0.8
    assert np.mean([one.over_best(ORACLE) for one in middle]) > 1.03
    head, row = mix(samples(0.8), 120, range(2))
    assert head[:3] == ("at a time", "best static", ORACLE)
    assert row[0] == "1" and float(row[2].split(" ")[0]) >= 1


def test_a_request_says_how_it_is_decoded() -> None:
    assert Setting(PLAIN, 0.5).fields(()) == {"speculative.n_max": 0}
    assert Setting(STATIC, 0.5, 3).fields(()) == {
        "speculative.n_max": 3,
        "speculative.synthetic": {"draft-mtp": [0.5] * 8},
    }
    told = Setting(CONTROL, 0.5, 8, 0.9).fields([1.2, 1.4])["speculative.control"]
    assert told == {"draft-mtp": {"costs": [1.2, 1.4], "acceptance": [0.9], "weight": 12}}


def test_the_program_needs_nothing_of_the_project(model: Path, tmp_path: Path) -> None:
    prepare(tmp_path, ["tiny"])
    words = [sys.executable, "-I", str(tmp_path / PROGRAM), "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "bare machine" in done.stdout
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 2**20


def test_a_server_that_does_not_start_is_said_with_its_logs_end(model: Path, tmp_path: Path) -> None:
    rows = run(tmp_path, _script(tmp_path, "echo no kernel image is available; exit 3"), "--budget", "60")
    failed = [row for row in rows if "failed" in row]
    assert [row["server"] for row in failed] == [
        "one device",
        "no drafter loaded",
        "two devices, layer split",
        "two devices, layer split, no drafter",
        "two devices, tensor split",
        "two devices, tensor split, no drafter",
    ]
    assert all("status 3" in row["failed"] and "no kernel image" in row["failed"] for row in failed)
    assert rows[-1]["done"]
    assert not (tmp_path / "memory" / "tiny.gguf").exists()


def test_the_prepared_server_is_unpacked_and_run(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    prepared = tmp_path / "prepared"
    prepared.mkdir()
    server = Path(_script(tmp_path, "echo unpacked; exit 4"))
    (prepared / "llama-server.xz").write_bytes(lzma.compress(server.read_bytes()))
    rows = run(tmp_path, "", "--budget", "60")
    assert all("status 4" in row["failed"] and "unpacked" in row["failed"] for row in rows if "failed" in row)
    assert any("failed" in row for row in rows)


def test_weights_go_where_there_is_room(tmp_path: Path) -> None:
    assert on_the_gpu._with_room(tmp_path, 1) == tmp_path
    assert on_the_gpu._with_room(tmp_path, 2**60) == Path(tempfile.gettempdir())


@pytest.mark.engines
def test_everything_is_measured_on_the_real_engine(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = run(tmp_path, _patched(), "--budget", "120", "--rounds", "1", "--tokens", "16")
    here = measured(rows, "tiny")
    each = len(on_the_gpu.ACCEPTANCES) * len(CONCURRENCIES)
    assert sum(row["way"] == PLAIN for row in here) == 2 * each
    assert sum(row["way"] == STATIC for row in here) == len(LENGTHS) * each
    assert sum(row["way"] == CONTROL for row in here) == 2 * each
    for row in here:
        assert len(row["answers"]) == row["concurrency"]
        assert all(one["tokens"] == 16 for one in row["answers"])
        assert all((one["drafted"] > 0) or row["way"] != STATIC for one in row["answers"])
        assert all(one["drafted"] == 0 or row["way"] != PLAIN for one in row["answers"])
    by_acceptance = {
        acceptance: sum(one["accepted"] for row in here if row["acceptance"] == acceptance for one in row["answers"])
        for acceptance in (0.95, 0.35)
    }
    assert by_acceptance[0.95] > 1.5 * by_acceptance[0.35]
    sys.argv = ["show", str(tmp_path / "out" / "results.jsonl"), "--requests", "40", "--seeds", "1"]
    main()
    assert "tiny, 16 at a time: speed over plain" in capsys.readouterr().out


@pytest.mark.engines
def test_recorded_answers_are_generated_by_two_drafters_and_routed(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers, samples = tmp_path / "turns.jsonl", tmp_path / "samples.jsonl"
    names = [f"mt-bench/{number}-coding" for number in range(20)]
    answers.write_text("".join(json.dumps(recorded("MT-Bench", name, 1)) + "\n" for name in names))
    words = ["--shape", "tiny", "--server", _patched(), "--answers", str(answers), "--json", str(samples)]
    words += ["--concurrency", "1", "--rounds", "1", "--prompts", "2", "--teaching", "1", "--tokens", "64"]
    monkeypatch.setattr(sys, "argv", ["real_size", *words])
    of_this_machine()
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    ways = ["plain", *(f"{kind}-{cap}" for kind in ("mtp", "ngram") for cap in (2, 4, 8))]
    ways += ["always on, controlled", "routed", "routed, controlled"]
    assert sorted(row["way"] for row in rows) == sorted(2 * ways)
    by_way = {row["way"]: row for row in rows}
    assert all(row["tokens"] == 63 for row in rows)
    assert by_way["plain"]["drafted"] == 0
    assert by_way["mtp-2"]["drafted"] >= by_way["mtp-2"]["accepted"] > 0
    assert by_way["ngram-8"]["accepted"] > 10  # the answers say the same sentence again and again
    assert by_way["always on, controlled"]["lane"] == "llama/all"
    assert "what control adds to routing" in capsys.readouterr().out


@pytest.mark.engines
def test_a_dense_model_of_random_weights_generates_text(model: Path, tmp_path: Path) -> None:
    fill(hollow(DRAFT_MODEL, model, tmp_path), tmp_path / "dense.gguf")
    server = LlamaServer(_patched(), tmp_path / "dense.gguf")
    try:
        timings = server.chat("Hello", max_tokens=8, ignore_eos=True)[1]
    finally:
        server.stop()
    assert timings["predicted_n"] == 8


@pytest.mark.engines
def test_what_does_not_fit_the_budget_is_left_out(model: Path, tmp_path: Path) -> None:
    rows = run(tmp_path, _patched(), "--budget", "12", "--tokens", "16")
    assert measured(rows, "tiny")
    assert any("left_out" in row for row in rows)
    assert rows[-1]["done"] and rows[-1]["at_s"] < 13


def run(folder: Path, server: str, *options: str) -> list[Any]:
    """What the program writes, of the tiny shape on the CPU; with no server named, by the one that was prepared."""
    memory, out = folder / "memory", folder / "out"
    memory.mkdir()
    prepare(folder / "prepared", ["tiny"])
    places = ["--folder", str(folder / "prepared"), "--out", str(out), "--memory", str(memory)]
    if server:
        places += ["--server", server]
    on_the_gpu.main([*places, "--cpu", *options])
    return [*read(out / "results.jsonl")]


def _script(folder: Path, line: str) -> str:
    program = folder / "llama-server"
    program.write_text(f"#!/bin/sh\n{line}\n")
    program.chmod(0o755)
    return str(program)


def _patched() -> str:
    if not (shutil.which("c++") or shutil.which("clang++")):
        pytest.skip("no C++ compiler")
    return build(cache_directory()).server
