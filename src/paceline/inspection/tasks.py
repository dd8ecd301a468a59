"""The probabilities of a request's tasks: what its fields say, the words, the system prompt, the place in a tool loop.

What can't be told is ``unknown``, with a probability of its own like any task: the model has learned it for texts whose
words it does not know or that ask for nothing, and a task that is hardly likelier than the others gives way to it.
"""

import re
from collections.abc import Mapping, Sequence

from msgspec import Struct

from paceline.inspection import fields as read
from paceline.inspection.features import Features, features, holds_code
from paceline.inspection.loop import Place, Turn, speaks_of_tools
from paceline.inspection.task_model import mixed, ranked, task_model
from paceline.types import Request, Task

Tasks = Mapping[Task, float]

ENOUGH = 0.5
"""A task that the words make at least so likely is taken into account in a tool loop."""
FOLLOW_UP_CHARS = 80
"""A later message no longer than this, and not clear in itself, is understood with the conversation's first."""
FIRST_MESSAGE_SHARE = 0.4
SYSTEM_PROMPT_CHARS = 1500
"""A system prompt no longer than this may be the wish, with the user's message as its material; longer ones describe
a program."""
SYSTEM_PROMPT_SHARE = 0.85
STRUCTURED_IS_EXTRACT = 0.7
"""Probability that a request for a structured answer extracts, where the words tell nothing; where they do, they
outvote the field."""
MARKERS_WITHIN_CHARS = 4_000
_MARKER = re.compile(
    r"<(?:\|?(?:fim[_-](?:prefix|suffix|middle|begin|hole)|code_prefix|cursor"
    r"|user_cursor_is_here|editable_region_start)\|?"
    r"|PRE|SUF|FILL_ME|｜fim▁(?:begin|hole|end)｜)>"
)
_BRACKETED_MARKERS = ("[SUFFIX]", "[PREFIX]", "{{FILL_HERE}}")
"""Of fill-in-the-middle, in the forms of Qwen, StarCoder, CodeLlama, Codestral, DeepSeek, Granite and editors."""
_FILES = frozenset(
    "bash shell exec command terminal file files editor grep glob patch repo git directory codebase workspace".split()
)
"""Words in the names of tools that act on files: programs that work in many steps on their own."""
_NAME_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_AGREES = re.compile(
    r"(?:yes|yeah|yep|sure|ok|okay|please do|go ahead|proceed|do it|confirm(?:ed)?|sounds good|that works|correct)\b",
    re.IGNORECASE,
)
_IDENTIFIER = re.compile(r"\b(?=[A-Za-z_]*\d)\w{5,}\b|\b\w+_\w+\b|#\w+|\S@\S")
_CLOSES = re.compile(r"\b(?:thank(?:s| you)|that(?:'s| is|’s) all|good ?bye|never ?mind)\b", re.IGNORECASE)
_PROGRAMMER = ("software", "code", "coding", "programm", "developer", "engineer")
PROGRAMMER_WITHIN_CHARS = 400
_CONVERSATION = re.compile(
    r"\b(?:chat|conversation|message)[ _]history\b|<(?:conversation|messages|transcript)>"
    r"|\b(?:this|the|our|following|above) (?:chat|conversation|session|thread|dialog(?:ue)?|messages?|discussion)\b",
    re.IGNORECASE,
)
_BACKGROUND = re.compile(
    r"(?P<title>\b(?:title|headline)\b)|(?P<tags>\btags\b|\bkeywords\b|\bsearch quer(?:y|ies)\b)"
    r"|(?P<follow>\bfollow-?ups?\b(?! (?:question, )?(?:re|in))|\bsuggest(?:ed|ions)\b"
    r"|\bimage (?:model|prompt|generat\w+)\b)",
    re.IGNORECASE,
)
_BACKGROUND_WORDS = frozenset(
    "title headline tags keywords search follow up ups followup followups suggest suggested suggestions image".split()
)
"""One of them is among the words where the patterns are worth the time."""
_BACKGROUND_TASKS: Mapping[str, Tasks] = {
    "title": {Task.SUMMARISE: 0.8, Task.EXTRACT: 0.1, Task.CREATE: 0.1},
    "tags": {Task.EXTRACT: 0.8, Task.SUMMARISE: 0.2},
    "follow": {Task.CREATE: 0.7, Task.CHAT: 0.15, Task.EXTRACT: 0.15},
}
BACKGROUND_WITHIN_CHARS = 250
SURE = 0.92
LONG_CHARS = 8_000
SURE_OF_LONG = 0.75
"""Longer texts than any that the model was trained on: what it makes of them counts less."""
CLEARLY = 0.75
"""Words that tell a task so clearly outvote the tools that are offered."""
LIKELY_CALL = 0.48
MANY_RESULTS = 3
SHORT_CHARS = 300
FITS_WITHIN_CHARS = 1000
MIN_FITTING_CHARS = 4
STEM_CHARS = 5
LINE_CHARS = 240
_NEED_NO_TOOL = frozenset((Task.CREATE, Task.TRANSLATE, Task.CODE, Task.CHAT, Task.SUMMARISE, Task.EDIT, Task.REASON))
_NO_WISH = (Task.UNKNOWN, Task.CHAT, Task.ANSWER)
"""What a system prompt seems to ask for that only says who answers."""
_ABOUT_SOMETHING = frozenset((Task.ANSWER, Task.REASON, Task.RETRIEVE, Task.SUMMARISE))
ON_FILES_IN_CHAT: Mapping[Task, float] = {
    Task.EDIT: 5.0,
    Task.CODE: 1.2,
    Task.ANSWER: 1.5,
    Task.UNKNOWN: 0.8,
    Task.TRANSLATE: 0.1,
    Task.MATH: 0.2,
    Task.REASON: 0.3,
    Task.CREATE: 0.3,
    Task.EXTRACT: 0.3,
    Task.CHAT: 0.5,
    Task.SUMMARISE: 0.3,
    Task.RETRIEVE: 0.5,
}
"""How much commoner tasks are where a program has put files into the chat; estimates."""
AFTER_CODE: Mapping[Task, float] = {Task.EDIT: 2.5, Task.CODE: 2.0, Task.TRANSLATE: 0.5}
"""The same where an earlier message holds code."""
_SPEAKER = re.compile(r"\n[^\n:]{1,40}:\s*$")

IN_LOOP: Mapping[Turn, Tasks] = {
    Turn.FIRST: {Task.TOOL_CALL: 0.75, Task.EDIT: 0.05, Task.ANSWER: 0.05, Task.UNKNOWN: 0.15},
    Turn.USER: {Task.TOOL_CALL: 0.4, Task.EDIT: 0.1, Task.ANSWER: 0.05, Task.UNKNOWN: 0.45},
    Turn.READ: {Task.TOOL_CALL: 0.48, Task.EDIT: 0.12, Task.ANSWER: 0.05, Task.UNKNOWN: 0.35},
    Turn.RAN: {Task.TOOL_CALL: 0.48, Task.EDIT: 0.1, Task.ANSWER: 0.07, Task.UNKNOWN: 0.35},
    Turn.FAILED: {Task.TOOL_CALL: 0.48, Task.EDIT: 0.2, Task.UNKNOWN: 0.32},
    Turn.NOT_WRITTEN: {Task.EDIT: 0.42, Task.TOOL_CALL: 0.25, Task.UNKNOWN: 0.33},
    Turn.CREATED: {Task.EDIT: 0.48, Task.CODE: 0.12, Task.TOOL_CALL: 0.1, Task.UNKNOWN: 0.3},
    Turn.WROTE: {Task.TOOL_CALL: 0.42, Task.SUMMARISE: 0.1, Task.ANSWER: 0.1, Task.CHAT: 0.03, Task.UNKNOWN: 0.35},
}
"""What follows in the loop of a program that works on files; estimates."""


class Asked(Struct, frozen=True, gc=False):
    """What the tasks are told by."""

    text: str
    """What the user wrote last, out of its wrappings."""
    found: Features
    """Its features."""
    first: str
    """What the conversation began with; empty where that is ``text``."""
    system: str
    place: Place
    structure: str
    tool_names: Sequence[str]
    holds_code: bool
    """Whether an earlier message holds code."""


def is_to_fill(request: Request, text: str) -> bool:
    """Whether a text between two others is asked for."""
    fields = request.fields
    if request.path.endswith(("/infill", "/fim/completions")) or fields.get("input_suffix"):
        return True
    if isinstance(suffix := fields.get("suffix"), str) and suffix:
        return True
    if _holds_marker(text[:MARKERS_WITHIN_CHARS]):
        return True
    return len(text) > MARKERS_WITHIN_CHARS and _holds_marker(text[-MARKERS_WITHIN_CHARS:])


def _holds_marker(text: str) -> bool:
    if "<" in text and _MARKER.search(text):
        return True
    return ("[" in text or "{{" in text) and any(marker in text for marker in _BRACKETED_MARKERS)


def tasks_of(request: Request, asked: Asked) -> tuple[Tasks, str]:
    """Probabilities of the tasks, the likeliest first, and what else than the words told them."""
    fields = request.fields
    if fields.get("prediction"):
        return {Task.EDIT: 1.0}, "prediction"
    if is_to_fill(request, asked.text):
        return {Task.CODE: 1.0}, "infill"
    if read.must_call_tool(fields):
        return {Task.TOOL_CALL: 1.0}, "tool_choice"
    told = _of_words(asked)
    if read.offers_tools(fields) or asked.place.in_text or asked.place.results:
        return _with_tools(told, asked), "tools"
    if len(asked.system) > SYSTEM_PROMPT_CHARS and speaks_of_tools(asked.system):
        return _on_files(told, asked), "tools"
    if asked.place.turn is Turn.PROMPT:
        return _honest(_of_prompt(told, asked.text), len(asked.text)), ""
    if asked.holds_code:
        works_on_code = len(asked.system) > SYSTEM_PROMPT_CHARS and _is_programmer(asked.system)
        told = _shifted(told, ON_FILES_IN_CHAT if works_on_code else AFTER_CODE)
    if asked.structure:
        best = next(iter(told))
        unclear = 1 - told[best] if best is not Task.UNKNOWN else 1.0
        return mixed(
            _honest(told, len(asked.text)), {Task.EXTRACT: 1.0}, STRUCTURED_IS_EXTRACT * unclear
        ), asked.structure
    return _honest(told, len(asked.text)), ""


def _of_words(asked: Asked) -> Tasks:
    """What the words say: of the last message, of a conversation's first if that one is short, of a system prompt."""
    model = task_model()
    if not _BACKGROUND_WORDS.isdisjoint(asked.found.words) and (background := _background(asked.text)):
        return background
    told = model.probabilities(asked.found)
    if asked.first and len(asked.text) <= FOLLOW_UP_CHARS and told[next(iter(told))] < CLEARLY:
        began = model.probabilities(features(asked.first))
        told = mixed(told, began, FIRST_MESSAGE_SHARE * (1 - began.get(Task.UNKNOWN, 0.0)))
    if asked.system and len(asked.system) <= SYSTEM_PROMPT_CHARS:
        wanted = model.probabilities(features(asked.system))
        says_nothing = sum([wanted.get(task, 0.0) for task in _NO_WISH])
        told = mixed(told, wanted, SYSTEM_PROMPT_SHARE * (1 - says_nothing))
    return told


def _is_programmer(system: str) -> bool:
    begun = system[:PROGRAMMER_WITHIN_CHARS].lower()
    return any(word in begun for word in _PROGRAMMER)


def _background(text: str) -> Tasks | None:
    """Of the calls that clients make beside the user's own: titles, tags, follow-up questions, search queries."""
    begun = text[:BACKGROUND_WITHIN_CHARS]
    if _CONVERSATION.search(begun) is None:
        return None
    found = _BACKGROUND.search(begun)
    if found is None or found.lastgroup is None:
        return None
    return _BACKGROUND_TASKS[found.lastgroup]


def _with_tools(told: Tasks, asked: Asked) -> Tasks:
    """Where tools may be called: by programs that work on files on their own, or to serve a user."""
    if asked.place.in_text or any(
        not _FILES.isdisjoint(map(str.lower, _NAME_WORD.findall(name))) for name in asked.tool_names
    ):
        return _on_files(told, asked)
    turn, results, _ = asked.place
    text, best = asked.text, next(iter(told))
    if turn in (Turn.FIRST, Turn.USER):
        is_short = len(text) <= FOLLOW_UP_CHARS
        wanted = is_short if best is Task.CHAT else best in _NEED_NO_TOOL and told[best] >= CLEARLY
        if turn is Turn.USER and (_AGREES.match(text) or (len(text) < SHORT_CHARS and _IDENTIFIER.search(text))):
            call = 0.49
        elif turn is Turn.USER and is_short and (_CLOSES.search(text) or (best is Task.CHAT and wanted)):
            return {Task.CHAT: 0.45, Task.TOOL_CALL: 0.2, Task.ANSWER: 0.1, Task.UNKNOWN: 0.25}
        elif turn is Turn.FIRST and len(asked.system) <= SYSTEM_PROMPT_CHARS:
            fits = _fits(text, asked.tool_names)
            if wanted and not fits:
                return mixed(_honest(told, len(text)), {Task.TOOL_CALL: 1.0}, 0.2)
            call = 0.7 if fits else 0.48
        else:
            call = 0.4
    elif turn in (Turn.FAILED, Turn.NOT_WRITTEN) or results >= MANY_RESULTS:
        call = 0.49
    else:
        call = 0.45
    if call >= LIKELY_CALL:
        return _ranked(
            {Task.TOOL_CALL: call, Task.UNKNOWN: (1 - call) / 2, Task.CHAT: (1 - call) / 4, Task.ANSWER: (1 - call) / 4}
        )
    return _ranked(
        {
            Task.UNKNOWN: 0.5,
            Task.TOOL_CALL: call / 2,
            Task.CHAT: (1 - call) / 4,
            Task.ANSWER: (1 - call) / 6,
            Task.RETRIEVE: (1 - call) / 12,
        }
    )


def _on_files(told: Tasks, asked: Asked) -> Tasks:
    turn = asked.place.turn
    best = next(iter(told))
    likely = told[best] >= ENOUGH
    if turn in (Turn.FIRST, Turn.USER):
        if likely and best is Task.CHAT:
            return mixed(told, IN_LOOP[Turn.USER], 0.5)
        if likely and best in _ABOUT_SOMETHING:
            return IN_LOOP[Turn.USER]
    elif turn in (Turn.READ, Turn.RAN) and likely and best in (Task.EDIT, Task.CODE):
        return {Task.UNKNOWN: 0.45, best: 0.3, Task.TOOL_CALL: 0.25}
    elif turn in (Turn.READ, Turn.RAN, Turn.WROTE) and likely and best in _ABOUT_SOMETHING:
        return {Task.UNKNOWN: 0.4, Task.TOOL_CALL: 0.3, Task.ANSWER: 0.2, Task.SUMMARISE: 0.1}
    return IN_LOOP.get(turn, IN_LOOP[Turn.USER])


def _fits(text: str, tool_names: Sequence[str]) -> bool:
    """Whether the user's words occur in the names of tools."""
    begun = text[:FITS_WITHIN_CHARS].lower()
    for name in tool_names:
        for word in _NAME_WORD.findall(name):
            if len(word) >= MIN_FITTING_CHARS and word[:STEM_CHARS].lower() in begun:
                return True
    return False


def _of_prompt(told: Tasks, text: str) -> Tasks:
    """Of a text that a base model is to go on with."""
    end = text[-LINE_CHARS:]
    begun = text[:LINE_CHARS]
    if holds_code(begun) or holds_code(end):
        return _shifted(told, {Task.CODE: 6.0, Task.EDIT: 0.5, Task.CHAT: 0.1, Task.TRANSLATE: 0.2})
    if _SPEAKER.search(end) and text.count("\n", 0, LINE_CHARS * 8) > 2:
        return mixed(told, {Task.CHAT: 0.6, Task.CREATE: 0.2, Task.ANSWER: 0.2}, 0.5)
    best = next(iter(told))
    if told[best] >= CLEARLY:
        return told
    ends_open = end.rstrip()[-1:] not in ".?!:。？！"
    return mixed(told, {Task.CREATE: 1.0}, 0.6 if ends_open else 0.2)


def _shifted(told: Tasks, factors: Mapping[Task, float]) -> Tasks:
    """``told`` where some tasks are commoner or rarer than usual."""
    return _ranked({task: share * factors.get(task, 1.0) for task, share in told.items()})


def _ranked(shares: Mapping[Task, float]) -> Tasks:
    return ranked([(share, task) for task, share in shares.items()])


def _honest(told: Tasks, chars: int) -> Tasks:
    """With the more of ``unknown`` the less likely the likeliest task is. The words' model is too sure of itself on
    programs that it was not trained on: where it says 0.6 it is right in half of the cases, where 0.85 nearly always.
    """
    best = next(iter(told))
    if best is Task.UNKNOWN:
        return told
    likely = told[best] * (SURE if chars <= LONG_CHARS else SURE_OF_LONG)
    unknown = 1 - likely + likely * told.get(Task.UNKNOWN, 0.0)
    doubted: dict[Task, float] = {}
    for task, share in told.items():
        if task is not Task.UNKNOWN:
            share *= likely
            if share < unknown and Task.UNKNOWN not in doubted:
                doubted[Task.UNKNOWN] = unknown
            doubted[task] = share
    doubted.setdefault(Task.UNKNOWN, unknown)
    return doubted
