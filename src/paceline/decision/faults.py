"""Drafters that hardly ever have anything accepted: that is a fault to mend, and not only a lane to leave alone."""

from collections.abc import Iterator
from typing import NamedTuple

from paceline.decision.shapes import looks_up
from paceline.types import Observation, Strategy

MIN_DRAFTED = 200
"""Drafted tokens before which nothing is said."""
LEAST_ACCEPTED = 0.1
"""Share of drafted tokens. Working heads have 0.3 and more even for stories, broken ones had 0.03 and 0.04 (colibri #8,
buun-llama-cpp #110)."""
CAUSES = {
    "draft": "the draft model is of another family, or of another tokenizer",
    "": "the head's tensors were quantized too far (keep them at 8 bits or more), stripped or made for another version "
    "of the model, or its state gets lost in slots beyond the first (try one slot, and a newer build)",
}
"""Known ones by kind of drafter, with what to do; those of all other kinds under the empty one."""


class Drafts(NamedTuple):
    """What one drafter did."""

    kind: str
    drafted: int
    accepted: int


def drafts_of(observed: Observation, strategy: Strategy) -> Iterator[Drafts]:
    """By drafter, as far as an answer's counts tell them apart.

    Args:
        strategy: of the lane that served.
    """
    if observed.by_drafter:
        for kind, counts in observed.by_drafter.items():
            yield Drafts(kind, counts.drafted, counts.accepted)
    elif strategy.drafts and len(strategy.among) < 2 and observed.drafted is not None and observed.accepted is not None:
        yield Drafts(strategy.kind, observed.drafted, observed.accepted)


def fault(kind: str, drafted: float, accepted: float) -> str | None:
    """What is wrong with a drafter, and what to do; ``None`` where nothing seems to be. That nothing repeats itself is
    no fault of a lookup."""
    if looks_up(kind) or drafted < MIN_DRAFTED or accepted >= LEAST_ACCEPTED * drafted:
        return None
    causes = CAUSES.get(kind, CAUSES[""])
    return f"drafts by {kind} are hardly ever accepted ({accepted / drafted:.0%} of {drafted:.0f} tokens): {causes}"
