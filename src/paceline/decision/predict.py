"""Signals and lanes -> what each lane will take per token, with its uncertainty.

    time per token = (1 - coverage) * plain step + coverage * drafting step / (1 + accepted per draft)

Acceptance and coverage come from the request and the drafter, the steps' cost from the machine. Coverage is the share
of *tokens* that come out of drafting steps, which stays the same under another cap, as the share of steps would not.
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
from paceline.types import LaneState, Prediction, Signals, Strategy, Task

MIN_TASK = 0.15
"""Tasks that are less likely than this are not considered."""
CHARS_PER_TOKEN = 4.0
PRIOR_SPREAD = 0.9
"""Standard deviation, in logits, of the priors of acceptance and coverage."""
TASK_SPREAD = 0.6
"""By which a task deviates from a drafter's other tasks."""
NEAR_SPREAD = 0.3
"""By which an amount to copy deviates from a task's other requests, and a conversation from its task."""
MISFIT = 0.06
"""Standard deviation of what the model misses in a plain lane's time, and in the cost of a lane's drafting step; as a
logarithm."""
MIN_COST = 0.1
"""Of a drafting step, as a share of what was believed."""
UNKNOWN_COST = 0.1
"""Relative standard deviation of a drafting step's cost from which on a cap that was never tried teaches about it."""
PLAIN_GAP = 3.0
"""Standard deviations from which on a lane is believed to deviate by more than that."""
BLIND_MISFIT = 0.25
"""The same where the engine does not tell what was accepted, so that the time alone shows how wrong the prior is; and
again by which a task deviates from the lane's others."""
UNSEEN_SPREAD = 0.25
"""Of a plain lane's time, as long as it follows only from what drafting lanes took."""
GUESSED_SPREAD = 0.5
"""The same where those lanes' engines do not even tell what was accepted."""
LOOKUP_COST = 0.02
"""What looking up costs in steps that find nothing, as a share of a plain step: lanes that never drafted were
slower than plain ones, by 1 to 2 % (seen at a cap below the engine's shortest draft)."""
PREFILL_S_PER_TOKEN = 0.001

PLAIN = "autoregressive"
Estimate = tuple[float, float]


class _Drafter(Struct):
    """What a drafter will do with a request."""

    acceptance: float
    less: float
    """The acceptance, one standard deviation lower."""
    coverage: float
    rarer: float
    """The coverage, one standard deviation lower."""
    is_blind: bool
    """Whether its engine never told what was accepted."""


class _Group(Struct):
    """What lanes have in common that differ in nothing but their cap."""

    fingerprint: str
    model: str
    kind: str
    plain_step_s: float | None
    prefill_s: float
    step_cost: StepCost
    plain: float
    """Cost of a step without a draft, and of one with a draft but for its tokens; in plain steps made alone."""
    drafting: float
    drafter: _Drafter | None
    drafting_before: float
    """The same by the prior's coefficients, against which evidence is kept since they never change."""


def predict(
    signals: Signals, lanes: Sequence[LaneState], state: State, load: Load | None = None
) -> dict[str, Prediction]:
    """What to expect of each lane, by its name."""
    load = load or Load(lanes)
    cells, now_s = state.cells, state.at_s
    tasks = considered(signals.tasks)
    task = next(iter(tasks))
    tokens = _tokens(model_of(lanes[0]), task, signals, state) if lanes else 0.0
    prompt_tokens = signals.prompt_chars / CHARS_PER_TOKEN
    context_k = (prompt_tokens + tokens / 2) / 1000
    groups: dict[tuple[str, str, str, int], _Group] = {}
    found = {}
    for one in lanes:
        lane, model = one.lane, one.model
        strategy = lane.strategy
        kind = drafter_of(strategy)
        fingerprint = one.fingerprint or lane.engine
        about = (fingerprint, model, kind, load.beside(one))
        group = groups.get(about)
        if group is None:
            group = groups[about] = _group(*about, context_k, prompt_tokens, tasks, signals, state)
        about_lane = (fingerprint, kind, strategy.n_max)
        drafter = group.drafter
        if drafter is None:
            variance = MISFIT**2
            is_unseen = ("correct", *about_lane) not in cells
            if is_unseen:
                variance = UNSEEN_SPREAD**2 if ("step", group.model) in cells else GUESSED_SPREAD**2
            found[lane.name] = Prediction(
                fingerprint, group.model, strategy, group.plain, 1.0, sqrt(variance), group.plain_step_s,
                group.step_cost.coefficients, None, None, None, tokens, group.prefill_s, is_unseen=is_unseen,
            )  # fmt: skip
            continue
        length = strategy.n_max or draft_length(strategy)
        acceptance, less, coverage = drafter.acceptance, drafter.less, drafter.coverage
        drafting = group.drafting + group.step_cost.coefficients[1] * length
        variance = drafting_variance(group.step_cost, length)
        is_untried = False
        if not drafter.is_blind:
            seen = cells.get(("drafting step", *about_lane))
            is_untried = seen is None and variance > (UNKNOWN_COST * drafting) ** 2
            before = group.drafting_before + PRIOR_MEAN[1] * length
            factor, misfit = _corrected(seen, before / drafting, now_s)
            drafting *= factor
            variance += misfit * drafting * drafting
        yielded = 1 + accepted_per_draft(acceptance, length)
        gain = group.plain - drafting / yielded
        time = group.plain - coverage * gain
        worse = coverage * drafting * (1 / (1 + accepted_per_draft(less, length)) - 1 / yielded)
        rarer = (coverage - drafter.rarer) * gain
        dearer = coverage / yielded
        variance = (worse * worse + rarer * rarer + dearer * dearer * variance) / (time * time)
        correction = 0.0
        if drafter.is_blind:
            by_lane, by_task = cells.get(("correct", *about_lane)), cells.get(("correct", *about_lane, task))
            levels = ((by_lane, BLIND_MISFIT**2), (by_task, BLIND_MISFIT**2))
            correction, variance = estimate((0.0, variance), levels, now_s)
        found[lane.name] = Prediction(
            fingerprint, group.model, strategy, time, exp(correction), sqrt(variance), group.plain_step_s,
            group.step_cost.coefficients, acceptance, acceptance - less, coverage, tokens, group.prefill_s,
            drafter.is_blind, drafting / group.plain, is_untried=is_untried,
        )  # fmt: skip
    return found


def _group(
    fingerprint: str,
    model: str,
    kind: str,
    beside: int,
    context_k: float,
    prompt_tokens: float,
    tasks: Mapping[Task, float],
    signals: Signals,
    state: State,
) -> _Group:
    model = model or fingerprint
    step_cost = state.steps.get((model, kind), NOTHING)
    coefficients = step_cost.coefficients
    plain_step_s, prefill_s = _machine(model, fingerprint, prompt_tokens, signals, state)
    return _Group(
        fingerprint,
        model,
        kind,
        plain_step_s,
        prefill_s,
        step_cost,
        cost(coefficients, 0, beside, context_k) * (1 + LOOKUP_COST * priors.drafter(kind).lookup),
        cost(coefficients, 1, beside, context_k) - coefficients[1],
        None if kind == PLAIN else _drafter((model, kind), tasks, signals, state),
        cost(PRIOR_MEAN, 1, beside, context_k) - PRIOR_MEAN[1],
    )


def _corrected(seen: Cell | None, before: float, now_s: float) -> tuple[float, float]:
    """What a lane's own evidence makes of its drafting step's cost, as a factor, and the variance of its logarithm that
    is left. It may deviate by the usual misfit, unless it plainly deviates by more.

    Args:
        seen: costs over those that were believed before all evidence, less 1.
        before: those costs over the present ones.
    """
    if seen is None:
        return 1.0, MISFIT**2
    mean, weight = evidence(seen, now_s)
    gap = log(max(MIN_COST, (1 + mean) * before))
    misfit = MISFIT**2
    if gap * gap > misfit and gap * gap * weight > PLAIN_GAP**2:
        misfit = gap * gap
    gain = weight * misfit
    return exp(gap * gain / (1 + gain)), misfit / (1 + gain)


def model_of(one: LaneState) -> str:
    """What the lane's evidence of its model and device is kept under."""
    return one.model or one.fingerprint or one.lane.engine


def tokens_key(model: str, task: Task) -> Key:
    """Length of answers. Lanes that are compared make the same answer, so the first one's model stands for all: with a
    length of its own each, a lane would look faster that was sent the shorter answers."""
    return ("tokens", model, task)


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


def copy_key(about: tuple[str, str], task: Task, signals: Signals) -> Key:
    """Coverage by how much there is to copy: nothing, some, most."""
    return ("cover by copy", *about, task, int(min(0.99, signals.copy) * 3))


def conversation_key(what: str, about: tuple[str, str], signals: Signals) -> Key:
    return ("conversation", what, *about, signals.conversation)


def _drafter(about: tuple[str, str], tasks: Mapping[Task, float], signals: Signals, state: State) -> _Drafter:
    kind = about[1]
    cells, now_s = state.cells, state.at_s
    # A drafter's mean over all tasks depends on which came lately, so its changes say nothing about one task.
    general = cells.get(("accept", *about))
    start = estimate((0.0, PRIOR_SPREAD**2), ((general, 0.0),), now_s)
    talk = cells.get(conversation_key("accept", about, signals)) if signals.conversation else None
    accepts = []
    for one, share in tasks.items():
        levels = ((cells.get(("accept", *about, one)), TASK_SPREAD**2), (talk, NEAR_SPREAD**2))
        mean, variance = estimate(start, levels, now_s)
        accepts.append((share, priors.acceptance_logit(kind, one, signals) + mean, variance))
    if not priors.drafter(kind).lookup:
        return _Drafter(*_with_less(_mixture(accepts)), 1.0, 1.0, general is None)
    general = cells.get(("cover", *about))
    start = estimate((0.0, PRIOR_SPREAD**2), ((general, 0.0),), now_s)
    talk = cells.get(conversation_key("cover", about, signals)) if signals.conversation else None
    covers = []
    for one, share in tasks.items():
        special = (
            (cells.get(("cover", *about, one)), TASK_SPREAD**2),
            (cells.get(copy_key(about, one, signals)), NEAR_SPREAD**2),
            (talk, NEAR_SPREAD**2),
        )
        mean, variance = estimate(start, special, now_s)
        covers.append((share, priors.coverage_logit(one, signals) + mean, variance))
    return _Drafter(*_with_less(_mixture(accepts)), *_with_less(_mixture(covers)), general is None)


def _with_less(logit: Estimate) -> tuple[float, float]:
    """The probability, and that of a standard deviation less."""
    return probability(logit[0]), probability(logit[0] - sqrt(logit[1]))


def _mixture(parts: Sequence[tuple[float, float, float]]) -> Estimate:
    """Mean and variance of a mixture of (share, mean, variance)."""
    if len(parts) == 1:
        return parts[0][1], parts[0][2]
    mean = sum([share * value for share, value, _ in parts])
    return mean, sum([share * (variance + (value - mean) ** 2) for share, value, variance in parts])


def _tokens(model: str, task: Task, signals: Signals, state: State) -> float:
    """Expected length of the answer."""
    known = state.cells.get(tokens_key(model, task))
    mean, _ = estimate((priors.tokens_log(task), 1.0), ((known, 0.0),), state.at_s)
    tokens = exp(mean)
    return tokens if signals.max_tokens is None else min(tokens, max(1.0, float(signals.max_tokens)))


def _machine(
    model: str, fingerprint: str, prompt_tokens: float, signals: Signals, state: State
) -> tuple[float | None, float]:
    """Seconds of a plain step, ``None`` before anything was measured, and of the prefill: for the part of the prompt
    that the engine's cache is not taken to hold."""
    if signals.turns > 1 and (turn := state.served.get((signals.conversation, fingerprint))):
        prompt_tokens = max(0.0, prompt_tokens - turn.chars / CHARS_PER_TOKEN)
    rate = state.cells.get(("prefill", model))
    step = state.cells.get(("step", model)) or state.cells.get(("guessed step", model))
    prefill_s = prompt_tokens * (exp(mean_of(rate)) if rate else PREFILL_S_PER_TOKEN)
    return exp(mean_of(step)) if step else None, prefill_s
