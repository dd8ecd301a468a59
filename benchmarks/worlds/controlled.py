"""Answers of an engine that controls its drafts: each step of them is decided by the rule that engines follow."""

from collections.abc import Mapping, Sequence
from random import Random

import numpy as np
from msgspec import Struct

from benchmarks.worlds.published import Floats, tokens_per_step
from paceline.inside.draft_control import DraftControl, Drafter, Offer
from paceline.types import DraftCounts

MATCH = 4
"""Tokens of each match that a lookup finds."""


class Machinery(Struct, frozen=True):
    """A drafter, for one request."""

    kind: str
    acceptance: Floats
    """By position, as it truly is."""
    coverage: float
    """Share of the tokens that would come out of its drafts, were they all as long as they may be."""
    costs: Floats
    """Of steps that verify 1, 2 ... of its tokens, in plain steps."""
    told: Drafter
    """What the control starts from."""


class Answer(Struct, frozen=True):
    """What became of a request."""

    tokens: int
    cost: float
    """In plain steps."""
    by_drafter: Mapping[str, DraftCounts]


def play(drafters: Sequence[Machinery], tokens: float, rng: np.random.Generator) -> Answer:
    """One answer of at least so many tokens."""
    draws = Random(int(rng.integers(2**63)))
    control = DraftControl({one.kind: one.told for one in drafters})
    by_kind = {one.kind: one for one in drafters}
    acceptance = {one.kind: one.acceptance.tolist() for one in drafters}
    finds = {one.kind: _share_of_steps(one) for one in drafters}
    offer = {one.kind: Offer(len(one.costs), MATCH) for one in drafters}
    counted = {one.kind: _Counted(len(one.costs)) for one in drafters}
    made, cost = 0, 0.0
    while made < tokens:
        found = {kind: offer[kind] for kind, share in finds.items() if share >= 1 or draws.random() < share}
        choice = control.choose(found)
        if choice.drafter is None:
            control.decoded()
            made, cost = made + 1, cost + 1
            continue
        accepted, curve = 0, acceptance[choice.drafter]
        while accepted < choice.length and draws.random() < curve[accepted]:
            accepted += 1
        control.verified(choice.drafter, choice.length, accepted, MATCH)
        counted[choice.drafter].add(choice.length, accepted)
        made, cost = made + accepted + 1, cost + float(by_kind[choice.drafter].costs[choice.length - 1])
    return Answer(made, cost, {kind: counts.done() for kind, counts in counted.items() if counts.steps})


def _share_of_steps(drafter: Machinery) -> float:
    """Of all steps, those in which a drafter finds something to draft."""
    drafting = drafter.coverage / float(tokens_per_step(drafter.acceptance, len(drafter.costs)))
    return drafting / (drafting + 1 - drafter.coverage)


class _Counted:
    def __init__(self, longest: int) -> None:
        self.steps = self.drafted = self.accepted = 0
        self.accepted_at, self.verified_at = [0] * longest, [0] * longest

    def add(self, drafted: int, accepted: int) -> None:
        self.steps, self.drafted, self.accepted = self.steps + 1, self.drafted + drafted, self.accepted + accepted
        for place in range(min(drafted, accepted + 1)):
            self.verified_at[place] += 1
            self.accepted_at[place] += place < accepted

    def done(self) -> DraftCounts:
        return DraftCounts(self.steps, self.drafted, self.accepted, tuple(self.accepted_at), tuple(self.verified_at))
