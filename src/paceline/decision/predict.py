"""Signals and lanes -> what each lane will take per token, with its uncertainty.

    time per token = (1 - coverage) * plain step + coverage * drafting step / (1 + accepted per draft)

Acceptance and coverage come from the request and the drafter, the steps' cost from the machine. Coverage is the share of
*tokens* that come out of drafting steps, which stays the same under another cap, as the share of steps would not.
"""

from collections.abc import Mapping, Sequence
from math import exp, log, sqrt

from paceline.decision import priors, step_cost
from paceline.decision.cells import estimate
from paceline.decision.drafting import accepted_per_draft, probability
from paceline.decision.state import Key, State
from paceline.types import LaneState, Prediction, Signals, Strategy, Task

LEAST_TASK = 0.15
"""Tasks that are less likely than this are not considered."""
CHARS_PER_TOKEN = 4.0
PRIOR_SPREAD = 0.9
"""Standard deviation, in logits, of the priors of acceptance and coverage."""
TASK_SPREAD = 0.6
"""By which a task deviates from a drafter's other tasks."""
NEAR_SPREAD = 0.3
"""By which a cap, or an amount to copy, deviates from a task's other requests, and a conversation from its task."""
MISFIT = 0.08
"""Standard deviation of what the model misses in a lane's time, and again in one task of a lane; as a logarithm."""
PREFILL_S_PER_TOKEN = 0.001
UNKNOWN_SPEED_SPREAD = 1.0

Estimate = tuple[float, float]


def predict(signals: Signals, lanes: Sequence[LaneState], state: State) -> dict[str, Prediction]:
    """What to expect of each lane, by its name."""
    tasks = considered(signals.tasks)
    tokens = _tokens(tasks, signals, state)
    prompt_tokens = signals.prompt_chars / CHARS_PER_TOKEN
    context_k = (prompt_tokens + tokens / 2) / 1000
    drafting: dict[tuple[str, str], tuple[Estimate, Estimate | None, bool]] = {}
    found = {}
    for one in lanes:
        strategy = one.lane.strategy
        fingerprint = one.fingerprint or one.lane.engine
        model = one.model or fingerprint
        beside = in_flight_beside(one, lanes)
        drafter = strategy.kind if strategy.drafts else "autoregressive"
        step = state.steps.get((model, drafter), step_cost.NOTHING).coefficients
        variance = 0.0
        acceptance = spread = coverage = None
        is_blind = False
        if strategy.drafts:
            about = (model, strategy.kind)
            if about not in drafting:
                drafting[about] = _drafter(about, tasks, signals, state)
            accept, cover, is_blind = drafting[about]
            if not is_blind:
                accept = estimate(accept, ((state.cells.get(cap_key(fingerprint, strategy, tasks)), NEAR_SPREAD**2),))
            length = draft_length(strategy)
            likely = _time(step, accept[0], cover and cover[0], length, beside, context_k)
            swayed = _time(step, accept[0] - sqrt(accept[1]), cover and cover[0], length, beside, context_k)
            variance = log(swayed / likely) ** 2
            if cover:
                swayed = _time(step, accept[0], cover[0] - sqrt(cover[1]), length, beside, context_k)
                variance += log(swayed / likely) ** 2
            acceptance = probability(accept[0])
            spread = sqrt(accept[1]) * acceptance * (1 - acceptance)
            coverage = probability(cover[0]) if cover else 1.0
        else:
            likely = step_cost.cost(step, 0, beside, context_k)
        general, special = correction_keys(fingerprint, strategy, tasks)
        levels = ((state.cells.get(general), MISFIT**2), (state.cells.get(special), MISFIT**2))
        correction, uncertain = estimate((0.0, variance if is_blind else 0.0), levels)
        plain_step = state.cells.get(("step", model))
        found[one.lane.name] = Prediction(
            fingerprint=fingerprint,
            model=model,
            strategy=strategy,
            plain_steps_per_token=likely,
            correction=exp(correction),
            spread=sqrt(uncertain if is_blind else uncertain + variance),
            plain_step_s=exp(plain_step.mean) if plain_step else None,
            step_cost=step,
            acceptance=acceptance,
            acceptance_spread=spread,
            coverage=coverage,
            tokens=tokens,
            prefill_s=_prefill_s(model, fingerprint, prompt_tokens, signals, state),
        )
    return found


def considered(tasks: Mapping[Task, float]) -> dict[Task, float]:
    """The tasks that are likely enough, summing to 1."""
    likely = {task: share for task, share in tasks.items() if share >= LEAST_TASK}
    total = sum(likely.values())
    if not total:
        return {next(iter(tasks), Task.ANSWER): 1.0}
    return {task: share / total for task, share in likely.items()}


def in_flight_beside(one: LaneState, lanes: Sequence[LaneState]) -> int:
    """Requests that are being decoded beside one sent down this lane: those of its device, or, where engines take
    turns, of its engine."""
    device = one.lane.device
    if device is None or not one.has_turn or any(not other.has_turn for other in lanes if other.lane.device == device):
        return sum(other.running for other in lanes if other.lane.engine == one.lane.engine)
    return sum(other.running for other in lanes if other.lane.device == device)


def draft_length(strategy: Strategy) -> int:
    """Tokens in a draft: the cap, or what is usual where it is not known."""
    return strategy.n_max or priors.drafter(strategy.kind).default_length


def cap_key(fingerprint: str, strategy: Strategy, tasks: Mapping[Task, float]) -> Key:
    return ("accept", fingerprint, strategy.kind, next(iter(tasks)), str(strategy.n_max))


def copy_key(about: tuple[str, str], task: Task, signals: Signals) -> Key:
    """Coverage by how much there is to copy: nothing, some, most."""
    return ("cover", *about, task, str(int(min(0.99, signals.copy) * 3)))


def conversation_key(what: str, about: tuple[str, str], signals: Signals) -> Key:
    return ("conversation", what, *about, signals.conversation)


def correction_keys(fingerprint: str, strategy: Strategy, tasks: Mapping[Task, float]) -> tuple[Key, Key]:
    """Of what the model misses in a lane, and in the likeliest task of it."""
    general = ("correct", fingerprint, strategy.kind, str(strategy.n_max))
    return general, (*general, next(iter(tasks)))


def _drafter(
    about: tuple[str, str], tasks: Mapping[Task, float], signals: Signals, state: State
) -> tuple[Estimate, Estimate | None, bool]:
    """Logits of acceptance and, of a lookup, coverage; and whether acceptance was never reported."""
    kind = about[1]
    cells = state.cells
    general = cells.get(("accept", *about))
    talk = cells.get(conversation_key("accept", about, signals))
    accepts = []
    for task, share in tasks.items():
        levels = ((general, 0.0), (cells.get(("accept", *about, task)), TASK_SPREAD**2), (talk, NEAR_SPREAD**2))
        mean, variance = estimate((0.0, PRIOR_SPREAD**2), levels)
        accepts.append((share, priors.acceptance_logit(kind, task, signals) + mean, variance))
    if not priors.drafter(kind).lookup:
        return _mixture(accepts), None, general is None
    general_cover = cells.get(("cover", *about))
    talk = cells.get(conversation_key("cover", about, signals))
    covers = []
    for task, share in tasks.items():
        mean, variance = estimate(
            (0.0, PRIOR_SPREAD**2),
            (
                (general_cover, 0.0),
                (cells.get(("cover", *about, task)), TASK_SPREAD**2),
                (cells.get(copy_key(about, task, signals)), NEAR_SPREAD**2),
                (talk, NEAR_SPREAD**2),
            ),
        )
        covers.append((share, priors.coverage_logit(task, signals) + mean, variance))
    return _mixture(accepts), _mixture(covers), general is None and general_cover is None


def _mixture(parts: Sequence[tuple[float, float, float]]) -> Estimate:
    """Mean and variance of a mixture of (share, mean, variance)."""
    if len(parts) == 1:
        return parts[0][1], parts[0][2]
    mean = sum([share * value for share, value, _ in parts])
    return mean, sum([share * (variance + (value - mean) ** 2) for share, value, variance in parts])


def _time(
    step: tuple[float, ...],
    acceptance: float,
    coverage: float | None,
    length: int,
    beside: int,
    context_k: float,
) -> float:
    """Plain steps per token; acceptance and coverage as logits."""
    drafting = step_cost.cost(step, length, beside, context_k) / (
        1 + accepted_per_draft(probability(acceptance), length)
    )
    if coverage is None:
        return drafting
    covered = probability(coverage)
    return (1 - covered) * step_cost.cost(step, 0, beside, context_k) + covered * drafting


def _tokens(tasks: Mapping[Task, float], signals: Signals, state: State) -> float:
    """Expected length of the answer."""
    task = next(iter(tasks))
    mean, _ = estimate((priors.tokens_log(task), 1.0), ((state.cells.get(("tokens", task)), 0.0),))
    tokens = exp(mean)
    return tokens if signals.max_tokens is None else min(tokens, max(1.0, float(signals.max_tokens)))


def _prefill_s(model: str, fingerprint: str, prompt_tokens: float, signals: Signals, state: State) -> float:
    """For the part of the prompt that the engine's cache is not taken to hold."""
    if signals.turns > 1 and (turn := state.served.get((signals.conversation, fingerprint))):
        prompt_tokens = max(0.0, prompt_tokens - turn.chars / CHARS_PER_TOKEN)
    rate = state.cells.get(("prefill", model))
    return prompt_tokens * (exp(rate.mean) if rate else PREFILL_S_PER_TOKEN)
