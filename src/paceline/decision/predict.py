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
"""Standard deviation of what the model misses in a lane's time, and again in one task of a lane; as a logarithm."""
BLIND_MISFIT = 0.25
"""The same where the engine does not tell what was accepted, so that the time alone shows how wrong the prior is."""
UNSEEN_SPREAD = 0.25
"""Of a plain lane's time, as long as it follows only from what drafting lanes took."""
GUESSED_SPREAD = 0.5
"""The same where those lanes' engines do not even tell what was accepted."""
PREFILL_S_PER_TOKEN = 0.001

Estimate = tuple[float, float]


class _Drafter(Struct):
    """What a drafter will do with a request; logits with their variances."""

    acceptance: Estimate
    coverage: Estimate | None
    """``None`` where it drafts in every step."""
    is_blind: bool
    """Whether its engine never told what was accepted."""


def predict(signals: Signals, lanes: Sequence[LaneState], state: State, load: Load | None = None) -> dict[str, Prediction]:
    """What to expect of each lane, by its name."""
    load = load or Load(lanes)
    cells, now_s = state.cells, state.at_s
    tasks = considered(signals.tasks)
    task = next(iter(tasks))
    tokens = _tokens(task, signals, state)
    prompt_tokens = signals.prompt_chars / CHARS_PER_TOKEN
    context_k = (prompt_tokens + tokens / 2) / 1000
    drafters: dict[tuple[str, str], _Drafter] = {}
    found = {}
    for one in lanes:
        strategy = one.lane.strategy
        fingerprint = one.fingerprint or one.lane.engine
        model = one.model or fingerprint
        drafts = strategy.drafts
        step = state.steps.get((model, strategy.kind if drafts else "autoregressive"), NOTHING).coefficients
        beside = load.beside(one)
        time = plain = cost(step, 0, beside, context_k)
        variance = 0.0
        acceptance = spread = coverage = None
        is_blind = False
        if drafts:
            about = (model, strategy.kind)
            drafter = drafters.get(about)
            if drafter is None:
                drafter = drafters[about] = _drafter(about, tasks, signals, state)
            is_blind = drafter.is_blind
            mean, unsure = drafter.acceptance
            length = draft_length(strategy)
            acceptance = probability(mean)
            less = probability(mean - sqrt(unsure))
            spread = acceptance - less
            drafting = cost(step, length, beside, context_k)
            yielded = 1 + accepted_per_draft(acceptance, length)
            usual = drafting / yielded
            worse = drafting / (1 + accepted_per_draft(less, length))
            believed = cost(PRIOR_MEAN, length, beside, context_k) / yielded
            coverage = 1.0
            if drafter.coverage:
                coverage = probability(drafter.coverage[0])
                rarer = probability(drafter.coverage[0] - sqrt(drafter.coverage[1]))
                time = (1 - coverage) * plain + coverage * usual
                believed = (1 - coverage) * cost(PRIOR_MEAN, 0, beside, context_k) + coverage * believed
                variance = log(((1 - coverage) * plain + coverage * worse) / time) ** 2
                variance += log(((1 - rarer) * plain + rarer * usual) / time) ** 2
            else:
                time = usual
                variance = log(worse / usual) ** 2
        general, special = correction_keys(fingerprint, strategy, task)
        correction, uncertain = 0.0, MISFIT**2
        if drafts and not is_blind:
            start = log(time / believed)
            levels = ((cells.get(general), MISFIT**2), (cells.get(special), MISFIT**2))
            correction, uncertain = estimate((start, 0.0), levels, now_s)
            correction -= start
        elif is_blind:
            levels = ((cells.get(general), BLIND_MISFIT**2), (cells.get(special), BLIND_MISFIT**2))
            correction, variance = estimate((0.0, variance), levels, now_s)
        elif not drafts and general not in cells:
            uncertain = UNSEEN_SPREAD**2 if ("step", model) in cells else GUESSED_SPREAD**2
        plain_step = cells.get(("step", model)) or cells.get(("guessed step", model))
        found[one.lane.name] = Prediction(
            fingerprint,
            model,
            strategy,
            time,
            exp(correction),
            sqrt(uncertain + variance),
            exp(mean_of(plain_step)) if plain_step else None,
            step,
            acceptance,
            spread,
            coverage,
            tokens,
            _prefill_s(model, fingerprint, prompt_tokens, signals, state),
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


def correction_keys(fingerprint: str, strategy: Strategy, task: Task) -> tuple[Key, Key]:
    """Of what the model misses in a lane, and in one task of it."""
    return (
        ("correct", fingerprint, strategy.kind, strategy.n_max),
        ("correct", fingerprint, strategy.kind, strategy.n_max, task),
    )


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
        return _Drafter(_mixture(accepts), None, general is None)
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
    return _Drafter(_mixture(accepts), _mixture(covers), general is None)


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


def _prefill_s(model: str, fingerprint: str, prompt_tokens: float, signals: Signals, state: State) -> float:
    """For the part of the prompt that the engine's cache is not taken to hold."""
    if signals.turns > 1 and (turn := state.served.get((signals.conversation, fingerprint))):
        prompt_tokens = max(0.0, prompt_tokens - turn.chars / CHARS_PER_TOKEN)
    rate = state.cells.get(("prefill", model))
    return prompt_tokens * (exp(mean_of(rate)) if rate else PREFILL_S_PER_TOKEN)
