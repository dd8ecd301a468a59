"""Which entries of a log estimates can use, and as what."""

from collections.abc import Iterable, Mapping
from typing import Any

from paceline.evidence.estimate import Logged

Entry = Mapping[str, Any]
"""Of a log, as :func:`paceline.records.read.entries` gives them."""


def usable(entries: Iterable[Entry]) -> list[tuple[Entry, Logged]]:
    """Those that were answered whole and timed, with a choice of lanes that the predictions had."""
    return [(entry, one) for entry in entries if (one := _logged(entry)) is not None]


def drafts(prediction: Mapping[str, Any]) -> bool:
    """Whether the lane of a logged prediction drafts."""
    return bool(prediction["strategy"] != "autoregressive" and prediction["n_max"] != 0)


def _logged(entry: Entry) -> Logged | None:
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
        entry["model"],
    )
