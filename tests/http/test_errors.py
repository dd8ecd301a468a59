"""Errors as clients see them: in the shape of the API that they speak, whichever room raised them."""

import json
from typing import Any

import pytest

from paceline.http.errors import ApiError, api_error
from paceline.serving import errors
from paceline.serving.errors import (
    CannotBeSaid,
    ClientLeft,
    EngineGivenUp,
    EngineLost,
    EngineRefused,
    LimitReached,
    NoLane,
    NotPassedOn,
    NotPlaced,
    ServingError,
    Stopping,
    TookTooLong,
    UnknownLane,
    UnknownModel,
)
from paceline.types import Api
from paceline.wire.server import BodyTooLarge, Overloaded

CASES = [
    (UnknownLane(name="x", lanes=["a", "b"]), 400, "unknown_lane", None, "there is no lane 'x'; there are: a, b"),
    (UnknownModel(name="x", models=["m"]), 404, "model_not_found", None, "no lane serves the model 'x'; there are: m"),
    (UnknownModel(name="x", models=[]), 404, "model_not_found", None, "there are: none yet"),
    (UnknownModel(name="x", models=["m"], lane="a"), 404, "model_not_found", None, "lane 'a' does not serve"),
    (NotPlaced("it is private", "private"), 403, "not_placed", None, "it is private"),
    (NotPlaced("it can't be paid", "cost"), 402, "not_placed", None, "it can't be paid"),
    (NoLane("none is up"), 503, "engine_unavailable", 2, "none is up"),
    (CannotBeSaid("n: is 2"), 400, "unsupported_by_engine", None, "n: is 2"),
    (LimitReached("cloud is left out", 7.2), 429, "rate_limit_exceeded", 8, "cloud is left out"),
    (NotPassedOn("/v1/files"), 404, "not_found", None, "/v1/files"),
    (EngineLost("it is gone"), 502, "engine_lost", None, "it is gone"),
    (EngineLost("it is gone", may_pass=True), 502, "engine_lost", 2, "it is gone"),
    (EngineGivenUp("it is silent"), 504, "engine_timeout", None, "it is silent"),
    (EngineGivenUp("it is silent", may_pass=True), 504, "engine_timeout", 2, "it is silent"),
    (EngineRefused(status=529, max_bytes=1000), 529, "engine_error", None, "answered 529, with more than 1,000 bytes"),
    (TookTooLong(), 504, "timeout", None, "server.total_timeout_s"),
    (TookTooLong("no turn", may_pass=True), 504, "timeout", 2, "no turn"),
    (BodyTooLarge(10), 413, "body_too_large", None, "larger than 10 bytes"),
    (Overloaded("too many connections"), 503, "overloaded", 2, "too many connections; try again"),
]


@pytest.mark.parametrize(("error", "status", "code", "retry_after_s", "words"), CASES, ids=lambda case: str(case)[:30])
def test_each_error_has_its_status_its_code_and_its_words(
    error: Any, status: int, code: str, retry_after_s: int | None, words: str
) -> None:
    said = api_error(error)
    assert (said.status, said.code) == (status, code)
    assert said.headers == ([] if retry_after_s is None else [(b"retry-after", b"%d" % retry_after_s)])
    assert words in said.message


def test_every_error_that_is_raised_has_a_code() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ServingError)]
    raised = set(kinds) - {ServingError, ClientLeft, Stopping}
    assert raised == {type(error) for error, *_ in CASES if isinstance(error, ServingError)}


@pytest.mark.parametrize(
    ("api", "body"),
    [
        (
            Api.OPENAI_CHAT,
            {"error": {"message": "no", "type": "server_error", "param": None, "code": "engine_unavailable"}},
        ),
        (Api.ANTHROPIC_MESSAGES, {"type": "error", "error": {"type": "overloaded_error", "message": "no"}}),
        (Api.LLAMA_CPP, {"error": {"code": 503, "message": "no", "type": "server_error"}}),
    ],
)
def test_a_body_is_in_the_dialect_that_is_spoken(api: Api, body: dict[str, Any]) -> None:
    assert json.loads(api_error(NoLane("no")).body(api)) == body


@pytest.mark.parametrize(
    ("api", "event"),
    [
        (
            Api.OPENAI_CHAT,
            b'data: {"error":{"message":"no","type":"server_error","param":null,"code":"engine_lost"}}\n\n',
        ),
        (
            Api.OPENAI_RESPONSES,
            b'event: error\ndata: {"type":"error","code":"engine_lost","message":"no","param":null}\n\n',
        ),
        (
            Api.ANTHROPIC_MESSAGES,
            b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"no"}}\n\n',
        ),
        (Api.LLAMA_CPP, b'data: {"error":{"code":502,"message":"no","type":"server_error"}}\n\n'),
    ],
)
def test_a_stream_ends_with_an_event_of_its_dialect(api: Api, event: bytes) -> None:
    assert api_error(EngineLost("no")).event(api) == event


def test_what_somebody_else_wrote_is_quoted_in_part() -> None:
    said = str(UnknownModel(name="x" * 1000, models=[f"model-{number}" for number in range(60)]))
    assert len(said) < 1000
    assert said.endswith("model-49 and 10 more")


def test_an_error_of_this_room_says_itself() -> None:
    assert json.loads(ApiError(401, "who?", "invalid_api_key").body(Api.OPENAI_CHAT))["error"] == {
        "message": "who?",
        "type": "authentication_error",
        "param": None,
        "code": "invalid_api_key",
    }
