"""Another way to route, run over the traffic of a log.

It sees the requests in their order and learns from the outcomes that were logged, as the gateway did; what it would
have picked, and with which probability, is then compared with what was picked (:mod:`paceline.evidence.estimate`).
Requests that it would have sent elsewhere teach it what the lane that served them did, not what its own would have.
The load at each decision is not in a log: every request is decided on as if it came alone.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from random import Random

import msgspec
from msgspec import Struct, structs

from paceline.configuration import Configuration
from paceline.decision import State, decide, learn, predict
from paceline.evidence.estimate import Estimate, Logged, estimate
from paceline.evidence.policies import ruled
from paceline.evidence.same_settings import Group, fingerprint_of, groups
from paceline.evidence.usable import Entry, usable
from paceline.text_table import columns, shown_name
from paceline.types import Decision, Lane, LaneState, Observation, Outcome, Signals, Strategy


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
    entries: Iterable[Entry], configuration: Configuration, exploration: float, only: Sequence[str] = ()
) -> Replay:
    """
    Args:
        configuration: whose rules go first.
        only: lanes that it may use; empty: all of the log.

    Raises:
        CannotReplay: no request of the log can be used, or none knows a lane of ``only``.
    """
    everything = list(entries)
    known = {lane for entry in everything for lane in entry["predictions"]}
    if missing := [lane for lane in only if lane not in known]:
        raise CannotReplay(f"the log knows no lane {', '.join(missing)}; it has: {', '.join(sorted(known)) or 'none'}")
    state, rng = State(), Random(0)
    picks: dict[int, Mapping[str, float]] = {}
    for entry in everything:
        if not entry["predictions"]:
            continue
        signals = msgspec.convert(entry["signals"] | {"conversation": entry["conversation"]}, Signals)
        lanes = _lanes(entry)
        allowed = [one for one in lanes if not only or one.lane.name in only]
        if allowed:
            decision = _decide(entry, signals, allowed, configuration, state, rng, exploration)
            picks[entry["number"]] = decision.propensities or {decision.lane: 1.0}
            if len(allowed) < len(lanes):
                decision = structs.replace(decision, predictions=predict(signals, lanes, state))
            state = learn(state, signals, decision, _outcome(entry))
    pairs = [(entry, one) for entry, one in usable(everything) if entry["number"] in picks]
    if not pairs:
        raise CannotReplay(f"none of the log's {len(everything)} requests had a choice that can be replayed")
    tasks = [task for group in groups(pairs, everything) for task in _tasks(group, picks)]
    return Replay(len(pairs), _estimate(pairs, picks), tasks)


def _decide(
    entry: Entry,
    signals: Signals,
    lanes: Sequence[LaneState],
    configuration: Configuration,
    state: State,
    rng: Random,
    exploration: float,
) -> Decision:
    wanted = ruled(configuration, entry["task"], entry["model"])
    own = [one for one in lanes if wanted in (one.lane.name, one.lane.engine)]
    return decide(signals, own or lanes, state, rng, exploration)


def _lanes(entry: Entry) -> list[LaneState]:
    found = []
    for name, one in entry["predictions"].items():
        engine = name.split("/")[0]
        lane = Lane(name, engine, Strategy(one["strategy"], one["n_max"]))
        found.append(LaneState(lane, fingerprint=fingerprint_of(name, one), model=one.get("model", "")))
    return found


def _outcome(entry: Entry) -> Outcome:
    observed = Observation(**{name: entry[name] for name in Observation.__struct_fields__})
    return Outcome(
        entry["lane"],
        entry["status"],
        entry["total_s"],
        observed=observed,
        concurrent=entry["beside"],
        at_s=entry["at_s"],
        error=entry["error"],
    )


def _estimate(pairs: Sequence[tuple[Entry, Logged]], picks: Mapping[int, Mapping[str, float]]) -> Estimate:
    shares = iter([picks[entry["number"]] for entry, _ in pairs])
    return estimate([one for _, one in pairs], lambda _: next(shares))


def _tasks(group: Group, picks: Mapping[int, Mapping[str, float]]) -> list[TaskReplay]:
    by_task: dict[str, list[tuple[Entry, Logged]]] = defaultdict(list)
    for entry, one in group.pairs:
        by_task[one.task].append((entry, one))
    lanes = ", ".join(group.pairs[-1][0]["predictions"])
    past = "" if group.is_current else ", with earlier settings"
    about = f"{shown_name(group.model or 'requests')} on {lanes}{past}"
    return [_task(about, task, some, picks) for task, some in sorted(by_task.items(), key=lambda item: -len(item[1]))]


def _task(
    about: str, task: str, pairs: Sequence[tuple[Entry, Logged]], picks: Mapping[int, Mapping[str, float]]
) -> TaskReplay:
    before: dict[str, float] = defaultdict(float)
    after: dict[str, float] = defaultdict(float)
    for entry, one in pairs:
        before[one.lane] += 1 / len(pairs)
        for lane, share in picks[entry["number"]].items():
            after[lane] += share / len(pairs)
    return TaskReplay(about, task, len(pairs), before, after, _estimate(pairs, picks).ratio)


def text(found: Replay) -> str:
    """For a terminal."""
    tables = []
    for about in dict.fromkeys(one.about for one in found.tasks):
        rows = [("task", "requests", "went to", "would go to", "time over before")]
        rows += [
            (one.task, str(one.requests), _shares(one.before), _shares(one.after), f"{one.ratio:.2f}")
            for one in found.tasks
            if one.about == about
        ]
        tables.append(f"{about}:\n{columns(rows)}")
    whole = found.whole
    last = (
        f"{found.requests} requests replayed: {whole.ratio:.2f} ({whole.low:.2f} to {whole.high:.2f}) of the time that "
        f"was taken; {whole.on_predictions:.0%} of this rests on predictions alone."
    )
    return "\n\n".join([*tables, last])


def _shares(shares: Mapping[str, float]) -> str:
    most = sorted(shares.items(), key=lambda item: -item[1])
    return ", ".join(f"{lane} {share:.0%}" for lane, share in most if share >= 0.005)
