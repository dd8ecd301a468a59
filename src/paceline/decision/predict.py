"""Signals and lanes -> what each lane will take, with its uncertainty."""

from collections.abc import Iterator, Sequence
from math import exp, sqrt

from msgspec import Struct

from paceline.decision import best_of_parts
from paceline.decision.alike import apart
from paceline.decision.answers import answer_tokens, drafted_per_step, prefill_s_per_token
from paceline.decision.best_of_parts import Parts
from paceline.decision.control import control_of
from paceline.decision.drafting import acceptance_of
from paceline.decision.feeling import LaneId
from paceline.decision.knowledge import Knowledge, id_of
from paceline.decision.load import Load
from paceline.decision.shapes import draft_length, may_look_up
from paceline.decision.time_model import Expected, TimeModel
from paceline.decision.tuning import CHARS_PER_TOKEN
from paceline.types import DraftControl, LaneState, Prediction, Signals


class Foreseen(Struct, frozen=True):
    """All that is expected of the lanes of one choice; items are in the order of the lanes."""

    knowledge: Knowledge
    model: TimeModel
    ids: list[LaneId]
    expected: Expected
    apart: frozenset[int]
    """Numbers of the lanes that would split the batch that the request joins (``alike.py``)."""
    predictions: dict[str, Prediction]
    """By lane."""
    parts: Parts | None
    """What they are made of, where some of them are controlled."""

    def control(self, number: int, signals: Signals) -> DraftControl | None:
        """What the control of the lane with this number starts from; ``None`` where it has none."""
        lane = self.ids[number]
        if self.parts is None or not lane.strategy.among:
            return None
        with self.knowledge.lock:
            return control_of(self.model, lane, self.parts, self.parts.wide.places[number], signals)


def predict(
    signals: Signals, lanes: Sequence[LaneState], knowledge: Knowledge, load: Load | None = None
) -> dict[str, Prediction]:
    """What to expect of each lane, by its name.

    Args:
        load: of the devices; by default, that of ``lanes``.
    """
    return foresee(signals, lanes, knowledge, load or Load(lanes)).predictions if lanes else {}


def foresee(signals: Signals, lanes: Sequence[LaneState], knowledge: Knowledge, load: Load) -> Foreseen:
    """
    Args:
        lanes: at least one.
    """
    ids = [id_of(state) for state in lanes]
    starts = [load.concurrent(state) for state in lanes]
    with knowledge.lock:
        model = knowledge.model_of(ids)
        known: dict[tuple[str, int], float] = {}
        for lane, start in zip(ids, starts, strict=True):
            if (lane.model, start) not in known:
                forecast = knowledge.forecasts.get(lane.model)
                known[lane.model, start] = forecast.of(start) if forecast else float(start)
        beside = [known[lane.model, start] for lane, start in zip(ids, starts, strict=True)]
        expected, parts = best_of_parts.foreseen(model, ids, signals, beside)
        # The answer is the same whichever lane makes it; so the first one's model stands for all.
        tokens = answer_tokens(knowledge.means, ids[0].model, signals)
        prefills = _prefills(knowledge, ids, signals)
        split = apart(model, lanes, ids, beside)
        drafted = [_drafted_per_step(knowledge, lane, others) for lane, others in zip(ids, beside, strict=True)]
    predictions = _predictions(ids, expected, tokens, prefills, starts, drafted)
    by_name = {state.lane.name: prediction for state, prediction in zip(lanes, predictions, strict=True)}
    return Foreseen(knowledge, model, ids, expected, split, by_name, parts)


def _predictions(
    ids: Sequence[LaneId],
    expected: Expected,
    tokens: float,
    prefills: Sequence[float],
    starts: Sequence[int],
    drafted: Sequence[float | None],
) -> Iterator[Prediction]:
    """One for each lane."""
    plain_costs = _plain_costs(ids, expected)
    for number, lane in enumerate(ids):
        shape, cost, length = expected.shapes[number], expected.cost[number], expected.length[number]
        time, machine, variance = expected.times[number], expected.machine[number], expected.variances[number]
        break_even: float | None = None
        acceptance: float | None = None
        coverage: float | None = None
        if shape.drafts and not lane.strategy.among:
            break_even, acceptance_length, coverage = exp(cost - plain_costs[number]), exp(length), 1.0
            if shape.looks_up:  # these are over all steps, of which few verify a draft
                share = max(expected.rates[number], min(1.0, (acceptance_length - 1) / shape.drafted))
                break_even = max(0.0, 1 + (break_even - 1) / share)
                yielded, acceptance_length = acceptance_length, max(1.0, 1 + (acceptance_length - 1) / share)
                coverage = min(1.0, share * acceptance_length / yielded)
            acceptance = acceptance_of(acceptance_length - 1, shape.drafted)
        yield Prediction(
            fingerprint=lane.fingerprint,
            model=lane.model,
            strategy=lane.strategy,
            drafted_token_cost=lane.drafted_token_cost,
            machine=lane.machine,
            plain_steps_per_token=exp(cost - length),
            correction=exp(time - machine - cost + length),
            spread=sqrt(variance) if variance > 0 else 0.0,
            request_spread=sqrt(expected.spreads[number]),
            plain_step_s=exp(machine) if expected.is_measured else None,
            acceptance=acceptance,
            coverage=coverage,
            tokens=tokens,
            prefill_s=prefills[number],
            break_even=break_even,
            concurrent=starts[number],
            drafted_per_step=drafted[number],
        )


def _drafted_per_step(knowledge: Knowledge, lane: LaneId, beside: float) -> float | None:
    """Of a head at a fixed length, that; where an engine decides, what it was lately with so many beside. Lookups are
    not told: in most steps they find nothing."""
    strategy = lane.strategy
    if not strategy.drafts:
        return 0.0
    if may_look_up(strategy):
        return None
    if strategy.among:
        return drafted_per_step(knowledge.means, lane.fingerprint, strategy, beside)
    return float(draft_length(strategy))


def _plain_costs(ids: Sequence[LaneId], expected: Expected) -> list[float]:
    """For each lane, the logarithm of a step's cost without drafts: on its engine, or else on one with the same model
    and device."""
    plain: dict[str, float] = {}
    for lane, cost in zip(ids, expected.cost, strict=True):
        if not lane.strategy.drafts:
            plain.setdefault(lane.model, cost)
            plain[lane.fingerprint] = cost
    return [plain.get(lane.fingerprint, plain.get(lane.model, 0.0)) for lane in ids]


def _prefills(knowledge: Knowledge, ids: Sequence[LaneId], signals: Signals) -> list[float]:
    """For each lane, seconds until the first token: for the part of the prompt that the engine's cache is not taken to
    hold."""
    taken: dict[tuple[str, str], float] = {}
    for lane in ids:
        engine = lane.machine or lane.fingerprint
        if (lane.model, engine) in taken:
            continue
        chars = signals.prompt_chars
        if signals.turns > 1 and (turn := knowledge.served.get((signals.conversation, engine))):
            chars = max(0, chars - turn.chars)
        s_per_token = prefill_s_per_token(knowledge.means, lane.model)
        taken[lane.model, engine] = chars / CHARS_PER_TOKEN * s_per_token
    return [taken[lane.model, lane.machine or lane.fingerprint] for lane in ids]
