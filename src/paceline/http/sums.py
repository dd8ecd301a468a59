"""What a gateway has counted and has under way, in a form that several processes can add up."""

import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from paceline.http.drafts import Drafts, DraftSums, together
from paceline.http.running import running
from paceline.http.spent import Spent, SpentSums
from paceline.records.decision_log import DecisionLog, LogSums
from paceline.records.series import Number
from paceline.serving.pipeline import Pipeline
from paceline.sharing import Sharer, State


class SharingSums(Struct, frozen=True):
    """Messages of what is learned, as :class:`paceline.sharing.State` has them; none where nothing is shared."""

    told: int = 0
    learned: int = 0
    lost: int = 0
    refused: dict[str, int] = {}

    def plus(self, other: "SharingSums") -> "SharingSums":
        """Of both."""
        return SharingSums(
            self.told + other.told,
            self.learned + other.learned,
            self.lost + other.lost,
            dict(Counter(self.refused) + Counter(other.refused)),
        )


class GatewaySums(Struct, frozen=True, kw_only=True):
    """Of one process, or of several."""

    pid: int
    """Of the process; 0 for those that have ended."""
    in_flight: int
    connections: int
    failures: dict[str, int]
    """By part of routing."""
    lanes: dict[str, tuple[int, int]]
    """By name, the requests that it decodes, and that wait for it."""
    log: LogSums | None
    """Of the decision log, if one is kept."""
    sharing: SharingSums
    metrics: dict[str, list[Number]]
    spent: SpentSums
    drafts: list[DraftSums]
    running: list[dict[str, Any]]
    """What is in flight, as documents."""

    def ended(self, before: "GatewaySums | None") -> "GatewaySums":
        """What stays of it when its process has ended, with what stays of others."""
        log = None if self.log is None else replace(self.log, waiting=0, lost=self.log.lost + self.log.waiting)
        left = replace(self, pid=0, in_flight=0, connections=0, lanes={}, log=log, running=[])
        if before is None:
            return left
        return replace(
            left,
            failures=dict(Counter(left.failures) + Counter(before.failures)),
            log=left.log.plus(before.log) if left.log else before.log,
            sharing=left.sharing.plus(before.sharing),
            metrics={name: _added(of_name, before.metrics.get(name, [])) for name, of_name in left.metrics.items()},
            spent=left.spent.plus(before.spent),
            drafts=together([left.drafts, before.drafts]),
        )


def sums_of(
    pipeline: Pipeline,
    log: DecisionLog | None,
    sharer: Sharer | None,
    spent: Spent,
    drafts: Drafts,
    connections: int,
) -> GatewaySums:
    """Of this process, as they are now.

    Args:
        connections: of clients.
    """
    return GatewaySums(
        pid=os.getpid(),
        in_flight=pipeline.in_flight.requests,
        connections=connections,
        failures=dict(pipeline.failures),
        lanes={name: (lane.running, lane.waiting) for name, lane in pipeline.fleet.lanes.items()},
        log=log.sums() if log else None,
        sharing=sharing_sums(sharer.state()) if sharer else SharingSums(),
        metrics=pipeline.metrics.numbers(),
        spent=spent.sums(),
        drafts=drafts.sums(),
        running=running(pipeline),
    )


def sharing_sums(state: State) -> SharingSums:
    """What a state counts."""
    return SharingSums(state.told, state.learned, state.lost, state.refused)


def _added(one: Sequence[Number], two: Sequence[Number]) -> list[Number]:
    by_labels = {number.labels: number for number in one}
    for number in two:
        mine = by_labels.get(number.labels)
        by_labels[number.labels] = number if mine is None else mine.plus(number)
    return list(by_labels.values())
