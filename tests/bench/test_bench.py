"""The bench: what it reads, sends, computes and says."""

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Serving, StartEngine, StartGateway, lane
from tests.fake_engine import REPORT, TIMINGS, Received, Wire, event, slow_to_tell, status_500

from paceline.bench import results, workload
from paceline.bench.results import BadResults, Results, Sample, Writer
from paceline.bench.show import advice, comparison, table
from paceline.bench.summary import slices
from paceline.bench.workload import BadWorkload
from paceline.cli import main

# Workloads


def test_the_workload_that_comes_along() -> None:
    load = workload.shipped()
    assert len(load.tasks) >= 12
    for task in load.tasks:
        assert sum(item.task == task for item in load.items) >= 10
    assert len({item.id for item in load.items}) == len(load.items)
    assert len({json.dumps(item.fields) for item in load.items}) == len(load.items)
    lengths = [len(json.dumps(item.fields)) for item in load.items]
    assert min(lengths) < 200 < 4000 < max(lengths)
    assert any("response_format" in item.fields for item in load.items)
    assert any(message["role"] == "tool" for item in load.items for message in item.fields["messages"])


def test_parts_of_a_workload_do_not_overlap() -> None:
    load = workload.shipped()
    measured, teaching = load.part(4), load.part(3, skip=4)
    assert len(measured) == 4 * len(load.tasks)
    assert not {item.id for item in measured} & {item.id for item in teaching}
    assert [item.task for item in measured[: len(load.tasks)]] == list(load.tasks)


SAID = [{"role": "user", "content": "Hello?"}]


@pytest.mark.parametrize(
    ("text", "task", "fields"),
    [
        (
            '{"messages": [{"role": "user", "content": "Hello?"}], "top_p": 0.5}',
            "no task",
            {"messages": SAID, "top_p": 0.5},
        ),
        ('\n{"prompt": "Hello?", "task": "chat", "id": 7}\n', "chat", {"messages": SAID}),
        ('{"question_id": 81, "category": "writing", "turns": ["Hello?", "And?"]}', "writing", {"messages": SAID}),
        (
            '{"question_id": "a1", "category": "coding", "sub_category": "x", "turns": ["Hello?"], "multiturn": false}',
            "coding",
            {"messages": SAID},
        ),
        (
            '[{"id": "x", "conversations": [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "Yes."}]}]',
            "no task",
            {"messages": SAID},
        ),
    ],
    ids=["request", "prompt", "Spec-Bench", "SPEED-Bench", "ShareGPT"],
)
def test_own_workloads(text: str, task: str, fields: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(text)
    (item,) = workload.read(file).items
    assert (item.task, item.fields) == (task, fields)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"prompt": "a"}\n{"prompt": ', "line 2"),
        ('{"prompt": "a"}\n5', "line 2: is no JSON object"),
        ('{"text": "a"}', "line 1: has none of messages"),
        ('{"prompt": "a", "id": 1}\n{"prompt": "b", "id": 1}', "more than once"),
        ("", "no request"),
    ],
)
def test_bad_workloads_are_told_where(text: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(text)
    with pytest.raises(BadWorkload, match=told):
        workload.read(file)


# What samples say


def made(speeds: dict[str, dict[str, float]], items: int = 8, noise: float = 0.0) -> Results:
    """Results in which each task (by way) decodes 50 tokens at a speed; the lane ``drafts`` drafts 4 a step, accepts 2,
    and decodes 30 of the 50 tokens in 10 such steps."""
    rng = random.Random(1)
    samples = [
        Sample(
            *(f"{task}-{number}", task, way, 0.0, 1, 0),
            lane=way if way != "routed" else "drafts",
            tokens=51,
            decode_tokens=50,
            decode_s=50 / speed * rng.lognormvariate(0, noise),
            drafted=40 if way == "drafts" else None,
            accepted=20 if way == "drafts" else None,
            drafting_steps=10 if way == "drafts" else None,
        )
        for task, ways in speeds.items()
        for number in range(items)
        for way, speed in ways.items()
    ]
    ways = dict.fromkeys(way for by_way in speeds.values() for way in by_way if way != "routed")
    lanes = [{"lane": way, "strategy": {"drafts": way != "plain"}} for way in ways]
    about = {"lanes": lanes, "workload": {"tasks": list(speeds)}, "machine": {}, "settings": {}}
    return Results(about, samples)


def test_speeds_oracle_and_routing() -> None:
    found = made(
        {
            "code": {"drafts": 20.0, "plain": 10.0, "routed": 20.0},
            "story": {"drafts": 5.0, "plain": 10.0, "routed": 8.0},
        }
    )
    (one,) = slices(found)
    assert one.ways == ("plain", "drafts", "routed", "oracle")
    assert one.tasks["code"]["drafts"].speed_up.value == pytest.approx(2)
    assert one.tasks["story"]["drafts"].speed_up.value == pytest.approx(0.5)
    # of 100 tokens, 50 each: 10 s plain, 2.5 + 10 s drafting, 2.5 + 5 s by the oracle, 2.5 + 6.25 s routed
    assert one.best_lane == "plain"
    assert one.best_by_task == {"code": "drafts", "story": "plain"}
    assert one.overall["drafts"].tokens_per_s == pytest.approx(100 / 12.5)
    assert one.routed_of_best and one.routed_of_best.value == pytest.approx(10 / 8.75)
    assert one.routed_of_oracle and one.routed_of_oracle.value == pytest.approx(7.5 / 8.75)
    assert one.routed_of_best.low <= one.routed_of_best.value <= one.routed_of_best.high
    assert one.overall["drafts"].acceptance == 0.5
    assert one.overall["drafts"].tokens_per_step == pytest.approx(50 / 30)
    told = table(one)
    assert "best fixed lane: plain" in told
    assert f"{one.routed_of_oracle} of the oracle" in told


def test_what_a_drafting_step_costs() -> None:
    (one,) = slices(made({"code": {"plain": 10.0, "drafts": 50 / 4.5}}))
    # 50 tokens in 4.5 s: 20 plain steps take 2 s, so the 10 drafting steps took 0.25 s each
    found = one.break_even["drafts"]
    assert found.draft == 4
    assert found.step_cost == pytest.approx(2.5)
    acceptance = found.acceptance
    assert acceptance is not None
    assert acceptance + acceptance**2 + acceptance**3 + acceptance**4 == pytest.approx(1.5, abs=0.01)


def test_items_that_a_way_did_not_answer_are_left_out() -> None:
    found = made({"code": {"plain": 10.0, "drafts": 20.0}})
    broken = [
        Sample("code-0", "code", "drafts", 0.0, 1, 0, error="lost")
        if sample.key[:2] == ("code-0", "drafts")
        else sample
        for sample in found.samples
    ]
    (one,) = slices(Results(found.about, broken))
    assert one.left_out == 1
    assert slices(Results(found.about, [sample for sample in broken if sample.error])) == []


@pytest.mark.slow
def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    held = 0
    for seed in range(100):
        rng = random.Random(seed)
        found = made({"code": {"plain": 10.0, "drafts": 12.0}}, items=20)
        noisy = [
            Sample(
                *(sample.item, sample.task, sample.way, 0.0, 1, 0),
                decode_tokens=50,
                decode_s=(sample.decode_s or 0) * rng.lognormvariate(0, 0.2),
            )
            for sample in found.samples
        ]
        (one,) = slices(Results(found.about, noisy))
        ratio = one.overall["drafts"].speed_up
        held += ratio.low <= 1.2 <= ratio.high
    assert 85 <= held <= 100


@pytest.mark.parametrize(
    ("speeds", "told"),
    [
        (
            {"code": {"plain": 10, "drafts": 20, "routed": 20}, "story": {"plain": 10, "drafts": 5, "routed": 10}},
            "Let Pa",
        ),
        ({"code": {"plain": 10, "drafts": 9, "routed": 9.9}}, "Run plain"),
        ({"code": {"plain": 10, "drafts": 20, "routed": 15}}, "Run drafts: it decodes 2.00"),
        (
            {"code": {"plain": 10, "drafts": 20, "routed": 10}, "story": {"plain": 10, "drafts": 5, "routed": 10}},
            "It can't be told yet",
        ),
    ],
)
def test_the_advice(speeds: dict[str, dict[str, float]], told: str) -> None:
    (one,) = slices(made(speeds))
    assert advice(one).startswith(told)


def test_two_results_compared() -> None:
    before = made({"code": {"plain": 10.0, "drafts": 20.0}})
    after = made({"code": {"plain": 10.0, "drafts": 30.0}})
    lines = comparison(before, after).splitlines()
    assert lines[1].split() == ["plain", "drafts"]
    assert lines[-1].split() == ["all", "1.00", "(1.00", "to", "1.00)", "1.50", "(1.50", "to", "1.50)"]


# The file


def test_a_results_file_goes_on_where_it_ended(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    about = made({"code": {"plain": 1.0}}).about
    sample = Sample("a", "code", "plain", 0.0, 1, 0, decode_tokens=5, decode_s=1.0)
    writer = Writer(file, about, resume=False)
    writer.add(sample)
    writer.add(Sample("b", "code", "plain", 0.0, 1, 0, error="lost"))
    writer.close()
    with file.open("a") as out:
        out.write('{"item": "c", "ta')  # killed while writing
    with pytest.raises(BadResults, match="--resume"):
        Writer(file, about, resume=False)
    with pytest.raises(BadResults, match="other settings"):
        Writer(file, about | {"settings": {"rounds": 9}}, resume=True)
    again = Writer(file, about, resume=True)
    assert again.measured == [sample]  # what failed is tried again
    again.add(Sample("b", "code", "plain", 0.0, 1, 0, decode_tokens=5, decode_s=1.0))
    again.close()
    assert [one.item for one in results.read(file).samples] == ["a", "b"]


# The command


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """A small workload: something to copy, and something to invent."""
    lines = "\n".join(
        f"{name} = {number}" for number, name in enumerate(("alpha", "beta", "gamma", "delta", "epsilon"))
    )
    prompts = [("edit", f"Print these lines again:\n{lines}\n{lines}"), ("story", "Tell me a story about a fox.")]
    file = tmp_path / "few.jsonl"
    file.write_text("".join(json.dumps({"task": task, "prompt": prompt}) + "\n" for task, prompt in prompts))
    return file


def test_a_bench_of_real_engines(
    real_gateway: Serving, few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, figures = tmp_path / "results.jsonl", tmp_path / "figures"
    learned = [one["measured"]["requests"] for one in real_gateway.lanes()]
    words = [
        "bench",
        "run",
        "--url",
        real_gateway.url,
        "--workload",
        str(few),
        "--max-tokens",
        "24",
        "--concurrency",
        "1,2",
    ]
    assert main([*words, "--results", str(file), "--figures", str(figures)]) == 0
    said = capsys.readouterr().out
    assert "2 requests at once" in said
    assert "best fixed lane: " in said
    assert [one["measured"]["requests"] for one in real_gateway.lanes()] == learned
    found = results.read(file)
    assert len(found.samples) == 2 * 3 * 2 * 2  # items, ways, rounds, concurrencies
    assert not [sample.error for sample in found.samples if sample.error]
    for sample in found.samples:
        assert sample.tokens == 24
        assert sample.lane == sample.way or sample.way == "routed"
        assert sample.first_token_s and sample.first_token_s < sample.total_s
    assert any(sample.accepted for sample in found.samples if sample.way == "ngram" and sample.task == "edit")
    assert found.about["lanes"][0]["engine"]["build"]
    assert {path.suffix for path in figures.iterdir()} == {".svg", ".png"}
    assert main([*words, "--results", str(file), "--resume"]) == 0  # nothing is left to do
    assert len(results.read(file).samples) == len(found.samples)
    assert main(["bench", "show", str(file)]) == 0
    assert main(["bench", "compare", str(file), str(file)]) == 0
    assert "1.00 (1.00 to 1.00)" in capsys.readouterr().out
    assert main(["bench", "show", str(file), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert main([*words, "--results", str(file), "--resume", "--json"]) == 0
    resumed = json.loads(capsys.readouterr().out)
    assert (resumed["slices"], resumed["failed"]) == (shown["slices"], shown["failed"])
    assert [part["concurrency"] for part in shown["slices"]] == [1, 2]


def test_texts_of_real_lanes_are_the_same(real_gateway: Serving, few: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "lossless", "--url", real_gateway.url, "--workload", str(few)]
    assert main([*words, "--max-tokens", "24"]) == 0
    assert "ngram: " in capsys.readouterr().out


def test_calibration_tells_the_break_even(real_gateway: Serving, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "--url", real_gateway.url, "--seconds", "6"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    by_lane = {row[0]: row for row in rows if row}
    assert by_lane["plain"][3] == "ms"
    assert by_lane["ngram"][5:7] == ["plain", "ones"]
    step = {one["lane"]: one["step"] for one in real_gateway.lanes()}
    assert step["plain"]["drafting_cost_in_plain_steps"] is None
    assert step["ngram"]["drafting_cost_in_plain_steps"] > 1


async def test_a_lane_that_changes_the_text_is_found(
    start_gateway: StartGateway, start_engine: StartEngine, few: Path
) -> None:
    def telling(text: str) -> Any:
        async def script(received: Received, wire: Wire) -> None:
            if not received.json["stream"]:
                tops = [{"token": text, "logprob": -0.1}, {"token": "no", "logprob": -2.0}]
                token = {"token": text, "logprob": -0.1, "top_logprobs": tops}
                await wire.json({"choices": [{"message": {"content": text}, "logprobs": {"content": [token]}}]})
                return
            await wire.stream_head()
            await wire.chunk(event({"choices": [{"delta": {"content": text}}]}) + b"data: [DONE]\n\n")
            await wire.end()

        return script

    good, bad = await start_engine(telling("yes")), await start_engine(telling("no"))
    running = await start_gateway(lane("plain", good.url) + lane("ngram", bad.url, "ngram"))

    words = ["bench", "lossless", "--url", running.url, "--workload", str(few)]
    assert await asyncio.to_thread(main, words) == 1


async def test_a_drafter_that_remembers_gets_each_prompt_once(
    start_gateway: StartGateway, start_engine: StartEngine, few: Path, tmp_path: Path
) -> None:
    one, other = await start_engine(), await start_engine()
    running = await start_gateway(lane("plain", one.url) + lane("pool", other.url, "ngram-mod"))
    file = tmp_path / "results.jsonl"
    words = ["bench", "run", "--url", running.url, "--workload", str(few), "--rounds", "3", "--results", str(file)]
    await asyncio.to_thread(main, words)
    sent = [sample.key[:2] for sample in results.read(file).samples]
    assert sorted(sent) == sorted((item, way) for item in ("1", "2") for way in ("plain", "pool"))


async def timed(received: Received, wire: Wire) -> None:
    """Streams an answer and says how long decoding it took."""
    await wire.stream_head()
    await wire.chunk(event({"choices": [{"index": 0, "delta": {"content": "sea"}}]}))
    await wire.chunk(event({"choices": [], "usage": REPORT["usage"], "timings": TIMINGS}) + b"data: [DONE]\n\n")
    await wire.end()


async def test_a_run_for_programs_prints_one_document(
    start_gateway: StartGateway,
    start_engine: StartEngine,
    few: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def ill(received: Received, wire: Wire) -> None:
        await (status_500 if b"fox" in received.body else timed)(received, wire)

    engines = await start_engine(timed), await start_engine(ill)
    running = await start_gateway(lane("plain", engines[0].url) + lane("ngram", engines[1].url, "ngram"))
    words = ["bench", "run", "--url", running.url, "--workload", str(few), "--rounds", "1"]
    figures = tmp_path / "figures"
    assert await asyncio.to_thread(main, [*words, "--json", "--figures", str(figures)]) == 0
    said = capsys.readouterr()
    document = json.loads(said.out)
    (part,) = document["slices"]
    assert set(part["tasks"]) == {"edit"}
    assert part["left_out"] == 1
    assert part["overall"]["ngram"]["tokens_per_s"] == pytest.approx(1000.0)
    assert part["overall"]["ngram"]["speed_up"]["high"] is None  # of a single item there is no interval
    assert [(one["way"], one["item"]) for one in document["failed"]] == [("ngram", "2")]
    assert document["about"]["settings"]["rounds"] == 1
    assert "1 requests failed" in said.err  # what people read is said beside it
    assert all(str(path) in said.err for path in figures.iterdir())

    assert await asyncio.to_thread(main, words) == 0
    with pytest.raises(json.JSONDecodeError):
        json.loads(capsys.readouterr().out)

    engines[0].script = status_500
    assert await asyncio.to_thread(main, [*words, "--json"]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["slices"] == []
    assert "no request was answered" in said.err


async def test_a_calibration_for_programs_prints_one_document(
    start_gateway: StartGateway, start_engine: StartEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    one = await start_engine(slow_to_tell)
    running = await start_gateway(lane("plain", one.url) + lane("gone", "http://127.0.0.1:9", "ngram"))
    words = ["calibrate", "--url", running.url, "--seconds", "0.5"]
    assert await asyncio.to_thread(main, [*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["requests"] == len(one.requests) > 0
    plain, gone = document["lanes"]
    assert (plain["lane"], gone["lane"]) == ("plain", "gone")
    assert plain["measured"]["requests"] == document["requests"]
    assert plain["step"]["plain_ms"] == pytest.approx(1.0, rel=0.5)
    assert gone["measured"]["tokens_per_s"] is None
    assert await asyncio.to_thread(main, words) == 0
    assert "requests down 1 lanes" in capsys.readouterr().out


def test_no_gateway_is_told(few: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "run", "--url", "http://127.0.0.1:9", "--workload", str(few)]) == 1
    assert "no gateway answers" in capsys.readouterr().err
