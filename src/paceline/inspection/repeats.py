"""How much of what a conversation said last it had said before: what n-gram lookups live on.

The answers that a request carries show how well lookups would have done on them, and the next one tends to be alike.
Of the last message and the answers before it a few places are probed: whether the characters that stand there stood
earlier, too. Time is bounded by the number of probes and by how far back they are looked for.
"""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from paceline.inspection.text import Part

# Chosen by hand on the turns of `python -m benchmarks.lookups`, all of them, which hardly tell neighbouring values
# apart: half or twice any of them changes the R² there by 0.01 or less, but for looking back 2,000 characters (-0.02).
WINDOW_CHARS = 6_000
"""Of the conversation's end, that are read at all."""
ENTRY_CHARS = 2_000
"""Of one entry, its end: a long result of a tool shall not hide the answers before it."""
MAX_ENTRIES = 24
"""Entries from the end that are read."""
BACK_CHARS = 4_000
"""Before a probe, in which it is looked for."""
TEXTS = 4
"""Texts that are probed: the last message, and up to three answers before it."""
PROBES = 3
"""In each text: at its beginning, in its middle and at its end."""
PROBE_CHARS = 8
"""Two tokens or three, as many as lookups look for."""
SPACING_CHARS = 16
"""Probes stand no closer."""
MAX_CALLS = 8
"""Calls, or blocks, at the end of an answer, and arguments of a call, that are read."""


def repeats(turns: Sequence[Any], all_parts: Sequence[Part]) -> float:
    """Mean share, 0 to 1, of the last message and of the answers before it that stood in the conversation before, by a
    few probes of each; 0 where there is no earlier answer to tell how the conversation goes, since first answers repeat
    the least.

    Args:
        turns: entries of the conversation.
        all_parts: texts of the request, with the numbers of the entries that they are of.
    """
    if len(turns) < 2:
        return 0.0
    texts, are_answers = _said_last(turns, all_parts)
    if not any(are_answers[1:]):
        return 0.0
    conversation = "\n".join(texts[::-1])
    shares: list[float] = []
    end = len(conversation)
    are_answers[0] = True
    for text, is_probed in zip(texts, are_answers, strict=True):
        begin = end - len(text)
        if is_probed and len(text) >= PROBE_CHARS:
            shares.append(_share(conversation, begin, end - PROBE_CHARS))
            if len(shares) == TEXTS:
                break
        end = begin - 1
    return sum(shares) / len(shares) if shares else 0.0


def _share(conversation: str, first: int, last: int) -> float:
    """Share of the probes from one place to another that stand before themselves, too."""
    count = min(PROBES, 1 + (last - first) // SPACING_CHARS)
    step = (last - first) / max(1, count - 1)
    found = 0
    for number in range(count):
        at = first + int(number * step)
        probe = conversation[at : at + PROBE_CHARS]
        if conversation.find(probe, max(0, at - BACK_CHARS), at + PROBE_CHARS - 1) >= 0:
            found += 1
    return found / count


def _said_last(turns: Sequence[Any], all_parts: Sequence[Part]) -> tuple[list[str], list[bool]]:
    """What the last entries say that fit into the window, the last one first, and whether they are answers."""
    texts: list[str] = []
    are_answers: list[bool] = []
    room, place = WINDOW_CHARS, len(all_parts) - 1
    while place >= 0 and all_parts[place].turn < 0:
        place -= 1  # of other fields than the conversation
    for number in range(len(turns) - 1, max(-1, len(turns) - 1 - MAX_ENTRIES), -1):
        most = min(room, ENTRY_CHARS)
        pieces = _calls(turns[number], most)
        is_answer, length = bool(pieces), 0
        while place >= 0 and all_parts[place].turn == number:
            role, text, _ = all_parts[place]
            place -= 1
            if length < most:
                is_answer = is_answer or role == "assistant"
                pieces.append(text[-most:])
                length += len(text)
        text = pieces[0] if len(pieces) == 1 else "\n".join(pieces[::-1])[-most:]
        texts.append(text)
        are_answers.append(is_answer)
        room -= len(text) + 1
        if room < PROBE_CHARS:
            break
    return texts, are_answers


def _calls(turn: Any, most: int) -> list[str]:
    """The tools that an entry calls by its fields, the last one first, about as templates write them; of each, at most
    so many characters."""
    if not isinstance(turn, dict):
        return []
    if turn.get("type") == "function_call":
        return [_call(turn, most)]
    calls, content = turn.get("tool_calls"), turn.get("content")
    if isinstance(calls, list):
        functions = [call.get("function") for call in reversed(calls[-MAX_CALLS:]) if isinstance(call, dict)]
        return [_call(function, most) for function in functions if isinstance(function, dict)]
    if isinstance(content, list) and turn.get("role") == "assistant":
        return [
            _call(block, most)
            for block in reversed(content[-MAX_CALLS:])
            if isinstance(block, dict) and block.get("type") == "tool_use"
        ]
    return []


def _call(call: Mapping[str, Any], most: int) -> str:
    """A call by its name and arguments, which stand in a string, or in an object of which the strings are read."""
    name, arguments = call.get("name"), call.get("arguments", call.get("input"))
    if isinstance(arguments, dict):
        strings = [value[-most:] for value in islice(arguments.values(), MAX_CALLS) if isinstance(value, str)]
        arguments = "\n".join(strings)
    written = arguments[-most:] if isinstance(arguments, str) else ""
    called = name[:most] if isinstance(name, str) else ""
    return f'<tool_call>\n{{"name": "{called}", "arguments": {written}}}\n</tool_call>'[-most:]
