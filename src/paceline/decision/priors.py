"""What is believed before anything was measured here.

Acceptance by task: Qwen3.6-27B with its MTP head, three drafted (llama.cpp issue 23052 and the counts published beside
it), turned into a probability per token. Coverage of n-gram lookup by task: counts of this project's bench on
SmolLM2-135M (docs/decisions/0004), and the speed-ups of prompt lookup on Spec-Bench for the tasks in between. The
answers' lengths are guesses.
"""

from math import exp, log
from typing import NamedTuple

from paceline.decision.drafting import logit
from paceline.types import Signals, Task

_MODEL_ACCEPTANCE = {  # probability per drafted token
    Task.CODE: 0.88,
    Task.EDIT: 0.92,
    Task.EXTRACT: 0.86,
    Task.TOOL_CALL: 0.86,
    Task.MATH: 0.86,
    Task.REASON: 0.82,
    Task.ANSWER: 0.80,
    Task.RETRIEVE: 0.80,
    Task.SUMMARISE: 0.82,
    Task.TRANSLATE: 0.72,
    Task.CHAT: 0.76,
    Task.CREATE: 0.72,
}
_NGRAM_COVERAGE = {  # share of the tokens that come out of verification steps
    Task.CODE: 0.30,
    Task.EDIT: 0.60,
    Task.EXTRACT: 0.45,
    Task.TOOL_CALL: 0.40,
    Task.MATH: 0.25,
    Task.REASON: 0.15,
    Task.ANSWER: 0.12,
    Task.RETRIEVE: 0.20,
    Task.SUMMARISE: 0.20,
    Task.TRANSLATE: 0.05,
    Task.CHAT: 0.06,
    Task.CREATE: 0.05,
}
_TOKENS = {  # of an answer
    Task.CODE: 350.0,
    Task.EDIT: 400.0,
    Task.EXTRACT: 150.0,
    Task.TOOL_CALL: 80.0,
    Task.MATH: 250.0,
    Task.REASON: 250.0,
    Task.ANSWER: 250.0,
    Task.RETRIEVE: 80.0,
    Task.SUMMARISE: 120.0,
    Task.TRANSLATE: 100.0,
    Task.CHAT: 120.0,
    Task.CREATE: 500.0,
}


for _of_tasks in (_MODEL_ACCEPTANCE, _NGRAM_COVERAGE):
    _of_tasks[Task.UNKNOWN] = sum(_of_tasks.values()) / len(_of_tasks)
_TOKENS[Task.UNKNOWN] = exp(sum(map(log, _TOKENS.values())) / len(_TOKENS))
"""An unknown task is like the mean of all."""


class DrafterPrior(NamedTuple):
    """What is believed of a kind of drafter."""

    acceptance_shift: float
    """Its acceptance against an MTP head's, in logits."""
    default_length: int
    """Drafted tokens where the engine's cap is not known."""
    lookup: bool = False
    """Whether it only drafts where it finds something; else it drafts in every step."""


DRAFTERS = {
    "ngram": DrafterPrior(acceptance_shift=0.0, default_length=8, lookup=True),
    "mtp": DrafterPrior(acceptance_shift=0.0, default_length=3),
    "eagle3": DrafterPrior(acceptance_shift=-0.3, default_length=4),
    "draft": DrafterPrior(acceptance_shift=-0.4, default_length=8),
    "dflash": DrafterPrior(acceptance_shift=-0.3, default_length=8),
    "dspark": DrafterPrior(acceptance_shift=-0.3, default_length=8),
}
UNKNOWN_DRAFTER = DrafterPrior(acceptance_shift=-0.5, default_length=4)
"""Lengths are the usual settings of engines; the shifts are guesses, which the first reports of a drafter outweigh."""
_LOOKUP_ACCEPTANCE = 0.75
"""Probability that a token that lookup drafts is accepted, where nothing is to copy; a guess."""
_COPY_ACCEPTANCE = 1.5
"""Logits by which a lookup's acceptance rises from nothing to copy to everything to copy; a guess."""
_COPY_COVERAGE = 2.0
"""Logits by which a lookup's coverage rises from nothing to copy to everything to copy; a guess."""
_TYPICAL_COPY, _UNTYPICAL_COPY = 0.35, 0.1
"""Shares of the answer to copy at which the coverage is the task's: of tasks that usually copy, and of others."""
_COPYING_COVERAGE = 0.3
"""From this coverage on, a task is one that usually copies."""
_BY_TEMPERATURE = -0.4
"""Logits per unit of temperature: the hotter, the less likely is the drafted token; a guess."""
_USUAL_TEMPERATURE, _MAX_TEMPERATURE = 0.7, 2.0
"""Where a request gives none, and beyond which it changes no more."""
_STRUCTURED = 0.4
"""Logits by which a demand for a structured answer raises acceptance; a guess."""


def drafter(kind: str) -> DrafterPrior:
    """What is believed of a kind of strategy; all that begin with ``ngram`` look up."""
    return DRAFTERS.get("ngram" if kind.startswith("ngram") else kind, UNKNOWN_DRAFTER)


def acceptance_logit(kind: str, task: Task, signals: Signals) -> float:
    """Before any evidence; what is learned is the deviation from this."""
    believed = drafter(kind)
    base = _LOOKUP_LOGIT + _COPY_ACCEPTANCE * signals.copy if believed.lookup else _MODEL_LOGIT[task]
    given = signals.temperature
    temperature = _USUAL_TEMPERATURE if given is None else min(_MAX_TEMPERATURE, max(0.0, given))
    return (
        base + believed.acceptance_shift + _BY_TEMPERATURE * temperature + (_STRUCTURED if signals.structure else 0.0)
    )


def coverage_logit(task: Task, signals: Signals) -> float:
    """Of a lookup drafter, before any evidence."""
    typical = _TYPICAL_COPY if _NGRAM_COVERAGE[task] >= _COPYING_COVERAGE else _UNTYPICAL_COPY
    return _COVERAGE_LOGIT[task] + _COPY_COVERAGE * (signals.copy - typical)


def tokens_log(task: Task) -> float:
    """Logarithm of the answer's length in tokens, before any evidence."""
    return _TOKENS_LOG[task]


_LOOKUP_LOGIT = logit(_LOOKUP_ACCEPTANCE)
_MODEL_LOGIT = {task: logit(value) for task, value in _MODEL_ACCEPTANCE.items()}
_COVERAGE_LOGIT = {task: logit(value) for task, value in _NGRAM_COVERAGE.items()}
_TOKENS_LOG = {task: log(value) for task, value in _TOKENS.items()}
