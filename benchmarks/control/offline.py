"""What does control per step bring on real answers, and what is a prior worth to it?

    python -m benchmarks.control.offline FILE [--half 0|1]

FILE holds recorded turns as ``benchmarks.lookups`` takes them. A lookup is played exactly over each answer, in tokens
of the bundled model, at several costs of a step; what decides how far is drafted differs:

- *static*: a lookup of four tokens, with one longest draft for all answers, for each source, or for each answer, always
  the best in hindsight. The last is the oracle that shares are of. Beside it, the best of lookups of two, three and
  four tokens for each answer.
- *prompt gate*: as mlx-serve does it: a lookup of three tokens that drafts five, switched off for prompts of which
  fewer than 1 % of the 3-grams repeat, and for the rest of an answer once less than half of what was drafted in it is
  accepted (after five drafts).
- *match length*: a draft is as long as its match, as suffix lookups have it.
- *control*: ``paceline.inside.draft_control``, from matches of two tokens on, and drafts that are not made are compared
  all the same. It *knows nothing* where half of all tokens are to be accepted, whatever the match. *Without a prior*
  it has what is usual of lookups (``LOOKUP`` there), for all alike. *With a prior* it has what the other conversations
  (nine parts of ten) taught of acceptance by length of the match and position, those of the same source above all.

``--half`` takes the conversations of one half alone: the rule's constants and ``LOOKUP`` were tuned on half 0, and
docs/learning.md tells half 1.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from benchmarks.control.turns import LONGEST, MATCHES, Answer, answers
from benchmarks.lookups.turns import half_of, number_of
from paceline.inside.draft_control import LOOKUP, DraftControl, Drafter, Offer

Costs = tuple[float, ...]
"""Of a step that verifies 1, 2 ... drafted tokens, in plain steps."""


def _between(points: Mapping[int, float]) -> Costs:
    return tuple(float(np.interp(n, list(points), list(points.values()))) for n in range(1, LONGEST + 1))


COSTS: Mapping[str, Costs] = {
    "Q8_0, CPU": _between({1: 2.2, 2: 2.4, 4: 2.7, 10: 3.6, 16: 4.7}),
    "F16, CPU": _between({1: 1.6, 2: 1.7, 4: 1.65, 10: 2.9, 16: 3.4}),
    "GPU, 1 stream": _between({1: 1.072, 16: 1.252}),
    "GPU, 8 streams": _between({1: 1.15, 16: 1.90}),
    "GPU, 32 streams": _between({1: 1.35, 16: 5.10}),
}
"""Small models on two cores, and a line for a GPU."""
CAPS = (0, 1, 2, 3, 4, 6, 8, 12, 16)
LOOKED_UP = 4
"""Tokens that static lanes look up."""
FOLDS = 10
OF_USUAL, OF_ALL = 100.0, 60.0
"""Answers that what is usual of lookups counts for, and what all answers teach of those of one source."""
UNINFORMED = 0.5
GATE_REPEATS, GATE_ACCEPTED, GATE_DRAFTS, GATE_MATCH, GATE_LENGTH = 0.01, 0.5, 5, 3, 5

NAME = "lookup"
Counts = NDArray[np.float64]
"""By length of the match and position: how often a token was compared, and accepted."""


class Way(Struct, frozen=True):
    """How far an answer's drafts go, and what each answer costs so, in plain steps."""

    name: str
    costs: Sequence[float]


def static(answer: Answer, match: int, cap: int, costs: Costs) -> float:
    found, at, total = answer.by_match[match], 0, 0.0
    while at < len(found):
        drafted = min(found[at].drafted, cap)
        total += costs[drafted - 1] if drafted else 1.0
        at += min(found[at].right, cap) + 1
    return total


def prompt_gate(answer: Answer, costs: Costs) -> float:
    if answer.repeats < GATE_REPEATS:
        return len(answer.places)
    found, at, total = answer.by_match[GATE_MATCH], 0, 0.0
    drafts = drafted = accepted = 0
    while at < len(found):
        is_off = drafts >= GATE_DRAFTS and accepted < GATE_ACCEPTED * drafted
        length = 0 if is_off else min(found[at].drafted, GATE_LENGTH)
        right = min(found[at].right, length)
        drafts, drafted, accepted = drafts + (length > 0), drafted + length, accepted + right
        total += costs[length - 1] if length else 1.0
        at += right + 1
    return total


def match_length(answer: Answer, costs: Costs) -> float:
    at, total = 0, 0.0
    while at < len(answer.places):
        place = answer.places[at]
        length = min(place.drafted, place.match)
        total += costs[length - 1] if length else 1.0
        at += min(place.right, length) + 1
    return total


def controlled(answer: Answer, drafter: Drafter) -> float:
    """Of one answer; drafts that are not made are looked at all the same."""
    control = DraftControl({NAME: drafter})
    places, at, total = answer.places, 0, 0.0
    watched, until = places[0], -1
    """A draft that was not made, and where it is known how much of it was right."""
    while at < len(places):
        place = places[at]
        if 0 <= until <= at:
            control.watched(NAME, watched.drafted, watched.right, watched.match)
            until = -1
        choice = control.choose({NAME: Offer(place.drafted, place.match)}) if place.match else None
        if choice is None or choice.drafter is None:
            if place.match and until < 0:
                watched, until = place, at + place.right + 1
            control.decoded()
            at, total = at + 1, total + 1
        else:
            right = min(place.right, choice.length)
            control.verified(NAME, choice.length, right, place.match)
            at, total, until = at + right + 1, total + drafter.costs[choice.length - 1], -1
    return total


def counts_of(answer: Answer) -> Counts:
    """Of a lookup that always drafts as far as it can. The drafts of one answer are alike, so that all of those with
    matches of one length count together for one."""
    counts = _nothing()
    at = 0
    while at < len(answer.places):
        place = answer.places[at]
        if place.match:
            row = counts[MATCHES.index(place.match)]
            row[: min(place.right + 1, place.drafted), 0] += 1
            row[: place.right, 1] += 1
        at += place.right + 1
    return counts / np.maximum(1, counts[:, :1, :1])


def learned(of_all: Counts, of_source: Counts, costs: Costs) -> Drafter:
    """A drafter with a prior, by length of the match and position: what is usual of lookups, moved by what was counted
    in all answers, and then by what was counted in those of the source."""
    by_match = {}
    for row, match in enumerate(MATCHES):
        usual = np.array([LOOKUP[match][min(at, len(LOOKUP[match]) - 1)] for at in range(LONGEST)])
        general = (of_all[row, :, 1] + OF_USUAL * usual) / (of_all[row, :, 0] + OF_USUAL)
        found = (of_source[row, :, 1] + OF_ALL * general) / (of_source[row, :, 0] + OF_ALL)
        by_match[match] = tuple(float(one) for one in found)
    return Drafter(costs, by_match=by_match, is_watched=True)


def priors(all_answers: Sequence[Answer], every: Sequence[Answer], costs: Costs) -> Mapping[tuple[int, str], Drafter]:
    """By fold and source, learned of the other folds of ``every`` answer."""
    sums: dict[tuple[int, str], Counts] = defaultdict(_nothing)
    for answer in every:
        sums[fold_of(answer), answer.source] += counts_of(answer)
    found = {}
    for fold, source in {(fold_of(answer), answer.source) for answer in all_answers}:
        others = {key: counts for key, counts in sums.items() if key[0] != fold}
        of_source = sum((counts for key, counts in others.items() if key[1] == source), _nothing())
        found[fold, source] = learned(sum(others.values(), _nothing()), of_source, costs)
    return found


def _nothing() -> Counts:
    return np.zeros((len(MATCHES), LONGEST, 2))


def fold_of(answer: Answer) -> int:
    return number_of(answer.conversation) // 2 % FOLDS


def ways(chosen: Sequence[Answer], every: Sequence[Answer], costs: Costs) -> Iterable[Way]:
    """The oracle comes first."""
    by_cap = {cap: [static(answer, LOOKED_UP, cap, costs) for answer in chosen] for cap in CAPS}
    of_answers = list(zip(*by_cap.values(), strict=True))
    yield Way("best longest draft by answer", [min(one) for one in of_answers])
    every_lookup = [
        min(static(answer, match, cap, costs) for match in MATCHES[:3] for cap in CAPS) for answer in chosen
    ]
    yield Way("best lookup and longest draft by answer", every_lookup)
    best = min(by_cap.values(), key=sum)
    yield Way(f"best longest draft for all ({next(cap for cap, one in by_cap.items() if one is best)})", best)
    by_source: dict[str, Sequence[float]] = {}
    for source in {answer.source for answer in chosen}:
        own = [number for number, answer in enumerate(chosen) if answer.source == source]
        by_source[source] = min(by_cap.values(), key=lambda one: sum(one[number] for number in own))
    yield Way(
        "best longest draft by source", [by_source[answer.source][number] for number, answer in enumerate(chosen)]
    )
    rules: Mapping[str, Callable[[Answer, Costs], float]] = {
        "prompt gate": prompt_gate,
        "match length": match_length,
    }
    for name, rule in rules.items():
        yield Way(name, [rule(answer, costs) for answer in chosen])
    for name, drafter in (
        ("control that knows nothing", Drafter(costs, (UNINFORMED,), is_watched=True)),
        ("control without a prior", Drafter(costs, by_match=LOOKUP, is_watched=True)),
    ):
        yield Way(name, [controlled(answer, drafter) for answer in chosen])
    prior = priors(chosen, every, costs)
    yield Way("control with a prior", [controlled(answer, prior[fold_of(answer), answer.source]) for answer in chosen])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--half", type=int, choices=(0, 1))
    options = parser.parse_args()
    every = list(answers(options.file))
    chosen = [answer for answer in every if options.half is None or half_of(answer.conversation) == options.half]
    tokens = sum(len(answer.places) for answer in chosen)
    print(f"{len(chosen)} answers of {len({answer.conversation for answer in chosen})} conversations, {tokens} tokens")
    print(
        "\n| costs | | times as fast as plain | of the oracle | up to 80 tokens | longer |\n|---|---|---|---|---|---|"
    )
    short = [len(answer.places) <= 80 for answer in chosen]
    for name, costs in COSTS.items():
        oracle: Sequence[float] = ()
        for way in ways(chosen, every, costs):
            oracle = oracle or way.costs
            share = [
                sum(one for one, is_short in zip(oracle, short, strict=True) if is_short is which)
                / sum(one for one, is_short in zip(way.costs, short, strict=True) if is_short is which)
                for which in (True, False)
            ]
            print(
                f"| {name} | {way.name} | {tokens / sum(way.costs):.3f} | {sum(oracle) / sum(way.costs):.3f} |"
                f" {share[0]:.3f} | {share[1]:.3f} |"
            )


if __name__ == "__main__":
    main()
