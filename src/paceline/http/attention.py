"""What a person has to look after, the worst first, with what to do about it."""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

from msgspec import Struct, to_builtins

from paceline.processes import Health
from paceline.records.history import Sums
from paceline.serving.handles import EngineHandle, LaneHandle
from paceline.serving.pipeline import Pipeline

LOOKED_BACK_S = 300.0
"""For requests that failed."""
MIN_FAILED, MANY_FAILED = 3, 0.05
"""Requests of that time that must have failed, and the share of all, before it is said."""
NEARLY_SPENT = 0.8
"""Share of a budget."""
MANY_RESTARTS = 3
"""Of an engine since the gateway started."""


class Severity(StrEnum):
    """How much it hurts."""

    CRITICAL = "critical"
    """Requests fail."""
    WARNING = "warning"
    """Something does not work, and requests are served without it."""


class Need(Struct, frozen=True):
    """One thing to look after."""

    severity: Severity
    about: str
    """The engine, lane or part."""
    problem: str
    """What is wrong, in a sentence."""
    action: str
    """What to do, in a sentence."""


def needs(pipeline: Pipeline, document: Mapping[str, Any], lately: Sums) -> list[dict[str, Any]]:
    """All that there is at the moment; empty where nothing needs anybody.

    Args:
        document: of the lanes, which tells of all processes of the gateway.
        lately: the requests of the last :data:`LOOKED_BACK_S`.
    """
    found = [*_engines(pipeline), *_requests(lately), *_drafters(pipeline), *_budgets(pipeline)]
    found += _parts(document["routing_failures"])
    if document["log"]:
        found += _log(document["log"])
    if document["sharing"]:
        found += _sharing(document["sharing"])
    return [to_builtins(need) for need in sorted(found, key=lambda need: need.severity is not Severity.CRITICAL)]


def _engines(pipeline: Pipeline) -> Iterator[Need]:
    fleet = pipeline.fleet
    engines = list(fleet.engines.values())
    serving = [engine for engine in engines if engine.is_well and not engine.limits.is_reached]
    starting = [engine for engine in engines if engine.supervisor.health is Health.STARTING]
    if not serving and not starting:
        yield Need(
            Severity.CRITICAL,
            "gateway",
            "No engine serves, so every request is refused.",
            "Mend one of the engines below; the gateway takes it up by itself.",
        )
    for engine in engines:
        yield from _engine(engine, is_alone=engine is fleet.default.engine and len(engines) == 1)


def _engine(engine: EngineHandle, is_alone: bool) -> Iterator[Need]:
    supervisor = engine.supervisor
    problem = supervisor.problem or "it does not answer"
    if supervisor.health is Health.FAILED:
        yield Need(
            Severity.CRITICAL if is_alone else Severity.WARNING,
            engine.name,
            f"It can't be started: {problem}.",
            f"Look at {engine.name}.log and the engine's table in the configuration, then run `paceline reload`.",
        )
    elif supervisor.health is Health.DOWN:
        is_own = engine.settings.url is None
        yield Need(
            Severity.CRITICAL if is_alone else Severity.WARNING,
            engine.name,
            f"It is down: {problem}.",
            f"It is being started again; {engine.name}.log says why it ended."
            if is_own
            else f"Start what should listen at {supervisor.url}; it is taken up as soon as it answers.",
        )
    elif engine.illness.is_ejected:
        yield Need(
            Severity.WARNING,
            engine.name,
            f"It is left out for a while, since it kept failing: {engine.illness.problem}.",
            "Nothing, if it gets well by itself: it is tried again soon. Its own log says why it failed.",
        )
    elif engine.limits.is_reached:
        yield Need(
            Severity.WARNING,
            engine.name,
            f"The provider takes no more for {engine.limits.left_s():.0f} s: {engine.limits.problem}.",
            "Wait, or have the provider raise the limit.",
        )
    if supervisor.restarts >= MANY_RESTARTS:
        yield Need(
            Severity.WARNING,
            engine.name,
            f"It was started again {supervisor.restarts} times.",
            f"Read the end of {engine.name}.log; engines that run out of memory end like this.",
        )
    for warning in supervisor.warnings:
        yield Need(Severity.WARNING, engine.name, warning, "Run `paceline check` for the key that is meant.")


def _requests(lately: Sums) -> Iterator[Need]:
    if lately.failed >= MIN_FAILED and lately.failed > MANY_FAILED * lately.requests:
        yield Need(
            Severity.CRITICAL,
            "requests",
            f"{lately.failed} of the {lately.requests} requests of the last five minutes failed.",
            "Show the failed ones in the list of requests: each says what went wrong.",
        )


def _drafters(pipeline: Pipeline) -> Iterator[Need]:
    found: dict[tuple[str, str], LaneHandle] = {}
    for handle in pipeline.fleet.lanes.values():
        names: set[str | None] = {str(entry.get("id")) for entry in handle.engine.models.values()}
        for name in names or {None}:
            for fault in pipeline.router.faults(handle.state(name)):
                found.setdefault((handle.engine.name, fault), handle)
    for engine, fault in found:
        what, _, causes = fault.partition(": ")
        yield Need(Severity.WARNING, engine, f"{what[0].upper()}{what[1:]}.", f"Known causes: {causes}.")


def _budgets(pipeline: Pipeline) -> Iterator[Need]:
    for budget, spent in pipeline.router.placer.spending():
        name = f"budget of this {budget.per}" + (f" for {budget.key}" if budget.key else "")
        if spent >= budget.limit:
            yield Need(
                Severity.WARNING,
                name,
                "It is spent: nothing more goes to providers on it.",
                f"Raise its limit of {budget.limit:g} in [[budget]], or wait for the next {budget.per}.",
            )
        elif spent >= NEARLY_SPENT * budget.limit:
            yield Need(
                Severity.WARNING, name, f"{spent / budget.limit:.0%} of it is spent.", "Raise it, or let it run out."
            )


def _parts(failures: Mapping[str, int]) -> Iterator[Need]:
    for part, count in failures.items():
        yield Need(
            Severity.WARNING,
            part,
            f"It failed for {count} request{'s' * (count != 1)}, which were served without it.",
            "The gateway's own output has the error: please report it.",
        )


def _log(log: Mapping[str, Any]) -> Iterator[Need]:
    if log["problem"]:
        yield Need(
            Severity.WARNING,
            "decision log",
            f"It can't be written: {log['problem']}. Lost are {log['lost']} entries.",
            f"Make room, or mend the permissions of {log['path']}; requests are served meanwhile.",
        )


def _sharing(sharing: Mapping[str, Any]) -> Iterator[Need]:
    if sharing["problem"]:
        yield Need(
            Severity.WARNING,
            "sharing",
            f"What is learned is not shared for now: {sharing['problem']}.",
            "Look whether the store runs and can be reached ([sharing]); what is learned meanwhile is told later.",
        )
