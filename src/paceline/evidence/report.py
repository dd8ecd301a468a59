"""What routing brought on the traffic of a log, and what the traffic cost."""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from paceline.evidence.comparison import Comparison, compare
from paceline.evidence.cost import Cost, cost
from paceline.evidence.same_settings import groups
from paceline.evidence.usable import usable
from paceline.records.record import Record
from paceline.settings import Configuration

MIN_REQUESTS = 30
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


def report(records: Iterable[Record], configuration: Configuration | None = None) -> Report:
    """
    Args:
        records: of a log, as :class:`paceline.records.read.LogReader` gives them.
        configuration: whose rules are a policy to compare with, and whose prices count.

    Raises:
        TooLittle: fewer than :data:`MIN_REQUESTS` are usable and of the same model, settings and lanes.
    """
    everything = list(records)
    alike = groups(usable(everything), everything)
    enough = [group for group in alike if len(group.requests) >= MIN_REQUESTS]
    few = [group for group in alike if len(group.requests) < MIN_REQUESTS]
    if not enough:
        raise TooLittle(_too_little(len(everything), [len(group.requests) for group in few]))
    return Report(
        requests=len(everything),
        left_out=sum(len(group.requests) for group in few),
        too_few=[
            TooFew(model=group.model, lanes=group.lanes, requests=len(group.requests))
            for group in few
            if group.is_current
        ],
        comparisons=[compare(group, configuration) for group in enough],
        cost=cost(everything, configuration.cost, configuration.cloud) if configuration else None,
    )


def _too_little(requests: int, usable_ones: Sequence[int]) -> str:
    """In words.

    Args:
        requests: in the log.
        usable_ones: of them, for each group of the same model, settings and lanes.
    """
    count, most = sum(usable_ones), max(usable_ones, default=0)
    same = f", at most {most} of them of one model with the same lanes and settings" if most < count else ""
    return (
        f"It is too early to tell what routing brings: the log has {requests} request{'s' * (requests != 1)}, and "
        f"{count} of them can be compared{same}. From {MIN_REQUESTS} on there is something to report; what can be "
        "compared was answered whole, was timed, and was decided by the predictions."
    )
