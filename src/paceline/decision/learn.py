"""What the decision keeps about the past: additive sums per lane."""

from collections.abc import Mapping
from math import isfinite

from msgspec import Struct
from msgspec.structs import replace

from paceline.types import Decision, Measured, Outcome, Signals


class State(Struct, frozen=True):
    """Everything that was learned. Immutable: :func:`learn` returns a new one."""

    measured: Mapping[str, Measured] = {}
    """Sums by lane name."""


def learn(state: State, signals: Signals, decision: Decision, outcome: Outcome) -> State:
    """The state after one more outcome. An outcome counts for the lane that served it, which after a failed
    connection is not the lane that was decided on; an answer that failed adds nothing but a failure."""
    measured = dict(state.measured)
    measured[outcome.lane] = _add(measured.get(outcome.lane, Measured()), outcome)
    return State(measured)


def _add(sums: Measured, outcome: Outcome) -> Measured:
    if outcome.error is not None or not 200 <= outcome.status < 300:
        gone = outcome.status == 499
        return replace(sums, requests=sums.requests + 1, failures=sums.failures + (not gone))
    seen = outcome.observed
    sums = replace(sums, requests=sums.requests + 1)
    if _sane(seen.prompt_tokens, seen.prefill_s):
        sums = replace(
            sums,
            prefill_tokens=sums.prefill_tokens + (seen.prompt_tokens or 0),
            prefill_s=sums.prefill_s + (seen.prefill_s or 0),
        )
    if _sane(seen.decode_tokens, seen.decode_s):
        sums = replace(
            sums,
            decode_tokens=sums.decode_tokens + (seen.decode_tokens or 0),
            decode_s=sums.decode_s + (seen.decode_s or 0),
        )
    if seen.drafted is not None and seen.accepted is not None and 0 <= seen.accepted <= seen.drafted:
        sums = replace(sums, drafted=sums.drafted + seen.drafted, accepted=sums.accepted + seen.accepted)
    return sums


def _sane(tokens: int | None, seconds: float | None) -> bool:
    """Both were reported and can be true; an engine's clock or counter may be anything."""
    return tokens is not None and seconds is not None and tokens > 0 and isfinite(seconds) and 0 < seconds < 86_400
