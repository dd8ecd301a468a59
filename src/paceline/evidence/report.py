"""What routing brought on the traffic of a log, against every fixed setting."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import log
from statistics import median
from typing import Any

from msgspec import Struct

from paceline.evidence.estimate import Estimate, Logged, always, estimate
from paceline.text_table import columns

FEWEST = 30
"""Requests below which nothing is concluded."""


class TaskReport(Struct, frozen=True):
    task: str
    requests: int
    share: float
    """Of the decode time."""
    tokens_per_s: float
    acceptance: float | None
    """Accepted per drafted token; ``None`` where nothing was drafted."""
    drafting: float
    """Share of the requests that went down a drafting lane."""
    speed_up: float | None
    """Over plain by the predictions; ``None`` where no plain lane is known."""


class Report(Struct, frozen=True):
    requests: int
    """In the log."""
    usable: int
    """Of them, answered whole, timed, and decided by prediction."""
    seconds: float
    """Of decoding, of the usable ones."""
    tokens: int
    fixed: Mapping[str, Estimate]
    """By lane: what always taking it would have made of the usable ones; in the order of the ratios."""
    tasks: Sequence[TaskReport]
    prediction_bias: float
    """Median of actual over predicted time."""
    prediction_error: float
    """Median of how far the two are apart, as a share."""
    exploring_s: float
    """Predicted cost of the choices that were not predicted to be the fastest."""

    @property
    def best(self) -> tuple[str, Estimate]:
        """The fixed lane that would have been fastest."""
        return next(iter(self.fixed.items()))

    @property
    def pays(self) -> bool | None:
        """Whether routing is faster than the best fixed lane, beyond doubt; ``None`` where it can't be told."""
        ratio = self.best[1]
        return True if ratio.low > 1 else False if ratio.high < 1 else None


class TooLittle(Exception):
    """There are too few requests to say anything; ``str()`` says how many of what."""


def report(entries: Iterable[Mapping[str, Any]]) -> Report:
    """
    Args:
        entries: of a log, as :func:`paceline.evidence.read.entries` gives them.

    Raises:
        TooLittle: fewer than :data:`FEWEST` are usable.
    """
    everything = list(entries)
    pairs = [(entry, one) for entry in everything if (one := _logged(entry)) is not None]
    if len(pairs) < FEWEST:
        raise TooLittle(
            f"the log has {len(everything)} requests, of which {len(pairs)} were answered whole, timed and decided by "
            f"prediction; from {FEWEST} on there is something to report"
        )
    used = [one for _, one in pairs]
    known = set.intersection(*(set(one.predicted) for one in used))
    fixed = {lane: estimate(used, always(lane)) for lane in sorted(known)}
    ratios = [one.s_per_token / one.predicted[one.lane] for one in used if one.in_seconds]
    return Report(
        len(everything),
        len(used),
        sum(one.seconds for one in used),
        sum(one.tokens for one in used),
        dict(sorted(fixed.items(), key=lambda item: item[1].ratio)),
        _tasks(pairs),
        median(ratios) if ratios else 1.0,
        median([abs(log(ratio)) for ratio in ratios]) if ratios else 0.0,
        sum(entry["exploring_s"] or 0.0 for entry, _ in pairs),
    )


def _logged(entry: Mapping[str, Any]) -> Logged | None:
    """``None`` for a request that estimates can't use."""
    tokens, decode_s, lane = entry["decode_tokens"], entry["decode_s"], entry["lane"]
    predictions = entry["predictions"]
    if entry["error"] or entry["forced"] or not tokens or not decode_s or lane not in predictions:
        return None
    if lane != entry["decided"] or len(predictions) < 2:
        return None
    in_seconds = all(one["s_per_token"] is not None for one in predictions.values())
    return Logged(
        entry["task"],
        lane,
        tokens,
        decode_s / tokens,
        {name: one["propensity"] for name, one in predictions.items() if one["propensity"]},
        {name: one["s_per_token"] if in_seconds else one["relative"] for name, one in predictions.items()},
        {name: one["spread"] for name, one in predictions.items()},
        in_seconds,
    )


def _tasks(pairs: Sequence[tuple[Mapping[str, Any], Logged]]) -> list[TaskReport]:
    by_task: dict[str, list[tuple[Mapping[str, Any], Logged]]] = defaultdict(list)
    for entry, one in pairs:
        by_task[one.task].append((entry, one))
    whole_s = sum(one.seconds for _, one in pairs)
    found = []
    for task, some in by_task.items():
        drafted = sum(entry["drafted"] or 0 for entry, _ in some)
        accepted = sum(entry["accepted"] or 0 for entry, _ in some)
        seconds, tokens = sum(one.seconds for _, one in some), sum(one.tokens for _, one in some)
        gains = [gain for entry, one in some if (gain := _gain(entry, one)) is not None]
        found.append(
            TaskReport(
                task,
                len(some),
                seconds / whole_s,
                tokens / seconds,
                accepted / drafted if drafted else None,
                sum(_drafts(entry["predictions"][one.lane]) for entry, one in some) / len(some),
                sum(plain for plain, _ in gains) / sum(taken for _, taken in gains) if gains else None,
            )
        )
    return sorted(found, key=lambda one: -one.share)


def _drafts(prediction: Mapping[str, Any]) -> bool:
    return bool(prediction["strategy"] != "autoregressive" and prediction["n_max"] != 0)


def _gain(entry: Mapping[str, Any], one: Logged) -> tuple[float, float] | None:
    """Predicted seconds on a plain lane and on the one taken."""
    plain = [name for name, prediction in entry["predictions"].items() if not _drafts(prediction)]
    return (one.tokens * one.predicted[plain[0]], one.tokens * one.predicted[one.lane]) if plain else None


def text(found: Report) -> str:
    """For a terminal."""
    lane, ratio = found.best
    rows = [
        ("always", "time over routed", "95 % interval", "by inverse propensity", "self-normalised", "by prediction")
    ]
    for name, one in found.fixed.items():
        agreed = one.agreed > 0
        rows.append(
            (
                name,
                f"{one.ratio:.2f}",
                f"{one.low:.2f} to {one.high:.2f}",
                f"{one.inverse_propensity:.2f}" if agreed else "-",
                f"{one.self_normalised:.2f}" if agreed else "-",
                f"{one.on_predictions:.0%}",
            )
        )
    tasks = [("task", "requests", "of the time", "tokens/s", "accepted", "drafted for", "over plain")]
    tasks += [
        (
            task.task,
            str(task.requests),
            f"{task.share:.0%}",
            f"{task.tokens_per_s:.1f}",
            "-" if task.acceptance is None else f"{task.acceptance:.2f}",
            f"{task.drafting:.0%}",
            "-" if task.speed_up is None else f"{task.speed_up:.2f}",
        )
        for task in found.tasks
    ]
    return "\n".join(
        [
            f"{found.usable} of {found.requests} requests, {found.tokens} tokens in {found.seconds:.0f} s of decoding",
            "",
            "What other settings would have taken on the same requests (doubly robust, from this log):",
            columns(rows),
            "",
            columns(tasks),
            "",
            f"Predicted times were off by {found.prediction_error:.0%} (median); actual over predicted: "
            f"{found.prediction_bias:.2f}.",
            f"Exploring was to cost {found.exploring_s:.1f} s, {found.exploring_s / found.seconds:.1%} of the time.",
            "",
            _verdict(found, lane, ratio),
        ]
    )


def _verdict(found: Report, lane: str, ratio: Estimate) -> str:
    spread = f"{ratio.low:.2f} to {ratio.high:.2f}"
    if found.pays:
        return (
            f"Routing pays here: the best fixed setting, {lane}, would have taken {ratio.ratio:.2f} ({spread}) times "
            "as long."
        )
    if found.pays is None:
        return (
            f"Routing does not pay here as far as this log can tell: always {lane} would have taken {ratio.ratio:.2f} "
            f"({spread}) of the time. Use {lane}, or wait for more traffic."
        )
    return (
        f"Routing does not pay here: always {lane} would have taken {ratio.ratio:.2f} ({spread}) of the time. "
        f"Use {lane}."
    )
