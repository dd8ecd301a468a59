"""Outcomes -> a better state.

What an outcome adds depends on the outcome and on what was predicted for it, not on the state it is added to: so
states add up, and the order of outcomes does not matter.
"""

from collections.abc import Mapping
from math import isfinite, log

from msgspec import Struct
from msgspec.structs import replace

from paceline.decision import fixed, priors, step_cost
from paceline.decision.cells import Cell, with_value
from paceline.decision.drafting import acceptance_of, logit
from paceline.decision.fixed import LaneKey
from paceline.decision.predict import (
    CHARS_PER_TOKEN,
    considered,
    conversation_key,
    copy_key,
    draft_length,
    drafter_of,
    tokens_key,
)
from paceline.decision.state import Key, Served, State, later
from paceline.types import Decision, Measured, Observation, Outcome, Prediction, Signals, Task, engine_of

MIN_TOKENS = 4
"""An answer with fewer decoded tokens tells nothing about speed."""
SPEEDS = (0.01, 100_000.0)
"""Tokens per second that an engine can have; other reports are not believed."""
REFUSALS = (408, 409, 425, 429)
"""Statuses below 500 by which an engine says that it could not, and not that the request was wrong."""
MIN_SHARE_OF_CLOCK = 0.1
"""An engine that says it worked for less than this share of the time that passed is not believed."""
REQUEST_SPREAD = 0.5
"""Standard deviation, in logits, of acceptance between requests of one task."""
COVERAGE_SPREAD = 0.7
TIME_NOISE = 0.15
"""Relative standard deviation of a request's decode time."""
CORRECTION_NOISE = 0.3
"""What is added to it between tasks, by which the model errs differently."""
BLIND_NOISE = 0.5
"""What is added to it where a plain step's time is told from drafting ones."""
MAX_DRAFTING_SHARE = 0.1
"""With more drafting steps than this share a request does not show what a plain step takes."""
LENGTH_SPREAD = 0.8
MIN_PROMPT_TOKENS = 16
MAX_CONVERSATIONS = 1000
"""Of more, those that were quiet for longest are forgotten."""


class Decoding(Struct, frozen=True):
    """What an answer's decoding took, in sane numbers."""

    tokens: int
    seconds: float
    drafted: int | None
    """``None`` where it is not known what was drafted and accepted."""
    accepted: int
    rounds: int | None = None
    """Steps that verified a draft, where the engine told."""

    @property
    def steps(self) -> int:
        return self.tokens - self.accepted


def learn(state: State, signals: Signals, decision: Decision, outcome: Outcome) -> State:
    """The state after one more outcome. An outcome counts for the lane that served it, which after a failed
    connection is not the lane that was decided on, and for the fingerprint that it had then; an answer that failed adds
    nothing but a failure, a request that was refused before a decision nothing at all."""
    if not outcome.lane:
        return state
    prediction = decision.predictions.get(outcome.lane)
    if prediction and outcome.fingerprint not in ("", prediction.fingerprint):
        prediction = None  # what served is no longer what was predicted for
    measured = _with_sums(state.measured, prediction, outcome)
    if prediction is None or not _is_whole(outcome) or not isfinite(outcome.at_s):
        return replace(state, measured=measured)
    notes = _Notes(state, outcome.at_s)
    decoding = _decoding(outcome, prediction)
    if decoding:
        notes.decoded(signals, prediction, decoding, max(0.0, outcome.beside) if isfinite(outcome.beside) else 0.0)
    notes.lasted(next(iter(decision.predictions.values())).model, signals, outcome.observed)
    notes.prefilled(prediction, outcome)
    served = dict(state.served)
    turn = Served(outcome.at_s, signals.prompt_chars)
    talk = (signals.conversation, prediction.fingerprint)
    served[talk] = later(served.get(talk, turn), turn)
    return State(
        measured=measured,
        cells=_without_old_conversations(notes.cells),
        steps=notes.steps,
        served=_bounded(served),
        always=fixed.with_request(state.always, decision.predictions, prediction, decoding.tokens, outcome.at_s)
        if decoding
        else state.always,
        at_s=max(state.at_s, outcome.at_s),
        decode_s=state.decode_s + (decoding.seconds if decoding and len(decision.predictions) > 1 else 0.0),
        exploring_s=state.exploring_s + (decision.exploring_s if outcome.lane == decision.lane else 0.0),
    )


class _Notes:
    """The cells and step costs of a state that is being made."""

    def __init__(self, state: State, at_s: float) -> None:
        self.cells: dict[Key, Cell] = dict(state.cells)
        self.steps = dict(state.steps)
        self._at_s = at_s

    def decoded(self, signals: Signals, prediction: Prediction, decoding: Decoding, beside: float) -> None:
        """Acceptance, coverage, and what steps cost."""
        strategy = prediction.strategy
        tasks = considered(signals.tasks)
        context_k = (signals.prompt_chars / CHARS_PER_TOKEN + decoding.tokens / 2) / 1000
        noise = TIME_NOISE**2 + 1 / decoding.tokens
        kind = drafter_of(strategy)
        is_blind = strategy.drafts and decoding.drafted is None
        rounds = 0.0
        if is_blind:
            steps, relative, is_plain = float(decoding.tokens), prediction.plain_steps_per_token, False
        else:
            if strategy.drafts:
                rounds = self._drafted(signals, tasks, prediction, decoding)
            steps = float(decoding.steps)
            length = (decoding.drafted or 0) / rounds if rounds else 0.0
            share = rounds / steps
            plain = step_cost.cost(prediction.step_cost, 0, beside, context_k)
            relative = (1 - share) * plain + share * step_cost.cost(prediction.step_cost, length, beside, context_k)
            is_plain = share <= MAX_DRAFTING_SHARE
        step_s = decoding.seconds / steps
        # What a plain step takes is known from plain steps; from drafting ones it follows only if their cost is right.
        about_step, step_noise = ("step", noise) if is_plain else ("guessed step", noise + BLIND_NOISE**2)
        self._add((about_step, prediction.model), log(step_s / relative), 1 / step_noise)
        if prediction.plain_step_s is None:
            return
        actual = min(1000.0, step_s / prediction.plain_step_s)
        lane = (prediction.fingerprint, kind, strategy.n_max)
        if is_blind or not strategy.drafts:
            miss = max(-3.0, min(3.0, log(actual / relative)))
            self._add(("correct", *lane), miss, 1 / noise)
            if is_blind:
                self._add(("correct", *lane, next(iter(tasks))), miss, 1 / noise)
                return
        if rounds:
            # What its drafting steps cost, however many they were: requests of other tasks than those that taught it
            # may draft more or less often.
            believed = step_cost.cost(step_cost.PRIOR_MEAN, length, beside, context_k)
            miss = (actual - (1 - share) * plain) / (share * believed) - 1
            uncertain = noise * (actual / (share * believed)) ** 2 + CORRECTION_NOISE**2
            self._add(("drafting step", *lane), miss, 1 / uncertain)
        given = step_cost.inputs(steps, rounds, float(decoding.drafted or 0), beside, context_k)
        about = (prediction.model, kind)
        known = self.steps.get(about, step_cost.NOTHING)
        self.steps[about] = step_cost.with_request(known, given, actual, self._at_s)

    def _drafted(
        self, signals: Signals, tasks: Mapping[Task, float], prediction: Prediction, decoding: Decoding
    ) -> float:
        """Note acceptance and, of a lookup, coverage; returns the number of steps that drafted."""
        strategy, kind = prediction.strategy, prediction.strategy.kind
        about = (prediction.model, kind)
        drafted, accepted, steps = decoding.drafted or 0, decoding.accepted, decoding.steps
        is_lookup = priors.drafter(kind).lookup
        # A lookup's drafts are as long as its cap; a model drafts in every step.
        rounds = min(float(steps), max(1.0, drafted / draft_length(strategy))) if is_lookup else float(steps)
        if decoding.rounds is not None:
            rounds = float(decoding.rounds)
        if not drafted:
            rounds = 0.0
        if is_lookup:
            covered = logit((rounds + accepted + 0.25) / (decoding.tokens + 0.5))
            weight = 1 / (1 / (rounds + 0.5) + 1 / (steps - rounds + 0.5) + COVERAGE_SPREAD**2)
            for task, share in tasks.items():
                deviation = covered - priors.coverage_logit(task, signals)
                self._add(("cover", *about, task), deviation, share * weight)
                self._add(copy_key(about, task, signals), deviation, share * weight)
            deviation = covered - priors.coverage_logit(next(iter(tasks)), signals)
            self._add(("cover", *about), deviation, weight)
            if signals.conversation:
                self._add(conversation_key("cover", about, signals), deviation, weight)
        if not rounds:
            return 0.0
        length = max(1.0, drafted / rounds)
        acceptance = acceptance_of(accepted / rounds, length)
        missed = rounds * (1 - acceptance**length)
        weight = 1 / (1 / (accepted + 0.5) + 1 / (missed + 0.5) + REQUEST_SPREAD**2)
        seen = logit(acceptance)
        for task, share in tasks.items():
            self._add(("accept", *about, task), seen - priors.acceptance_logit(kind, task, signals), share * weight)
        deviation = seen - priors.acceptance_logit(kind, next(iter(tasks)), signals)
        self._add(("accept", *about), deviation, weight)
        if signals.conversation:
            self._add(conversation_key("accept", about, signals), deviation, weight)
        return rounds

    def lasted(self, model: str, signals: Signals, seen: Observation) -> None:
        """The answer's length; ``model`` is that of the first lane that was to choose from."""
        if seen.completion_tokens and 0 < seen.completion_tokens < 10**7:
            self._add(tokens_key(model, signals.task), log(seen.completion_tokens), LENGTH_SPREAD**-2)

    def prefilled(self, prediction: Prediction, outcome: Outcome) -> None:
        """What a prompt token costs."""
        seen = outcome.observed
        if seen.prompt_tokens is None or seen.prompt_tokens < MIN_PROMPT_TOKENS:
            return
        if _is_sane(seen.prompt_tokens, seen.prefill_s, outcome) and seen.prefill_s:
            self._add(("prefill", prediction.model), log(seen.prefill_s / seen.prompt_tokens), TIME_NOISE**-2)

    def _add(self, key: Key, value: float, weight: float) -> None:
        self.cells[key] = with_value(self.cells.get(key), value, weight, self._at_s)


def _decoding(outcome: Outcome, prediction: Prediction) -> Decoding | None:
    """What can be believed of a report; ``None`` where nothing can."""
    seen = outcome.observed
    tokens, seconds = seen.decode_tokens, seen.decode_s
    if tokens is None or seconds is None or not _is_decoding(tokens, seconds, outcome):
        return None
    told_s = seconds + (seen.prefill_s or 0.0)
    if not told_s >= MIN_SHARE_OF_CLOCK * (outcome.total_s - outcome.queue_s):
        return None
    drafted, accepted = seen.drafted, seen.accepted
    if not prediction.strategy.drafts or drafted is None or accepted is None:
        return Decoding(tokens, seconds, None, 0)
    if not 0 <= accepted <= drafted < 10**9 or accepted >= tokens or (accepted and not drafted):
        return Decoding(tokens, seconds, None, 0)
    rounds = seen.drafting_steps
    if rounds is not None and not 0 < rounds <= min(drafted, tokens - accepted):
        rounds = None
    return Decoding(tokens, seconds, drafted, accepted, rounds)


def _is_sane(tokens: int, seconds: float | None, outcome: Outcome) -> bool:
    """Both can be true; an engine's clock or counter may be anything."""
    if seconds is None or not isfinite(seconds) or seconds <= 0 or not isfinite(outcome.total_s) or tokens >= 10**9:
        return False
    return seconds <= 1.1 * outcome.total_s + 0.05 and SPEEDS[0] < tokens / seconds < SPEEDS[1]


def _is_decoding(tokens: int, seconds: float | None, outcome: Outcome) -> bool:
    """Whether the report tells a speed of decoding. That of an answer of one token does not: the token comes out of the
    prefill, and llama.cpp tells a microsecond for it."""
    return tokens >= MIN_TOKENS and _is_sane(tokens, seconds, outcome)


def _is_whole(outcome: Outcome) -> bool:
    return outcome.error is None and 200 <= outcome.status < 300


def _is_failure(outcome: Outcome) -> bool:
    """Whether the engine failed: not where the client left, nor where the request was the client's own mistake."""
    if 400 <= outcome.status < 500:
        return outcome.status in REFUSALS
    return not _is_whole(outcome)


def _with_sums(
    sums: Mapping[LaneKey, Measured], prediction: Prediction | None, outcome: Outcome
) -> Mapping[LaneKey, Measured]:
    """With what the lane that served did, and those whose engines failed before."""
    new = dict(sums)
    for lane, fingerprint in outcome.failed:
        old = new.get((fingerprint, lane), Measured())
        at_s = _later(old.at_s, outcome.at_s)
        new[fingerprint, lane] = replace(old, requests=old.requests + 1, failures=old.failures + 1, at_s=at_s)
    engine = engine_of(outcome.lane)
    key = (outcome.fingerprint or (prediction.fingerprint if prediction else engine), outcome.lane)
    new[key] = _measured(new.get(key, Measured()), outcome)
    return new


def _later(one_s: float, other_s: float) -> float:
    return max(one_s, other_s) if isfinite(other_s) else one_s


def _measured(sums: Measured, outcome: Outcome) -> Measured:
    added: dict[str, int] = {"requests": sums.requests + 1}
    extra: dict[str, float] = {"at_s": _later(sums.at_s, outcome.at_s)}
    if not _is_whole(outcome):
        return replace(sums, **added, failures=sums.failures + _is_failure(outcome), **extra)
    seen = outcome.observed
    if seen.prompt_tokens and _is_sane(seen.prompt_tokens, seen.prefill_s, outcome):
        added["prefill_tokens"] = sums.prefill_tokens + seen.prompt_tokens
        extra["prefill_s"] = sums.prefill_s + (seen.prefill_s or 0)
    if seen.decode_tokens and _is_decoding(seen.decode_tokens, seen.decode_s, outcome):
        added["decode_tokens"] = sums.decode_tokens + seen.decode_tokens
        extra["decode_s"] = sums.decode_s + (seen.decode_s or 0)
    if seen.drafted is not None and seen.accepted is not None and 0 <= seen.accepted <= seen.drafted:
        added["drafted"] = sums.drafted + seen.drafted
        added["accepted"] = sums.accepted + seen.accepted
    return replace(sums, **added, **extra)


def _bounded(served: dict[Key, Served]) -> dict[Key, Served]:
    if len(served) <= MAX_CONVERSATIONS:
        return served
    newest = sorted(served.items(), key=lambda entry: entry[1].at_s)[MAX_CONVERSATIONS // 4 :]
    return dict(newest)


def _without_old_conversations(cells: dict[Key, Cell]) -> dict[Key, Cell]:
    if len(cells) <= 2 * MAX_CONVERSATIONS:
        return cells
    talks = sorted((key for key in cells if key[0] == "conversation"), key=lambda key: cells[key].at_s)
    for key in talks[: len(talks) // 2]:
        del cells[key]
    return cells
