"""Why a request went where it did, in sentences for people; the reason in its header is for who knows the words."""

from collections.abc import Iterator, Sequence

from paceline.records.kept import NO_LANE
from paceline.records.record import Record
from paceline.text_table import shown_name
from paceline.types import Prediction, Task

MIN_SHARE = 0.15
"""Of a task that is named beside the likeliest one."""
MAX_TASKS = 3
UNSURE = 0.5
"""Below this share the likeliest task is no more than that."""
PREDICTED = " -> "
"""Stands in the part of a reason that the predictions are told in (``decision/reason.py``); here they are told in
words."""


def in_words(record: Record) -> str:
    """A sentence or more."""
    return " ".join(_sentences(record))


def _sentences(record: Record) -> Iterator[str]:
    decision, outcome = record.decision, record.outcome
    if decision.lane == NO_LANE:
        yield "It was refused before a lane was chosen."
        return
    yield _asked(record)
    if decision.placed is not None and decision.placed.reason:
        yield _sentence(decision.placed.reason)
    if record.forced:
        yield f"The request named {shown_name(decision.lane)}."
    elif len(decision.predictions) > 1 and PREDICTED in decision.reason:
        yield _expected(record)
    placed = decision.placed.reason if decision.placed else ""
    for remark in _remarks(decision.reason.removeprefix(placed)):
        yield _sentence(remark)
    for lane, _ in outcome.failed:
        yield f"{shown_name(lane)} failed on it first."
    if outcome.lane != decision.lane and outcome.error is None:
        yield f"{shown_name(outcome.lane)} answered in place of {shown_name(decision.lane)}."


def _asked(record: Record) -> str:
    """What the request was taken for."""
    tasks = record.signals.tasks
    likely = [task for task, share in tasks.items() if share >= MIN_SHARE and task is not Task.UNKNOWN][:MAX_TASKS]
    first = next(iter(tasks), Task.UNKNOWN)
    if not likely or first is Task.UNKNOWN:
        return "What it asks for can't be told" + (f"; it may be {_listed(likely)}." if likely else ".")
    share = tasks[first]
    if share >= UNSURE:
        return f"Taken for {first} ({share:.0%} sure)."
    return f"Perhaps {_listed(likely)} ({first} is the likeliest, {share:.0%})."


def _listed(tasks: Sequence[Task]) -> str:
    return " or ".join(filter(None, (", ".join(tasks[:-1]), tasks[-1])))


def _expected(record: Record) -> str:
    """What the chosen lane was expected to take, beside the best other one."""
    decision = record.decision
    chosen = decision.predictions.get(decision.lane)
    others = {name: each for name, each in decision.predictions.items() if name != decision.lane}
    if chosen is None or not others:
        return _sentence(decision.reason)
    other = min(others, key=lambda name: others[name].relative)
    own, its = _time(chosen, others[other])
    if decision.exploring_s > 0:
        return (
            f"{shown_name(decision.lane)} was tried to learn from it: expected to take {own} a token, where "
            f"{shown_name(other)} would take {its}."
        )
    ratio = chosen.relative / others[other].relative
    if ratio < 1:
        more = f"{1 - ratio:.0%} less than" if ratio < 0.995 else "about as long as"
        return f"{shown_name(decision.lane)} was expected to be the fastest: {own} a token, {more} {shown_name(other)}."
    return f"{shown_name(decision.lane)} was expected to take {own} a token, {shown_name(other)} {its}."


def _time(one: Prediction, other: Prediction) -> tuple[str, str]:
    if one.s_per_token is None or other.s_per_token is None:
        return f"{one.relative:.2f} plain steps", f"{other.relative:.2f}"
    return f"{1000 * one.s_per_token:.1f} ms", f"{1000 * other.s_per_token:.1f} ms"


def _remarks(reason: str) -> Iterator[str]:
    """The parts of a reason that are sentences already."""
    for part in reason.split("; "):
        if part and PREDICTED not in part and part != "explored" and not part.startswith("the request forces"):
            yield part


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:].rstrip('.')}." if text else ""
