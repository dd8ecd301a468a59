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
    considered,
    conversation_key,
    copy_key,
    draft_length,
    drafter_of,
    tokens_key,
)
from paceline.decision.state import Key, Served, State, later
from paceline.decision.tuning import (
    BLIND_NOISE,
    CHARS_PER_TOKEN,
    CLOCK_SLACK_S,
    CORRECTION_NOISE,
    COVERAGE_SPREAD,
    LENGTH_SPREAD,
    MAX_CONVERSATIONS,
    MAX_DRAFTING_SHARE,
    MAX_MISS,
    MAX_STEP_COST,
    MAX_TIMES_CLOCK,
    MAX_TOKENS_PER_S,
    MIN_PROMPT_TOKENS,
    MIN_SHARE_OF_CLOCK,
    MIN_TOKENS,
    MIN_TOKENS_PER_S,
    REQUEST_SPREAD,
    TIME_NOISE,
)
from paceline.types import Decision, Measured, Observation, Outcome, Prediction, Signals, Task, engine_of

MAX_TOKENS = 10**9
"""Counts of tokens from which on no report is believed: more than any context holds."""
MAX_ANSWER_TOKENS = 10**7
"""Tokens from which on no answer's length is believed: days of decoding on most machines."""


class Decoding(Struct, frozen=True):
    """What an answer's decoding took, in numbers that can be true."""

    tokens: int
    seconds: float
    drafted: int | None
    """``None`` where it is not known what was drafted and accepted."""
    accepted: int
    verification_steps: int | None = None
    """``None`` where the engine did not report them."""

    @property
    def steps(self) -> int:
        """Each yields one token of the model's own, and what was accepted of its draft."""
        return self.tokens - self.accepted


def learn(state: State, signals: Signals, decision: Decision, outcome: Outcome) -> State:
    """The state after one more outcome. An outcome counts for the lane that served it, which after a failed
    connection is not the lane that was decided on, and for the fingerprint that it had then; an answer that failed adds
    nothing but a failure, a request that was refused before a decision nothing at all."""
    if not outcome.lane:
        return state
    # 1. Which lane it teaches about: not where what served is no longer what was predicted for.
    prediction = decision.predictions.get(outcome.lane)
    if prediction and outcome.fingerprint not in ("", prediction.fingerprint):
        prediction = None
    measured = _with_sums(state.measured, prediction, outcome)
    if prediction is None or not outcome.is_whole or not isfinite(outcome.at_s):
        return replace(state, measured=measured)

    # 2. What a report that can be believed shows of the drafter and the machine.
    learning = _Learning(state, outcome.at_s)
    decoding = _decoding(outcome, prediction)
    if decoding:
        concurrent = max(0.0, outcome.concurrent) if isfinite(outcome.concurrent) else 0.0
        learning.decoded(signals, prediction, decoding, concurrent)
    learning.lasted(next(iter(decision.predictions.values())).model, signals, outcome.observed)
    learning.prefilled(prediction, outcome)

    # 3. What the engine's cache holds now, what a static policy would have taken, and what was spent on exploring.
    served = dict(state.served)
    turn = Served(at_s=outcome.at_s, chars=signals.prompt_chars)
    conversation = (signals.conversation, prediction.fingerprint)
    served[conversation] = later(served.get(conversation, turn), turn)
    always, decode_s = state.always, state.decode_s
    if decoding:
        always = fixed.with_request(always, decision.predictions, prediction, decoding.tokens, outcome.at_s)
        decode_s += decoding.seconds if len(decision.predictions) > 1 else 0.0
    return State(
        measured=measured,
        cells=_without_old_conversations(learning.cells),
        steps=learning.steps,
        served=_bounded(served),
        always=always,
        at_s=max(state.at_s, outcome.at_s),
        decode_s=decode_s,
        exploring_s=state.exploring_s + (decision.exploring_s if outcome.lane == decision.lane else 0.0),
    )


class _Learning:
    """The cells and step costs of a state that is being made."""

    def __init__(self, state: State, at_s: float) -> None:
        self.cells: dict[Key, Cell] = dict(state.cells)
        self.steps = dict(state.steps)
        self._at_s = at_s

    def decoded(self, signals: Signals, prediction: Prediction, decoding: Decoding, concurrent: float) -> None:
        """Take in acceptance, coverage, and what steps cost."""
        strategy = prediction.strategy
        tasks = considered(signals.tasks)
        context_k = (signals.prompt_chars / CHARS_PER_TOKEN + decoding.tokens / 2) / 1000
        noise = TIME_NOISE**2 + 1 / decoding.tokens
        kind = drafter_of(strategy)
        is_blind = strategy.drafts and decoding.drafted is None

        # 1. How many steps there were, and what they took by the model's coefficients, in plain steps made alone.
        verification_steps = 0.0
        if is_blind:
            steps, relative, is_plain = float(decoding.tokens), prediction.plain_steps_per_token, False
        else:
            if strategy.drafts:
                verification_steps = self._drafted(signals, tasks, prediction, decoding)
            steps = float(decoding.steps)
            length = (decoding.drafted or 0) / verification_steps if verification_steps else 0.0
            share = verification_steps / steps
            plain_cost = step_cost.cost(prediction.step_cost, 0, concurrent, context_k)
            draft_cost = step_cost.cost(prediction.step_cost, length, concurrent, context_k)
            relative = (1 - share) * plain_cost + share * draft_cost
            is_plain = share <= MAX_DRAFTING_SHARE

        # 2. What a plain step takes is known from plain steps; from verification steps it follows only if their cost is
        # right.
        step_s = decoding.seconds / steps
        about_step, step_noise = ("step", noise) if is_plain else ("guessed step", noise + BLIND_NOISE**2)
        self._add((about_step, prediction.model), log(step_s / relative), 1 / step_noise)
        if prediction.plain_step_s is None:
            return

        # 3. How wrong the model was of a plain lane, or where times alone teach.
        actual = min(MAX_STEP_COST, step_s / prediction.plain_step_s)
        lane = (prediction.fingerprint, kind, strategy.n_max)
        if is_blind or not strategy.drafts:
            miss = max(-MAX_MISS, min(MAX_MISS, log(actual / relative)))
            self._add(("correct", *lane), miss, 1 / noise)
            if is_blind:
                self._add(("correct", *lane, next(iter(tasks))), miss, 1 / noise)
                return

        # 4. What the lane's verification steps cost, however many they were: requests of other tasks than those that
        # taught it may draft more or less often.
        if verification_steps:
            believed = step_cost.cost(step_cost.PRIOR_MEAN, length, concurrent, context_k)
            miss = (actual - (1 - share) * plain_cost) / (share * believed) - 1
            uncertain = noise * (actual / (share * believed)) ** 2 + CORRECTION_NOISE**2
            self._add(("drafting step", *lane), miss, 1 / uncertain)

        # 5. The machine's coefficients.
        inputs = step_cost.inputs(steps, verification_steps, float(decoding.drafted or 0), concurrent, context_k)
        about = (prediction.model, kind)
        past = self.steps.get(about, step_cost.NOTHING)
        self.steps[about] = step_cost.with_request(past, inputs, actual, self._at_s)

    def _drafted(
        self, signals: Signals, tasks: Mapping[Task, float], prediction: Prediction, decoding: Decoding
    ) -> float:
        """Take in acceptance and, of a lookup, coverage; returns the number of verification steps."""
        strategy, kind = prediction.strategy, prediction.strategy.kind
        about = (prediction.model, kind)
        drafted, accepted, steps = decoding.drafted or 0, decoding.accepted, decoding.steps

        # 1. In how many steps it drafted: a lookup's drafts are as long as its cap; a model drafts in every step.
        is_lookup = priors.drafter(kind).lookup
        verification_steps = (
            min(float(steps), max(1.0, drafted / draft_length(strategy))) if is_lookup else float(steps)
        )
        if decoding.verification_steps is not None:
            verification_steps = float(decoding.verification_steps)
        if not drafted:
            verification_steps = 0.0

        # 2. Coverage: by task, by how much there was to copy, of the drafter, and of the conversation.
        if is_lookup:
            covered = logit((verification_steps + accepted + 0.25) / (decoding.tokens + 0.5))
            variance = 1 / (verification_steps + 0.5) + 1 / (steps - verification_steps + 0.5) + COVERAGE_SPREAD**2
            weight = 1 / variance
            for task, share in tasks.items():
                deviation = covered - priors.coverage_logit(task, signals)
                self._add(("cover", *about, task), deviation, share * weight)
                self._add(copy_key(about, task, signals), deviation, share * weight)
            deviation = covered - priors.coverage_logit(next(iter(tasks)), signals)
            self._add(("cover", *about), deviation, weight)
            if signals.conversation:
                self._add(conversation_key("cover", about, signals), deviation, weight)
        if not verification_steps:
            return 0.0

        # 3. Acceptance, by the mean length of its drafts.
        length = max(1.0, drafted / verification_steps)
        acceptance = acceptance_of(accepted / verification_steps, length)
        rejected = verification_steps * (1 - acceptance**length)
        weight = 1 / (1 / (accepted + 0.5) + 1 / (rejected + 0.5) + REQUEST_SPREAD**2)
        observed = logit(acceptance)
        for task, share in tasks.items():
            self._add(("accept", *about, task), observed - priors.acceptance_logit(kind, task, signals), share * weight)
        deviation = observed - priors.acceptance_logit(kind, next(iter(tasks)), signals)
        self._add(("accept", *about), deviation, weight)
        if signals.conversation:
            self._add(conversation_key("accept", about, signals), deviation, weight)
        return verification_steps

    def lasted(self, model: str, signals: Signals, observed: Observation) -> None:
        """Take in the answer's length; ``model`` is that of the first lane that was to choose from."""
        if observed.completion_tokens and observed.completion_tokens < MAX_ANSWER_TOKENS:
            self._add(tokens_key(model, signals.task), log(observed.completion_tokens), LENGTH_SPREAD**-2)

    def prefilled(self, prediction: Prediction, outcome: Outcome) -> None:
        """Take in what a prompt token costs."""
        observed = outcome.observed
        if observed.prompt_tokens is None or observed.prompt_tokens < MIN_PROMPT_TOKENS:
            return
        if _is_sane(observed.prompt_tokens, observed.prefill_s, outcome) and observed.prefill_s:
            s_per_token = observed.prefill_s / observed.prompt_tokens
            self._add(("prefill", prediction.model), log(s_per_token), TIME_NOISE**-2)

    def _add(self, key: Key, value: float, weight: float) -> None:
        self.cells[key] = with_value(self.cells.get(key), value, weight, self._at_s)


# What can be believed


def _decoding(outcome: Outcome, prediction: Prediction) -> Decoding | None:
    """What can be believed of a report; ``None`` where nothing can."""
    observed = outcome.observed
    tokens, seconds = observed.decode_tokens, observed.decode_s
    if tokens is None or seconds is None or not _is_decoding(tokens, seconds, outcome):
        return None
    worked_s = seconds + (observed.prefill_s or 0.0)
    if not worked_s >= MIN_SHARE_OF_CLOCK * (outcome.total_s - outcome.queue_s):
        return None
    drafted, accepted = observed.drafted, observed.accepted
    if not prediction.strategy.drafts or drafted is None or accepted is None:
        return Decoding(tokens=tokens, seconds=seconds, drafted=None, accepted=0)
    if drafted >= MAX_TOKENS or accepted >= tokens:
        return Decoding(tokens=tokens, seconds=seconds, drafted=None, accepted=0)
    steps = observed.drafting_steps
    if steps is not None and not 0 < steps <= min(drafted, tokens - accepted):
        steps = None
    return Decoding(tokens=tokens, seconds=seconds, drafted=drafted, accepted=accepted, verification_steps=steps)


def _is_sane(tokens: int, seconds: float | None, outcome: Outcome) -> bool:
    """Both can be true; an engine's clock or counter may be anything."""
    if not seconds:
        return False
    if not isfinite(outcome.total_s) or tokens >= MAX_TOKENS:
        return False
    fits_clock = seconds <= MAX_TIMES_CLOCK * outcome.total_s + CLOCK_SLACK_S
    return fits_clock and MIN_TOKENS_PER_S < tokens / seconds < MAX_TOKENS_PER_S


def _is_decoding(tokens: int, seconds: float | None, outcome: Outcome) -> bool:
    """Whether the report tells a speed of decoding. That of an answer of one token does not: the token comes out of the
    prefill, and llama.cpp reports a microsecond for it."""
    return tokens >= MIN_TOKENS and _is_sane(tokens, seconds, outcome)


# What lanes did


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


def _later(past_s: float, at_s: float) -> float:
    """An outcome may be dated by anything."""
    return max(past_s, at_s) if isfinite(at_s) else past_s


def _measured(sums: Measured, outcome: Outcome) -> Measured:
    counts: dict[str, int] = {"requests": sums.requests + 1}
    times: dict[str, float] = {"at_s": _later(sums.at_s, outcome.at_s)}
    if not outcome.is_whole:
        return replace(sums, **counts, failures=sums.failures + outcome.is_failure, **times)
    observed = outcome.observed
    if observed.prompt_tokens and _is_sane(observed.prompt_tokens, observed.prefill_s, outcome):
        counts["prefill_tokens"] = sums.prefill_tokens + observed.prompt_tokens
        times["prefill_s"] = sums.prefill_s + (observed.prefill_s or 0)
    if observed.decode_tokens and _is_decoding(observed.decode_tokens, observed.decode_s, outcome):
        counts["decode_tokens"] = sums.decode_tokens + observed.decode_tokens
        times["decode_s"] = sums.decode_s + (observed.decode_s or 0)
    if observed.drafted is not None and observed.accepted is not None:
        counts["drafted"] = sums.drafted + observed.drafted
        counts["accepted"] = sums.accepted + observed.accepted
    return replace(sums, **counts, **times)


# What is forgotten


def _bounded(served: dict[Key, Served]) -> dict[Key, Served]:
    if len(served) <= MAX_CONVERSATIONS:
        return served
    newest = sorted(served.items(), key=lambda entry: entry[1].at_s)[MAX_CONVERSATIONS // 4 :]
    return dict(newest)


def _without_old_conversations(cells: dict[Key, Cell]) -> dict[Key, Cell]:
    if len(cells) <= 2 * MAX_CONVERSATIONS:
        return cells
    conversations = sorted((key for key in cells if key[0] == "conversation"), key=lambda key: cells[key].at_s)
    for key in conversations[: len(conversations) // 2]:
        del cells[key]
    return cells
