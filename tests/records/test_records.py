"""What is kept of requests is bounded, private, and guarded."""

import stat
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from paceline.engines.answered import answered
from paceline.inspection import inspect
from paceline.records.decision_log import DecisionLog
from paceline.records.kept import (
    MAX_ERROR_CHARS,
    MAX_PATH_CHARS,
    NO_LANE,
    kept_answered,
    kept_error,
    kept_id,
    kept_path,
    kept_record,
)
from paceline.records.lines import Lines
from paceline.records.metrics import Metrics
from paceline.records.recent import Recent
from paceline.records.record import Parameters, Record, Sink
from paceline.records.secret import FILE, KEY_BYTES, conversation_key
from paceline.records.sinks import Sinks
from paceline.records.state_file import private_directory
from paceline.records.traces import attributes
from paceline.types import Answered, Api, Decision, Observation, Outcome, Request, Signals

SECRET = "the Secret of Zyxwvut"
CHAT = {
    "model": "name",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "name": "n", "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "url": "u"}]},
        {"role": "assistant", "tool_calls": [{"id": "i", "type": "function", "function": {"name": "f"}}]},
        {"role": "tool", "tool_call_id": "i", "content": "result"},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}],
    "tool_choice": "auto",
    "response_format": {"type": "json_schema", "json_schema": {"name": "s"}},
    "stop": ["a", "b"],
    "user": "u",
    "metadata": {"user_id": "u", "session_id": "s"},
    "reasoning_effort": "low",
    "prediction": {"type": "content", "content": "p"},
    "conversation": {"id": "c"},
    "prompt_cache_key": "k",
    "service_tier": "auto",
    "chat_template_kwargs": {"enable_thinking": "x"},
}
DIALECTS: dict[Api, tuple[str, dict[str, Any]]] = {
    Api.OPENAI_CHAT: ("/v1/chat/completions", CHAT),
    Api.OPENAI_COMPLETIONS: ("/v1/completions", {"model": "m", "prompt": ["a", "b"], "suffix": "s", "stop": "x"}),
    Api.OPENAI_RESPONSES: (
        "/v1/responses",
        {
            "model": "m",
            "instructions": "i",
            "input": [
                {"type": "message", "role": "user", "content": "c"},
                {"type": "function_call_output", "output": "o"},
            ],
            "text": {"format": {"type": "json_schema", "name": "n"}},
            "reasoning": {"effort": "low"},
            "previous_response_id": "resp_1",
        },
    ),
    Api.ANTHROPIC_MESSAGES: (
        "/v1/messages",
        {
            "model": "m",
            "system": [{"type": "text", "text": "s"}],
            "messages": [{"role": "user", "content": [{"type": "tool_result", "content": "c"}]}],
            "stop_sequences": ["x"],
            "output_config": {"format": {"type": "json_schema"}},
            "thinking": {"type": "enabled"},
            "metadata": {"user_id": "user_1_session_2"},
            "tools": [{"name": "f"}],
            "tool_choice": {"type": "tool", "name": "f"},
        },
    ),
    Api.LLAMA_CPP: ("/completion", {"prompt": "p", "grammar": "g", "input_prefix": "a", "json_schema": {"type": "x"}}),
}


def planted(value: Any) -> list[Any]:
    """The value with the secret in each place of a string, keys of objects included, one at a time."""
    if isinstance(value, str):
        return [SECRET, f"{value} {SECRET}"]
    if isinstance(value, list):
        return [[*value[:at], new, *value[at + 1 :]] for at, one in enumerate(value) for new in planted(one)]
    if isinstance(value, dict):
        inside = [{**value, key: new} for key, one in value.items() for new in planted(one)]
        return [
            *inside,
            {**value, SECRET: 1},
            *({SECRET if k == key else k: v for k, v in value.items()} for key in value),
        ]
    return []


def requests() -> list[Request]:
    found = []
    for api, (path, fields) in DIALECTS.items():
        found += [
            Request(api, path, msgspec.json.encode(new), new, new.get("model"), served_model="served")
            for new in planted(fields)
        ]
        plain = Request(api, path, msgspec.json.encode(fields), fields, "m", served_model="served")
        found += [
            replace(plain, path=f"{path}?token={SECRET}"),
            replace(plain, path=f"{path}#{SECRET}"),
            replace(plain, id=SECRET),
            replace(plain, forced_lane=SECRET),
            replace(plain, trace=SECRET),
            replace(plain, headers=((b"x-session-id", SECRET.encode()), (b"authorization", SECRET.encode()))),
        ]
    return found


def errors_of(request: Request) -> list[str | None]:
    return [
        None,
        f"no lane serves the model {request.model!r}; there are: m",
        f"x-paceline-lane: there is no lane {request.forced_lane}",
        f'the engine answered 400: "{SECRET}"',
    ]


class _Spans:
    def __init__(self) -> None:
        self.attributes: list[dict[str, Any]] = []

    def record(self, record: Record, /) -> None:
        self.attributes += [attributes(record, None), {"status": record.outcome.error}]


def sunk(request: Request, folder: Path) -> bytes:
    """All that is kept of a request."""
    log, recent, metrics = DecisionLog(folder / "requests.sqlite"), Recent(), Metrics()
    said: list[str] = []
    spans = _Spans()
    sinks = Sinks(Counter())
    lines = Lines(said.append, is_wanted=lambda: True)
    named: dict[str, Sink] = {"log": log, "recent": recent, "metrics": metrics, "lines": lines}
    for name, sink in named.items():
        sinks.add(name, sink)
    sinks.add("spans", spans, gets_parameters=True)
    signals, decision = inspect(request), Decision("plain", "because")
    for error in errors_of(request):
        told = Answered(id=SECRET, model=SECRET, finish_reasons=(SECRET,))
        outcome = Outcome("plain", 404 if error else 200, 1.0, at_s=time.time(), error=error, answered=told)
        sinks.record(kept_record(request, signals, decision, outcome, with_parameters=True))
    log.close()
    assert log.written == len(errors_of(request))
    files = b"".join(file.read_bytes() for file in folder.iterdir())
    page = metrics.text({}, {}, 0)
    return files + page + msgspec.json.encode([spans.attributes, recent.after(0), said])


@pytest.mark.parametrize("api", list(DIALECTS))
def test_no_text_of_a_request_is_kept_wherever_it_stands(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paceline.records.decision_log.INTERVAL_S", 0.001)
    tried = [request for request in requests() if request.api is api]
    assert len(tried) > 10
    for number, request in enumerate(tried):
        folder = tmp_path / str(number)
        kept = sunk(request, folder)
        assert b"served" in kept
        for word in (b"Secret", b"Zyxwvut"):
            assert word not in kept, (word, request)


@pytest.mark.slow
def test_a_thousand_requests_with_names_of_a_megabyte_leave_nothing_behind() -> None:
    recent, metrics = Recent(), Metrics()
    before: int | None = None
    for number in range(1000):
        name = f"{number}" + "x" * 1_000_000
        request = Request(Api.OPENAI_CHAT, f"/v1/chat/completions?{name}", b"", {"model": name}, name, id=name)
        outcome = Outcome(NO_LANE, 404, 0.1, error=f"no lane serves the model {name!r}")
        record = kept_record(request, Signals(), Decision(NO_LANE, "not decided"), outcome)
        recent.record(record)
        metrics.record(record)
        if number == 10:
            before = len(metrics.text({}, {}, 0))
    assert len(msgspec.json.encode(recent.after(0))) < 1_000_000
    assert len(metrics.text({}, {}, 0)) < (before or 0) + 100
    assert b'paceline_requests_total{lane="none",status="404",task="answer"} 1000.0' in metrics.text({}, {}, 0)


@given(st.text())
def test_what_looks_like_an_identifier_is_kept_and_nothing_else(text: str) -> None:
    kept = kept_id(text)
    assert kept is None or (kept == text and " " not in text and text.isascii() and len(text) <= 128)


@given(st.text(max_size=400))
def test_paths_and_errors_are_bounded_and_on_one_line(text: str) -> None:
    request = Request(Api.OPENAI_CHAT, "/", b"", {})
    for kept, most in ((kept_path(text), 10 * MAX_PATH_CHARS), (kept_error(text, request) or "", MAX_ERROR_CHARS)):
        assert kept.isascii()
        assert kept.isprintable() or not kept
        assert len(kept) <= most
        assert "?" not in kept_path(text)


def test_identifiers_and_names() -> None:
    assert kept_id("req_1.a-b:c") == "req_1.a-b:c"
    assert kept_id("words in an id") is None
    assert kept_id("x" * 129) is None
    assert kept_id("x\n") is None


def test_an_error_keeps_what_the_gateway_says() -> None:
    request = Request(Api.OPENAI_CHAT, "/", b"", {}, "my 'own' model", forced_lane="nowhere")
    said = {
        "the engine's answer can't be read": "the engine's answer can't be read",
        "no lane serves the model \"my 'own' model\"; there are: m": "no lane serves the model ...; there are: m",
        "there is no lane nowhere; it isn't known": "there is no lane ...; it isn't known",
        "the engine answered 400": "the engine answered 400",
    }
    for error, kept in said.items():
        assert kept_error(error, request) == kept


def test_an_answers_own_words_are_kept_only_where_they_are_known() -> None:
    head = (
        b'{"id":"chatcmpl-7","model":"m","choices":[{"message":{"content":"\\"id\\":\\"msg_x\\" \\"model\\":\\"no\\""}'
    )
    tail = b'"finish_reason":"stop"},{"finish_reason":"the secret"},{"finish_reason":"odd"}],"tool":{"id":"call_1"}}'
    found = answered(head, tail)
    assert found == Answered("chatcmpl-7", "m", ("stop", "odd"))
    request = Request(Api.OPENAI_CHAT, "/", b"", {}, "m", served_model="m")
    assert kept_answered(found, request) == Answered("chatcmpl-7", "m", ("stop", "other"))
    assert kept_answered(found, replace(request, served_model="other")).model is None
    assert answered(b'{"tool_calls":[{"id":"call_1"}]}', b"") == Answered()


# Sinks


def test_a_sink_that_fails_hides_nothing_from_the_others(caplog: pytest.LogCaptureFixture) -> None:
    class Failing:
        def record(self, record: Record, /) -> None:
            raise ValueError("no")

    failures: Counter[str] = Counter()
    sinks, first, third = Sinks(failures), _Collecting(), _Collecting()
    sinks.add("first", first)
    sinks.add("second", Failing())
    sinks.add("third", third)
    record = kept_record(Request(Api.LLAMA_CPP, "/", b"", {}), Signals(), Decision("", ""), Outcome("", 200, 1))
    for _ in range(3):
        sinks.record(record)
    assert first.records == third.records == [record] * 3
    assert failures == {"second": 3}
    assert len(caplog.records) == 1


class _Collecting:
    def __init__(self) -> None:
        self.records: list[Record] = []

    def record(self, record: Record, /) -> None:
        self.records.append(record)


def test_text_and_parameters_go_only_to_those_that_are_to_get_them() -> None:
    sinks, log, spans, others = Sinks(Counter()), _Collecting(), _Collecting(), _Collecting()
    wants = [(sinks.want_text, sinks.want_parameters)]
    sinks.add("log", log, gets_text=True)
    sinks.add("traces", spans, gets_parameters=True)
    sinks.add("others", others)
    wants.append((sinks.want_text, sinks.want_parameters))
    assert wants == [(False, False), (True, True)]
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    fields = {"seed": 7, "stop": ["END", "x"], "reasoning_effort": "low", "top_k": True}
    request = Request(Api.OPENAI_COMPLETIONS, "/v1/completions", SECRET.encode(), fields, trace=trace)
    outcome = Outcome("plain", 200, 1)
    sinks.record(kept_record(request, Signals(), Decision("plain", ""), outcome, with_text=True, with_parameters=True))
    assert [record.text for record in (*log.records, *spans.records, *others.records)] == [SECRET, None, None]
    wanted = Parameters(api=Api.OPENAI_COMPLETIONS, trace=trace, seed=7, stops=("END", "x"), effort="low")
    assert [record.parameters for record in (*log.records, *spans.records, *others.records)] == [None, wanted, None]


# The key of conversations


def test_the_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "paceline"
    key = conversation_key(folder)
    assert len(key) == KEY_BYTES
    assert conversation_key(folder) == key
    assert [file.name for file in folder.iterdir()] == [FILE]
    assert stat.S_IMODE((folder / FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (folder / FILE).chmod(0o644)
    assert conversation_key(folder) == key
    assert stat.S_IMODE((folder / FILE).stat().st_mode) == 0o600
    (folder / FILE).unlink()
    assert conversation_key(folder) != key


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 100])
def test_a_key_that_is_none_is_made_anew(content: bytes, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(content)
    key = conversation_key(tmp_path)
    assert len(key) == KEY_BYTES
    assert conversation_key(tmp_path) == key


def test_without_a_place_the_key_is_for_this_process(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    assert len(conversation_key(tmp_path / "file")) == KEY_BYTES
    assert "count as new after a restart" in caplog.text
    assert conversation_key(None) != conversation_key(None)


def test_folders_of_others_keep_their_mode(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o755)
    private_directory(shared)
    assert stat.S_IMODE(shared.stat().st_mode) == 0o755


def test_a_prompt_can_not_be_confirmed_from_its_hash() -> None:
    request = Request(Api.OPENAI_CHAT, "/", b"", {"messages": [{"role": "user", "content": "hunter2"}]})
    assert inspect(request, b"a" * 32).conversation != inspect(request, b"b" * 32).conversation
    assert inspect(request).conversation == inspect(request).conversation


# Metrics


def test_labels_are_bounded() -> None:
    metrics = Metrics()
    metrics.know_lanes({"plain": False, "ngram": True})
    metrics.know_engines({"e": False})
    before = len(metrics.text({}, {}, 0).splitlines())
    request = Request(Api.OPENAI_CHAT, "/", b"", {})
    for status in range(100, 1000):
        metrics.record(kept_record(request, Signals(), Decision("plain", ""), Outcome("plain", status, 1.0)))
        metrics.passed_through("plain", status)
        metrics.denied(f"reason {status}")
        metrics.engine_failure("e", f"kind {status}")
    after = metrics.text({}, {}, 0)
    assert len(after.splitlines()) < before + 400
    assert b'paceline_denied_total{reason="other"} 900.0' in after
    assert b'paceline_engine_failures_total{engine="e",kind="other"} 900.0' in after
    assert b'paceline_passed_through_total{lane="plain",status="9xx"} 100.0' in after


def test_known_series_are_there_before_their_first_event() -> None:
    metrics = Metrics(["error", "lost", "silent"])
    metrics.know_lanes({"plain": False, "ngram": True})
    metrics.know_engines({"e": True})
    page = metrics.text({"plain": (True, 0, 0)}, {}, 0).decode()
    for line in (
        'paceline_requests_total{lane="plain",status="200",task="code"} 0.0',
        'paceline_fallbacks_total{lane="ngram"} 0.0',
        'paceline_accepted_tokens_total{lane="ngram",task="edit"} 0.0',
        'paceline_routing_failures_total{part="decision"} 0.0',
        'paceline_denied_total{reason="invalid_api_key"} 0.0',
        'paceline_engine_failures_total{engine="e",kind="silent"} 0.0',
        'paceline_engine_ejected{engine="e"} 1.0',
    ):
        assert line in page, line
    assert 'paceline_accepted_tokens_total{lane="plain"' not in page


def test_answers_of_one_token_or_without_a_time_do_not_inflate_speeds() -> None:
    metrics = Metrics()
    request, decision = Request(Api.OPENAI_CHAT, "/", b"", {}), Decision("plain", "")
    one = Observation(completion_tokens=1, decode_tokens=0, decode_s=1e-6)
    many = Observation(completion_tokens=20, decode_tokens=19, decode_s=0.5)
    untimed = Observation(completion_tokens=5)
    for seen in (one, one, untimed, many):
        metrics.record(kept_record(request, Signals(), decision, Outcome("plain", 200, 1.0, observed=seen)))
    page = metrics.text({}, {}, 0)
    assert b'paceline_completion_tokens_total{lane="plain",task="answer"} 27.0' in page
    assert b'paceline_generation_tokens_total{lane="plain",task="answer"} 20.0' in page
    assert b'paceline_decode_seconds_total{lane="plain",task="answer"} 0.5' in page


# Spans


def test_attributes_keep_their_types_and_hold_no_hash_of_content() -> None:
    kinds: dict[str, set[type]] = {}
    bodies: list[dict[str, Any]] = [
        {"temperature": 0, "top_p": 1, "seed": 3, "top_k": 4, "n": 2, "stop": "x", "reasoning_effort": "high"},
        {"temperature": 10**23, "max_tokens": 10**30, "seed": 2**64, "top_k": 1.5, "n": True, "stop": ["a" * 9]},
        {
            "temperature": -1,
            "max_tokens": -1,
            "seed": "x",
            "session_id": "s",
            "response_format": {"type": "json_object"},
        },
    ]
    found = []
    for body, share, streams in zip(bodies, (1, 0.5, 1.0), (True, False, True), strict=True):
        request = Request(Api.OPENAI_CHAT, "/v1/chat/completions", b"", body, stream=streams)
        outcome = Outcome("plain", 200, 1, first_byte_s=1)
        record = kept_record(request, inspect(request), Decision("plain", "r", share), outcome, with_parameters=True)
        told = attributes(record, ("127.0.0.1", 80))
        found.append(told)
        for name, value in told.items():
            kinds.setdefault(name, set()).add(type(value))
            if isinstance(value, int):
                assert abs(value) < 2**63
    assert not {name: seen for name, seen in kinds.items() if len(seen) > 1}
    first, second, third = found
    assert first["gen_ai.request.choice.count"] == 2
    assert first["gen_ai.request.stop_sequences"] == ("x",)
    assert first["gen_ai.response.time_to_first_chunk"] == 1.0
    assert "gen_ai.conversation.id" not in first
    assert "gen_ai.request.stream" not in second
    assert not {"gen_ai.request.seed", "gen_ai.request.stop_sequences", "gen_ai.request.choice.count"} & second.keys()
    assert third["gen_ai.output.type"] == "json"
    assert third["gen_ai.conversation.id"]
