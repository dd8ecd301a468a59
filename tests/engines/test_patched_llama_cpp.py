"""llama.cpp with Paceline's patch: a strategy per request. Builds it where it is not in the cache (minutes)."""

import json
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from benchmarks.llama_server import LlamaServer
from tests.conftest import Serving
from training.drafters.gguf_file import ModelFile
from training.drafters.models import dflash_head, draft_model, eagle3_head, random_hybrid
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
CONTROL, SYNTHETIC, TEXT = "speculative.control", "speculative.synthetic", "speculative.synthetic_text"
LOOKUP_PAYS = {
    "costs": [1.05, 1.1, 1.15, 1.2, 1.25, 1.3, 1.35, 1.4],
    "by_match": {"2": [0.3, 0.5], "4": [0.6, 0.7], "8": [0.9]},
}
MODEL_PAYS = {"costs": [1.2, 1.3, 1.4, 1.5], "acceptance": [0.8, 0.75, 0.7]}


StartServer = Callable[..., LlamaServer]
Drafts = dict[int, list[tuple[int, float]]]
"""Tokens and their probabilities, by the number of tokens before the draft."""


@pytest.fixture(scope="session")
def program() -> str:
    if not (os.environ.get("CXX") or shutil.which("c++") or shutil.which("clang++")):
        pytest.skip("no C++ compiler")
    return build(cache_directory()).server


@pytest.fixture(scope="module")
def start(program: str, model: Path) -> Iterator[StartServer]:
    running: dict[tuple[str, ...], LlamaServer] = {}

    def start(*flags: str, target: Path = model) -> LlamaServer:
        """The same server for the same model and flags."""
        key = (str(target), *flags)
        if key not in running:
            running[key] = LlamaServer(program, target, *flags)
        return running[key]

    yield start
    for one in running.values():
        one.stop()


@pytest.fixture(scope="module")
def drafters(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of drafters for the bundled model that hardly anything is accepted of, and of a hybrid model."""
    folder = tmp_path_factory.mktemp("drafters")
    target = ModelFile(model)
    draft_model(target, folder / "draft-simple.gguf")
    eagle3_head(target, folder / "draft-eagle3.gguf")
    dflash_head(target, folder / "draft-dflash.gguf")
    random_hybrid(target, folder / "hybrid.gguf")
    return folder


@pytest.fixture
def ngram(start: StartServer) -> LlamaServer:
    return start(*NGRAM, "--parallel", "2")


def with_draft_model(model: Path) -> tuple[str, ...]:
    """The model as its own draft model: every draft is accepted."""
    return ("--spec-type", "ngram-simple,draft-simple", "--spec-draft-model", str(model), "--spec-draft-n-max", "6")


def test_the_server_tells_that_requests_may_choose(ngram: LlamaServer) -> None:
    told = ngram.http.get("/props").json()["speculative"]
    assert told["n_max"] == {"ngram-simple": 12}
    assert set(told["request_fields"]) == {N_MAX, TYPES, MIN_YIELD, CONTROL}
    assert told["decodes_apart"] is True


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


every_endpoint = pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": EDIT}]}),
        ("/v1/completions", {"prompt": EDIT + CODE * 2}),
        ("/completion", {"prompt": EDIT + CODE * 2, "n_predict": 48}),
        ("/v1/messages", {"messages": [{"role": "user", "content": EDIT}]}),
        ("/v1/responses", {"input": EDIT, "max_output_tokens": 48}),
    ],
)
"""That generates."""


@every_endpoint
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


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (3, "must be an object"),
        ({"draft-mtp": MODEL_PAYS}, "does not draft by draft-mtp"),
        ({"ngram-simple": 1}, "must be an object"),
        ({"ngram-simple": {}}, "needs costs"),
        ({"ngram-simple": {"costs": [1.1]}}, "needs acceptance"),
        ({"ngram-simple": {"costs": [], "acceptance": [0.5]}}, "costs must be"),
        ({"ngram-simple": {"costs": ["1"], "acceptance": [0.5]}}, "costs must be"),
        ({"ngram-simple": {"costs": [-1], "acceptance": [0.5]}}, "costs must be"),
        ({"ngram-simple": {"costs": [1.1], "acceptance": [1.5]}}, "acceptance must be"),
        ({"ngram-simple": {"costs": [1.1], "by_match": {"few": [0.5]}}}, "lengths of matches"),
        ({"ngram-simple": {"costs": [1.1], "acceptance": [0.5], "weight": -1}}, "weight must be"),
        ({"ngram-simple": {"costs": [1.1], "acceptance": [0.5], "wait": 1}}, "does not take wait"),
    ],
)
def test_a_control_that_makes_no_sense_is_refused(value: Any, reason: str, ngram: LlamaServer) -> None:
    answer = ngram.post("/completion", {"prompt": "Hi", "n_predict": 1, CONTROL: value}, status=400)
    assert CONTROL in answer["error"]["message"]
    assert reason in answer["error"]["message"]


@every_endpoint
def test_every_generation_endpoint_takes_a_control(path: str, body: dict[str, Any], ngram: LlamaServer) -> None:
    asked = {"model": "smol", "max_tokens": 48, "temperature": 0, **body}
    assert CONTROL in str(ngram.post(path, asked | {CONTROL: {"ngram-simple": {}}}, status=400))
    timings = ngram.post(path, asked | {CONTROL: {"ngram-simple": LOOKUP_PAYS}})["timings"]
    assert_counts_agree(timings)
    assert timings["drafters"]["ngram-simple"]["accepted"] > 0
    assert "draft_n" not in ngram.post(path, asked | {CONTROL: {}})["timings"]


def assert_counts_agree(timings: dict[str, Any]) -> None:
    drafters = timings["drafters"].values()
    assert sum(one["steps"] for one in drafters) == timings.get("draft_n_steps", 0)
    assert sum(one["drafted"] for one in drafters) == timings.get("draft_n", 0)
    assert sum(one["accepted"] for one in drafters) == timings.get("draft_n_accepted", 0)
    for one in (*drafters, *(one["shadow"] for one in drafters if "shadow" in one)):
        verified, accepted = one["verified_by_position"], one["accepted_by_position"]
        assert sum(accepted) == one["accepted"]
        assert all(map(int.__ge__, verified, accepted))
        # A position is verified if the one before was accepted and this one was drafted.
        assert all(map(int.__le__, verified[1:], accepted))
        assert verified[:1] == [one["steps"]] * bool(one["steps"])


def test_answers_without_a_control_tell_their_drafters_too(ngram: LlamaServer) -> None:
    timings = ngram.chat(EDIT)[1]
    assert list(timings["drafters"]) == ["ngram-simple"]
    assert_counts_agree(timings)


def test_both_drafters_take_turns_within_an_answer(start: StartServer, model: Path) -> None:
    server = start(*with_draft_model(model), "--parallel", "2")
    free = server.chat(EDIT, max_tokens=128, **{N_MAX: 0})[0]
    text, timings = server.chat(
        EDIT, max_tokens=128, **{CONTROL: {"ngram-simple": LOOKUP_PAYS, "draft-simple": MODEL_PAYS}}
    )
    assert text == free
    assert_counts_agree(timings)
    assert timings["drafters"]["ngram-simple"]["steps"] > 0
    assert timings["drafters"]["draft-simple"]["steps"] > 0
    assert max(len(one["verified_by_position"]) for one in timings["drafters"].values()) <= 8


@pytest.mark.parametrize("cache", [(), ("--kv-unified",)])
def test_requests_of_a_batch_draft_alike_where_lengths_are_decoded_apart(
    cache: tuple[str, ...], start: StartServer, model: Path
) -> None:
    """One that hopes for little drafts beside one that hopes for much, and alone drafts one token at most. Slots that
    share a cache are decoded in one pass however long their drafts are, and each decides for itself."""
    server = start(*with_draft_model(model), "--parallel", "2", *cache)
    much, little = ({**SURE, "acceptance": [acceptance]} for acceptance in (0.99, 0.2))
    assert server.http.get("/props").json()["speculative"]["decodes_apart"] is not bool(cache)
    free = server.chat(STORY, max_tokens=64, ignore_eos=True, **{N_MAX: 0})[0]

    def longest_draft(control: dict[str, Any], tokens: int) -> int:
        text, drafted = drafts(server, control, tokens)
        assert text.startswith(free[:40])
        return len(drafted["verified_by_position"])

    assert longest_draft(little, 32) == 1
    with ThreadPoolExecutor(2) as pool:
        beside = pool.submit(longest_draft, much, 320)
        time.sleep(0.3)
        together = longest_draft(little, 32)
        assert not beside.done()
        assert beside.result() == 4
    assert together == 1 if cache else together >= 3


def test_a_request_drafts_again_that_its_batch_kept_from_it(start: StartServer, model: Path) -> None:
    """A plain request beside it is decoded apart, so drafts don't pay; the draft model does not follow meanwhile."""
    server = start(*with_draft_model(model), "--parallel", "2")
    much = {**SURE, "acceptance": [0.99]}
    with ThreadPoolExecutor(2) as pool:
        plain = pool.submit(server.chat, STORY, max_tokens=96, ignore_eos=True, **{N_MAX: 0})
        time.sleep(0.3)
        kept = drafts(server, much, 32)[1]["drafted"]
        assert not plain.done()
        drafted = drafts(server, much, 192)[1]["drafted"]
        assert plain.done()
    assert kept <= 12, "its first drafts may be lost"
    assert drafted > 60


SURE = {"costs": [1.15, 1.4, 1.6, 1.75], "weight": 1000}
"""Of a control whose belief does not move."""


def drafts(server: LlamaServer, control: dict[str, Any], tokens: int) -> tuple[str, dict[str, Any]]:
    """An answer that a draft model drafts for under this control, and its counts."""
    fields: dict[str, Any] = {CONTROL: {"draft-simple": control}, "max_tokens": tokens, "ignore_eos": True}
    text, timings = server.chat(STORY, **fields)
    return text, timings.get("drafters", {}).get("draft-simple", {"drafted": 0, "verified_by_position": []})


def test_what_a_control_does_not_name_or_allow_is_not_drafted(start: StartServer, model: Path) -> None:
    server = start(*with_draft_model(model), "--parallel", "2")
    both = {"ngram-simple": LOOKUP_PAYS, "draft-simple": MODEL_PAYS}
    ways: list[tuple[dict[str, Any], set[str]]] = [
        ({CONTROL: {"draft-simple": MODEL_PAYS}}, {"draft-simple"}),
        ({CONTROL: both, TYPES: "ngram-simple"}, {"ngram-simple"}),
        ({CONTROL: both, N_MAX: 0}, set()),
        ({CONTROL: {}}, set()),
    ]
    for fields, used in ways:
        timings = server.chat(EDIT, **fields)[1]
        assert {name for name, one in timings.get("drafters", {}).items() if one["steps"]} == used
    capped = server.chat(EDIT, **{CONTROL: both, N_MAX: 2})[1]["drafters"]
    assert {len(one["verified_by_position"]) for one in capped.values() if one["steps"]} == {2}


def test_a_draft_stops_where_the_drafter_is_not_sure(start: StartServer, model: Path) -> None:
    """All of its drafts would be accepted, as the rule says: nothing but its confidence makes them shorter."""
    server = start(*with_draft_model(model), "--parallel", "2")
    lengths = []
    for price in (0.01, 0.5):
        control = {"costs": [1.1, 1.1 + price, 1.1 + 2 * price], "acceptance": [0.99], "weight": 1000}
        timings = server.chat(STORY, ignore_eos=True, **{CONTROL: {"draft-simple": control}})[1]
        assert_counts_agree(timings)
        assert timings["draft_n_accepted"] >= 0.9 * timings["draft_n"]
        lengths.append(timings["draft_n"] / timings["draft_n_steps"])
    assert lengths[0] > 2.8
    assert 1 <= lengths[1] < 2.6


def test_the_text_is_the_same_with_a_control(start: StartServer, model: Path) -> None:
    server = start(*with_draft_model(model), "--parallel", "2")
    prompts = [prompt.text[-800:] for prompts in one_of_each_instruction().values() for prompt in prompts[:2]][:20]
    control = {CONTROL: {"ngram-simple": LOOKUP_PAYS, "draft-simple": MODEL_PAYS}}
    parted = {}
    for text in prompts:
        drafted, timings = server.chat(text, max_tokens=48, ignore_eos=True, **control)
        assert_counts_agree(timings)
        if drafted != server.chat(text, max_tokens=48, ignore_eos=True, **{N_MAX: 0})[0]:
            parted[text] = drafted
    assert len(parted) <= 4
    gaps = [gaps_where_texts_part(server, text, drafted) for text, drafted in parted.items()]
    assert all(one_by_one <= 2 * SEEN_TO_MOVE for one_by_one, _ in gaps), "no rounding explains this"


@pytest.mark.parametrize("name", ["draft-simple", "draft-eagle3", "draft-dflash", "draft-mtp"])
def test_what_is_drafted_after_a_pause_is_what_is_drafted_without_one(
    name: str, start: StartServer, drafters: Path
) -> None:
    """Token for token and probability for probability: the server logs both. Acceptance would show nothing, since the
    drafters are random."""
    head = () if name == "draft-mtp" else ("--spec-draft-model", str(drafters / f"{name}.gguf"))
    flags = ("--spec-type", f"ngram-simple,{name}", "--spec-draft-n-max", "4", *head, "--parallel", "1", "-lv", "10")
    server = start(*flags, **({"target": drafters / "hybrid.gguf"} if name == "draft-mtp" else {}))
    hoped_for = {name: {"costs": [2.0, 2.1], "acceptance": [0.9], "weight": 2}}  # and soon found not to pay
    copies = {"ngram-simple": {"costs": [1, 1, 1, 1], "acceptance": [0.9]}}
    text = "A map, a map, a lighthouse keeper, a map. One two three four. One two three four."
    texts, drafts = [], []
    ways: list[dict[str, Any]] = [
        {TYPES: name, N_MAX: 2},
        {CONTROL: hoped_for},
        {CONTROL: copies | hoped_for},
        {TYPES: name, N_MAX: 2, MIN_YIELD: 3.0},
    ]
    for way in ways:
        begin = len(server.log())
        texts.append(server.chat(text, max_tokens=120, ignore_eos=True, **way)[0])
        drafts.append(logged_drafts(server.log()[begin:]))
    assert set(texts) == {texts[0]}
    always, *others = drafts
    for some in others:
        assert len(some) < len(always) / 2, "there was no pause"
        assert_same_drafts(some, always)


@pytest.mark.parametrize("name", ["draft-eagle3", "draft-dflash", "draft-mtp"])
def test_a_turn_after_a_plain_one_is_drafted_for_as_after_a_drafted_one(
    name: str, start: StartServer, drafters: Path
) -> None:
    head = () if name == "draft-mtp" else ("--spec-draft-model", str(drafters / f"{name}.gguf"))
    flags = ("--spec-type", f"ngram-simple,{name}", "--spec-draft-n-max", "4", *head, "--parallel", "1", "-lv", "10")
    server = start(*flags, **({"target": drafters / "hybrid.gguf"} if name == "draft-mtp" else {}))
    asked: dict[str, Any] = {"n_predict": 80, "temperature": 0, "ignore_eos": True, "return_tokens": True}
    prompt = server.post("/tokenize", {"content": "A lighthouse keeper finds a map."})["tokens"]
    drafts = []
    for fields in ({N_MAX: 0}, {TYPES: name, N_MAX: 2}):
        first = server.post("/completion", asked | fields | {"prompt": prompt, "cache_prompt": False})
        begin = len(server.log())
        turn = {"prompt": prompt + first["tokens"], TYPES: name, N_MAX: 2}
        second = server.post("/completion", asked | turn)
        assert second["timings"]["cache_n"] > 80
        drafts.append(logged_drafts(server.log()[begin:]))
    assert len(drafts[0]) > 60
    assert_same_drafts(*drafts)


def assert_same_drafts(some: Drafts, others: Drafts) -> None:
    """Where both drafted at first. Batches of different sizes round differently, and a random head is often about as
    sure of two tokens."""
    pairs = [(draft[0], others[at][0]) for at, draft in some.items() if at in others]
    assert pairs
    assert sum(token != other for (token, _), (other, _) in pairs) <= len(pairs) / 10
    for (_, p), (_, p_other) in pairs:
        assert p == pytest.approx(p_other, abs=0.05)


def logged_drafts(log: str) -> Drafts:
    """Of a server with ``-lv 10``."""
    found: Drafts = {}
    draft: list[tuple[int, float]] = []
    for line in log.splitlines():
        if candidate := re.search(r"draft candidate +0, pos +\d+: +(\d+) \( *([\d.]+)\)", line):
            draft.append((int(candidate[1]), float(candidate[2])))
        elif verified := re.search(r"generate_draft: id=\d+, #tokens=(\d+), #draft=(\d+)", line):
            if draft:
                found[int(verified[1])] = draft[: int(verified[2])]
            draft = []
    return found


def test_a_hybrid_model_makes_no_checkpoint_for_a_controlled_draft(start: StartServer, drafters: Path) -> None:
    """It can go back by as many tokens as it keeps snapshots of its state: the longest draft of its MTP layer."""
    types = ("--spec-type", "ngram-simple,draft-mtp", "--spec-draft-n-max", "3", "--spec-ngram-simple-size-n", "3")
    server = start(*types, "--parallel", "1", "-lv", "10", target=drafters / "hybrid.gguf")
    repeats = {"grammar": 'root ::= ("1234567")+', "max_tokens": 64}  # a digit is a token
    made = []
    for fields in ({TYPES: "ngram-simple"}, {CONTROL: {"ngram-simple": LOOKUP_PAYS}}):
        begin = len(server.log())
        timings = server.chat("Hi", **repeats, **fields)[1]
        made.append("created speculative checkpoint" in server.log()[begin:])
        assert timings["draft_n_accepted"] > 0
    assert made == [True, False]
    assert len(timings["drafters"]["ngram-simple"]["verified_by_position"]) == 3


@pytest.mark.parametrize("name", ["draft-simple", "draft-eagle3", "draft-dflash"])
def test_a_drafter_that_is_never_right_costs_little(name: str, start: StartServer, drafters: Path) -> None:
    flags = ("--spec-type", f"ngram-simple,{name}", "--spec-draft-model", str(drafters / f"{name}.gguf"))
    server = start(*flags, "--spec-synth-len", "1", "--parallel", "2")
    cost, tokens = 1.5, 300
    prior = {"costs": [cost] * 3, "acceptance": [0.8], "weight": 100}
    timings = server.chat(STORY, max_tokens=tokens, ignore_eos=True, **{CONTROL: {name: prior}})[1]
    assert timings["drafters"][name]["accepted"] == 0
    assert timings["draft_n_steps"] >= 2
    assert timings["draft_n_steps"] * (cost - 1) <= 0.02 * tokens


def test_a_request_brings_its_own_synthetic_acceptance(start: StartServer, ngram: LlamaServer, drafters: Path) -> None:
    flags = ("--spec-type", "ngram-simple,draft-simple", "--spec-draft-model", str(drafters / "draft-simple.gguf"))
    server = start(*flags, "--spec-draft-n-max", "4", "--spec-synth-len", "1", "--parallel", "2")
    assert SYNTHETIC in server.http.get("/props").json()["speculative"]["request_fields"]
    asked: dict[str, Any] = {"max_tokens": 200, "ignore_eos": True, "seed": 1, TYPES: "draft-simple"}
    assert server.chat(STORY, **asked)[1]["draft_n_accepted"] == 0
    rates = [0.9, 0.6, 0.3, 0.0]
    timings = server.chat(STORY, **asked, **{SYNTHETIC: {"draft-simple": rates}})[1]
    counts = timings["drafters"]["draft-simple"]
    for rate, verified, accepted in zip(
        rates, counts["verified_by_position"], counts["accepted_by_position"], strict=True
    ):
        assert accepted == pytest.approx(rate * verified, abs=3 * max(1, verified * rate * (1 - rate)) ** 0.5)
    control = {"draft-simple": {"costs": [1.1, 1.2, 1.3, 1.4], "acceptance": [0.9, 0.6, 0.3, 0.1]}}
    steered = server.chat(STORY, **asked, **{SYNTHETIC: {"draft-simple": rates}, CONTROL: control})[1]
    assert steered["draft_n_accepted"] / steered["draft_n"] > timings["draft_n_accepted"] / timings["draft_n"]
    for value, by in (({"draft-simple": [2]}, server), ({"fancy": [1]}, server), (1, server), ({}, ngram)):
        body = {"prompt": "Hi", "n_predict": 1, SYNTHETIC: value}
        assert SYNTHETIC in by.post("/completion", body, status=400)["error"]["message"]


@pytest.mark.parametrize("kinds", [(), ("ngram-simple",), ("draft-simple",), ("ngram-simple", "draft-simple")])
def test_a_request_brings_the_text_that_is_generated(
    kinds: Sequence[str], start: StartServer, ngram: LlamaServer, drafters: Path
) -> None:
    """However it is decoded. A lookup's drafts are right as far as they are this text, a model's by dice."""
    flags = ("--spec-type", "ngram-simple,draft-simple", "--spec-draft-model", str(drafters / "draft-simple.gguf"))
    server = start(*flags, "--spec-draft-n-max", "4", "--spec-synth-len", "1", "--parallel", "2")
    text = "".join(f"{number}. The cat sat on the mat, and looked at the moon.\n" for number in range(1, 13))
    asked: dict[str, Any] = {"max_tokens": 150, "ignore_eos": True, "seed": 1, TEXT: text}
    asked |= {SYNTHETIC: {"draft-simple": [0.7] * 4}}
    costs = {"costs": [1.1, 1.2, 1.3, 1.4]}
    priors = {"ngram-simple": costs | {"by_match": {"2": [0.8]}}, "draft-simple": costs | {"acceptance": [0.7]}}
    ways: list[dict[str, Any]] = [{CONTROL: {kind: priors[kind] for kind in kinds}}]
    if len(kinds) < 2:
        ways.append({TYPES: kinds[0]} if kinds else {N_MAX: 0})
    for way in ways:
        answer, timings = server.chat(STORY, **asked, **way)
        assert text.startswith(answer) and len(answer) > 300
        assert timings["predicted_n"] == 150
        assert set(timings.get("drafters", {})) == set(kinds)
        for kind in kinds:
            counts = timings["drafters"][kind]
            assert 0 < counts["accepted"] < counts["drafted"]
        if "ngram-simple" in kinds:
            assert timings["drafters"]["ngram-simple"]["accepted"] > 20  # all but the numbers is said again and again
    body = {"prompt": "Hi", "n_predict": 1, TEXT: text}
    assert TEXT in ngram.post("/completion", body, status=400)["error"]["message"]


def test_a_client_that_left_is_noticed_at_once(ngram: LlamaServer) -> None:
    """Also while others ask: each of their answers used to put off the next look."""
    body = json.dumps({"prompt": "Once upon a time", "n_predict": 3000, "ignore_eos": True}).encode()
    head = f"POST /completion HTTP/1.1\r\nHost: here\r\nContent-Length: {len(body)}\r\n\r\n".encode()

    def busy() -> int:
        return sum(one["is_processing"] for one in ngram.http.get("/slots").json())

    with socket.create_connection(("127.0.0.1", ngram.http.base_url.port or 80)) as client:
        client.sendall(head + body)
        while not busy():
            time.sleep(0.02)
    left_s = time.monotonic()
    while busy():
        time.sleep(0.02)
        assert time.monotonic() - left_s < 1.0


def test_serve_uses_the_build_and_offers_a_lane_for_each_strategy(program: str, tmp_path: Path) -> None:
    serving = Serving(folder=tmp_path)
    try:
        assert "decided at each step: plain, ngram" in serving.said
        lanes = {one["lane"]: one for one in serving.lanes()}
        assert list(lanes) == ["llama/plain", "llama/ngram"]
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
