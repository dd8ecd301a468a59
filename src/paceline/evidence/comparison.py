"""What routing brought on requests that had the same lanes to choose from, against every fixed setting."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median

from msgspec import Struct

from paceline.evidence.calibration import Calibration, calibration
from paceline.evidence.estimate import Estimate, Logged, always, estimate
from paceline.evidence.policies import best_of_each_task, by_rules
from paceline.evidence.same_settings import Group
from paceline.evidence.usable import Entry, drafts
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


def compare(group: Group, configuration: Configuration | None = None) -> Comparison:
    """
    Args:
        group: of at least one request.
        configuration: whose rules are a policy to compare with.
    """
    pairs = group.pairs
    used = [one for _, one in pairs]
    latest = pairs[-1][0]["predictions"]
    fixed = {lane: estimate(used, always(lane)) for lane in latest}
    fixed = dict(sorted(fixed.items(), key=lambda item: item[1].ratio))
    plain = [lane for lane in fixed if not drafts(latest[lane])]
    drafting = [lane for lane in fixed if drafts(latest[lane])]
    return Comparison(
        group.model,
        group.is_current,
        pairs[-1][0]["at_s"],
        len(used),
        sum(one.seconds for one in used),
        sum(one.tokens for one in used),
        fixed,
        list(latest),
        plain[0] if plain else None,
        max(drafting, key=lambda lane: latest[lane]["n_max"] or 0) if drafting else None,
        estimate(used, by_rules(configuration)) if configuration and configuration.rule else None,
        estimate(used, best_of_each_task(used, next(iter(fixed)))),
        _tasks(pairs),
        calibration(pairs),
        sum(entry["exploring_s"] or 0.0 for entry, _ in pairs),
    )


def _tasks(pairs: Sequence[tuple[Entry, Logged]]) -> list[TaskReport]:
    by_task: dict[str, list[tuple[Entry, Logged]]] = defaultdict(list)
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
                _break_even(some),
                sum(drafts(entry["predictions"][one.lane]) for entry, one in some) / len(some),
                sum(plain for plain, _ in gains) / sum(taken for _, taken in gains) if gains else None,
            )
        )
    return sorted(found, key=lambda one: -one.share)


def _break_even(pairs: Sequence[tuple[Entry, Logged]]) -> float | None:
    """Of the requests that drafted: tokens that a drafting step must bring beyond one, per drafted token."""
    needed = [
        (predicted - 1) * steps / drafted
        for entry, one in pairs
        if (drafted := entry["drafted"]) and (steps := entry["drafting_steps"])
        if (predicted := entry["predictions"][one.lane]["break_even"]) is not None
    ]
    return median(needed) if needed else None


def _gain(entry: Entry, one: Logged) -> tuple[float, float] | None:
    """Predicted seconds on a plain lane and on the one taken."""
    plain = [name for name, prediction in entry["predictions"].items() if not drafts(prediction)]
    return (one.tokens * one.predicted[plain[0]], one.tokens * one.predicted[one.lane]) if plain else None
