"""What can be believed of an engine's report: it may report anything, and nothing shall be learned of what can't be."""

from collections.abc import Mapping
from itertools import pairwise
from math import isfinite

from msgspec import Struct

from paceline.decision.tuning import (
    CLOCK_SLACK_S,
    MAX_TIMES_CLOCK,
    MAX_TOKENS,
    MAX_TOKENS_PER_S,
    MIN_SHARE_OF_CLOCK,
    MIN_TOKENS,
    MIN_TOKENS_PER_S,
)
from paceline.types import DraftCounts, Observation, Outcome


class Decoding(Struct, frozen=True):
    """What an answer's decoding took, in numbers that can be true."""

    tokens: int
    seconds: float
    accepted: int | None = None
    """``None`` where it is not known what was drafted and accepted."""
    verification_steps: int | None = None
    """Those that verified a draft; ``None`` where the engine did not report them."""
    by_position: tuple[int, ...] = ()
    """How often each position of a draft was accepted; empty where the engine did not report it."""
    by_drafter: Mapping[str, DraftCounts] = {}
    """What each drafter did; empty where the engine did not report it."""


def decoding(outcome: Outcome, drafts: bool) -> Decoding | None:
    """What can be believed of a report; ``None`` where nothing can.

    Args:
        drafts: whether the lane that served does.
    """
    observed = outcome.observed
    tokens, seconds = observed.decode_tokens, observed.decode_s
    if tokens is None or seconds is None or not is_decoding(tokens, seconds, outcome):
        return None
    worked_s = seconds + (observed.prefill_s or 0.0)
    if not worked_s >= MIN_SHARE_OF_CLOCK * (outcome.total_s - outcome.queue_s):
        return None
    drafted, accepted = observed.drafted, observed.accepted
    if not drafts or drafted is None or accepted is None or drafted >= MAX_TOKENS or accepted >= tokens:
        return Decoding(tokens=tokens, seconds=seconds)
    steps = observed.drafting_steps
    if not drafted:
        steps = 0
    elif steps is not None and not 0 < steps <= min(drafted, tokens - accepted):
        steps = None
    by_position, by_drafter = _by_position(observed, tokens - accepted), _by_drafter(observed, tokens - accepted)
    return Decoding(tokens, seconds, accepted, steps, by_position, by_drafter)


def _by_drafter(observed: Observation, steps: int) -> Mapping[str, DraftCounts]:
    """Together they can't have accepted anything else than was counted, nor had more steps than there were."""
    each = observed.by_drafter
    accepted, verifying = sum(one.accepted for one in each.values()), sum(one.steps for one in each.values())
    return each if accepted == observed.accepted and verifying <= steps and all(map(_is_whole, each.values())) else {}


def _is_whole(counts: DraftCounts) -> bool:
    """Whether its counts by position, if there are any, fall and fit the others."""
    if counts.shadow is not None and not _is_whole(counts.shadow):
        return False
    accepted, verified = counts.accepted_by_position, counts.verified_by_position
    falls = all(later <= sooner for sooner, later in pairwise((counts.steps, *accepted)))
    if not falls or (accepted and sum(accepted) != counts.accepted):
        return False
    reached = zip(verified, accepted, (counts.steps, *accepted), strict=False)
    fits = all(with_it <= drafted <= before for drafted, with_it, before in reached)
    return not verified or (len(verified) == len(accepted) and fits)


def _by_position(observed: Observation, steps: int) -> tuple[int, ...]:
    """The later positions can't have been accepted more often than the earlier ones, nor all of them together otherwise
    than was counted."""
    counts = observed.accepted_by_position
    falls = all(later <= sooner for sooner, later in pairwise((steps, *counts)))
    return counts if falls and sum(counts) == observed.accepted else ()


def is_sane(tokens: int, seconds: float | None, outcome: Outcome) -> bool:
    """Both can be true; an engine's clock or counter may be anything."""
    if not seconds:
        return False
    if not isfinite(outcome.total_s) or tokens >= MAX_TOKENS:
        return False
    fits_clock = seconds <= MAX_TIMES_CLOCK * outcome.total_s + CLOCK_SLACK_S
    return fits_clock and MIN_TOKENS_PER_S < tokens / seconds < MAX_TOKENS_PER_S


def is_decoding(tokens: int, seconds: float | None, outcome: Outcome) -> bool:
    """Whether the report tells a speed of decoding. That of an answer of one token does not: the token comes out of the
    prefill, and llama.cpp reports a microsecond for it."""
    return tokens >= MIN_TOKENS and is_sane(tokens, seconds, outcome)
