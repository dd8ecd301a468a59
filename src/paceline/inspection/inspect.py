"""A request's signals, from explicit fields and a bounded part of its text.

Time is bounded by shape as well as by length: at most 1,024 entries of lists are looked at (``text.py``), some 1,000
characters of the last message and 600 of the system prompt, and no field is walked. How much a conversation repeats
is probed in its last 6,000 characters (``repeats.py``). What is found holds no text of the request: names come from
fixed lists, and the conversation is a hash that only this gateway can make.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from secrets import token_bytes
from typing import Any

from msgspec import Struct

from paceline.inspection import fields as read
from paceline.inspection.features import features, holds_fence, instruction_of
from paceline.inspection.language import language
from paceline.inspection.loop import Place, Turn, place_of
from paceline.inspection.repeats import repeats
from paceline.inspection.tasks import Clues, tasks_of
from paceline.inspection.text import Part, holds_media, parts, turns_of
from paceline.inspection.wrappings import of_template, unwrapped
from paceline.types import Request, Signals, Task

ENOUGH_GIVEN_CHARS = 200
"""With less given text than this there is in proportion less to copy. A guess; it matters to short requests alone."""
HASHED_CHARS = 400
"""So much of a text's beginning or end tells conversations apart. Chosen by hand: with fewer characters more of them
look alike, with more of them hashing takes longer."""
LANGUAGE_CHARS = 400
"""How far into what was asked letters of other alphabets are looked for, where no common word tells the language.
Chosen by hand; the language is only reported."""
APPLICATION_CHARS = 200
"""So much of a system prompt's beginning tells a program: further on stand dates and names. Chosen by hand: where
those come earlier, one program looks like several, and each is learned anew."""
FENCED_WITHIN_CHARS = 1000
"""So much of an earlier message's beginning and end is searched for code; as far as features look for it in the last
message. Chosen by hand."""
MIN_SETUP_TURNS = 3
"""Entries of the shortest conversation that can begin with a setup: an example, its answer, and the user's message."""
MAX_SETUP_TURNS = 16
"""Entries among which the end of a setup is looked for. Chosen by hand: after a longer setup, conversations of one
program are taken for one and the same."""
ACKNOWLEDGED_CHARS = 80
"""Longer answers do more than to acknowledge. Chosen by hand."""
_ACKNOWLEDGED = re.compile(r"\s*(?:ok(?:ay)?|understood|got it|i see|sure|yes|noted|alright)\b", re.IGNORECASE)
PROCESS_KEY = token_bytes(32)
"""Of the hashes of conversations, where no other is given: for this process alone."""
COPIED = {
    Task.EDIT: 0.8,
    Task.EXTRACT: 0.5,
    Task.RETRIEVE: 0.35,
    Task.CODE: 0.35,
    Task.TOOL_CALL: 0.3,
    Task.SUMMARISE: 0.25,
    Task.MATH: 0.2,
    Task.REASON: 0.1,
    Task.ANSWER: 0.1,
    Task.TRANSLATE: 0.05,
}
"""Share of an answer that repeats given text, by task; estimates, corrected by what each drafter's coverage shows."""
COPIED_OUTRIGHT = {"prediction": 0.9, "infill": 0.3}
"""The same by the evidence that settles the task; estimates, too."""
WHOLE_COPIED = 0.85
"""The least share that is copied where an edit or extract asks for the whole text; a guess."""
PART_COPIED = 0.4
"""By how much less is copied where it asks for the changed part alone; a guess."""
_WHOLE = re.compile(
    r"verbatim|word for word|\b(?:whole|full|complete|entire|updated|corrected) (?:file|code|text|class)"
)
_PART = re.compile(r"\b(?:just|only) (?:show|print|return|output|the (?:new|changed|diff))")


class _Texts(Struct, gc=False):
    """What the texts of a request are, by who wrote them."""

    messages: list[list[str]]
    """Of the user, each by its blocks."""
    is_prompt: bool
    """Whether the last of them stands outside a conversation."""
    system: str
    """The first system prompt."""
    last: list[str]
    """Of the conversation's last entry."""
    chars: int
    system_chars: int
    has_tool_results: bool
    holds_code: bool
    """Whether an entry before the last holds a block of code."""


def inspect(request: Request, key: bytes = PROCESS_KEY) -> Signals:
    """What a request asks for. Time is bounded however long the request is; unknown shapes are no error.

    Args:
        key: of the hashes of the conversation and the application, up to 64 bytes; without it nobody can tell from a
            hash what was asked.
    """
    # 1. Who wrote what.
    fields, turns, all_parts = request.fields, turns_of(request), parts(request)
    texts = _texts(request, all_parts, len(turns) - 1)
    messages, system = texts.messages, texts.system

    # 2. What the user asked last, out of its wrappings, and where that stands in a tool loop.
    first = unwrapped(messages[0]) if messages else ""
    place = place_of(turns, texts.last, len(messages), system)
    asked = first if len(messages) < 2 or place.in_text else unwrapped(messages[-1])
    if texts.is_prompt:
        if template := of_template(asked):
            asked = template
        else:
            place = Place(Turn.PROMPT)

    # 3. Which tasks that may be.
    head, tail = instruction_of(asked)
    asked_features = features(asked, (head, tail))
    structure = read.structure(fields)
    tool_names = read.tool_names(fields)
    clues = Clues(
        text=asked,
        features=asked_features,
        first=first if len(messages) > 1 and not place.in_text else "",
        system=system,
        place=place,
        structure=structure,
        tool_names=tool_names,
        holds_code=texts.holds_code,
    )
    tasks, evidence = tasks_of(request, clues)

    # 4. Whose request it is, and all that the fields say outright.
    name = read.conversation_name(fields, request.headers)
    given_chars = max(0, texts.chars - texts.system_chars - len(head) - len(tail))
    return Signals(
        tasks=tasks,
        evidence=evidence,
        structure=structure,
        copy=_copy(evidence, tasks, given_chars, head, tail),
        prompt_chars=texts.chars,
        given_chars=given_chars,
        temperature=read.number(fields, "temperature", read.MAX_TEMPERATURE),
        top_p=read.number(fields, "top_p", 1.0),
        max_tokens=read.first_count(fields, "max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict"),
        reasoning=read.reasoning(fields),
        language=language(asked_features.words, asked[:LANGUAGE_CHARS]),
        images=holds_media(request),
        agent=read.agent(system, texts.has_tool_results),
        turns=max(1, len(messages)),
        conversation=_conversation(request, name or _beginning(system, first, messages, turns), key),
        conversation_is_named=bool(name),
        application=_application(request, system, tool_names, structure, evidence, key),
        turn=str(place.turn),
        repeats=repeats(turns, all_parts),
    )


def _texts(request: Request, all_parts: Sequence[Part], last_turn: int) -> _Texts:
    """The texts of a request, in one pass; ``last_turn`` is the number of the conversation's last entry."""
    messages: list[list[str]] = []
    message_turn = -1
    last: list[str] = []
    system = ""
    chars, system_chars = request.elided_chars, 0
    has_tool_results = holds_code = False
    for role, text, turn in all_parts:
        chars += len(text)
        if turn == last_turn >= 0:
            last.append(text)
        elif turn >= 0 and not holds_code:
            holds_code = holds_fence(text[:FENCED_WITHIN_CHARS]) or holds_fence(text[-FENCED_WITHIN_CHARS:])
        if role == "user":
            if messages and turn == message_turn and turn >= 0:
                messages[-1].append(text)
            else:
                messages.append([text])
                message_turn = turn
        elif role == "system":
            system = system or text
            system_chars += len(text)
        elif role == "tool":
            has_tool_results = True
    return _Texts(
        messages=messages,
        is_prompt=bool(messages) and message_turn < 0,
        system=system,
        last=last,
        chars=chars,
        system_chars=system_chars,
        has_tool_results=has_tool_results,
        holds_code=holds_code,
    )


def _copy(evidence: str, tasks: Mapping[Task, float], given_chars: int, head: str, tail: str) -> float:
    if evidence in COPIED_OUTRIGHT:
        return COPIED_OUTRIGHT[evidence]
    if given_chars <= 0:
        return 0.0
    share = sum([COPIED.get(task, 0.0) * probability for task, probability in tasks.items()])
    if tasks.get(Task.EDIT, 0) + tasks.get(Task.EXTRACT, 0) > 0.5:
        instruction = f"{head} {tail}".lower()
        if _WHOLE.search(instruction):
            share = max(share, WHOLE_COPIED)
        elif _PART.search(instruction):
            share *= PART_COPIED
    return share * min(1, given_chars / ENOUGH_GIVEN_CHARS)


def _conversation(request: Request, beginning: str, key: bytes) -> str:
    return _hash(f"{read.who_asks(request.fields, request.headers)}\0{beginning}", key)


def _beginning(system: str, first: str, messages: Sequence[Sequence[str]], turns: Sequence[Any]) -> str:
    """How a conversation began that has no name, the same for all its turns."""
    if len(turns) >= MIN_SETUP_TURNS and (number := _first_of_its_own(turns, len(messages))):
        first = unwrapped(messages[number])
    else:
        number = 0
    # Templates begin alike, and what is theirs stands at the end; other blocks of a message may be fixed reminders.
    end = messages[number][0] if messages and len(messages[number]) == 1 else first
    return f"{system[:HASHED_CHARS]}\n{first[:HASHED_CHARS]}\n{end[-HASHED_CHARS:]}\n{len(end)}"


def _first_of_its_own(turns: Sequence[Any], messages: int) -> int:
    """Number of the user's message that a conversation begins with. Some clients put examples, files and reminders
    before it, each with an answer of a few words ("Ok."): the first one after those that is not answered so."""
    count, acknowledged = 0, -1
    for number, turn in enumerate(turns[:MAX_SETUP_TURNS]):
        if not isinstance(turn, dict) or turn.get("role") != "user":
            continue
        following = turns[number + 1] if number + 1 < len(turns) else None
        answer = following.get("content") if isinstance(following, dict) else None
        if isinstance(answer, str) and len(answer) <= ACKNOWLEDGED_CHARS and _ACKNOWLEDGED.match(answer):
            acknowledged = count
        elif acknowledged >= 0:
            return min(count, messages - 1)
        count += 1
    return 0


def _application(
    request: Request, system: str, tool_names: Sequence[str], structure: str, evidence: str, key: bytes
) -> str:
    schema = read.schema_names(request.fields) if structure else ()
    api_key = read.client_key(request.headers) if request.headers else ""
    if not (system or tool_names or schema or api_key or request.client or evidence == "infill"):
        return ""
    program = (request.api, request.path[:APPLICATION_CHARS], request.client or "", api_key, system[:APPLICATION_CHARS])
    return _hash("\0".join((*program, *tool_names, "\1", *schema)), key)


def _hash(text: str, key: bytes) -> str:
    hasher = _keyed(key).copy()
    hasher.update(text.encode("utf-8", "replace"))
    return hasher.hexdigest()


@lru_cache(maxsize=4)
def _keyed(key: bytes) -> blake2b:
    """A hash that has taken in the key already, which is half of the work."""
    return blake2b(digest_size=8, key=key)
