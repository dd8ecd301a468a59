"""A request's signals, from explicit fields and a bounded part of its text.

Time is bounded by shape as well as by length: at most 1,024 entries of lists are looked at (``text.py``), some 1,000
characters of the last message and 600 of the system prompt, and no field is walked. What is found holds no text of the
request: names come from fixed lists, and the conversation is a hash that only this gateway can make.
"""

import re
from collections.abc import Mapping
from hashlib import blake2b
from secrets import token_bytes

from paceline.inspection import fields as read
from paceline.inspection.features import Features, features, wish
from paceline.inspection.language import language
from paceline.inspection.task_model import mixed, task_model
from paceline.inspection.text import holds_media, parts
from paceline.types import Request, Signals, Task

STRUCTURED_IS_EXTRACT = 0.8
"""Probability that a request for a structured answer extracts; the words share the rest."""
OFFERED_IS_CALLED = 0.7
"""Probability that a tool is called where some are offered; the words share the rest."""
FOLLOW_UP_CHARS = 80
"""A later message no longer than this is understood with the conversation's first."""
FIRST_MESSAGE_SHARE = 0.4
ENOUGH_GIVEN_CHARS = 200
"""With less given text than this there is in proportion less to copy."""
HASHED_CHARS = 400
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
"""The same by the evidence that settles the task."""
WHOLE_COPIED = 0.85
PART_COPIED = 0.4
_WHOLE = re.compile(
    r"verbatim|word for word|\b(?:whole|full|complete|entire|updated|corrected) (?:file|code|text|class)"
)
_PART = re.compile(r"\b(?:just|only) (?:show|print|return|output|the (?:new|changed|diff))")


def inspect(request: Request, key: bytes = PROCESS_KEY) -> Signals:
    """What a request asks for. Time is bounded however long the request is; unknown shapes are no error.

    Args:
        key: of the hash of the conversation, up to 64 bytes; without it nobody can tell from the hash what was asked.
    """
    fields = request.fields
    users: list[str] = []
    system = ""
    prompt_chars, system_chars = request.elided_chars, 0
    has_tool_results = False
    for role, text in parts(request):
        prompt_chars += len(text)
        if role == "user":
            users.append(text)
        elif role == "system":
            system = system or text
            system_chars += len(text)
        elif role == "tool":
            has_tool_results = True
    asked = users[-1] if users else ""
    head, tail = wish(asked)
    found = features(asked, (head, tail))
    structure = read.structure(fields)
    tasks, evidence = _tasks(request, users, found, structure)
    name = read.conversation_name(fields, request.headers)
    given_chars = max(0, prompt_chars - system_chars - len(head) - len(tail))
    return Signals(
        tasks=tasks,
        evidence=evidence,
        structure=structure,
        copy=_copy(evidence, tasks, given_chars, f"{head} {tail}"),
        prompt_chars=prompt_chars,
        given_chars=given_chars,
        temperature=read.number(fields, "temperature", read.MAX_TEMPERATURE),
        top_p=read.number(fields, "top_p", 1.0),
        max_tokens=read.first_count(fields, "max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict"),
        reasoning=read.reasoning(fields),
        language=language(found.words, asked[:HASHED_CHARS]),
        images=holds_media(request),
        agent=read.agent(system, has_tool_results),
        turns=max(1, len(users)),
        conversation=_conversation(request, name, system, users, key),
        conversation_is_named=bool(name),
    )


def _tasks(request: Request, users: list[str], found: Features, structure: str) -> tuple[Mapping[Task, float], str]:
    """Probabilities of the tasks, and the field that told them, if one did."""
    fields = request.fields
    if fields.get("prediction"):
        return {Task.EDIT: 1.0}, "prediction"
    if request.path.endswith("/infill"):
        return {Task.CODE: 1.0}, "infill"
    if read.must_call_tool(fields):
        return {Task.TOOL_CALL: 1.0}, "tool_choice"
    told = task_model().probabilities(found)
    if len(users) > 1 and len(users[-1]) <= FOLLOW_UP_CHARS:
        told = mixed(told, task_model().probabilities(features(users[0])), FIRST_MESSAGE_SHARE)
    if read.offers_tools(fields):
        return mixed(told, {Task.TOOL_CALL: 1.0}, OFFERED_IS_CALLED), "tools"
    if structure:
        return mixed(told, {Task.EXTRACT: 1.0}, STRUCTURED_IS_EXTRACT), structure
    return told, ""


def _copy(evidence: str, tasks: Mapping[Task, float], given_chars: int, asked: str) -> float:
    if evidence in COPIED_OUTRIGHT:
        return COPIED_OUTRIGHT[evidence]
    if given_chars <= 0:
        return 0.0
    share = sum([COPIED.get(task, 0.0) * probability for task, probability in tasks.items()])
    if tasks.get(Task.EDIT, 0) + tasks.get(Task.EXTRACT, 0) > 0.5:
        asked = asked.lower()
        if _WHOLE.search(asked):
            share = max(share, WHOLE_COPIED)
        elif _PART.search(asked):
            share *= PART_COPIED
    return share * min(1, given_chars / ENOUGH_GIVEN_CHARS)


def _conversation(request: Request, name: str, system: str, users: list[str], key: bytes) -> str:
    begun = name or f"{system[:HASHED_CHARS]}\n{users[0][:HASHED_CHARS] if users else ''}"
    whole = f"{read.who_asks(request.fields, request.headers)}\0{begun}"
    return blake2b(whole.encode("utf-8", "replace"), digest_size=8, key=key).hexdigest()
