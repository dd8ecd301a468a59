"""What is read from answers as they pass by. The answers are llama.cpp's (b11549) and OpenAI's own."""

import json
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fake_engine import ANSWER
from tests.patient import shortest_s

from paceline.engines import ENGINES, Observer
from paceline.engines.events import MAX_EVENT_BYTES
from paceline.engines.observation import HEAD_BYTES, MAX_COUNT, TAIL_BYTES, asks_for_several, draft_counts
from paceline.types import Api, DraftCounts, Observation, Request, Strategy

TIMINGS = {
    "cache_n": 24,
    "prompt_n": 7,
    "prompt_ms": 40.4,
    "predicted_n": 31,
    "predicted_ms": 300.0,
    "draft_n": 12,
    "draft_n_accepted": 9,
}
MAX_S = 2.0
"""Of all the pieces of a long answer: eight times what the slowest of them takes on an idle machine."""
FROM_TIMINGS = Observation(7, 24, 31, 0.0404, 30, 0.3, 12, 9)
Pieces = tuple[tuple[bytes, float], ...]


def request(streamed: bool = True, **fields: Any) -> Request:
    fields = {"stream": streamed, **fields}
    return Request(Api.OPENAI_CHAT, "/v1/chat/completions", json.dumps(fields).encode(), fields, stream=streamed)


def observe(*pieces: tuple[bytes, float], streamed: bool = True, **fields: Any) -> Observation:
    return observed(*pieces, streamed=streamed, **fields).observation()


def observed(*pieces: tuple[bytes, float], streamed: bool = True, **fields: Any) -> Observer:
    observer = Observer(request(streamed, **fields))
    for piece, at_s in pieces:
        observer.feed(piece, at_s)
    if streamed:
        observer.end(pieces[-1][1] if pieces else 0)
    else:
        observer.read_whole(b"".join(piece for piece, _ in pieces))
    return observer


def cut(data: bytes, borders: list[int]) -> list[bytes]:
    at = [0, *sorted(border % (len(data) + 1) for border in borders), len(data)]
    return [data[begin:end] for begin, end in pairwise(at)]


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
        *(
            (sse({"type": "response.output_text.delta", "delta": "a", "sequence_number": n}), 0.5 + n / 10)
            for n in range(4)
        ),
        (sse({"type": "response.output_text.done", "text": "aaaa"}), 0.9),
        (sse({"type": "response.completed", "response": {"usage": usage}}), 1.9),
    )
    assert (seen.prompt_tokens, seen.cached_tokens, seen.completion_tokens, seen.prefill_s) == (6, 4, 5, 0.5)
    assert seen.decode_tokens == 4
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


def test_a_client_that_could_not_keep_up_spoils_the_clock_but_not_the_counts() -> None:
    observer = Observer(request())
    for piece, at_s in chat(steady(10)):
        observer.feed(piece, at_s)
    assert observer.observation().decode_s is not None
    observer.clock_is_valid = False
    assert observer.observation() == Observation(prompt_tokens=9, completion_tokens=10)


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


@given(st.lists(st.tuples(st.binary(max_size=200), st.floats(0, 10)), max_size=20), st.booleans())
def test_no_answer_is_too_odd(pieces: list[tuple[bytes, float]], streamed: bool) -> None:
    assert isinstance(observe(*pieces, streamed=streamed), Observation)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                (
                    "choices",
                    "delta",
                    "content",
                    "text",
                    "type",
                    "error",
                    "usage",
                    "timings",
                    "predicted_n",
                    "predicted_ms",
                    "index",
                    "finish_reason",
                    "code",
                    "message",
                    "response",
                    "completion_tokens",
                    "object",
                    "status",
                )
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.lists(JSON, max_size=6), st.sampled_from(sorted(ENGINES)))
def test_no_document_is_too_odd(documents: list[Any], kind: str) -> None:
    observer = ENGINES[kind].observe(request(), Strategy("draft"))
    for number, document in enumerate(documents):
        data = sse(document)
        assert observer.feed(data, number / 10) in (data, b"")
    observer.end(1.0)
    observer.read_whole(json.dumps(documents[:1]).encode())
    assert isinstance(observer.observation(), Observation)
    assert observer.error is None or (observer.error.isprintable() and len(observer.error) <= 300)


# Usage that only Paceline asked for


HEAD = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
USAGE = {"prompt_tokens": 9, "completion_tokens": 6, "total_tokens": 15}
BARE = HEAD | {"choices": [], "usage": USAGE}
FORMS = [  # a line's end, what stands before the data
    (end, before)
    for end in ("\n", "\r\n", "\r")
    for before in (
        "data: ",
        "data:",
        "id: 7\ndata: ",
        ": keep-alive\n\ndata: ",
        ": keep-alive\ndata: ",
        "event: message\ndata:",
    )
]


def written(document: Any, end: str, before: str) -> bytes:
    text = document if isinstance(document, str) else json.dumps(document)
    return (before.replace("\n", end) + text + end + end).encode()


def delta(**fields: Any) -> dict[str, Any]:
    return HEAD | {"choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


@pytest.mark.parametrize("kind", ["tabbyapi", "vllm", "ollama", "sglang", "lmstudio", "mlx-lm"])
@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=20)  # for each of 72 kinds and forms
@given(borders=st.lists(st.integers(0, 1500), max_size=8))
def test_usage_is_taken_out_however_it_is_written_and_cut(kind: str, form: tuple[str, str], borders: list[int]) -> None:
    texts = [written(delta(content=word), *form) for word in "abcde"]
    end, done = written(delta(), *form), written("[DONE]", *form)
    data = b"".join((*texts, end, written(BARE, *form), done))
    observer = ENGINES[kind].observe(request(), Strategy())
    shown = [observer.feed(piece, number / 10) for number, piece in enumerate(cut(data, borders))]
    kept = b"".join((*shown, observer.end(1.0)))
    if ": keep-alive\n\n" in form[1]:  # a comment that is an event of its own stays
        assert b'"usage"' not in kept
        assert kept.count(b"keep-alive") == 8
    else:
        assert kept == b"".join((*texts, end, done))
    assert observer.observation().completion_tokens == 6
    asked = ENGINES[kind].observe(request(stream_options={"include_usage": True}), Strategy())
    shown = [asked.feed(piece, 0.1) for piece in cut(data, borders)]
    assert b"".join((*shown, asked.end(1.0))) == data


@pytest.mark.parametrize(
    ("document", "stays"),
    [
        (BARE, False),
        (HEAD | {"usage": USAGE}, False),
        (HEAD | {"usage": USAGE, "choices": None}, False),
        ({"usage": USAGE, "choices": [], "metrics": {}, "timings": {}}, False),
        (HEAD | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": USAGE}, True),
        (HEAD | {"choices": [], "usage": None}, True),
        (HEAD | {"choices": [], "prompt_filter_results": []}, True),
        (HEAD | {"choices": [], "usage": USAGE, "error": {"message": "x"}}, True),
    ],
)
def test_only_what_was_asked_for_by_paceline_is_taken_out(document: Any, stays: bool) -> None:
    observer = ENGINES["vllm"].observe(request(), Strategy())
    data = sse(document)
    assert observer.feed(data, 1.0) == (data if stays else b"")


def test_usage_in_several_lines_and_without_an_end_is_taken_out_too() -> None:
    observer = ENGINES["vllm"].observe(request(), Strategy())
    assert observer.feed(b'data: {"choices":\ndata: [], "usage": {"completion_tokens": 3}}\n\n', 0.1) == b""
    assert observer.feed(b'data: {"choices": [], "usage": {"completion_tokens": 4}}', 0.1) == b""
    assert observer.end(0.2) == b""
    assert observer.observation().completion_tokens == 4


# Errors inside a success

ERRORS: list[tuple[bytes, str, bool]] = [
    (sse({"error": {"message": "too long", "type": "invalid_request_error", "code": 400}}), "too long", True),
    (sse({"error": {"message": "out of memory", "code": 500}}), "out of memory", False),
    (sse({"error": {"message": "no", "type": "BadRequestError", "code": "400"}}), "no", True),
    (sse({"error": {"message": "no", "type": "invalid_request_error"}}), "no", True),
    (sse({"error": {"message": "no", "code": "context_length_exceeded"}}), "no", True),
    (sse({"error": {"message": "no", "code": 500, "type": "exceed_context_size_error"}}), "no", False),
    (sse({"error": {"message": "busy", "code": 429}}), "busy", False),
    (sse({"error": {"message": "key", "code": "invalid_api_key"}}), "key", False),
    (sse({"error": "Draft model does not fit"}), "Draft model does not fit", False),
    (sse({"error": {"code": 500}}), "an error without a message", False),
    (sse({"object": "error", "message": "m", "type": "NotFoundError", "code": 404}), "m", True),
    (
        sse({"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}], "error": {"message": "x"}}),
        "x",
        False,
    ),
    (
        sse({"choices": [{"index": 0, "text": "", "finish_reason": "abort"}]}),
        "it ended with finish_reason abort",
        False,
    ),
    (b"event: error\n" + sse({"code": 500, "message": "context shift"}), "context shift", False),
    (b"event: error\r\ndata: plain words\r\n\r\n", "plain words", False),
    (b'error: {"code": 400, "message": "old llama.cpp"}\n\n', "old llama.cpp", True),
    (b'error: {"error": {"code": 500, "message": "x"}}\n\n', "x", False),
    (
        b"event: error\n" + sse({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
        "Overloaded",
        False,
    ),
    (sse({"type": "error", "error": {"type": "invalid_request_error", "message": "m"}}), "m", True),
    (sse({"type": "error", "code": "server_error", "message": "m", "param": None}), "m", False),
    (
        sse(
            {
                "type": "response.failed",
                "response": {"status": "failed", "error": {"code": "server_error", "message": "x"}},
            }
        ),
        "x",
        False,
    ),
    (sse({"type": "response.failed", "response": {"error": {"code": "invalid_prompt", "message": "x"}}}), "x", True),
    (sse({"type": "response.failed", "response": {"error": None}}), "the response failed", False),
]


@pytest.mark.parametrize(("event", "message", "is_clients"), ERRORS)
@pytest.mark.parametrize("after", [0, 1, 20])
def test_an_error_event_is_seen_at_once_and_after_tokens(
    event: bytes, message: str, is_clients: bool, after: int
) -> None:
    observer = observed(*((sse(delta(content="x")), 0.1 * n) for n in range(after)), (event, 9.0))
    assert (observer.error, observer.error_is_clients) == (message, is_clients)
    assert observer.observation() == Observation()


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"error": {"message": "boom", "code": 500}}, "boom"),
        ({"error": "boom"}, "boom"),
        ({"type": "error", "error": {"type": "api_error", "message": "m"}}, "m"),
        ({"object": "error", "message": "m", "code": 500}, "m"),
        ({"object": "response", "status": "failed", "error": {"code": "server_error", "message": "m"}}, "m"),
        ({"object": "response", "status": "failed", "error": None}, "the response failed"),
    ],
)
def test_a_document_that_is_an_error_is_seen(document: Any, message: str) -> None:
    assert observed((json.dumps(document).encode(), 1.0), streamed=False).error == message


@pytest.mark.parametrize(
    "document",
    [
        {"object": "response", "status": "completed", "error": None, "output": []},
        {
            "object": "response",
            "status": "incomplete",
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"},
        },
        {"choices": [{"message": {"content": '{"error": {"message": "failed"}}'}, "finish_reason": "stop"}]},
        {"choices": [{"message": {"content": "error"}, "finish_reason": "length"}], "error": None},
        {"choices": [], "error": {}},
        {"type": "message", "stop_reason": "refusal", "content": []},
        [{"error": {"message": "of another answer"}}],
    ],
)
def test_what_only_looks_like_an_error_is_none(document: Any) -> None:
    data = json.dumps(document).encode()
    assert observed((data, 1.0), streamed=False).error is None
    assert observed((b"data: " + data + b"\n\n", 1.0)).error is None


def test_an_error_is_told_in_one_clean_bounded_line() -> None:
    text = "\x1b[31mred\x1b[0m\r\nnext\u202e\x9b" + "x" * 100_000
    error = observed((sse({"error": {"message": text}}), 1.0)).error
    assert error is not None
    assert error.isprintable()
    assert len(error) <= 300
    assert "red" in error


# The clock


def steady(tokens: int, first_s: float = 0.5, step_s: float = 0.02) -> list[float]:
    return [first_s + n * step_s for n in range(tokens)]


def chat(at_s: list[float], tokens: int | None = None, text: str = "w ", usage: Any = None) -> Pieces:
    last_s = max(at_s)
    told = HEAD | {
        "choices": [],
        "usage": {"prompt_tokens": 9, "completion_tokens": tokens or len(at_s), **(usage or {})},
    }
    return (
        (sse(delta(role="assistant", content="")), 0.01),
        *((sse(delta(content=text)), at) for at in at_s),
        (sse(delta() | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}), last_s),
        (sse(told) + sse("[DONE]"), last_s),
    )


FIELDS: dict[str, Any] = {
    "content": lambda text: delta(content=text),
    "content beside the role": lambda text: delta(role="assistant", content=text),
    "reasoning beside an empty content and the role": lambda text: delta(role="assistant", content="", reasoning=text),
    "reasoning": lambda text: delta(reasoning=text),
    "reasoning_content": lambda text: delta(content=None, reasoning_content=text),
    "reasoning_text": lambda text: delta(reasoning_text=text),
    "thinking": lambda text: delta(content="", thinking=text),
    "reasoning_details": lambda text: delta(content="", reasoning_details=[{"type": "reasoning.text", "text": text}]),
    "refusal": lambda text: delta(content=None, refusal=text),
    "audio": lambda text: delta(audio={"id": "a", "transcript": text}),
    "tool call": lambda text: delta(tool_calls=[{"index": 0, "id": "t", "function": {"arguments": text}}]),
    "function call": lambda text: delta(function_call={"name": "f", "arguments": text}),
    "parts": lambda text: delta(content=[{"type": "text", "text": text}]),
    "completion": lambda text: {"choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": None}]},
    "llama.cpp": lambda text: {"content": text, "stop": False, "tokens": []},
    "messages text": lambda text: {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": text},
    },
    "messages thinking": lambda text: {
        "type": "content_block_delta",
        "delta": {"type": "thinking_delta", "thinking": text},
    },
    "messages tool": lambda text: {
        "type": "content_block_delta",
        "delta": {"type": "input_json_delta", "partial_json": text},
    },
    "responses text": lambda text: {"type": "response.output_text.delta", "delta": text},
    "responses thinking": lambda text: {"type": "response.reasoning_text.delta", "delta": text},
    "responses summary": lambda text: {"type": "response.reasoning_summary_text.delta", "delta": text},
    "responses tool": lambda text: {"type": "response.function_call_arguments.delta", "delta": text},
    "responses refusal": lambda text: {"type": "response.refusal.delta", "delta": text},
}
EMPTY: list[Any] = [
    b": keep-alive\n\n",
    b'event: ping\ndata: {"type": "ping"}\n\n',
    b"data:\n\n",
    b"retry: 100\n\n",
    sse(delta(role="assistant")),
    sse(delta(role="assistant", content="")),
    sse(delta(content=None)),
    sse(delta()),
    sse(HEAD | {"choices": [], "prompt_progress": {"total": 9, "processed": 3}}),
    sse({"content": "", "stop": False, "prompt_progress": {"total": 9}}),
    sse({"type": "message_start", "message": {"role": "assistant", "content": [], "usage": {"input_tokens": 1}}}),
    sse({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
    sse({"type": "response.created", "response": {"instructions": "be kind", "output": []}}),
    sse({"type": "response.in_progress", "response": {"instructions": "be kind"}}),
    sse({"type": "response.output_item.added", "item": {"role": "assistant", "content": []}}),
    sse({"type": "response.content_part.added", "part": {"type": "output_text", "text": ""}}),
    b"data: "
    + b'{"type": "response.created", "response": {"instructions": "'
    + b"x" * 2 * MAX_EVENT_BYTES
    + b'"}}\n\n',
]


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("spaced", [False, True])
@pytest.mark.parametrize("empty", [b"", *EMPTY], ids=lambda event: event[:40].decode())
def test_the_first_token_is_the_first_text_in_any_field(field: str, spaced: bool, empty: bytes) -> None:
    def event(text: str) -> bytes:
        document = FIELDS[field](text)
        return sse(document) if not spaced else b"data: " + json.dumps(document).encode() + b"\r\n\r\n"

    seen = observe(
        *((empty, n / 10) for n in range(3)),
        (event(""), 0.3),
        *((event(text), 0.5 + n * 0.02) for n, text in enumerate(["Hm ", *(f'w"{n}' for n in range(19))])),
        (empty, 0.95),
        (sse({"usage": {"prompt_tokens": 30, "completion_tokens": 20}}), 5.0),
    )
    assert (seen.prefill_s, seen.decode_tokens) == (0.5, 19)
    assert seen.decode_s == pytest.approx(0.38, abs=0.06)


def test_thinking_and_answer_are_one_stretch_of_decoding() -> None:
    thoughts = ((sse(delta(role="assistant", content="", reasoning="hm ")), at) for at in steady(60, 0.3))
    words = ((sse(delta(role="assistant", content="w ")), at) for at in steady(6, 0.3 + 60 * 0.02))
    usage = {"completion_tokens": 66, "completion_tokens_details": {"reasoning_tokens": 60}}
    seen = observe(*thoughts, *words, (sse({"choices": [], "usage": usage}), 1.62))
    assert (seen.prefill_s, seen.decode_tokens) == (0.3, 65)
    assert seen.decode_s == pytest.approx(1.3, abs=0.03)


@pytest.mark.parametrize(
    ("at_s", "tokens"),
    [
        ([1.2] * 60, 60),  # in one piece
        ([1.2 + n * 0.0003 for n in range(60)], 60),  # replayed
        ([1.2 + n * 0.001 for n in range(60)], 60),
        ([1.2 + n * 0.003 for n in range(60)], 60),
        ([1.2 + n * 0.005 for n in range(60)], 60),
        ([0.001 + n * 0.0001 for n in range(60)], 60),  # out of a cache: no engine is so fast
        ([1.2] * 50 + steady(10, 1.22), 60),  # most at the beginning
        ([1.2 + n * 0.0002 for n in range(50)] + steady(10, 1.22), 60),
        ([1.2], 60),  # a tool call in one event
        ([1.2, 1.4], 60),
        (steady(10), 400),  # most was not sent
        (steady(60), 20),  # more events than can be tokens
    ],
)
def test_what_arrivals_can_not_carry_is_no_rate(at_s: list[float], tokens: int) -> None:
    assert observe(*chat(at_s, tokens)) == Observation(9, None, tokens)


def test_a_long_text_in_the_first_event_was_not_decoded_after_it() -> None:
    first = (sse(delta(content="w " * 50)), 1.2)
    seen = observe(first, *chat(steady(10, 1.22), 60))
    assert seen == Observation(9, None, 60)


@pytest.mark.parametrize("step_s", [0.001, 0.005, 0.02, 0.5, 3.0])
@pytest.mark.parametrize("tokens_per_event", [1, 2.5, 6])
def test_a_steady_stream_is_a_rate(step_s: float, tokens_per_event: float) -> None:
    at_s = steady(60, min(0.5, 60 * step_s), step_s)
    tokens = round(60 * tokens_per_event)
    seen = observe(*chat(at_s, tokens, "w " * round(tokens_per_event)))
    assert seen.decode_s and seen.decode_tokens
    assert seen.decode_tokens / seen.decode_s == pytest.approx(tokens_per_event / step_s, rel=0.05)
    assert seen.prefill_s == pytest.approx(at_s[0])


def test_what_a_proxy_collects_in_small_buffers_still_has_a_rate_but_no_first_token() -> None:
    """Twenty events at a time, as a buffer of 4 kB does."""
    at_s = [0.1 + 0.02 * 20 * (1 + n // 20) for n in range(200)]
    seen = observe(*chat(at_s))
    assert seen.decode_s and seen.decode_tokens
    assert seen.decode_tokens / seen.decode_s == pytest.approx(50, rel=0.1)
    assert seen.prefill_s is None


def test_tokens_that_come_together_at_the_end_were_made_in_between() -> None:
    seen = observe(*chat([*steady(10, 0.1), *[1.3] * 50]))
    assert seen.decode_tokens == 59
    assert seen.decode_s == pytest.approx(1.2)


def test_hidden_thinking_leaves_no_time() -> None:
    usage = {"completion_tokens_details": {"reasoning_tokens": 20}}
    seen = observe(*chat(steady(20), 40, usage=usage))
    assert seen == Observation(9, None, 40)


@pytest.mark.parametrize("field", [field for field in FIELDS if "reason" in field or "think" in field])
def test_thinking_that_was_sent_is_not_hidden(field: str) -> None:
    thoughts = [(sse(FIELDS[field]("hm ")), at) for at in steady(20)]
    usage = {"completion_tokens": 20, "output_tokens_details": {"reasoning_tokens": 20}}
    assert observe(*thoughts, (sse({"usage": usage}), 1.0)).decode_tokens == 19


def test_short_answers() -> None:
    assert observe(*chat(steady(1))) == Observation(9, None, 1, 0.5)
    assert observe(*chat(steady(3))) == Observation(9, None, 3, 0.5)
    assert observe(*chat(steady(4))).decode_tokens == 3


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"best_of": 3},
        {"n_cmpl": 2},
        {"prompt": ["a", "b"]},
        {"prompt": [[1, 2], [3]]},
        {"prompt": ["a", [1]]},
    ],
)
def test_several_answers_in_one_have_counts_only(fields: Any) -> None:
    assert observe(*chat(steady(60)), **fields) == Observation(9, None, 60)
    body = json.dumps({"choices": [], "usage": USAGE, "timings": TIMINGS}).encode()
    assert observe((body, 1.0), streamed=False, **fields) == Observation(9, None, 6)
    vllm = ENGINES["vllm"].observe(request(**fields), Strategy())
    vllm.feed(sse(BARE | {"metrics": {"generation_time_ms": 100, "time_to_first_token_ms": 5}}), 1.0)
    assert vllm.observation() == Observation(9, None, 6)


@pytest.mark.parametrize(
    "fields", [{}, {"n": 1}, {"n": None}, {"prompt": [1, 2, 3]}, {"prompt": ["a"]}, {"prompt": [1, "a"]}, {"n": "2"}]
)
def test_one_answer(fields: Any) -> None:
    assert not asks_for_several(request(**fields))


def test_a_second_choice_shows_that_there_are_several() -> None:
    second = HEAD | {"choices": [{"index": 1, "delta": {"role": "assistant"}}]}
    assert observe((sse(second), 0.1), *chat(steady(60))) == Observation(9, None, 60)


@pytest.mark.parametrize(
    ("predicted_n", "predicted_ms"),
    [(1, 0.001), (1, 300.0), (0, 0.0), (20, 0.0), (20, 0.001), (20, -5.0), (MAX_COUNT * 10, 5.0), (10**400, 5.0)],
)
def test_timings_that_tell_no_rate(predicted_n: int, predicted_ms: float) -> None:
    seen = observe((sse({"timings": TIMINGS | {"predicted_n": predicted_n, "predicted_ms": predicted_ms}}), 1.0))
    assert (seen.decode_tokens, seen.decode_s, seen.prefill_s) == (None, None, 0.0404)


@pytest.mark.parametrize(("drafted", "accepted"), [(5, 6), (-1, 0), (5, None), (None, 5), (5, -1), (5, "4")])
def test_counts_of_drafts_that_can_not_be(drafted: Any, accepted: Any) -> None:
    seen = observe((sse({"timings": TIMINGS | {"draft_n": drafted, "draft_n_accepted": accepted}}), 1.0))
    assert (seen.drafted, seen.accepted) == (None, None)
    assert seen.decode_tokens == 30


def test_what_anthropic_writes_to_its_cache_was_processed() -> None:
    usage = {"input_tokens": 9, "cache_creation_input_tokens": 100, "cache_read_input_tokens": 3, "output_tokens": 1}
    seen = observe((json.dumps({"usage": usage}).encode(), 1.0), streamed=False)
    assert (seen.prompt_tokens, seen.cached_tokens) == (109, 3)


def test_the_usage_at_the_beginning_counts_in_a_short_stream_too() -> None:
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 9, "output_tokens": 1}}}
    seen = observe((sse(start), 0.1), (sse({"type": "message_delta", "usage": {"output_tokens": 5}}), 0.2))
    assert (seen.prompt_tokens, seen.completion_tokens) == (9, 5)


# Any borders, any amount


ANSWERS: list[bytes] = [
    b"".join(piece for piece, _ in chat(steady(12))),
    b"".join(piece for piece, _ in chat(steady(12))).replace(b"\n", b"\r\n"),
    b"".join(piece for piece, _ in chat(steady(5))) + sse({"error": {"message": "x", "code": 500}}),
    sse({"choices": [], "timings": TIMINGS}).replace(b"\n", b"\r"),
    b": ping\n\n" + written(BARE, "\r\n", ": c\ndata:") + written(delta(content="x"), "\n", "id: 1\ndata: ") * 3,
]


@pytest.mark.parametrize("data", ANSWERS)
@given(borders=st.lists(st.integers(0, 5000), max_size=12))
def test_the_borders_of_pieces_change_nothing(data: bytes, borders: list[int]) -> None:
    def result(pieces: list[bytes], asked: bool) -> tuple[Any, ...]:
        observer = ENGINES["vllm"].observe(request(stream_options={"include_usage": asked}), Strategy())
        shown = b"".join([observer.feed(piece, 0.5) for piece in pieces]) + observer.end(0.5)
        return shown, observer.error, observer.error_is_clients, observer.has_begun, observer.observation()

    for asked in (False, True):
        assert result(cut(data, borders), asked) == result([data], asked)
    assert result(cut(data, borders), True)[0] == data


@pytest.mark.parametrize(
    "piece",
    [
        b"x" * 8192,
        sse(delta(content="w ")) * 80,
        sse(delta(content="")) * 80,
        b"\n\n" * 4096,
        b":\n\n" * 2700,
        b"data:\n\n" * 1170,
        b"data:{}\n\n" * 900,
        b'data:{"usage":{}}\n\n' * 430,
        b'"usage":{' * 1800,
        b"data: " + b"[" * 16000 + b"\n\n",
        b"\r" * 8192,
    ],
    ids=lambda piece: piece[:20].decode(),
)
def test_memory_and_time_are_bounded(piece: bytes) -> None:
    def observe() -> None:
        observer = Observer(request())
        for number in range(100):
            shown = observer.feed(piece, number / 10)
            assert len(shown) <= MAX_EVENT_BYTES + len(piece)
        kept = sum(map(len, observer._tail)) + len(observer._head) + len(observer._reader._rest)
        assert kept <= TAIL_BYTES + HEAD_BYTES + 2 * MAX_EVENT_BYTES + len(piece)
        observer.end(11.0)
        observer.observation()

    assert shortest_s(observe, MAX_S, time.process_time) <= MAX_S


def test_a_long_document_is_kept_in_part() -> None:
    observer = Observer(request(streamed=False))
    for _ in range(2000):
        observer.feed(b"x" * 10_000, 1.0)
    assert sum(map(len, observer._tail)) + len(observer._head) <= HEAD_BYTES + TAIL_BYTES + 10_000


WHOLE = json.dumps(ANSWER).encode()


@pytest.mark.parametrize(
    "body",
    [
        WHOLE,
        b"\n" + WHOLE + b"\n",
        b"[" + WHOLE + b"]",
        b'{"a": NaN}',
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=["whole", "with white space", "several", "not a number", "deep"],
)
def test_whatever_may_be_an_answer_is_one(body: bytes) -> None:
    observer = Observer(Request(Api.OPENAI_CHAT, "/", b"", {}))
    observer.read_whole(body)
    assert observer.error is None


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ({"steps": 2, "drafted": 6, "accepted": 3}, DraftCounts(2, 6, 3)),
        (
            {
                "steps": 2,
                "drafted": 6,
                "accepted": 1,
                "accepted_by_position": [1, 0],
                "verified_by_position": [2, 1, 0],
            },
            DraftCounts(2, 6, 1, (1, 0), (2, 1)),
        ),
        ({"steps": 0, "drafted": 0, "accepted": 0, "shadow": {"steps": 9}}, DraftCounts(0, 0, 0)),
        ({"steps": 2, "drafted": 6, "accepted": 3, "accepted_by_position": [2, -1]}, DraftCounts(2, 6, 3)),
        ({"steps": 2, "drafted": 6, "accepted": 3, "accepted_by_position": [1] * 300}, DraftCounts(2, 6, 3)),
        ({"steps": 2, "drafted": 6, "accepted": 3, "verified_by_position": 7}, DraftCounts(2, 6, 3)),
        ({"steps": 2, "drafted": 6, "accepted": 7}, None),
        ({"steps": 7, "drafted": 6, "accepted": 3}, None),
        ({"steps": 2, "drafted": True, "accepted": 0}, None),
        ({"steps": 2, "drafted": 6}, None),
        ([2, 6, 3], None),
    ],
)
def test_what_a_drafter_did_is_taken_where_it_can_be(told: Any, found: DraftCounts | None) -> None:
    seen = draft_counts({"drafters": {"draft-mtp": told}}, str.upper)
    assert seen == ({} if found is None else {"DRAFT-MTP": found})


@pytest.mark.parametrize("drafters", [None, 7, [], {}, {str(number): {} for number in range(100)}])
def test_no_drafters_are_told_of(drafters: Any) -> None:
    assert draft_counts({"drafters": drafters}, str) == {}
