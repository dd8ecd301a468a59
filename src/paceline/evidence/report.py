"""What routing brought on the traffic of a log, and what the traffic cost."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from msgspec import Struct

from paceline.configuration import Configuration
from paceline.evidence.comparison import Comparison, compare
from paceline.evidence.cost import Cost, cost
from paceline.evidence.estimate import Logged
from paceline.evidence.usable import Entry, usable

FEWEST = 30
"""Requests below which nothing is concluded."""


class Report(Struct, frozen=True):
    requests: int
    """In the log."""
    left_out: int
    """Of them, usable, but with a choice of lanes that too few others had."""
    comparisons: Sequence[Comparison]
    """One for each set of lanes that requests chose from, as each model has its own, and a changed configuration; the
    one with the most decoding first."""
    cost: Cost | None


class TooLittle(Exception):
    """There are too few requests to say anything; ``str()`` says how many of what."""


def report(entries: Iterable[Entry], configuration: Configuration | None = None) -> Report:
    """
    Args:
        entries: of a log, as :func:`paceline.evidence.read.entries` gives them.
        configuration: whose rules are a policy to compare with, and whose prices count.

    Raises:
        TooLittle: fewer than :data:`FEWEST` are usable and had the same lanes to choose from.
    """
    everything = list(entries)
    by_lanes: dict[frozenset[str], list[tuple[Entry, Logged]]] = defaultdict(list)
    for entry, one in usable(everything):
        by_lanes[frozenset(one.predicted)].append((entry, one))
    enough = [pairs for pairs in by_lanes.values() if len(pairs) >= FEWEST]
    count = sum(len(pairs) for pairs in by_lanes.values())
    if not enough:
        most = max((len(pairs) for pairs in by_lanes.values()), default=0)
        raise TooLittle(
            f"the log has {len(everything)} requests, of which {count} were answered whole, timed and decided by "
            f"prediction{f', at most {most} of them among the same lanes' if most < count else ''}; from {FEWEST} on "
            "there is something to report"
        )
    return Report(
        len(everything),
        count - sum(len(pairs) for pairs in enough),
        sorted((compare(pairs, configuration) for pairs in enough), key=lambda one: -one.seconds),
        cost(everything, configuration.cost, configuration.cloud) if configuration else None,
    )
