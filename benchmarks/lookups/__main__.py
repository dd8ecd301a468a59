"""How well can a lookup's acceptance be told from the prompt?

    python -m benchmarks.lookups FILE [--n N] [--cap CAP]

FILE holds a recorded turn in each line, as JSON: ``source``, ``conversation``, ``turn``, ``body`` (OpenAI's chat
completions) and ``answer``. Prompt lookup is played over each answer, in tokens of the bundled model; what it comes to
is predicted from what inspection finds in the request, by a small linear regression (``belief.py``).

- *held out*: ten parts, by conversation; each is predicted from the others, without learning meanwhile
- *online*: each turn is predicted, then learned from; conversations in the file's order, and the mean of three
  orders by chance
- *other sources first*: learned from all sources but one, then that one online; over all turns so predicted

Length is the acceptance length, tokens by step over all steps, learned as its logarithm; coverage is the share of the
tokens that come out of steps that accepted something. R² is of either, MAE the mean absolute error. The log score is
the mean logarithm of the density that was given to the length's logarithm; *by source* is the mean over sources, and
*gain* how much more it is than that of the mean by application, with its standard error by conversation.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from math import exp, log
from pathlib import Path
from random import Random
from statistics import mean

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from benchmarks.lookups.belief import Belief, Coefficient, Expected, Floats, Prior
from benchmarks.lookups.play import Played
from benchmarks.lookups.rows import CAPS, LOOKED_UP, Row, rows

FOLDS = 10
ORDERS = 3
GROUPS = {"application": 0.15, "task": 0.1, "turn": 0.1, "application, turn": 0.12, "application, task": 0.1}
CONVERSATION = {"conversation": 0.1}
"""Standard deviations of strengths. Half or twice any of them changes the log score by less than 0.01."""
REPEATS = {"repeats": Coefficient()}
"""Nothing is believed of the coefficients at first, so that what is reported was not put in."""
MODELS = {
    "mean by application": Prior(groups={"application": 0.3}),
    "mean by task": Prior(groups={"task": 0.3}),
    "groups": Prior(groups=GROUPS),
    "groups, conversation": Prior(groups=GROUPS | CONVERSATION),
    "groups, repeats": Prior(groups=GROUPS, statistics=REPEATS),
    "groups, conversation, repeats": Prior(groups=GROUPS | CONVERSATION, statistics=REPEATS),
    "... and copy, turns": Prior(
        groups=GROUPS | CONVERSATION, statistics=REPEATS | {"copy": Coefficient(), "turns": Coefficient(0.0, 0.2)}
    ),
}
"""Groups are application, task, turn, and both of the latter in each application."""

Predictor = Callable[[Prior, Sequence[float]], list[Expected]]
"""A prior and the rows' values -> what is expected of each row."""


class Score(Struct, frozen=True):
    length_r2: float
    coverage_r2: float
    length_error: float
    coverage_error: float
    log_scores: Floats
    """Of each row."""


def log_length(played: Played) -> float:
    return log(played.length)


def coverage(played: Played) -> float:
    return played.coverage


def held_out(all_rows: Sequence[Row], prior: Prior, values: Sequence[float]) -> list[Expected]:
    """What is expected of each row by what the conversations of other folds taught."""
    names = sorted({row.conversation for row in all_rows})
    Random(0).shuffle(names)
    fold = {name: number % FOLDS for number, name in enumerate(names)}
    expected: dict[int, Expected] = {}
    for out in range(FOLDS):
        belief = Belief(prior)
        for row, value in zip(all_rows, values, strict=True):
            if fold[row.conversation] != out:
                belief.learn(row.turn, value)
        expected |= {
            number: belief.expect(row.turn) for number, row in enumerate(all_rows) if fold[row.conversation] == out
        }
    return [expected[number] for number in range(len(all_rows))]


def online(belief: Belief, all_rows: Sequence[Row], values: Sequence[float], order: Sequence[int]) -> list[Expected]:
    """What is expected of each row by those before it in ``order``, and by what the belief knew."""
    expected: dict[int, Expected] = {}
    for number in order:
        expected[number] = belief.expect(all_rows[number].turn)
        belief.learn(all_rows[number].turn, values[number])
    return [expected[number] for number in sorted(expected)]


def other_sources_first(all_rows: Sequence[Row], prior: Prior, values: Sequence[float]) -> list[Expected]:
    expected: dict[int, Expected] = {}
    for source in {row.source for row in all_rows}:
        belief = Belief(prior)
        own = [number for number, row in enumerate(all_rows) if row.source == source]
        for number, row in enumerate(all_rows):
            if row.source != source:
                belief.learn(row.turn, values[number])
        expected |= dict(zip(own, online(belief, all_rows, values, own), strict=True))
    return [expected[number] for number in range(len(all_rows))]


def in_order(all_rows: Sequence[Row], seed: int | None) -> list[int]:
    """Numbers of rows, conversation by conversation; with a seed, these in an order by chance."""
    by_name: dict[str, list[int]] = {}
    for number, row in enumerate(all_rows):
        by_name.setdefault(row.conversation, []).append(number)
    conversations = list(by_name.values())
    if seed is not None:
        Random(seed).shuffle(conversations)
    return [number for conversation in conversations for number in conversation]


def score(prior: Prior, predict: Predictor, played: Sequence[Played]) -> Score:
    lengths, coverages = [log_length(one) for one in played], [coverage(one) for one in played]
    expected, of_coverage = predict(prior, lengths), predict(as_coverage(prior), coverages)
    return Score(
        length_r2=r2(lengths, expected),
        coverage_r2=r2(coverages, of_coverage),
        length_error=mean(abs(exp(one.mean) - exp(value)) for value, one in zip(lengths, expected, strict=True)),
        coverage_error=mean(abs(one.mean - value) for value, one in zip(coverages, of_coverage, strict=True)),
        log_scores=np.array([one.log_score(value) for value, one in zip(lengths, expected, strict=True)]),
    )


def r2(values: Sequence[float], expected: Sequence[Expected]) -> float:
    """Share of the variance that is explained."""
    centre = mean(values)
    missed = sum((value - one.mean) ** 2 for value, one in zip(values, expected, strict=True))
    return 1 - missed / sum((value - centre) ** 2 for value in values)


def as_coverage(prior: Prior) -> Prior:
    """A prior of coverage, whose spread is about half of the length's logarithm's."""
    return replace(
        prior,
        noise=prior.noise / 2,
        groups={kind: deviation / 2 for kind, deviation in prior.groups.items()},
        statistics={name: Coefficient(one.mean / 2, one.deviation / 2) for name, one in prior.statistics.items()},
    )


def mean_score(scores: Sequence[Score]) -> Score:
    return Score(*[np.mean([getattr(one, name) for one in scores], axis=0) for name in Score.__struct_fields__])


def print_scores(title: str, all_rows: Sequence[Row], scores: Mapping[str, Score]) -> None:
    print(
        f"\n| {title} | R² of length | of coverage | MAE of length | of coverage | log score | by source | gain |"
        "\n|---|---|---|---|---|---|---|---|"
    )
    sources = np.array([row.source for row in all_rows])
    names, conversations = np.unique([row.conversation for row in all_rows], return_inverse=True)
    first = next(iter(scores.values()))
    for name, one in scores.items():
        by_source = mean(float(one.log_scores[sources == source].mean()) for source in set(sources))
        gains = one.log_scores - first.log_scores
        sums = np.bincount(conversations, gains - gains.mean(), len(names))
        error = float(np.sqrt((sums**2).sum())) / len(gains)
        print(
            f"| {name} | {one.length_r2:.3f} | {one.coverage_r2:.3f} | {one.length_error:.3f} |"
            f" {one.coverage_error:.3f} | {one.log_scores.mean():.3f} | {by_source:.3f} |"
            f" {gains.mean():.3f} ± {error:.3f} |"
        )


def print_played(all_rows: Sequence[Row]) -> None:
    """Tokens by step of all answers of a source together."""
    keys = [(n, cap) for n in LOOKED_UP for cap in (3, 12)]
    print("\n| tokens by step | " + " | ".join(f"N {n}, cap {cap}" for n, cap in keys) + " |")
    print("|---" * (1 + len(keys)) + "|")
    for source in dict.fromkeys(row.source for row in all_rows):
        own = [row for row in all_rows if row.source == source]
        sums = [sum(r.played[k].tokens for r in own) / sum(r.played[k].steps for r in own) for k in keys]
        print(f"| {source} ({len(own)}) | " + " | ".join(f"{one:.2f}" for one in sums) + " |")


def print_lanes(all_rows: Sequence[Row], n: int, cap: int) -> None:
    """How the logarithm of each lane's length follows from that of one: ``base + feels * strength + own``. Bases are
    means over sources."""
    sources = {row.source for row in all_rows}

    def values(lane: tuple[int, int]) -> list[float]:
        return [log_length(row.played[lane]) for row in all_rows]

    def base(lane: tuple[int, int]) -> float:
        return mean(mean(log_length(r.played[lane]) for r in all_rows if r.source == source) for source in sources)

    strengths = np.array(values((n, cap))) - base((n, cap))
    print(f"\n| N | cap | base | feels (1: N {n}, cap {cap}) | own deviation | base of coverage |")
    print("|---" * 6 + "|")
    for lane in [(one, other) for one in LOOKED_UP for other in CAPS]:
        own = np.array(values(lane)) - base(lane)
        feels = float(own @ strengths / (strengths @ strengths))
        covered = mean(mean(r.played[lane].coverage for r in all_rows if r.source == source) for source in sources)
        rest = float(np.std(own - feels * strengths))
        print(f"| {lane[0]} | {lane[1]} | {base(lane):.3f} | {feels:.2f} | {rest:.3f} | {covered:.3f} |")


def print_coefficients(all_rows: Sequence[Row], n: int, caps: Sequence[int]) -> None:
    """What all turns together teach of the coefficients, and those of each source alone."""
    prior = MODELS["... and copy, turns"]
    names = ["mean", *prior.statistics]
    print("\n| coefficients | " + " | ".join(names) + " |\n|---" + "|---" * len(names) + "|")

    def show(title: str, own: Sequence[Row], cap: int, without: Sequence[str] = ()) -> None:
        statistics = {name: one for name, one in prior.statistics.items() if name not in without}
        belief = Belief(replace(prior, statistics=statistics))
        for row in own:
            belief.learn(row.turn, log_length(row.played[n, cap]))
        found = belief.coefficients()
        cells = [f"{found[name].mean:.2f} ± {found[name].deviation:.2f}" if name in found else "" for name in names]
        print(f"| {title} | " + " | ".join(cells) + " |")

    for cap in caps:
        show(f"cap {cap}", all_rows, cap)
    show(f"cap {caps[-1]}, repeats alone", all_rows, caps[-1], ("copy", "turns"))
    for source in dict.fromkeys(row.source for row in all_rows):
        show(f"cap {caps[-1]}, {source}", [row for row in all_rows if row.source == source], caps[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--n", type=int, default=3, choices=LOOKED_UP)
    parser.add_argument("--cap", type=int, default=8, choices=CAPS)
    options = parser.parse_args()
    all_rows = list(rows(options.file))
    played = [row.played[options.n, options.cap] for row in all_rows]
    print(f"{len(all_rows)} turns of {len({row.conversation for row in all_rows})} conversations")
    print_played(all_rows)

    def by_order(seed: int | None) -> Predictor:
        return lambda prior, values: online(Belief(prior), all_rows, values, in_order(all_rows, seed))

    ways: dict[str, list[Predictor]] = {
        "held out": [lambda prior, values: held_out(all_rows, prior, values)],
        "online, the file's order": [by_order(None)],
        "online, orders by chance": [by_order(seed) for seed in range(ORDERS)],
        "other sources first": [lambda prior, values: other_sources_first(all_rows, prior, values)],
    }
    for way, predictors in ways.items():
        scores = {
            name: mean_score([score(prior, predict, played) for predict in predictors])
            for name, prior in MODELS.items()
        }
        print_scores(f"N {options.n}, cap {options.cap}: {way}", all_rows, scores)
    print_lanes(all_rows, options.n, options.cap)
    print_coefficients(all_rows, options.n, CAPS[2:])


if __name__ == "__main__":
    main()
