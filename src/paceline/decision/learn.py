"""Outcomes -> better knowledge."""

from math import isfinite

from msgspec.structs import replace

from paceline.decision.answers import answer_keys, drafted_key, prefill_key
from paceline.decision.best_of_parts import foreseen
from paceline.decision.faults import drafts_of
from paceline.decision.feeling import LaneId
from paceline.decision.knowledge import Knowledge, Served, Totals
from paceline.decision.load import Forecast
from paceline.decision.reports import Decoding, decoding, is_decoding, is_sane
from paceline.decision.shapes import may_look_up
from paceline.decision.time_model import Counts, TimeModel, Told
from paceline.decision.tuning import MAX_ANSWER_TOKENS, MIN_PROMPT_TOKENS
from paceline.types import Decision, Measured, Outcome, Prediction, Signals, engine_of


def learn(knowledge: Knowledge, signals: Signals, decision: Decision, outcome: Outcome) -> None:
    """Take in one more outcome. It counts for the lane that served it, which after a failed connection is not the lane
    that was decided on, and for the fingerprint that it had then; an answer that failed adds nothing but a failure, a
    request that was refused before a decision nothing at all."""
    if not outcome.lane:
        return
    with knowledge.lock:
        knowledge.learned += 1
        # 1. Which lane it teaches about: not where what served is no longer what was predicted for.
        prediction = decision.predictions.get(outcome.lane)
        if prediction and outcome.fingerprint not in ("", prediction.fingerprint):
            prediction = None
        _sum_up(knowledge, prediction, outcome)
        if prediction is None or not outcome.is_whole or not isfinite(outcome.at_s):
            return

        # 2. What a report that can be believed shows of the drafter and the machine.
        model = knowledge.joined(each.model for each in decision.predictions.values())
        model.count(outcome.at_s)
        report = decoding(outcome, prediction.strategy.drafts)
        if report:
            beside = max(0.0, outcome.concurrent) if isfinite(outcome.concurrent) else 0.0
            knowledge.forecasts.setdefault(prediction.model, Forecast()).learn(prediction.concurrent, beside)
            beside = round(8 * beside) / 8
            own = _drafted(knowledge, prediction, outcome, report, beside)
            mean_draft = _mean_draft(own, outcome.drafted_beside, beside)
            _learn_time(model, signals, decision, outcome.lane, beside, report, mean_draft)
        _learn_means(knowledge, signals, next(iter(decision.predictions.values())), prediction, outcome)

        # 3. What the engine's cache holds now, and what was spent on exploring.
        turn = Served(at_s=outcome.at_s, chars=signals.prompt_chars)
        knowledge.serve((signals.conversation, prediction.machine or prediction.fingerprint), turn)
        totals, was_chosen = knowledge.totals, len(decision.predictions) > 1
        knowledge.totals = Totals(
            at_s=max(totals.at_s, outcome.at_s),
            decode_s=totals.decode_s + (report.seconds if report and was_chosen else 0.0),
            exploring_s=totals.exploring_s + (decision.exploring_s if outcome.lane == decision.lane else 0.0),
        )


def _learn_time(
    model: TimeModel,
    signals: Signals,
    decision: Decision,
    lane_name: str,
    beside: float,
    report: Decoding,
    mean_draft: float | None,
) -> None:
    ids = {name: _id(each) for name, each in decision.predictions.items()}
    lane = ids[lane_name]
    counts = None
    if report.accepted is not None:
        steps = report.tokens - report.accepted
        counts = Counts(report.tokens, steps, report.verification_steps, report.by_position, report.by_drafter)
    among = list(dict.fromkeys(ids.values()))
    told = _told(model, signals, decision, lane, among, beside) if lane.strategy.among else None
    model.learn(lane, among, signals, beside, report.seconds / report.tokens, counts, told, mean_draft)
    times = {ids[name]: s for name, each in decision.predictions.items() if (s := each.s_per_token) is not None}
    if len(among) > 1 and len(times) == len(among):
        model.compared(times, lane, report.tokens)


def _drafted(
    knowledge: Knowledge, prediction: Prediction, outcome: Outcome, report: Decoding, beside: float
) -> float | None:
    """Tokens that a request drafted at each step, in the units in which others are told it; where its engine decides
    about that, it is remembered."""
    strategy = prediction.strategy
    if not strategy.among or may_look_up(strategy):
        return prediction.drafted_per_step
    drafted, steps = outcome.observed.drafted, report.tokens - (report.accepted or 0)
    if drafted is None or steps <= 0:
        return None
    key = drafted_key(prediction.fingerprint, strategy, beside)
    knowledge.means.learn([key], 1 + drafted / steps, outcome.at_s)
    return drafted / steps


def _mean_draft(own: float | None, others: float | None, beside: float) -> float | None:
    """Tokens that a request of the batch drafted at each step, on average over all of them; ``None`` where that is not
    known, or nobody else was decoded."""
    if not beside or own is None or others is None or not isfinite(others):
        return None
    return (own + max(0.0, others)) / (1 + beside)


def _told(
    model: TimeModel, signals: Signals, decision: Decision, lane: LaneId, among: list[LaneId], beside: float
) -> Told:
    """What was expected of a controlled lane that served, under the load that there was."""
    (seen, _), number = foreseen(model, among, signals, [beside] * len(among)), among.index(lane)
    control = decision.control if _id(decision.predictions[decision.lane]) == lane else None
    return Told(
        time=seen.times[number] - seen.spreads[number] / 2,
        variance=seen.covariance[number][number] + seen.spreads[number],
        acceptance={kind: each.acceptance for kind, each in control.drafters.items()} if control else {},
    )


def _id(prediction: Prediction) -> LaneId:
    return LaneId(
        prediction.fingerprint,
        prediction.model,
        prediction.strategy,
        prediction.drafted_token_cost,
        prediction.machine,
    )


def _learn_means(
    knowledge: Knowledge, signals: Signals, first: Prediction, prediction: Prediction, outcome: Outcome
) -> None:
    """How long the answer was, and what a prompt token took.

    Args:
        first: of the lanes that were to choose from.
    """
    observed = outcome.observed
    if observed.completion_tokens and observed.completion_tokens < MAX_ANSWER_TOKENS:
        knowledge.means.learn(answer_keys(first.model, signals), observed.completion_tokens, outcome.at_s)
    tokens, seconds = observed.prompt_tokens, observed.prefill_s
    if tokens and tokens >= MIN_PROMPT_TOKENS and seconds and is_sane(tokens, seconds, outcome):
        knowledge.means.learn([prefill_key(prediction.model)], seconds / tokens, outcome.at_s)


# What lanes did


def _sum_up(knowledge: Knowledge, prediction: Prediction | None, outcome: Outcome) -> None:
    """Count what the lane that served did, and those whose engines failed before."""
    sums = knowledge.measured
    for lane, fingerprint in outcome.failed:
        old = sums.get((fingerprint, lane), Measured())
        at_s = _later(old.at_s, outcome.at_s)
        failed = replace(old, requests=old.requests + 1, failures=old.failures + 1, at_s=at_s)
        knowledge.count((fingerprint, lane), failed)
    engine = engine_of(outcome.lane)
    key = (outcome.fingerprint or (prediction.fingerprint if prediction else engine), outcome.lane)
    knowledge.count(key, _measured(sums.get(key, Measured()), outcome))
    for drafts in drafts_of(outcome.observed, prediction.strategy) if prediction and outcome.is_whole else ():
        knowledge.draft((key[0], drafts.kind), drafts.drafted, drafts.accepted, _later(0.0, outcome.at_s))


def _later(past_s: float, at_s: float) -> float:
    """An outcome may be dated by anything."""
    return max(past_s, at_s) if isfinite(at_s) else past_s


def _measured(sums: Measured, outcome: Outcome) -> Measured:
    counts: dict[str, int] = {"requests": sums.requests + 1}
    times: dict[str, float] = {"at_s": _later(sums.at_s, outcome.at_s)}
    if not outcome.is_whole:
        return replace(sums, **counts, failures=sums.failures + outcome.is_failure, **times)
    observed = outcome.observed
    if observed.prompt_tokens and is_sane(observed.prompt_tokens, observed.prefill_s, outcome):
        counts["prefill_tokens"] = sums.prefill_tokens + observed.prompt_tokens
        times["prefill_s"] = sums.prefill_s + (observed.prefill_s or 0)
    if observed.decode_tokens and is_decoding(observed.decode_tokens, observed.decode_s, outcome):
        counts["decode_tokens"] = sums.decode_tokens + observed.decode_tokens
        times["decode_s"] = sums.decode_s + (observed.decode_s or 0)
    if observed.drafted is not None and observed.accepted is not None:
        counts["drafted"] = sums.drafted + observed.drafted
        counts["accepted"] = sums.accepted + observed.accepted
    return replace(sums, **counts, **times)
