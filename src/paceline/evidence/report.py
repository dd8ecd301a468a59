"""What routing brought on the traffic of a log, and what the traffic cost."""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from paceline.evidence.comparison import Comparison, compare
from paceline.evidence.cost import Cost, cost
from paceline.evidence.same_settings import groups
from paceline.evidence.usable import Entry, usable
from paceline.settings import Configuration

FEWEST = 30
"""Requests below which nothing is concluded."""


class TooFew(Struct, frozen=True):
    """Requests of a model and settings that are current, but too few to conclude from."""

    model: str | None
    lanes: Sequence[str]
    requests: int


class Report(Struct, frozen=True):
    requests: int
    """In the log."""
    left_out: int
    """Of them, usable, but of a model, settings and lanes that too few others had."""
    too_few: Sequence[TooFew]
    """Those of them that tell of what runs now."""
    comparisons: Sequence[Comparison]
    """One for each model, its settings and the lanes that requests chose from; never of different ones. The current
    ones first, of these the one with the most decoding; then the latest."""
    cost: Cost | None


class TooLittle(Exception):
    """There are too few requests to say anything; ``str()`` says how many of what."""


def report(entries: Iterable[Entry], configuration: Configuration | None = None) -> Report:
    """
    Args:
        entries: of a log, as :func:`paceline.records.read.entries` gives them.
        configuration: whose rules are a policy to compare with, and whose prices count.

    Raises:
        TooLittle: fewer than :data:`FEWEST` are usable and of the same model, settings and lanes.
    """
    everything = list(entries)
    found = groups(usable(everything), everything)
    enough = [group for group in found if len(group.pairs) >= FEWEST]
    few = [group for group in found if len(group.pairs) < FEWEST]
    if not enough:
        count, most = sum(len(group.pairs) for group in few), max((len(group.pairs) for group in few), default=0)
        same = f", at most {most} of them among the same lanes of one model and its settings" if most < count else ""
        requests = f"{len(everything)} request{'s' * (len(everything) != 1)}"
        raise TooLittle(
            f"the log has {requests}, of which {count} were answered whole, timed and decided by prediction{same}; "
            f"from {FEWEST} on there is something to report"
        )
    return Report(
        len(everything),
        sum(len(group.pairs) for group in few),
        [
            TooFew(group.model, list(group.pairs[-1][0]["predictions"]), len(group.pairs))
            for group in few
            if group.is_current
        ],
        [compare(group, configuration) for group in enough],
        cost(everything, configuration.cost, configuration.cloud) if configuration else None,
    )
