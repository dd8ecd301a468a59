"""Signals and lanes -> what each lane will take per token, with its uncertainty.

    time per token = (1 - coverage) * plain step + coverage * drafting step / (1 + accepted per draft)

Acceptance and coverage come from the request and the drafter, the steps' cost from the machine. Coverage is the share of
*tokens* that come out of drafting steps, which stays the same under another cap, as the share of steps would not.
"""

from collections.abc import Mapping, Sequence
from math import exp, log, sqrt

from msgspec import Struct

from paceline.decision import priors
from paceline.decision.cells import estimate, mean_of
from paceline.decision.drafting import accepted_per_draft, probability
from paceline.decision.load import Load
from paceline.decision.state import Key, State
from paceline.decision.step_cost import NOTHING, PRIOR_MEAN, cost
from paceline.types import LaneState, Prediction, Signals, Strategy, Task

LEAST_TASK = 0.15
"""Tasks that are less likely than this are not considered."""
CHARS_PER_TOKEN = 4.0
PRIOR_SPREAD = 0.9
"""Standard deviation, in logits, of the priors of acceptance and coverage."""
TASK_SPREAD = 0.6
"""By which a task deviates from a drafter's other tasks."""
NEAR_SPREAD = 0.3
"""By which an amount to copy deviates from a task's other requests, and a conversation from its task."""
MISFIT = 0.06
"""Standard deviation of what the model misses in a lane's time; as a logarithm."""
BLIND_MISFIT = 0.25
"""The same where the engine does not tell what was accepted, so that the time alone shows how wrong the prior is; and
again by which a task deviates from the lane's others."""
UNSEEN_SPREAD = 0.25
"""Of a plain lane's time, as long as it follows only from what drafting lanes took."""
GUESSED_SPREAD = 0.5
"""The same where those lanes' engines do not even tell what was accepted."""
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


def predict(
    signals: Signals, lanes: Sequence[LaneState], state: State, load: Load | None = None
) -> dict[str, Prediction]:
    """What to expect of each lane, by its name."""
    load = load or Load(lanes)
    cells, now_s = state.cells, state.at_s
    tasks = considered(signals.tasks)
    task = next(iter(tasks))
    tokens = _tokens(task, signals, state)
    prompt_tokens = signals.prompt_chars / CHARS_PER_TOKEN
    context_k = (prompt_tokens + tokens / 2) / 1000
    drafters: dict[tuple[str, str], _Drafter] = {}
    machines: dict[tuple[str, str], tuple[float | None, float]] = {}
    found = {}
    for one in lanes:
        strategy = one.lane.strategy
        fingerprint = one.fingerprint or one.lane.engine
        model = one.model or fingerprint
        kind = strategy.kind if strategy.drafts else PLAIN
        beside = load.beside(one)
        step = state.steps.get((model, kind), NOTHING).coefficients
        general = ("correct", fingerprint, strategy.kind, strategy.n_max)
        machine = machines.get((model, fingerprint))
        if machine is None:
            machine = machines[model, fingerprint] = _machine(model, fingerprint, prompt_tokens, signals, state)
        acceptance = spread = coverage = None
        is_blind = False
        correction = 0.0
        if kind is PLAIN:
            time = cost(step, 0, beside, context_k)
            variance = MISFIT**2
            if general not in cells:
                variance = UNSEEN_SPREAD**2 if ("step", model) in cells else GUESSED_SPREAD**2
        else:
            about = (model, kind)
            drafter = drafters.get(about)
            if drafter is None:
                drafter = drafters[about] = _drafter(about, tasks, signals, state)
            is_blind, acceptance, coverage = drafter.is_blind, drafter.acceptance, drafter.coverage
            spread = acceptance - drafter.less
            length = draft_length(strategy)
            plain = cost(step, 0, beside, context_k)
            drafting = cost(step, length, beside, context_k)
            yielded = 1 + accepted_per_draft(acceptance, length)
            usual = drafting / yielded
            time = plain + coverage * (usual - plain)
            worse = coverage * drafting * (1 / (1 + accepted_per_draft(drafter.less, length)) - 1 / yielded)
            rarer = (coverage - drafter.rarer) * (plain - usual)
            variance = (worse / time) ** 2 + (rarer / time) ** 2
            seen = cells.get(general)
            if is_blind:
                levels = ((seen, BLIND_MISFIT**2), (cells.get((*general, task)), BLIND_MISFIT**2))
                correction, variance = estimate((0.0, variance), levels, now_s)
            elif seen is not None:
                # Its evidence is kept against the prior's costs, which never change, so it has to be read against them.
                plain = cost(PRIOR_MEAN, 0, beside, context_k)
                usual = cost(PRIOR_MEAN, length, beside, context_k) / yielded
                start = log(time / (plain + coverage * (usual - plain)))
                correction, uncertain = estimate((start, 0.0), ((seen, MISFIT**2),), now_s)
                correction -= start
                variance += uncertain
            else:
                variance += MISFIT**2
        found[one.lane.name] = Prediction(
            fingerprint,
            model,
            strategy,
            time,
            exp(correction),
            sqrt(variance),
            machine[0],
            step,
            acceptance,
            spread,
            coverage,
            tokens,
            machine[1],
            is_blind,
        )
    return found


def considered(tasks: Mapping[Task, float]) -> Mapping[Task, float]:
    """The tasks that are likely enough, summing to 1."""
    likely = {task: share for task, share in tasks.items() if share >= LEAST_TASK}
    if len(likely) == 1:
        return {next(iter(likely)): 1.0}
    total = sum(likely.values())
    if not total:
        return {next(iter(tasks), Task.ANSWER): 1.0}
    return {task: share / total for task, share in likely.items()}


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
        levels = (
            (cells.get(("cover", *about, one)), TASK_SPREAD**2),
            (cells.get(copy_key(about, one, signals)), NEAR_SPREAD**2),
            (talk, NEAR_SPREAD**2),
        )
        mean, variance = estimate(start, levels, now_s)
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


def _tokens(task: Task, signals: Signals, state: State) -> float:
    """Expected length of the answer."""
    mean, _ = estimate((priors.tokens_log(task), 1.0), ((state.cells.get(("tokens", task)), 0.0),), state.at_s)
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
