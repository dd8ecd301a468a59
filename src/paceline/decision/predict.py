"""Signals and lanes -> what each lane will take per token, with its uncertainty.

    time per token = (1 - coverage) * plain step + coverage * verification step / acceptance length

The acceptance length is the tokens that a verification step yields, the model's own included. It and the coverage come
from the request and the drafter, the steps' cost from the machine. Coverage is the share of *tokens* that come out of
verification steps, which stays the same under another cap, as the share of steps would not.
"""

from collections.abc import Mapping, Sequence
from math import exp, log, sqrt

from msgspec import Struct

from paceline.decision import priors
from paceline.decision.cells import Cell, estimate, evidence, mean_of
from paceline.decision.drafting import accepted_per_draft, probability
from paceline.decision.load import Load
from paceline.decision.state import Key, State
from paceline.decision.step_cost import NOTHING, PRIOR_MEAN, StepCost, cost, drafting_variance
from paceline.decision.tuning import (
    BLIND_MISFIT,
    CHARS_PER_TOKEN,
    GUESSED_SPREAD,
    LOOKUP_COST,
    MIN_COST,
    MIN_TASK,
    MISFIT,
    NEAR_SPREAD,
    PLAIN_GAP,
    PREFILL_S_PER_TOKEN,
    PRIOR_SPREAD,
    TASK_SPREAD,
    UNKNOWN_COST,
    UNSEEN_SPREAD,
)
from paceline.types import LaneState, Prediction, Signals, Strategy, Task

_PRIOR = (0.0, PRIOR_SPREAD**2)
"""Mean and variance of how a drafter deviates from what is usual of its kind, in logits."""
_OF_TASK, _NEAR, _OF_LANE, _OF_BLIND_LANE = TASK_SPREAD**2, NEAR_SPREAD**2, MISFIT**2, BLIND_MISFIT**2
"""Variances of deviations, as in ``tuning.py``."""
PLAIN = "autoregressive"
"""The kind of strategy that drafts nothing."""
Logit = tuple[float, float]
"""Mean and variance of a probability's logit."""


class _Asked(Struct):
    """A request, and what is expected of its answer, whichever lane makes it."""

    signals: Signals
    tasks: Mapping[Task, float]
    """The likely ones, the likeliest first."""
    task: Task
    """The likeliest."""
    tokens: float
    """Length of the answer."""
    prompt_tokens: float
    context_k: float
    """Thousands of tokens that an average step of the answer attends to."""


class _Drafter(Struct):
    """What a drafter will do with a request."""

    acceptance: float
    low_acceptance: float
    """The acceptance, one standard deviation lower."""
    coverage: float
    low_coverage: float
    """The coverage, one standard deviation lower."""
    is_blind: bool
    """Whether its engine never reported what was accepted."""


class _Group(Struct):
    """What lanes have in common that differ in nothing but their cap."""

    fingerprint: str
    model: str
    kind: str
    drafter: _Drafter | None
    plain_step_s: float | None
    prefill_s: float
    step_cost: StepCost
    plain_cost: float
    """Of a step without a draft, in plain steps made alone."""
    draft_cost: float
    """Of a step that verifies a draft, without what its tokens cost; in plain steps made alone."""
    believed_draft_cost: float
    """What :attr:`draft_cost` would be by the prior's coefficients. Evidence is kept against it, since it never
    changes."""


def predict(
    signals: Signals, lanes: Sequence[LaneState], state: State, load: Load | None = None
) -> dict[str, Prediction]:
    """What to expect of each lane, by its name.

    Args:
        load: of the devices; by default, that of ``lanes``.
    """
    load = load or Load(lanes)
    predictions: dict[str, Prediction] = {}
    if not lanes:
        return predictions
    # 1. The answer is the same whichever lane makes it.
    asked = _asked(signals, model_of(lanes[0]), state)
    # 2. Lanes that differ in nothing but their cap share a drafter, and what steps cost.
    groups: dict[tuple[str, str, str, int], _Group] = {}
    for lane_state in lanes:
        lane = lane_state.lane
        fingerprint = lane_state.fingerprint or lane.engine
        about = (fingerprint, lane_state.model, drafter_of(lane.strategy), load.concurrent(lane_state))
        group = groups.get(about)
        if group is None:
            group = groups[about] = _group(*about, asked, state)
        # 3. The cap decides how long drafts are: what they cost, and what they yield.
        if group.drafter is None:
            predictions[lane.name] = _plain(group, lane.strategy, asked, state)
        else:
            predictions[lane.name] = _drafting(group, group.drafter, lane.strategy, asked, state)
    return predictions


def _asked(signals: Signals, model: str, state: State) -> _Asked:
    tasks = considered(signals.tasks)
    task = next(iter(tasks))
    tokens = _tokens(model, task, signals, state)
    prompt_tokens = signals.prompt_chars / CHARS_PER_TOKEN
    return _Asked(
        signals=signals,
        tasks=tasks,
        task=task,
        tokens=tokens,
        prompt_tokens=prompt_tokens,
        context_k=(prompt_tokens + tokens / 2) / 1000,
    )


def _group(fingerprint: str, model: str, kind: str, concurrent: int, asked: _Asked, state: State) -> _Group:
    model = model or fingerprint
    context_k = asked.context_k
    step_cost = state.steps.get((model, kind), NOTHING)
    coefficients = step_cost.coefficients
    plain_step_s, prefill_s = _machine(model, fingerprint, asked, state)
    return _Group(
        fingerprint=fingerprint,
        model=model,
        kind=kind,
        drafter=None if kind == PLAIN else _drafter((model, kind), asked, state),
        plain_step_s=plain_step_s,
        prefill_s=prefill_s,
        step_cost=step_cost,
        plain_cost=cost(coefficients, 0, concurrent, context_k) * (1 + LOOKUP_COST * priors.drafter(kind).lookup),
        draft_cost=cost(coefficients, 1, concurrent, context_k) - coefficients[1],
        believed_draft_cost=cost(PRIOR_MEAN, 1, concurrent, context_k) - PRIOR_MEAN[1],
    )


def _plain(group: _Group, strategy: Strategy, asked: _Asked, state: State) -> Prediction:
    spread = MISFIT
    is_unseen = ("correct", group.fingerprint, group.kind, strategy.n_max) not in state.cells
    if is_unseen:
        spread = UNSEEN_SPREAD if ("step", group.model) in state.cells else GUESSED_SPREAD
    return Prediction(
        fingerprint=group.fingerprint,
        model=group.model,
        strategy=strategy,
        plain_steps_per_token=group.plain_cost,
        spread=spread,
        plain_step_s=group.plain_step_s,
        step_cost=group.step_cost.coefficients,
        tokens=asked.tokens,
        prefill_s=group.prefill_s,
        is_unseen=is_unseen,
    )


def _drafting(group: _Group, drafter: _Drafter, strategy: Strategy, asked: _Asked, state: State) -> Prediction:
    cells, now_s = state.cells, state.at_s
    fingerprint, kind, n_max = group.fingerprint, group.kind, strategy.n_max
    length = n_max or draft_length(strategy)
    acceptance, coverage, plain_cost = drafter.acceptance, drafter.coverage, group.plain_cost

    # 1. What a verification step costs, and the variance of that: by the model's coefficients, and where the engine
    # reports counts, by what the lane's own steps have shown.
    step_cost = group.step_cost
    draft_cost = group.draft_cost + step_cost.coefficients[1] * length
    cost_variance = drafting_variance(step_cost, length)
    is_untried = False
    if not drafter.is_blind:
        own_cost = cells.get(("drafting step", fingerprint, kind, n_max))
        is_untried = own_cost is None and cost_variance > (UNKNOWN_COST * draft_cost) ** 2
        believed = group.believed_draft_cost + PRIOR_MEAN[1] * length
        factor, misfit = _corrected(own_cost, believed / draft_cost, now_s)
        draft_cost *= factor
        cost_variance += misfit * draft_cost * draft_cost

    # 2. What it yields, and so the time per token.
    acceptance_length = 1 + accepted_per_draft(acceptance, length)
    gain = plain_cost - draft_cost / acceptance_length
    time = plain_cost - coverage * gain

    # 3. The time's variance, relative to it: by what it would be if acceptance or coverage were lower, or steps dearer.
    by_acceptance = (
        coverage * draft_cost * (1 / (1 + accepted_per_draft(drafter.low_acceptance, length)) - 1 / acceptance_length)
    )
    by_coverage = (coverage - drafter.low_coverage) * gain
    by_cost = coverage / acceptance_length
    variance = (by_acceptance * by_acceptance + by_coverage * by_coverage + by_cost * by_cost * cost_variance) / (
        time * time
    )

    # 4. Where the engine reports no counts, times alone show how wrong all that is.
    correction = 0.0
    if drafter.is_blind:
        by_lane = cells.get(("correct", fingerprint, kind, n_max))
        by_task = cells.get(("correct", fingerprint, kind, n_max, asked.task))
        levels = ((by_lane, _OF_BLIND_LANE), (by_task, _OF_BLIND_LANE))
        correction, variance = estimate((0.0, variance), levels, now_s)
    return Prediction(
        fingerprint=fingerprint,
        model=group.model,
        strategy=strategy,
        plain_steps_per_token=time,
        correction=exp(correction),
        spread=sqrt(variance),
        plain_step_s=group.plain_step_s,
        step_cost=step_cost.coefficients,
        acceptance=acceptance,
        acceptance_spread=acceptance - drafter.low_acceptance,
        coverage=coverage,
        tokens=asked.tokens,
        prefill_s=group.prefill_s,
        is_blind=drafter.is_blind,
        break_even=draft_cost / plain_cost,
        is_untried=is_untried,
    )


def _corrected(own_cost: Cell | None, believed: float, now_s: float) -> tuple[float, float]:
    """What a lane's own evidence makes of its verification step's cost, as a factor, and the variance of its logarithm
    that is left. It may deviate by the usual misfit, unless it plainly deviates by more.

    Args:
        own_cost: costs over those that were believed before all evidence, less 1.
        believed: those costs over the present ones.
    """
    if own_cost is None:
        return 1.0, _OF_LANE
    mean, weight = evidence(own_cost, now_s)
    gap = log(max(MIN_COST, (1 + mean) * believed))
    misfit = _OF_LANE
    if gap * gap > misfit and gap * gap * weight > PLAIN_GAP**2:
        misfit = gap * gap
    gain = weight * misfit
    return exp(gap * gain / (1 + gain)), misfit / (1 + gain)


def _drafter(about: tuple[str, str], asked: _Asked, state: State) -> _Drafter:
    """
    Args:
        about: the model, and the kind of drafter.
    """
    kind = about[1]
    signals, cells, now_s = asked.signals, state.cells, state.at_s

    # 1. Acceptance: of the drafter, then of the task, then of the conversation. A drafter's mean over all tasks depends
    # on which came lately, so its changes say nothing about one task.
    general = cells.get(("accept", *about))
    is_blind = general is None
    start = estimate(_PRIOR, ((general, 0.0),), now_s)
    conversation = cells.get(conversation_key("accept", about, signals)) if signals.conversation else None
    by_task = []
    for task, share in asked.tasks.items():
        levels = ((cells.get(("accept", *about, task)), _OF_TASK), (conversation, _NEAR))
        mean, variance = estimate(start, levels, now_s)
        by_task.append((share, priors.acceptance_logit(kind, task, signals) + mean, variance))
    acceptance, low_acceptance = _with_low(_mixture(by_task))
    if not priors.drafter(kind).lookup:
        return _Drafter(
            acceptance=acceptance, low_acceptance=low_acceptance, coverage=1.0, low_coverage=1.0, is_blind=is_blind
        )

    # 2. Coverage, of drafters that look up: the same, and how much there is to copy.
    general = cells.get(("cover", *about))
    start = estimate(_PRIOR, ((general, 0.0),), now_s)
    conversation = cells.get(conversation_key("cover", about, signals)) if signals.conversation else None
    by_task = []
    for task, share in asked.tasks.items():
        special = (
            (cells.get(("cover", *about, task)), _OF_TASK),
            (cells.get(copy_key(about, task, signals)), _NEAR),
            (conversation, _NEAR),
        )
        mean, variance = estimate(start, special, now_s)
        by_task.append((share, priors.coverage_logit(task, signals) + mean, variance))
    coverage, low_coverage = _with_low(_mixture(by_task))
    return _Drafter(
        acceptance=acceptance,
        low_acceptance=low_acceptance,
        coverage=coverage,
        low_coverage=low_coverage,
        is_blind=general is None,
    )


def _with_low(logit: Logit) -> tuple[float, float]:
    """The probability, and that of a standard deviation less."""
    return probability(logit[0]), probability(logit[0] - sqrt(logit[1]))


def _mixture(parts: Sequence[tuple[float, float, float]]) -> Logit:
    """Mean and variance of a mixture of (share, mean, variance)."""
    if len(parts) == 1:
        return parts[0][1], parts[0][2]
    mean = sum([share * value for share, value, _ in parts])
    return mean, sum([share * (variance + (value - mean) ** 2) for share, value, variance in parts])


def _tokens(model: str, task: Task, signals: Signals, state: State) -> float:
    """Expected length of the answer."""
    length = state.cells.get(tokens_key(model, task))
    mean, _ = estimate((priors.tokens_log(task), 1.0), ((length, 0.0),), state.at_s)
    tokens = exp(mean)
    return tokens if signals.max_tokens is None else min(tokens, max(1.0, float(signals.max_tokens)))


def _machine(model: str, fingerprint: str, asked: _Asked, state: State) -> tuple[float | None, float]:
    """Seconds of a plain step, ``None`` before anything was measured, and of the prefill: for the part of the prompt
    that the engine's cache is not taken to hold."""
    signals, prompt_tokens = asked.signals, asked.prompt_tokens
    if signals.turns > 1 and (turn := state.served.get((signals.conversation, fingerprint))):
        prompt_tokens = max(0.0, prompt_tokens - turn.chars / CHARS_PER_TOKEN)
    rate = state.cells.get(("prefill", model))
    step = state.cells.get(("step", model)) or state.cells.get(("guessed step", model))
    prefill_s = prompt_tokens * (exp(mean_of(rate)) if rate else PREFILL_S_PER_TOKEN)
    return exp(mean_of(step)) if step else None, prefill_s


# What evidence is about: shared with learn.py


def model_of(state: LaneState) -> str:
    """What the lane's evidence of its model and device is kept under."""
    return state.model or state.fingerprint or state.lane.engine


def tokens_key(model: str, task: Task) -> Key:
    """Length of answers. Lanes that are compared make the same answer, so the first one's model stands for all: with a
    length of its own each, a lane would look faster that was sent the shorter answers."""
    return ("tokens", model, task)


def copy_key(about: tuple[str, str], task: Task, signals: Signals) -> Key:
    """Coverage by how much there is to copy: nothing, some, most."""
    return ("cover by copy", *about, task, int(min(0.99, signals.copy) * 3))


def conversation_key(what: str, about: tuple[str, str], signals: Signals) -> Key:
    """Acceptance (``"accept"``) or coverage (``"cover"``) of a drafter in one conversation."""
    return ("conversation", what, *about, signals.conversation)


def considered(tasks: Mapping[Task, float]) -> Mapping[Task, float]:
    """The tasks that are likely enough, summing to 1."""
    likely = {task: share for task, share in tasks.items() if share >= MIN_TASK}
    if len(likely) < 2:
        return {next(iter(tasks), Task.ANSWER): 1.0}
    total = sum(likely.values())
    return {task: share / total for task, share in likely.items()}


def drafter_of(strategy: Strategy) -> str:
    """The kind of drafter that is at work; with a cap of 0 there is none."""
    return strategy.kind if strategy.drafts else PLAIN


def draft_length(strategy: Strategy) -> int:
    """Tokens in a draft: the cap, or what is usual where it is not known."""
    return strategy.n_max or priors.drafter(strategy.kind).default_length
