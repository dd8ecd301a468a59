"""Recorded turns as a belief sees them, with what lookups would have done at their answers."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from math import log
from pathlib import Path

from msgspec import Struct

from benchmarks.lookups.belief import Turn
from benchmarks.lookups.play import Played, drafts, play
from benchmarks.lookups.tokens import bundled
from benchmarks.lookups.turns import read, texts
from paceline import Request
from paceline.inspection import inspect

LOOKED_UP = (2, 3, 4)
"""N: tokens that are looked up."""
CAPS = (1, 2, 3, 4, 8, 12)
"""Longest drafts, in tokens."""
USUAL_REPEATS, USUAL_COPY, USUAL_TURNS = 0.35, 0.3, 3
"""What statistics are centred at: about the means of the turns."""


class Row(Struct, frozen=True):
    source: str
    conversation: str
    turn: Turn
    played: Mapping[tuple[int, int], Played]
    """By N and cap."""


def rows(path: Path) -> Iterator[Row]:
    """Those of a file, in its order. Inspects the requests as the gateway does."""
    tokenizer = bundled()

    @cache
    def tokens(text: str) -> Sequence[int]:
        return tokenizer.tokens(text)

    for recorded in read(path):
        context = [token for text in texts(recorded.body) for token in tokens(text)]
        answer = tokens(recorded.answer)
        found = {n: drafts(context, answer, n, max(CAPS)) for n in LOOKED_UP}
        played = {(n, cap): play(found[n], cap) for n in LOOKED_UP for cap in CAPS}
        signals = inspect(Request.of(recorded.body))
        application, task = signals.application, str(signals.task)
        groups = {
            "application": application,
            "task": task,
            "turn": signals.turn,
            "application, turn": f"{application} {signals.turn}",
            "application, task": f"{application} {task}",
            "conversation": recorded.conversation,
        }
        statistics = {
            "repeats": signals.repeats - USUAL_REPEATS,
            "copy": signals.copy - USUAL_COPY,
            "turns": log(signals.turns / USUAL_TURNS),
        }
        yield Row(recorded.source, recorded.conversation, Turn(groups, statistics, application), played)
