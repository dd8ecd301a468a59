"""What the gateway tells about itself: the documents behind ``/health``, ``/v1/models`` and ``/paceline/lanes``."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from msgspec import structs, to_builtins
from msgspec.structs import replace

from paceline import __version__
from paceline.decision.drafting import acceptance_of
from paceline.http.sums import GatewaySums, sharing_sums
from paceline.records.decision_log import DecisionLog, LogSums
from paceline.records.metrics import Sharing
from paceline.records.record import Record
from paceline.routing.placement import NoPlace
from paceline.routing.router import Router
from paceline.serving.errors import NotPlaced
from paceline.serving.fleet import Fleet
from paceline.serving.handles import LaneHandle
from paceline.serving.pipeline import Pipeline
from paceline.serving.speaking import spoken
from paceline.sharing import Sharer, State
from paceline.types import Decision, LaneState, Measured, Prediction, Request, Signals, engine_of


def health(fleet: Fleet) -> tuple[int, dict[str, Any]]:
    """200 while at least one lane serves, else 503."""
    lanes = {name: str(handle.engine.supervisor.health) for name, handle in fleet.lanes.items()}
    is_up = any(handle.is_up for handle in fleet.lanes.values())
    return (200 if is_up else 503), {"status": "ok" if is_up else "unavailable", "lanes": lanes}


def models(fleet: Fleet) -> dict[str, Any]:
    """All models that the lanes serve, each once."""
    entries: dict[str, Any] = {}
    for entry in fleet.models().values():
        entries.setdefault(str(entry.get("id")), entry)
    return {"object": "list", "data": list(entries.values())}


def model(fleet: Fleet, name: str) -> Any:
    """One entry of the list.

    Raises:
        UnknownModel: no lane serves it.
    """
    entries = fleet.models()
    if name not in entries:
        raise fleet.unknown_model(name)
    return entries[name]


def lanes(
    pipeline: Pipeline, log: DecisionLog | None, sharer: Sharer | None = None, others: Sequence[GatewaySums] = ()
) -> dict[str, Any]:
    """Every lane: what it is, how it is, and what was measured of it as it runs now; and the decision log. What nobody
    reported is ``null``.

    Args:
        others: sums of other processes of the same gateway, which are counted, too.
    """
    fleet = pipeline.fleet
    present = [handle.state(None) for handle in fleet.lanes.values()]
    return {
        "version": __version__,
        "default_lane": fleet.default.lane.name,
        "in_flight": pipeline.in_flight.requests + sum(other.in_flight for other in others),
        "routing_failures": _failures(pipeline, others),
        "log": {"path": str(log.path), **structs.asdict(_log_sums(log, others))} if log else None,
        "sharing": structs.asdict(_sharing(sharer, others)) if sharer else None,
        "power": _power(pipeline),
        "budgets": [
            {"key": budget.key, "per": budget.per, "spent": spent, "limit": budget.limit}
            for budget, spent in pipeline.router.placer.spending()
        ],
        "lanes": [
            _lane(handle, others) | _learned(handle, pipeline.router, present) for handle in fleet.lanes.values()
        ],
    }


def metrics(
    pipeline: Pipeline, log: DecisionLog | None, sharer: Sharer | None = None, others: Sequence[GatewaySums] = ()
) -> bytes:
    """The text of ``/metrics``.

    Args:
        others: as for :func:`lanes`.
    """
    lanes, engines = pipeline.fleet.lanes, pipeline.fleet.engines
    metrics = pipeline.metrics.plus(other.metrics for other in others)
    metrics.know_lanes({name: handle.lane.strategy.drafts for name, handle in lanes.items()})
    metrics.know_engines({name: engine.illness.is_ejected for name, engine in engines.items()})
    now = {name: (handle.is_up, *_under_way(handle, others)) for name, handle in lanes.items()}
    spending = [
        (budget.key or "", budget.per, spent, budget.limit) for budget, spent in pipeline.router.placer.spending()
    ]
    log_lost = _log_sums(log, others).lost if log else None
    sharing = None
    if sharer is not None:
        state = _sharing(sharer, others)
        refused = sum(state.refused.values())
        sharing = Sharing(state.problem is None, state.peers, state.told, state.learned, state.lost, refused)
    return metrics.text(now, _failures(pipeline, others), log_lost, spending, sharing)


async def explain(pipeline: Pipeline, request: Request) -> dict[str, Any]:
    """Signals and decision for a request, as it would be decided now; nothing is sent, counted, or drawn from the
    random numbers that requests are decided with.

    Raises:
        UnknownModel: no lane serves its model.
        CannotBeSaid: no engine that does can be asked it.
        NotPlaced: it may go to no engine.
    """
    how = await spoken(request, pipeline.fleet.find(request.model) or pipeline.fleet.for_unknown(request.model or ""))
    request = replace(request, served_model=how.served.name, forced_lane=None)
    try:
        decision = pipeline.router.explain(request, lanes=pipeline.fleet.states(how.served))
        return explanation(replace(decision, reason=decision.reason + how.note(engine_of(decision.lane))))
    except NoPlace as error:
        raise NotPlaced(str(error), error.filter_name) from error


def explanation(decision: Decision) -> dict[str, Any]:
    """As a document: the signals, the decision, and by lane what is expected."""
    signals = decision.signals or Signals()
    return {
        "signals": {"task": signals.task, **structs.asdict(signals)},
        "decision": {
            "lane": decision.lane,
            "reason": decision.reason,
            "propensity": decision.propensity,
            "alternatives": decision.alternatives,
            "control": None if decision.control is None else to_builtins(decision.control.drafters),
        },
        "placement": None
        if decision.placed is None
        else structs.asdict(decision.placed)
        | {"terms": {name: structs.asdict(terms) for name, terms in decision.placed.terms.items()}},
        "predictions": {name: _prediction(prediction) for name, prediction in decision.predictions.items()},
    }


def request(record: Record, document: dict[str, Any]) -> dict[str, Any]:
    """A request that has ended, as the list of requests has it, with all that was found, expected and decided."""
    signals = record.signals
    found = explanation(replace(record.decision, signals=signals))
    return document | found | {"forced": record.forced}


def _prediction(prediction: Prediction) -> dict[str, Any]:
    s_per_token = prediction.s_per_token
    return {
        "ms_per_token": None if s_per_token is None else 1000 * s_per_token,
        "plain_steps_per_token": prediction.relative,
        "relative_spread": prediction.spread,
        "request_spread": prediction.request_spread,
        "acceptance": prediction.acceptance,
        "coverage": prediction.coverage,
        "tokens": prediction.tokens,
        "prefill_s": prediction.prefill_s,
        "break_even": prediction.break_even,
    }


def _power(pipeline: Pipeline) -> dict[str, float] | None:
    """Watts of the machine while it works and while it does not, as its meters tell; ``null`` where they don't."""
    power = pipeline.router.placer.power_meter.power
    return None if power is None else {"busy_watts": power.busy, "idle_watts": power.idle}


def _failures(pipeline: Pipeline, others: Sequence[GatewaySums]) -> dict[str, int]:
    failures = Counter(pipeline.failures)
    for other in others:
        failures.update(other.failures)
    return dict(failures)


def _log_sums(log: DecisionLog, others: Sequence[GatewaySums]) -> LogSums:
    sums = log.sums()
    for other in others:
        sums = sums.plus(other.log)
    return sums


def _sharing(sharer: Sharer, others: Sequence[GatewaySums]) -> State:
    """How this process shares, and what all have counted."""
    state = sharer.state()
    sums = sharing_sums(state)
    for other in others:
        sums = sums.plus(other.sharing)
    return replace(state, **structs.asdict(sums))


def _under_way(handle: LaneHandle, others: Sequence[GatewaySums]) -> tuple[int, int]:
    """Requests that a lane decodes, and that wait for it."""
    elsewhere = [other.lanes.get(handle.lane.name, (0, 0)) for other in others]
    running, waiting = (sum(numbers) for numbers in zip((handle.running, handle.waiting), *elsewhere, strict=True))
    return running, waiting


def _lane(handle: LaneHandle, others: Sequence[GatewaySums]) -> dict[str, Any]:
    running, waiting = _under_way(handle, others)
    engine, supervisor = handle.engine, handle.engine.supervisor
    facts, illness = supervisor.facts, engine.illness
    return {
        "lane": handle.lane.name,
        "engine": {
            "name": supervisor.name,
            "kind": engine.settings.kind,
            "url": supervisor.url,
            "pid": supervisor.pid,
            "build": facts.build if facts else None,
            "models": list(facts.models) if facts else None,
            "context_tokens": facts.context_tokens if facts else None,
            "slots": facts.slots if facts else None,
            "slot_tokens": facts.slot_tokens if facts else (),
            "drafters": [structs.asdict(drafter) for drafter in supervisor.abilities.drafters],
            "restarts": supervisor.restarts,
            "warnings": supervisor.warnings,
        },
        "strategy": structs.asdict(handle.lane.strategy) | {"drafts": handle.lane.strategy.drafts},
        "device": handle.lane.device,
        "health": supervisor.health,
        "problem": supervisor.problem or _left_out(handle),
        "ejected": illness.problem,
        "running": running,
        "waiting": waiting,
    }


def _left_out(handle: LaneHandle) -> str | None:
    """Why a lane is not used although its engine is up; ``None`` where it is."""
    if handle.engine.limits.is_reached:
        return handle.problem
    illness = handle.engine.illness
    return f"left out for a while: {illness.problem}" if illness.is_ejected else None


def _learned(handle: LaneHandle, router: Router, present: Sequence[LaneState]) -> dict[str, Any]:
    """What was learned of a lane. Of an engine that serves several models it is told model by model, those that have
    served; the whole then has counts alone, since speeds and shares over different models are nobody's."""
    names: list[str | None] = list(dict.fromkeys(str(entry.get("id")) for entry in handle.engine.models.values()))
    sums = {name: router.measured(handle.state(name)) for name in names}
    used = {name: measured for name, measured in sums.items() if measured is not None and measured.requests}
    shown = used or {name: Measured() for name in names[:1] or [None]}
    by_model: list[dict[str, Any]] = []
    for name, measured in shown.items():
        (prediction,) = router.predict(Signals(), [handle.state(name)], present).values()
        faults = router.faults(handle.state(name))
        step = _step(handle, prediction)
        by_model.append({"model": name, "measured": _measured(measured), "step": step, "faults": faults})
    if len(by_model) == 1:
        return by_model[0] | {"by_model": by_model}
    counts = Measured(
        requests=sum(measured.requests for measured in used.values()),
        failures=sum(measured.failures for measured in used.values()),
    )
    return {
        "model": None,
        "measured": _measured(counts),
        "step": dict.fromkeys(by_model[0]["step"]),  # all null
        "faults": list(dict.fromkeys(fault for each in by_model for fault in each["faults"])),
        "by_model": by_model,
    }


def _step(handle: LaneHandle, prediction: Prediction) -> dict[str, Any]:
    """What is believed of the lane's steps for a short prompt: ``null`` before anything was measured, and of drafts for
    lanes that make none, or whose drafts can't gain."""
    break_even, n_max = prediction.break_even, handle.lane.strategy.n_max
    gains = break_even is not None and n_max is not None and break_even <= n_max + 1
    return {
        "plain_ms": None if prediction.plain_step_s is None else 1000 * prediction.plain_step_s,
        "drafting_cost_in_plain_steps": break_even,
        "break_even_acceptance": acceptance_of(break_even - 1, n_max) if gains and break_even and n_max else None,
    }


def _measured(sums: Measured) -> dict[str, Any]:
    """The sums and what follows from them; ``null`` where no answer reported the number."""
    document: dict[str, Any] = {"requests": sums.requests, "failures": sums.failures}
    for name in ("prefill_tokens", "prefill_s", "decode_tokens", "decode_s", "drafted", "accepted"):
        reported = sums.drafted if name == "accepted" else getattr(sums, name)
        document[name] = getattr(sums, name) if reported else None
    return document | {"tokens_per_s": sums.tokens_per_s, "acceptance": sums.acceptance}
