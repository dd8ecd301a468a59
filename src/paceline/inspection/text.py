"""The text of a request, whatever its API, and only as much of it as inspection needs.

However a request is shaped, at most :data:`MAX_PARTS` of a list's entries are looked at, and at most
:data:`MAX_TEXTS` of all its lists' together.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from paceline.types import Request

MAX_PARTS = 64
"""Of a conversation with more parts, the first and the last ones are read; of other lists, the last."""
MAX_TEXTS = 1024
"""Entries that are looked at in all: lists in lists could hold 64 * 64 * 64. It takes about a millisecond."""
MAX_TEXTS_OF_LAST_TURN = 512
MAX_TEXTS_OF_FIRST_TURNS = 128
"""Each of the first two."""
FIRST_TURNS = 2
MEDIA = ("image", "image_url", "input_image", "input_audio", "audio", "file", "input_file", "document")


class Part(NamedTuple):
    """One piece of text in a request."""

    role: str
    """``system``, ``user``, ``assistant`` or ``tool``."""
    text: str
    turn: int = -1
    """Which entry of the conversation it is from: texts of one message share it. Negative outside the conversation."""


class _Budget:
    """How many entries may still be looked at."""

    def __init__(self, left: int) -> None:
        self.left = left

    def part(self, most: int) -> "_Budget":
        """A part of it, taken out; what is left of it is to be given back with :meth:`give_back`."""
        taken = min(most, self.left)
        self.left -= taken
        return _Budget(taken)

    def give_back(self, part: "_Budget") -> None:
        self.left += part.left


def parts(request: Request) -> list[Part]:
    """The texts of a request in their order, of long conversations a bounded number."""
    fields = request.fields
    budget = _Budget(MAX_TEXTS)
    all_parts: list[Part] = []
    for key in ("system", "instructions"):
        if key in fields:
            all_parts += [Part("system", text) for text in _texts(fields[key], budget)]
    turns = fields.get("messages")
    if turns is None:
        turns = fields.get("input")
    if isinstance(turns, str):
        all_parts.append(Part("user", turns, 0))
    elif isinstance(turns, list):
        all_parts += _of_turns(bounded(turns), budget)
    for key in ("prompt", "input_prefix", "input_suffix"):
        if key in fields:
            all_parts += [Part("user", text) for text in _texts(fields[key], budget)]
    return all_parts


def bounded(turns: list[Any]) -> Sequence[Any]:
    """The first and the last entries of a long list, all of a short one."""
    return turns if len(turns) <= MAX_PARTS else (*turns[:FIRST_TURNS], *turns[FIRST_TURNS - MAX_PARTS :])


def turns_of(request: Request) -> Sequence[Any]:
    """The entries of a conversation that :func:`parts` reads, by the numbers it gives them."""
    turns = request.fields.get("messages")
    if turns is None:
        turns = request.fields.get("input")
    return bounded(turns) if isinstance(turns, list) else ()


def _of_turns(turns: Sequence[Any], budget: _Budget) -> list[Part]:
    """Those of the last turn first, then of the first ones, then backwards, as far as the budget goes; in order."""
    if all([isinstance(turn, dict) and isinstance(turn.get("content"), str) for turn in turns]):  # noqa: C419 - quicker
        # No lists: nothing to budget.
        return [part for number, turn in enumerate(turns) for part in _of_turn(turn, number, budget)]
    last = len(turns) - 1
    by_turn: dict[int, list[Part]] = {}
    for number in (last, *range(min(FIRST_TURNS, last)), *range(last - 1, FIRST_TURNS - 1, -1)):
        if number < 0 or not budget.left:
            break
        if number == last:
            own = budget.part(MAX_TEXTS_OF_LAST_TURN)
        elif number < FIRST_TURNS:
            own = budget.part(MAX_TEXTS_OF_FIRST_TURNS)
        else:
            own = budget.part(budget.left)
        turn = turns[number]
        if isinstance(turn, dict):
            by_turn[number] = _of_turn(turn, number, own)
        budget.give_back(own)
    return [part for number in sorted(by_turn) for part in by_turn[number]]


def holds_media(request: Request) -> bool:
    """Whether one of the last messages holds something else than text."""
    turns = request.fields.get("messages", request.fields.get("input"))
    left = MAX_TEXTS
    for turn in reversed(turns[-MAX_PARTS:]) if isinstance(turns, list) else ():
        content = turn.get("content") if isinstance(turn, dict) else None
        for block in content[-min(left, MAX_PARTS) :] if isinstance(content, list) else ():
            left -= 1
            if isinstance(block, dict) and block.get("type") in MEDIA:
                return True
        if left <= 0:
            break
    return False


def _of_turn(turn: dict[str, Any], number: int, budget: _Budget) -> list[Part]:
    if turn.get("type") == "function_call_output":
        return [Part("tool", text, number) for text in _texts(turn.get("output"), budget)]
    role, content = turn.get("role"), turn.get("content")
    if not isinstance(role, str):
        return []
    role = "system" if role == "developer" else role
    if isinstance(content, str):
        return [Part(role, content, number)]
    if not isinstance(content, list):
        return [Part(role, text, number) for text in _texts(content, budget)]
    backwards: list[Part] = []
    for block in reversed(content[-MAX_PARTS:]):
        if not budget.left:
            break
        budget.left -= 1
        if isinstance(block, dict):
            if block.get("type") == "tool_result":
                backwards += [Part("tool", text, number) for text in reversed(_texts(block.get("content"), budget))]
                continue
            block = block.get("text")
        if isinstance(block, str):
            backwards.append(Part(role, block, number))
    return backwards[::-1]


def _texts(content: Any, budget: _Budget) -> Sequence[str]:
    """Strings in a field that holds a string, or a list of strings or of blocks with a ``text``; of a long list, the
    last ones."""
    if isinstance(content, str):
        return (content,)
    if not isinstance(content, list) or not budget.left:
        return ()
    read = content[-min(MAX_PARTS, budget.left) :]
    budget.left -= len(read)
    texts = [block.get("text") if isinstance(block, dict) else block for block in read]
    return [text for text in texts if isinstance(text, str)]
