"""llama.cpp with Paceline's patch: a strategy per request. Builds it where it is not in the cache (minutes)."""

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from benchmarks.llama_server import LlamaServer
from tests.conftest import Serving
from training.task_model.prompts import one_of_each_instruction

from paceline.engines import Observer
from paceline.engines.llama_cpp_build import PATCH, CannotBuild, apply_patch, build
from paceline.paths import cache_directory
from paceline.types import Api, Request

pytestmark = pytest.mark.engines

CODE = "def add(left, right):\n    total = left + right\n    return total\n\n\n"
EDIT = f"Rename the function add to plus and print the whole file again.\n```python\n{CODE * 3}```"
STORY = "Tell me a story about a lighthouse keeper who finds a map."
NGRAM = ("--spec-type", "ngram-simple", "--spec-ngram-simple-size-n", "3", "--spec-ngram-simple-size-m", "12")
SEEN_TO_MOVE = 0.14
"""By how much the difference of two tokens' logprobs was seen to move between batch sizes (Q8_0, on a CPU)."""
N_MAX, TYPES, MIN_YIELD = "speculative.n_max", "speculative.types", "speculative.min_yield"


StartServer = Callable[..., LlamaServer]


@pytest.fixture(scope="session")
def program() -> str:
    if not (os.environ.get("CXX") or shutil.which("c++") or shutil.which("clang++")):
        pytest.skip("no C++ compiler")
    return build(cache_directory()).server


@pytest.fixture(scope="module")
def start(program: str, model: Path) -> Iterator[StartServer]:
    running: dict[tuple[str, ...], LlamaServer] = {}

    def start(*flags: str) -> LlamaServer:
        """The same server for the same flags."""
        if flags not in running:
            running[flags] = LlamaServer(program, model, *flags)
        return running[flags]

    yield start
    for one in running.values():
        one.stop()


@pytest.fixture
def ngram(start: StartServer) -> LlamaServer:
    return start(*NGRAM, "--parallel", "2")


def with_draft_model(model: Path) -> tuple[str, ...]:
    """The model as its own draft model: every draft is accepted."""
    return ("--spec-type", "ngram-simple,draft-simple", "--spec-draft-model", str(model), "--spec-draft-n-max", "6")


def test_the_server_tells_that_requests_may_choose(ngram: LlamaServer) -> None:
    told = ngram.http.get("/props").json()["speculative"]
    assert told["n_max"] == {"ngram-simple": 12}
    assert set(told["request_fields"]) == {N_MAX, TYPES, MIN_YIELD}


def test_zero_drafts_nothing_and_minus_one_is_the_servers_own(ngram: LlamaServer) -> None:
    free, timings = ngram.chat(EDIT)
    assert timings["draft_n"] > 0
    ways: list[dict[str, Any]] = [{N_MAX: 0}, {TYPES: "none"}, {TYPES: []}]
    for fields in ways:
        text, timings = ngram.chat(EDIT, **fields)
        assert "draft_n" not in timings
        assert text == free
    assert ngram.chat(EDIT, **{N_MAX: -1})[1]["draft_n"] > 0
    assert ngram.chat(EDIT, **{N_MAX: None})[1]["draft_n"] > 0


@pytest.mark.parametrize("cap", [1, 2, 5])
def test_no_draft_is_longer_than_asked_for(cap: int, ngram: LlamaServer) -> None:
    free = ngram.chat(EDIT)[1]
    capped = ngram.chat(EDIT, **{N_MAX: cap})[1]
    assert 0 < capped["draft_n"] <= cap * capped["draft_n_steps"]
    assert capped["draft_n_steps"] <= capped["predicted_n"] - capped["draft_n_accepted"]
    assert capped["draft_n"] - capped["draft_n_accepted"] <= free["draft_n"] - free["draft_n_accepted"]


@pytest.mark.parametrize("value", [-2, 1.5, "4", True, 2**40, [1]])
def test_other_caps_are_refused_with_the_reason(value: Any, ngram: LlamaServer) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, N_MAX: value}
    answer = ngram.post("/v1/chat/completions", body, status=400)
    assert N_MAX in answer["error"]["message"]
    assert "must be -1" in answer["error"]["message"]


def test_types_that_are_not_there_are_refused(ngram: LlamaServer) -> None:
    for value in ("draft-mtp", "ngram-simple,draft-simple", "fancy", 7):
        body = {"prompt": "Hi", "n_predict": 1, TYPES: value}
        assert TYPES in ngram.post("/completion", body, status=400)["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": EDIT}]}),
        ("/v1/completions", {"prompt": EDIT + CODE * 2}),
        ("/completion", {"prompt": EDIT + CODE * 2, "n_predict": 48}),
        ("/v1/messages", {"messages": [{"role": "user", "content": EDIT}]}),
        ("/v1/responses", {"input": EDIT, "max_output_tokens": 48}),
    ],
)
def test_every_generation_endpoint_takes_the_cap(path: str, body: dict[str, Any], ngram: LlamaServer) -> None:
    asked = {"model": "smol", "max_tokens": 48, "temperature": 0, **body}
    assert N_MAX in str(ngram.post(path, asked | {N_MAX: -7}, status=400))
    drafted = []
    for cap in (-1, 0):
        before = drafted_in_all(ngram)
        ngram.post(path, asked | {N_MAX: cap})
        drafted.append(drafted_in_all(ngram) - before)
    assert drafted[0] > 0
    assert drafted[1] == 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/messages", {"messages": [{"role": "user", "content": EDIT}]}),
        ("/v1/responses", {"input": EDIT, "max_output_tokens": 48}),
    ],
)
def test_the_newer_apis_tell_timings_too(path: str, body: dict[str, Any], stream: bool, ngram: LlamaServer) -> None:
    asked = {"model": "smol", "max_tokens": 48, "temperature": 0, "stream": stream, **body}
    observer = Observer(Request(Api.LLAMA_CPP, path, b"{}", {}, stream=stream))
    observer.feed(ngram.http.post(path, json=asked).content, 1.0)
    seen = observer.observation()
    assert seen.decode_s
    assert seen.decode_tokens
    assert seen.completion_tokens == seen.decode_tokens + 1
    assert seen.drafted
    assert seen.drafting_steps


def drafted_in_all(server: LlamaServer) -> int:
    """Tokens that the server drafted since its start, for all requests."""
    text = server.http.get("/metrics").text
    name = "llamacpp:spec_decode_num_draft_tokens_total"
    return int(float(next(line.split()[1] for line in text.splitlines() if line.startswith(name))))


def test_the_text_is_the_same_at_every_cap(ngram: LlamaServer) -> None:
    """Greedily, over 50 prompts. Several tokens in one batch are computed in another order than one token, which moves
    logprobs a little; where two tokens are about equally likely, the texts may part."""
    prompts = [prompt.text[-800:] for prompts in one_of_each_instruction().values() for prompt in prompts[:5]][:50]
    assert len(prompts) == 50
    asked = {"max_tokens": 48, "ignore_eos": True}
    parted = {}
    for text in prompts:
        plain = ngram.chat(text, **asked, **{N_MAX: 0})[0]
        for cap in (2, 12):
            drafted = ngram.chat(text, **asked, **{N_MAX: cap})[0]
            if drafted != plain:
                parted[text] = drafted
    assert len(parted) <= 10
    gaps = [gaps_where_texts_part(ngram, text, drafted) for text, drafted in parted.items()]
    moved = max((abs(one_by_one - as_batch) for one_by_one, as_batch in gaps), default=0.0)
    for one_by_one, _ in gaps:
        assert one_by_one <= 2 * max(moved, SEEN_TO_MOVE), "no rounding explains this"


def gaps_where_texts_part(server: LlamaServer, text: str, drafted: str) -> tuple[float, float]:
    """By how much the plain text's token is likelier than that of the drafted text where they part, as logarithms:
    decoded one by one, and computed as a batch. Nothing is drafted for either."""
    turns = {"messages": [{"role": "user", "content": text}]}
    fields = {"temperature": 0, "cache_prompt": False, "ignore_eos": True, N_MAX: 0}
    asked = turns | fields | {"max_tokens": 48, "logprobs": True, "top_logprobs": 20}
    tokens = server.post("/v1/chat/completions", asked)["choices"][0]["logprobs"]["content"]
    same = ""
    for token in tokens:
        if not drafted.startswith(same + token["token"]):
            break
        same += token["token"]
    prompt = server.post("/apply-template", turns)["prompt"] + same
    answer = server.post("/completion", {"prompt": prompt, "n_predict": 1, "n_probs": 20} | fields)
    found = []
    for top in (token["top_logprobs"], answer["completion_probabilities"][0]["top_logprobs"]):
        likely = {entry["token"]: entry["logprob"] for entry in top}
        other = max((entry for entry in likely if drafted.startswith(same + entry)), key=len)
        found.append(likely[token["token"]] - likely[other])
    return found[0], found[1]


def test_one_request_uses_the_draft_model_and_another_the_lookup(start: StartServer, model: Path) -> None:
    server = start(*with_draft_model(model), "--parallel", "2")
    assert server.http.get("/props").json()["speculative"]["n_max"] == {"ngram-simple": 48, "draft-simple": 6}
    free = server.chat(STORY, **{N_MAX: 0})[0]
    text, by_model = server.chat(STORY, **{TYPES: "draft-simple", N_MAX: 4})
    assert text == free
    assert by_model["draft_n_accepted"] >= 0.9 * by_model["draft_n"] > 0
    assert by_model["draft_n"] <= 4 * (by_model["predicted_n"] - by_model["draft_n_accepted"])
    text, by_lookup = server.chat(STORY, **{TYPES: ["ngram-simple"]})
    assert text == free
    assert by_lookup.get("draft_n", 0) < by_model["draft_n"]


def test_a_draft_model_catches_up_with_what_it_did_not_follow(start: StartServer, model: Path) -> None:
    server = start(*with_draft_model(model), "--parallel", "1")
    turns = [{"role": "user", "content": STORY}]
    asked: dict[str, Any] = {"max_tokens": 48, "temperature": 0, "cache_prompt": True}
    ways: list[dict[str, Any]] = [{N_MAX: 0}, {TYPES: "draft-simple"}, {N_MAX: 0}, {TYPES: "draft-simple", N_MAX: 3}]
    for fields in ways:
        answer = server.post("/v1/chat/completions", {"messages": turns, **asked, **fields})
        turns += [answer["choices"][0]["message"], {"role": "user", "content": "Go on."}]
        timings = answer["timings"]
        if TYPES in fields:
            assert timings["cache_n"] > 20, "the slot did not keep what the plain turn before had processed"
            assert timings["draft_n_accepted"] >= 0.9 * timings["draft_n"] > 0
        else:
            assert "draft_n" not in timings


def test_requests_with_different_strategies_run_side_by_side(start: StartServer, model: Path) -> None:
    server = start(*with_draft_model(model), "--parallel", "4")
    ways: list[dict[str, Any]] = [
        {N_MAX: 0},
        {TYPES: "draft-simple", N_MAX: 2},
        {TYPES: "ngram-simple", N_MAX: 5},
        {MIN_YIELD: 1.5},
    ]
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(server.chat, text, ignore_eos=True, **way) for text in (EDIT, STORY, EDIT) for way in ways]
        answers = [one.result() for one in asked]
    for (text, timings), way in zip(answers, ways * 3, strict=True):
        assert text
        assert timings["predicted_n"] == 64
        assert ("draft_n" in timings) or way == ways[0] or TYPES in way
        assert way != ways[0] or "draft_n" not in timings


def test_drafting_pauses_while_it_does_not_pay(start: StartServer, model: Path) -> None:
    never = ("--spec-synth-rates", "0,0,0,0")
    server = start(
        *("--spec-type", "draft-simple", "--spec-draft-model", str(model), "--spec-draft-n-max", "4"), *never
    )
    unguarded = server.chat(STORY, max_tokens=200, ignore_eos=True)[1]
    guarded = server.chat(STORY, max_tokens=200, ignore_eos=True, **{MIN_YIELD: 1.5})[1]
    assert unguarded["draft_n"] >= 4 * 190
    # A step on probation, with drafts of two, then one after 16, 32 and 64 tokens; the next pause lasts beyond the end.
    assert guarded["draft_n"] == 2 * 4


def test_drafting_goes_on_where_it_pays(start: StartServer, model: Path) -> None:
    server = start(*with_draft_model(model), "--parallel", "2")
    free = server.chat(STORY, **{TYPES: "draft-simple"})[1]
    guarded = server.chat(STORY, **{TYPES: "draft-simple", MIN_YIELD: 2.0})[1]
    assert free["draft_n_steps"] <= guarded["draft_n_steps"] <= free["draft_n_steps"] + 1  # a short draft at first


def test_serve_uses_the_build_and_offers_a_lane_for_each_strategy(program: str, tmp_path: Path) -> None:
    serving = Serving(folder=tmp_path)
    try:
        assert "chosen by request: plain, ngram-2, ngram-3, ngram-6, ngram-12" in serving.said
        lanes = {one["lane"]: one for one in serving.lanes()}
        assert list(lanes) == [f"llama/{name}" for name in ("plain", "ngram-2", "ngram-3", "ngram-6", "ngram-12")]
        assert len({one["engine"]["pid"] for one in lanes.values()}) == 1
        http = httpx2.Client(base_url=serving.url, timeout=60, trust_env=False)
        drafted = {}
        for lane in lanes:
            body = {"messages": [{"role": "user", "content": EDIT}], "max_tokens": 64, "temperature": 0}
            answer = http.post("/v1/chat/completions", json=body, headers={"x-paceline-lane": lane})
            assert answer.headers["x-paceline-lane"] == lane
            drafted[lane] = answer.json()["timings"].get("draft_n", 0)
        assert drafted["llama/plain"] == 0
        assert all(count > 0 for lane, count in drafted.items() if lane != "llama/plain")
        free = http.post("/v1/chat/completions", json=body, headers={"x-paceline-lane": "llama"})
        assert free.headers["x-paceline-lane"] in lanes
        assert "the request forces llama; edit" in free.headers["x-paceline-reason"]
    finally:
        serving.process.terminate()
        assert serving.process.wait(20) == 0


def test_the_patch_says_when_it_does_not_fit(tmp_path: Path) -> None:
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "speculative.h").write_text("// of another version\n")
    with pytest.raises(CannotBuild, match=r"it was made for llama\.cpp b"):
        apply_patch(tmp_path)
    assert (tmp_path / "common" / "speculative.h").read_text() == "// of another version\n"
    assert PATCH.is_file()
