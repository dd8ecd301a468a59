"""What each drafter did since the gateway started, for who watches."""

from collections.abc import Iterable, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from paceline.records.record import Record
from paceline.types import DraftCounts

MAX_KEPT = 200
"""Drafters of engines with their settings; the ones that were not used for longest are forgotten."""
MAX_POSITIONS = 64
"""Of a draft; what lies beyond is left out."""


class DraftSums(Struct):
    """Of one kind of drafts of one engine, model and settings; of one process, or of several."""

    fingerprint: str
    kind: str
    requests: int = 0
    tokens: int = 0
    """Of the answers that it was there for."""
    steps: int = 0
    drafted: int = 0
    accepted: int = 0
    shadow_drafted: int = 0
    """Of drafts that were only compared with what then was generated."""
    shadow_accepted: int = 0
    at: list[int] = field(default_factory=list)
    """By position, tokens that were accepted."""
    verified: list[int] = field(default_factory=list)
    """The same of tokens that were drafted where those before them were accepted."""

    def add(self, counts: DraftCounts, tokens: int) -> None:
        """Count an answer.

        Args:
            tokens: that it has.
        """
        self.requests += 1
        self.tokens += tokens
        self.steps += counts.steps
        self.drafted += counts.drafted
        self.accepted += counts.accepted
        if counts.shadow is not None:
            self.shadow_drafted += counts.shadow.drafted
            self.shadow_accepted += counts.shadow.accepted
        positions = [int(accepted) for accepted in counts.accepted_by_position[:MAX_POSITIONS]]
        told = [int(verified) for verified in counts.verified_by_position[: len(positions)]]
        reached = [counts.steps, *positions]
        self.at = _added(self.at, positions)
        self.verified = _added(self.verified, [*told, *reached[len(told) : len(positions)]])

    def plus(self, other: "DraftSums") -> "DraftSums":
        """Both together, which are of the same drafter."""
        return DraftSums(
            self.fingerprint,
            self.kind,
            requests=self.requests + other.requests,
            tokens=self.tokens + other.tokens,
            steps=self.steps + other.steps,
            drafted=self.drafted + other.drafted,
            accepted=self.accepted + other.accepted,
            shadow_drafted=self.shadow_drafted + other.shadow_drafted,
            shadow_accepted=self.shadow_accepted + other.shadow_accepted,
            at=_added(self.at, other.at),
            verified=_added(self.verified, other.verified),
        )


class Drafts:
    """A sink that adds up, for each drafter of engines with their settings."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str], DraftSums] = {}

    def record(self, record: Record, /) -> None:
        outcome, seen = record.outcome, record.outcome.observed
        counts = dict(seen.by_drafter)
        if not counts and record.strategy and seen.drafted is not None and seen.accepted is not None:
            steps = int(seen.drafting_steps or 0)
            by_position = seen.accepted_by_position if steps else ()
            if steps <= seen.drafted:
                counts[record.strategy] = DraftCounts(steps, int(seen.drafted), int(seen.accepted), by_position)
        for kind, each in counts.items():
            drafter = outcome.fingerprint, kind
            sums = self._sums.pop(drafter, None) or DraftSums(*drafter)
            sums.add(each, int(seen.completion_tokens or 0))
            self._sums[drafter] = sums
        while len(self._sums) > MAX_KEPT:
            del self._sums[next(iter(self._sums))]

    def sums(self) -> list[DraftSums]:
        """As they are now."""
        return [replace(sums) for sums in self._sums.values()]


def together(of_processes: Iterable[Sequence[DraftSums]]) -> list[DraftSums]:
    """Sums of several processes, for each drafter once."""
    found: dict[tuple[str, str], DraftSums] = {}
    for sums in of_processes:
        for each in sums:
            drafter = each.fingerprint, each.kind
            found[drafter] = found[drafter].plus(each) if drafter in found else each
    return list(found.values())


def _added(one: Sequence[int], two: Sequence[int]) -> list[int]:
    longer, shorter = (one, two) if len(one) >= len(two) else (two, one)
    return [a + b for a, b in zip(longer, [*shorter, *[0] * (len(longer) - len(shorter))], strict=True)]
