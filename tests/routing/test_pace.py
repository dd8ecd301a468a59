"""How fast cloud engines answer, as learned."""

import random

import pytest

from paceline.routing.pace import FIRST_S, S_PER_TOKEN, CloudPace
from paceline.types import Observation, Outcome


def answered(first_s: float, s_per_token: float, tokens: int = 100, stream: bool = True) -> Outcome:
    total_s = first_s + tokens * s_per_token
    observed = Observation(completion_tokens=tokens, decode_s=total_s - first_s if stream else None)
    return Outcome("cloud", 200, total_s, first_byte_s=first_s if stream else total_s, observed=observed)


def test_nothing_known_is_a_guess() -> None:
    assert CloudPace().expected_s("cloud", "m", 60)[0] == pytest.approx(FIRST_S + 60 * S_PER_TOKEN)


@pytest.mark.parametrize("stream", [True, False])
def test_what_was_seen_is_expected(stream: bool) -> None:
    pace, dice = CloudPace(), random.Random(1)
    for _ in range(60):
        tokens = dice.randrange(50, 500)
        pace.learn("cloud", "m", answered(0.3, 0.01 * dice.lognormvariate(0, 0.1), tokens, stream))
    total_s, deviation = pace.expected_s("cloud", "m", 200)
    assert total_s == pytest.approx(2.3, rel=0.25)
    assert deviation < 0.6
    assert pace.expected_s("cloud", "other", 60)[0] == pytest.approx(FIRST_S + 60 * S_PER_TOKEN)


def test_a_slower_provider_is_noticed() -> None:
    pace = CloudPace()
    for _ in range(50):
        pace.learn("cloud", "m", answered(0.3, 0.01))
    for _ in range(25):
        pace.learn("cloud", "m", answered(3.0, 0.05))
    assert pace.expected_s("cloud", "m", 100)[0] > 4.0


def test_failures_and_nonsense_teach_nothing() -> None:
    pace = CloudPace()
    before = pace.expected_s("cloud", "m", 100)
    for outcome in (
        Outcome("cloud", 500, 0.01, first_byte_s=0.01, error="no"),
        Outcome("cloud", 200, 1.0, observed=Observation(completion_tokens=9)),
        Outcome("cloud", 200, -5.0, first_byte_s=1e9, observed=Observation(completion_tokens=9, decode_s=1.0)),
    ):
        pace.learn("cloud", "m", outcome)
    assert pace.expected_s("cloud", "m", 100) == before
