"""What does control per step lose where drafts don't pay, and gain where they do, with a head beside the lookup?

    python -m benchmarks.control.heads FILE [--half 0|1] [--answers N]

FILE holds recorded turns, whose lookups are played exactly, as in ``benchmarks.control.offline``. Beside them drafts a
head whose tokens are accepted by dice: as is published of one of eight tasks (``benchmarks/real_size/tasks.py``), or of
stories, of which hardly anything is accepted. Requests of one task differ as published ones do, and so do passages
within an answer. A head drafts cheaply (an MTP layer), or dearly (a model that takes a quarter of a step a token).

The control starts from what is true of the task (*right*), from what all tasks have in common (*usual*), or from the
opposite (*wrong*: what drafts badly is said to draft well, and the other way round).

The *oracle* is the best of plain, of one longest draft of the head, and of one lookup, for each answer in hindsight.
Where that is plain, drafting can only lose: the last columns are how fast such answers are on average, and the slowest
of twenty, over plain; all of them, and those of 64 tokens or more.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from benchmarks.control.offline import CAPS, COSTS, LOOKED_UP, Costs, static
from benchmarks.control.turns import Answer, answers
from benchmarks.lookups.turns import half_of
from benchmarks.real_size.tasks import LONGEST, usual_acceptance
from benchmarks.worlds.published import Floats, logit, request_spread, shifted
from paceline.inside.draft_control import LOOKUP, DraftControl, Drafter, Offer

LONG_TOKENS = 64
STORY, STORY_LOGITS = "story", -2.0
"""What a story's head is below that of what is accepted least, in logits."""
PASSAGE_TOKENS, PASSAGE_LOGITS = 40, 0.7
"""Length of a passage, and by how many logits passages differ."""
WEIGHT = {"right": 12.0, "usual": 6.0, "wrong": 6.0}
DRAFTING = {"cheap": 0.06, "dear": 0.25}
"""Plain steps that a head takes for a token that it drafts."""
HEAD, NGRAM = "head", "ngram"
MACHINES = ("Q8_0, CPU", "F16, CPU", "GPU, 1 stream", "GPU, 32 streams")


class Drawn(Struct, frozen=True):
    """An answer beside the head that drafts for it."""

    answer: Answer
    task: str
    accepted: Sequence[int]
    """At each token, how much of a draft of the head's is right there."""


def tasks() -> dict[str, Floats]:
    known = usual_acceptance()
    least = min(known.values(), key=lambda curve: float(curve[0]))
    return known | {STORY: shifted(least, STORY_LOGITS)}


def drawn(chosen: Sequence[Answer], seed: int = 0) -> list[Drawn]:
    random, known = np.random.default_rng(seed), tasks()
    found = []
    for number, answer in enumerate(chosen):
        task = [*known][number % len(known)]
        tokens, own = len(answer.places), random.normal(0, request_spread())
        passages = random.normal(own, PASSAGE_LOGITS, tokens // PASSAGE_TOKENS + 1)
        moved = shifted(known[task], passages[np.arange(tokens) // PASSAGE_TOKENS])
        is_right = random.random((tokens, LONGEST)) < moved
        found.append(Drawn(answer, task, np.argmin(np.c_[is_right, np.zeros(tokens, bool)], axis=1).tolist()))
    return found


def alone(one: Drawn, cap: int, costs: Costs) -> float:
    """Plain steps of an answer with drafts of the head of so many tokens."""
    at, total = 0, 0.0
    while at < len(one.accepted):
        at, total = at + min(one.accepted[at], cap) + 1, total + costs[cap - 1]
    return total


def controlled(one: Drawn, head: Drafter, lookup: Drafter) -> float:
    """Plain steps of an answer under the control of both drafters; drafts of the lookup are watched."""
    control = DraftControl({HEAD: head, NGRAM: lookup})
    places, at, total = one.answer.places, 0, 0.0
    watched, until = places[0], -1
    while at < len(places):
        place = places[at]
        if 0 <= until <= at:
            control.watched(NGRAM, watched.drafted, watched.right, watched.match)
            until = -1
        offers = {HEAD: Offer(LONGEST)} | ({NGRAM: Offer(place.drafted, place.match)} if place.match else {})
        choice = control.choose(offers)
        if choice.drafter == NGRAM:
            until = -1
        elif place.match and until < 0:
            watched, until = place, at + place.right + 1
        if choice.drafter is None:
            control.decoded()
            at, total = at + 1, total + 1
            continue
        right = min(place.right if choice.drafter == NGRAM else one.accepted[at], choice.length)
        control.verified(choice.drafter, choice.length, right, place.match if choice.drafter == NGRAM else 0)
        costs = lookup.costs if choice.drafter == NGRAM else head.costs
        at, total = at + right + 1, total + costs[choice.length - 1]
    return total


def priors() -> Mapping[str, Mapping[str, Floats]]:
    """By kind and task."""
    known = tasks()
    middle = float(np.mean([logit(float(curve[0])) for curve in known.values()]))
    usual = shifted(known["math"], middle - logit(float(known["math"][0])))
    opposite = {
        task: shifted(curve, 2 * (middle - logit(float(np.clip(curve[0], 0.01, 0.99)))))
        for task, curve in known.items()
    }
    return {"right": known, "usual": dict.fromkeys(known, usual), "wrong": opposite}


def rows(every: Sequence[Drawn], costs: Costs, drafting: float) -> Iterable[tuple[str, Floats]]:
    """Ways, and what each answer costs so, in plain steps; the oracle first."""
    of_head = tuple(costs[place] + drafting * (place + 1) for place in range(LONGEST))
    heads = {cap: np.array([alone(one, cap, of_head) for one in every]) for cap in range(1, LONGEST + 1)}
    lookups = [np.array([static(one.answer, LOOKED_UP, cap, costs) for one in every]) for cap in CAPS]
    yield "oracle", np.min([*heads.values(), *lookups], axis=0)
    best = min(heads, key=lambda cap: float(heads[cap].sum()))
    yield f"best head for all ({best})", heads[best]
    lookup = Drafter(costs, by_match=LOOKUP, is_watched=True)
    for kind, prior in priors().items():
        head = {task: Drafter(of_head, tuple(map(float, curve)), weight=WEIGHT[kind]) for task, curve in prior.items()}
        yield f"control, {kind} prior", np.array([controlled(one, head[one.task], lookup) for one in every])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--half", type=int, choices=(0, 1))
    parser.add_argument("--answers", type=int, help="at most")
    options = parser.parse_args()
    chosen = [
        each for each in answers(options.file) if options.half is None or half_of(each.conversation) == options.half
    ]
    every = drawn(chosen[: options.answers])
    tokens = np.array([len(one.accepted) for one in every])
    print(f"{len(every)} answers, {tokens.sum()} tokens\n")
    print("| costs | head | | over plain | of the oracle | where plain is best: all | long |")
    print("|---" * 7 + "|")
    for machine in MACHINES:
        for price, drafting in DRAFTING.items():
            ways = list(rows(every, COSTS[machine], drafting))
            oracle = ways[0][1]
            is_plain = oracle >= tokens
            for name, costs in ways:
                lost = [_lost(tokens / costs, is_plain & (tokens >= least)) for least in (0, LONG_TOKENS)]
                print(
                    f"| {machine} | {price} | {name} | {tokens.sum() / costs.sum():.3f} |"
                    f" {oracle.sum() / costs.sum():.3f} | {' | '.join(lost)} |"
                )


def _lost(speeds: Floats, which: NDArray[np.bool_]) -> str:
    found = speeds[which]
    return f"{found.mean():.3f}, {np.percentile(found, 5):.3f} ({len(found)})" if len(found) else "-"


if __name__ == "__main__":
    main()
