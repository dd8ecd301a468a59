"""Another way to route, run over the traffic of a log.

It sees the requests in their order and learns from the outcomes that were logged, as the gateway did; what it would
have picked, and with which probability, is then compared with what was picked (:mod:`paceline.evidence.estimate`).
Requests that it would have sent elsewhere teach it what the lane that served them did, not what its own would have.
The load at each decision is not in a log: every request is decided on as if it came alone.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct, structs

from paceline.evidence.estimate import Estimate, Shares, estimate_shares
from paceline.evidence.policies import knowable, request_of
from paceline.evidence.same_settings import Group, fingerprint_of, groups
from paceline.evidence.usable import LoggedRequest, sample_of
from paceline.records.record import Record
from paceline.routing.router import Router
from paceline.settings import Configuration
from paceline.text_table import columns, shown_name, shown_number
from paceline.types import Lane, LaneState, engine_of

SEED = 0
"""The same log is always replayed the same way."""
MIN_SHOWN_SHARE = 0.005
"""A lane that fewer of the requests go down is not shown: it would read 0 %."""


class Replayed(LoggedRequest, frozen=True):
    """A request that estimates can use, and what would have been picked for it."""

    shares: Shares


class TaskReplay(Struct, frozen=True):
    """A task's requests of one model and its settings."""

    about: str
    """The model, and the lanes that were to choose from."""
    task: str
    requests: int
    before: Mapping[str, float]
    """Share of the requests by lane, as logged."""
    after: Mapping[str, float]
    """And as replayed."""
    ratio: float
    """Time over the one taken."""


class Replay(Struct, frozen=True):
    requests: int
    whole: Estimate
    tasks: Sequence[TaskReplay]


class CannotReplay(Exception):
    """``str()`` says why."""


def replay(
    records: Iterable[Record], configuration: Configuration, exploration: float, only: Sequence[str] = ()
) -> Replay:
    """
    Args:
        configuration: whose rules go first.
        only: lanes that it may use; empty: all of the log.

    Raises:
        CannotReplay: no request of the log can be used, or none knows a lane of ``only``.
    """
    everything = list(records)
    _check_lanes(everything, only)
    # 1. What would have been picked for each request? All teach, also those that no estimate can use.
    replaying = _Replaying(configuration, exploration, only)
    picks = [(record, replaying.shares(record)) for record in everything]
    # 2. Of which requests can the times be compared?
    requests = [
        Replayed(record=record, sample=sample, shares=shares)
        for record, shares in picks
        if shares and (sample := sample_of(record)) is not None
    ]
    if not requests:
        raise CannotReplay(f"none of the log's {len(everything)} requests had a choice that can be replayed")
    # 3. How long would they have taken, all in all and by task?
    tasks = [task for group in groups(requests, everything) for task in _tasks(group)]
    return Replay(requests=len(requests), whole=_estimate(requests), tasks=tasks)


def _check_lanes(records: Iterable[Record], only: Sequence[str]) -> None:
    logged = {lane for record in records for lane in record.decision.predictions}
    if missing := [lane for lane in only if lane not in logged]:
        there_are = ", ".join(sorted(logged)) or "none"
        raise CannotReplay(f"the log knows no lane {', '.join(missing)}; it has: {there_are}")


class _Replaying:
    """A router that sees the requests of a log, one after the other.

    Args:
        only: lanes that it may use; empty: all.
    """

    def __init__(self, configuration: Configuration, exploration: float, only: Sequence[str]) -> None:
        settings = structs.replace(configuration.routing, exploration=exploration)
        self._router = Router((), settings, rules=knowable(configuration), seed=SEED)
        self._only = only

    def shares(self, record: Record) -> Shares:
        """With which probability it picks which lane; empty where there is none. What was logged teaches it."""
        lanes = _lanes(record)
        allowed = [lane for lane in lanes if not self._only or lane.lane.name in self._only]
        if not allowed:
            return {}
        self._router.lanes = [lane.lane for lane in lanes]
        decision = self._router.choose(request_of(record), record.signals, allowed)
        taught = decision
        if len(allowed) < len(lanes):  # what those lanes did that it may not use teaches it, too
            taught = structs.replace(decision, predictions=self._router.predict(record.signals, lanes))
        self._router.observe(taught, record.outcome)
        return decision.propensities or {decision.lane: 1.0}


def _lanes(record: Record) -> list[LaneState]:
    """Those that a request had to choose from, idle and well."""
    return [
        LaneState(
            lane=Lane(name=name, engine=engine_of(name), strategy=prediction.strategy),
            fingerprint=fingerprint_of(record, name),
            model=prediction.model,
        )
        for name, prediction in record.decision.predictions.items()
    ]


def _estimate(requests: Sequence[Replayed]) -> Estimate:
    return estimate_shares([(request.sample, request.shares) for request in requests])


def _tasks(group: Group[Replayed]) -> list[TaskReplay]:
    """The task with the most requests first."""
    by_task: dict[str, list[Replayed]] = defaultdict(list)
    for request in group.requests:
        by_task[request.sample.task].append(request)
    past = "" if group.is_current else ", with earlier settings"
    about = f"{shown_name(group.model or 'requests')} on {', '.join(group.lanes)}{past}"
    tasks = [_task(about, task, requests) for task, requests in by_task.items()]
    return sorted(tasks, key=lambda task: -task.requests)


def _task(about: str, task: str, requests: Sequence[Replayed]) -> TaskReplay:
    before: dict[str, float] = defaultdict(float)
    after: dict[str, float] = defaultdict(float)
    for request in requests:
        before[request.sample.lane] += 1 / len(requests)
        for lane, share in request.shares.items():
            after[lane] += share / len(requests)
    ratio = _estimate(requests).ratio
    return TaskReplay(about=about, task=task, requests=len(requests), before=before, after=after, ratio=ratio)


def text(replayed: Replay) -> str:
    """For a terminal."""
    tables = []
    for about in dict.fromkeys(task.about for task in replayed.tasks):
        rows = [("task", "requests", "went to", "would go to", "time over before")]
        rows += [
            (
                task.task,
                shown_number(task.requests),
                _shares(task.before),
                _shares(task.after),
                shown_number(task.ratio, ".2f"),
            )
            for task in replayed.tasks
            if task.about == about
        ]
        tables.append(f"{about}:\n{columns(rows)}")
    whole = replayed.whole
    summary = (
        f"{replayed.requests} requests replayed: {whole.ratio:.2f} ({whole.low:.2f} to {whole.high:.2f}) of the time "
        f"that was taken; {whole.on_predictions:.0%} of this rests on predictions alone."
    )
    return "\n\n".join([*tables, summary])


def _shares(shares: Mapping[str, float]) -> str:
    most_first = sorted(shares.items(), key=lambda lane_and_share: -lane_and_share[1])
    return ", ".join(f"{lane} {share:.0%}" for lane, share in most_first if share >= MIN_SHOWN_SHARE)
