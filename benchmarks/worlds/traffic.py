"""Requests of a world, each with what every lane would make of it; as arrays, so that drawing thousands is quick."""

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from benchmarks.worlds.published import Floats
from paceline.types import DraftCounts, Lane, LaneState, Observation, Outcome, Signals

Ints: TypeAlias = NDArray[np.int64]

STARTED_AT_S = 1.7e9
"""When the first request arrives, in seconds since 1970."""
GAP_S = 0.5
"""Between two requests."""
PREFILL_S = 0.1


class Traffic(Struct):
    """Requests of one world and one seed. Arrays have a row for each request and, where so said, a column for each
    lane."""

    lanes: Sequence[Lane]
    signals: Sequence[Signals]
    kinds: Sequence[str]
    """What each request truly is, whatever its signals tell."""
    expected_s: Floats
    """By lane: the decode time that the request can be expected to take, known to the oracle alone. What differs
    between requests of a kind is in it; noise of measuring and of counting is not."""
    observed_s: Floats
    """By lane: as the engine would tell it."""
    tokens: Ints
    """By lane: tokens decoded in that time."""
    drafted: Ints | None
    """By lane, as the other counts; ``None`` where the engine tells no counts."""
    accepted: Ints | None
    steps: Ints | None
    """Steps that verified a draft."""
    by_position: Sequence[Ints | None]
    """For each lane, by request: how often each position of a draft was accepted."""
    by_drafter: Sequence[Sequence[Mapping[str, DraftCounts]] | None]
    """For each lane, by request: what each drafter of a controlled lane did."""
    beside: Ints
    """Other requests that are decoded meanwhile."""
    epochs: Ints
    """A number that changes when the world does."""
    drafted_token_cost: float | None = None
    """What the policy is told that a drafted token adds to a step, as in ``LaneState``."""

    def __len__(self) -> int:
        return len(self.signals)

    @property
    def at_s(self) -> Floats:
        """When each request ends, whichever lane it takes: a moment after the best one would end it."""
        ends: Floats = STARTED_AT_S + np.cumsum(self.expected_s.min(axis=1) + GAP_S)
        return ends

    def lane_states(self, beside: int) -> list[LaneState]:
        """The lanes while so many other requests are decoded, spread evenly over them."""
        share, more = divmod(beside, len(self.lanes))
        return [
            LaneState(
                lane,
                running=share + (number < more),
                fingerprint=lane.engine,
                model=lane.engine,
                drafted_token_cost=self.drafted_token_cost,
            )
            for number, lane in enumerate(self.lanes)
        ]

    def observation(self, request: int, lane: int) -> Observation:
        tokens = int(self.tokens[request, lane])
        decode_s = float(self.observed_s[request, lane])
        if self.drafted is None or self.accepted is None or not self.lanes[lane].strategy.drafts:
            return Observation(completion_tokens=tokens, decode_tokens=tokens, decode_s=decode_s)
        positions, by_drafter = self.by_position[lane], self.by_drafter[lane]
        return Observation(
            completion_tokens=tokens,
            decode_tokens=tokens,
            decode_s=decode_s,
            drafted=int(self.drafted[request, lane]),
            accepted=int(self.accepted[request, lane]),
            drafting_steps=int(self.steps[request, lane]) if self.steps is not None else None,
            accepted_by_position=() if positions is None else tuple(positions[request].tolist()),
            by_drafter={} if by_drafter is None else by_drafter[request],
        )

    def outcome(self, request: int, lane: int, at_s: float) -> Outcome:
        """What becomes of a request that is sent down a lane."""
        observed = self.observation(request, lane)
        return Outcome(
            lane=self.lanes[lane].name,
            status=200,
            total_s=(observed.decode_s or 0.0) + PREFILL_S,
            observed=observed,
            concurrent=float(self.beside[request]),
            at_s=at_s,
            fingerprint=self.lanes[lane].engine,
        )


class World(Protocol):
    """Where requests are drawn from."""

    @property
    def name(self) -> str: ...

    @property
    def about(self) -> str:
        """What it is, where its numbers come from, and what is right to do in it."""
        ...

    @property
    def changes(self) -> tuple[str, int] | None:
        """A kind of request whose acceptance turns upside down, and the request from which on it does."""
        ...

    def traffic(self, requests: int, seed: int) -> Traffic: ...
