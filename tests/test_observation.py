"""What is read from answers as they pass by. The answers are llama.cpp's (b11549) and OpenAI's own."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.engines import Observer
from paceline.engines.observation import HEAD_BYTES, TAIL_BYTES
from paceline.types import Observation

TIMINGS = {
    "cache_n": 24,
    "prompt_n": 7,
    "prompt_ms": 40.4,
    "predicted_n": 31,
    "predicted_ms": 300.0,
    "draft_n": 12,
    "draft_n_accepted": 9,
}
FROM_TIMINGS = Observation(7, 24, 31, 0.0404, 30, 0.3, 12, 9)


def observe(*pieces: tuple[bytes, float], streamed: bool = True) -> Observation:
    observer = Observer(streamed)
    for piece, at_s in pieces:
        observer.feed(piece, at_s)
    return observer.observation()


def sse(document: Any) -> bytes:
    return b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"


def test_timings_of_a_json_answer() -> None:
    body = json.dumps({"choices": [], "usage": {"completion_tokens": 99}, "timings": TIMINGS}).encode()
    assert observe((body, 1.0), streamed=False) == FROM_TIMINGS


def test_timings_in_the_last_chunk_of_a_stream() -> None:
    last = sse({"choices": [], "timings": TIMINGS}) + b"data: [DONE]\n\n"
    assert observe((sse({"choices": [{"delta": {"content": "x"}}]}), 0.5), (last, 1.0)) == FROM_TIMINGS


@pytest.mark.parametrize("border", [1, 3, 50, 4096])
def test_timings_behind_a_long_answer_and_across_borders(border: int) -> None:
    """llama.cpp's own /completion repeats the whole prompt in its last event."""
    data = sse({"content": "x" * 300_000, "prompt": "y" * 300_000, "timings": TIMINGS})
    pieces = [(data[at : at + border], 1.0) for at in range(max(0, len(data) - 200_000), len(data), border)]
    assert observe(*pieces) == FROM_TIMINGS


def test_no_drafts_reported_are_missing_not_zero() -> None:
    timings = {key: value for key, value in TIMINGS.items() if not key.startswith("draft")}
    seen = observe((sse({"timings": timings}), 1.0))
    assert (seen.drafted, seen.accepted) == (None, None)


def test_usage_in_openais_words() -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}
    seen = observe((json.dumps({"usage": usage}).encode(), 1.0), streamed=False)
    assert seen == Observation(prompt_tokens=6, cached_tokens=4, completion_tokens=5)


def test_usage_of_a_responses_stream() -> None:
    usage = {"input_tokens": 10, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 4}}
    seen = observe(
        (sse({"type": "response.created", "response": {"usage": None}}), 0.1),
        (sse({"type": "response.output_text.delta", "delta": "a"}), 0.5),
        (sse({"type": "response.completed", "response": {"usage": usage}}), 0.9),
    )
    assert (seen.prompt_tokens, seen.cached_tokens, seen.completion_tokens, seen.prefill_s) == (6, 4, 5, 0.5)
    assert seen.decode_s == pytest.approx(0.4)


def test_usage_of_an_anthropic_stream_stands_at_both_ends() -> None:
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 9, "cache_read_input_tokens": 3}}}
    delta = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "hi"}}
    seen = observe(
        (sse(start), 0.1),
        *((sse(delta), 0.2 + i / 1000) for i in range(2000)),
        (sse({"type": "message_delta", "usage": {"output_tokens": 2000}}), 2.2),
    )
    assert (seen.prompt_tokens, seen.cached_tokens, seen.completion_tokens) == (9, 3, 2000)
    assert (seen.prefill_s, seen.decode_tokens) == (0.2, 1999)
    assert seen.decode_s == pytest.approx(2.0)


def test_a_first_event_without_a_token_is_not_the_first_token() -> None:
    role = sse({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
    token = sse({"choices": [{"delta": {"content": "x"}}]})
    last = sse({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 3}})
    seen = observe((role, 0.1), (token, 0.5), (token, 0.6), (token, 0.7), (last, 0.7))
    assert (seen.prefill_s, seen.decode_tokens) == (0.5, 2)
    assert seen.decode_s == pytest.approx(0.2)


def test_a_client_that_could_not_keep_up_spoils_the_clock_but_not_the_counts() -> None:
    observer = Observer(True)
    observer.feed(sse({"choices": [{"delta": {"content": "x"}}]}), 0.5)
    observer.feed(sse({"usage": {"prompt_tokens": 1, "completion_tokens": 3}}), 9.0)
    observer.clock_is_valid = False
    assert observer.observation() == Observation(prompt_tokens=1, completion_tokens=3)


def test_the_models_own_text_is_no_report() -> None:
    text = '{"timings": {"predicted_n": 1, "predicted_ms": 1}, "usage": {"completion_tokens": 1}}'
    body = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
    assert observe((body, 1.0), streamed=False) == Observation()


@pytest.mark.parametrize(
    "timings",
    [
        {"predicted_n": -1, "predicted_ms": "fast"},
        {"predicted_n": True, "predicted_ms": float("nan")},
        {"predicted_n": 1.5, "predicted_ms": float("inf"), "draft_n": None},
        {"predicted_n": [], "predicted_ms": {}, "prompt_ms": -4},
    ],
)
def test_absurd_timings_are_missing(timings: dict[str, Any]) -> None:
    assert observe((sse({"timings": timings}), 1.0)) == Observation()


@given(st.lists(st.tuples(st.binary(max_size=200), st.floats(0, 10)), max_size=20))
def test_no_answer_is_too_odd(pieces: list[tuple[bytes, float]]) -> None:
    assert isinstance(observe(*pieces), Observation)


def test_memory_is_bounded() -> None:
    observer = Observer(True)
    for _ in range(2000):
        observer.feed(b"x" * 10_000, 1.0)
    kept = sum(map(len, observer._tail)) + len(observer._head)
    assert kept <= HEAD_BYTES + TAIL_BYTES + 10_000
