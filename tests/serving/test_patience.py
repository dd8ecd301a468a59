"""How long an engine may be silent."""

import msgspec
import pytest

from paceline.serving.patience import (
    MAX_UNKNOWN_STALL_S,
    MIN_STALLED_S,
    TIMES_EXPECTED,
    TIMES_SUSPICIOUS,
    expected_s,
    first_byte_limit_s,
)
from paceline.settings import ServerSettings
from paceline.types import Api, Prediction, Request, Signals, Strategy

SERVER = ServerSettings()


def asked(stream: bool) -> Request:
    return Request(Api.OPENAI_CHAT, "/v1/chat/completions", b"{}", {}, stream=stream)


def predicted(prefill_s: float = 0.5, s_per_token: float | None = 0.02, tokens: float = 100.0) -> Prediction:
    return Prediction("f", "m", Strategy(), 1.0, plain_step_s=s_per_token, tokens=tokens, prefill_s=prefill_s)


def test_a_short_request_has_the_configured_time() -> None:
    assert first_byte_limit_s(SERVER, predicted(), asked(True), Signals()) == SERVER.first_byte_timeout_s


def test_a_long_prompt_has_three_times_what_it_takes_at_the_engines_pace() -> None:
    limit_s = first_byte_limit_s(SERVER, predicted(prefill_s=400.0), asked(True), Signals())
    assert limit_s == TIMES_EXPECTED * 400.0


def test_an_answer_that_is_no_stream_has_the_time_of_all_its_tokens() -> None:
    signals = Signals(max_tokens=20_000)
    assert first_byte_limit_s(SERVER, predicted(), asked(True), signals) == SERVER.first_byte_timeout_s
    assert first_byte_limit_s(SERVER, predicted(), asked(False), signals) == pytest.approx(TIMES_EXPECTED * 400.5)


@pytest.mark.parametrize("stream", [True, False])
def test_where_no_pace_is_known_a_long_prompt_has_time(stream: bool) -> None:
    unknown = predicted(s_per_token=None)
    short = first_byte_limit_s(SERVER, unknown, asked(stream), Signals(prompt_chars=100, max_tokens=16))
    long = first_byte_limit_s(SERVER, unknown, asked(stream), Signals(prompt_chars=300_000, max_tokens=16))
    assert short == SERVER.first_byte_timeout_s
    assert long > 3000


def test_nothing_outlasts_the_whole() -> None:
    server = msgspec.structs.replace(SERVER, total_timeout_s=10.0)
    assert first_byte_limit_s(server, predicted(prefill_s=1e6), asked(False), Signals()) == 10.0


def test_silence_is_suspicious_beyond_what_is_predicted() -> None:
    short = Signals(max_tokens=100)
    assert expected_s(predicted(), asked(False), short, False) == pytest.approx(TIMES_SUSPICIOUS * 2.5)
    assert expected_s(predicted(), asked(True), short, False) == pytest.approx(TIMES_SUSPICIOUS * 0.54)
    assert expected_s(predicted(), asked(True), short, True) == pytest.approx(TIMES_SUSPICIOUS * 0.04)


def test_where_no_pace_is_known_suspicion_comes_late_but_comes() -> None:
    unknown = predicted(s_per_token=None)
    assert expected_s(unknown, asked(True), Signals(), False) == MIN_STALLED_S
    assert expected_s(None, asked(False), Signals(prompt_chars=10**7), False) == MAX_UNKNOWN_STALL_S
    assert expected_s(None, asked(True), Signals(), True) == MIN_STALLED_S
