"""What routing brought on requests that had the same lanes to choose from, against every fixed setting."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median

from msgspec import Struct

from paceline.decision.faults import drafts_of, fault
from paceline.evidence.calibration import Calibration, calibration
from paceline.evidence.estimate import Estimate, always, estimate, estimate_shares
from paceline.evidence.policies import best_of_each_task, by_rules
from paceline.evidence.same_settings import Group
from paceline.evidence.usable import LoggedRequest
from paceline.settings import Configuration

ALIKE = 0.05
"""A difference in time, as a share, that nobody would notice."""
MAX_TIMES_AS_MANY = 20.0
"""A difference that needs more requests than so many times those of the log is not foretold: until then most of what
the error rests on, the traffic and the engines, has changed."""


class TaskReport(Struct, frozen=True):
    task: str
    requests: int
    share: float
    """Of the decode time."""
    tokens_per_s: float
    acceptance: float | None
    """Accepted per drafted token; ``None`` where nothing was drafted."""
    break_even: float | None
    """The same from which drafts as long as these pay, as predicted; above 1 none do."""
    drafting: float
    """Share of the requests that went down a drafting lane."""
    speed_up: float | None
    """Over plain by the predictions; ``None`` where no plain lane is known."""


class Comparison(Struct, frozen=True):
    model: str | None
    """That all of them are for; ``None`` where no request named one."""
    is_current: bool
    """Whether none of the lanes was seen with other settings later."""
    until_s: float
    """When the last of them ended, in seconds since 1970."""
    requests: int
    seconds: float
    """Of decoding."""
    tokens: int
    fixed: Mapping[str, Estimate]
    """By lane: what always taking it would have made of them; in the order of the ratios."""
    lanes: Sequence[str]
    """The same in the order of the configuration."""
    plain: str | None
    """The lane of ``fixed`` that drafts nothing."""
    on: str | None
    """The one with the longest drafts: what an engine does that is started with drafting on."""
    rules: Estimate | None
    """What the configuration's rules alone would have made of them."""
    hindsight: Estimate
    """What the best lane of each task would have."""
    tasks: Sequence[TaskReport]
    calibration: Calibration
    exploring_s: float
    """Predicted cost of the choices that were not predicted to be the fastest."""
    faults: Sequence[str]
    """What seems to be wrong with drafters, and what to do, in a line each."""

    @property
    def best(self) -> tuple[str, Estimate]:
        """The fixed lane that would have been fastest."""
        return next(iter(self.fixed.items()))

    @property
    def pays(self) -> bool | None:
        """Whether routing is faster than the best fixed lane, beyond doubt; ``None`` where it can't be told."""
        ratio = self.best[1]
        return True if ratio.low > 1 else False if ratio.high < 1 else None

    @property
    def is_alike(self) -> bool:
        """Whether routing and the best fixed lane differ by little, beyond doubt."""
        ratio = self.best[1]
        return ratio.low > 1 - ALIKE and ratio.high < 1 + ALIKE

    @property
    def more_needed(self) -> int | None:
        """So many more requests like these would tell whether routing pays, if the difference stays what it seems;
        ``None`` where no number would, or so many that the difference may as well be none."""
        ratio = self.best[1]
        half, effect = ratio.high - ratio.ratio, abs(ratio.ratio - 1)
        beyond = effect * effect - ratio.lasting * ratio.lasting
        if beyond <= 0:
            return None
        times = (half * half - ratio.lasting * ratio.lasting) / beyond  # what requests add to the error adds as squares
        return round(self.requests * (times - 1)) if 1 < times <= MAX_TIMES_AS_MANY else None

    @property
    def regret_s(self) -> float:
        """Seconds beyond those of the best lane of each task."""
        return self.seconds * (1 - self.hindsight.ratio)


def compare(group: Group[LoggedRequest], configuration: Configuration | None = None) -> Comparison:
    """
    Args:
        group: of at least one request.
        configuration: whose rules are a policy to compare with.
    """
    requests = group.requests
    samples = [request.sample for request in requests]
    latest = requests[-1].record
    strategies = {lane: prediction.strategy for lane, prediction in latest.decision.predictions.items()}
    fixed = {lane: estimate(samples, always(lane)) for lane in strategies}
    fixed = dict(sorted(fixed.items(), key=lambda lane_and_estimate: lane_and_estimate[1].ratio))
    drafting = [lane for lane in fixed if strategies[lane].drafts]
    return Comparison(
        model=group.model,
        is_current=group.is_current,
        until_s=latest.outcome.at_s,
        requests=len(samples),
        seconds=sum(sample.seconds for sample in samples),
        tokens=sum(sample.tokens for sample in samples),
        fixed=fixed,
        lanes=list(strategies),
        plain=next((lane for lane in fixed if not strategies[lane].drafts), None),
        on=max(drafting, key=lambda lane: strategies[lane].n_max or 0, default=None),
        rules=_by_rules(requests, configuration) if configuration and configuration.rule else None,
        hindsight=estimate(samples, best_of_each_task(samples, next(iter(fixed)))),
        tasks=_tasks(requests),
        calibration=calibration(requests),
        exploring_s=sum(request.record.decision.exploring_s for request in requests),
        faults=_faults(requests),
    )


def _faults(requests: Sequence[LoggedRequest]) -> list[str]:
    sums: dict[str, tuple[int, int]] = {}
    for request in requests:
        for kind, drafted, accepted in drafts_of(request.record.outcome.observed, request.prediction.strategy):
            before = sums.get(kind, (0, 0))
            sums[kind] = before[0] + drafted, before[1] + accepted
    return [line for kind, (drafted, accepted) in sums.items() if (line := fault(kind, drafted, accepted))]


def _by_rules(requests: Sequence[LoggedRequest], configuration: Configuration) -> Estimate:
    shares = by_rules(configuration)
    return estimate_shares([(request.sample, shares(request.record)) for request in requests])


def _tasks(requests: Sequence[LoggedRequest]) -> list[TaskReport]:
    """The task that took the most time first."""
    by_task: dict[str, list[LoggedRequest]] = defaultdict(list)
    for request in requests:
        by_task[request.sample.task].append(request)
    whole_s = sum(request.sample.seconds for request in requests)
    reports = [_task(task, alike, whole_s) for task, alike in by_task.items()]
    return sorted(reports, key=lambda report: -report.share)


def _task(task: str, requests: Sequence[LoggedRequest], whole_s: float) -> TaskReport:
    observed = [request.record.outcome.observed for request in requests]
    drafted = sum(observation.drafted or 0 for observation in observed)
    accepted = sum(observation.accepted or 0 for observation in observed)
    seconds = sum(request.sample.seconds for request in requests)
    tokens = sum(request.sample.tokens for request in requests)
    gains = [gain for request in requests if (gain := _gain(request)) is not None]
    return TaskReport(
        task=task,
        requests=len(requests),
        share=seconds / whole_s,
        tokens_per_s=tokens / seconds,
        acceptance=accepted / drafted if drafted else None,
        break_even=_break_even(requests),
        drafting=sum(request.prediction.strategy.drafts for request in requests) / len(requests),
        speed_up=sum(plain_s for plain_s, _ in gains) / sum(taken_s for _, taken_s in gains) if gains else None,
    )


def _break_even(requests: Sequence[LoggedRequest]) -> float | None:
    """Of the requests that drafted: tokens that a verification step must bring beyond one, per drafted token."""
    shares = [
        (break_even - 1) * observed.drafting_steps / observed.drafted
        for request in requests
        if (observed := request.record.outcome.observed).drafted and observed.drafting_steps
        if (break_even := request.prediction.break_even) is not None
    ]
    return median(shares) if shares else None


def _gain(request: LoggedRequest) -> tuple[float, float] | None:
    """Predicted seconds on a plain lane and on the one taken."""
    predictions, sample = request.record.decision.predictions, request.sample
    plain = next((lane for lane, prediction in predictions.items() if not prediction.strategy.drafts), None)
    if plain is None:
        return None
    return sample.tokens * sample.predicted[plain], sample.tokens * sample.predicted[sample.lane]
