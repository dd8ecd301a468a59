"""The probabilities of a request's tasks: what its fields say, the words, the system prompt, the place in a tool loop.

What can't be recognised is ``unknown``, with a probability of its own like any task: the model has learned it for texts
whose words it does not know or that ask for nothing, and a task that is hardly likelier than the others gives way to
it.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from msgspec import Struct

from paceline.inspection import fields as read
from paceline.inspection.features import Features, features, holds_code
from paceline.inspection.loop import Place, Turn, speaks_of_tools
from paceline.inspection.task_model import mixed, ranked, task_model
from paceline.types import Request, Task

Tasks = Mapping[Task, float]

# All of these but SURE are chosen by hand; no measurement of a single one is on record. The whole was measured on
# recorded requests (docs/learning.md). Layouts and mistakes of half of their sources were looked at while the rules
# were written, so the constants fit those sources better than others.
ENOUGH = 0.5
"""A task that the words make at least so likely is taken into account in a tool loop."""
FOLLOW_UP_CHARS = 80
"""A later message no longer than this, and not clear in itself, is understood with the conversation's first."""
FIRST_MESSAGE_SHARE = 0.4
"""The first message's part in that, 0 to 1; less where the first is unknown itself."""
SYSTEM_PROMPT_CHARS = 1500
"""A system prompt no longer than this may be the instruction, with the user's message as its material; longer ones
describe a program."""
SYSTEM_PROMPT_SHARE = 0.85
"""A short system prompt's part beside the user's message, 0 to 1; less where it only says who answers. It matters much
where programs put the task there: of 30 such requests 1 was recognised before system prompts were read for it, and all
are since (docs/learning.md)."""
STRUCTURED_IS_EXTRACT = 0.7
"""Probability that a request for a structured answer extracts, where the words tell nothing; where they do, they
outvote the field. A guess."""
MARKERS_WITHIN_CHARS = 4_000
"""At either end of a text: where markers of fill-in-the-middle are looked for."""
_MARKER = re.compile(
    r"<(?:\|?(?:fim[_-](?:prefix|suffix|middle|begin|hole)|code_prefix|cursor"
    r"|user_cursor_is_here|editable_region_start)\|?"
    r"|PRE|SUF|FILL_ME|｜fim▁(?:begin|hole|end)｜)>"
)
_BRACKETED_MARKERS = ("[SUFFIX]", "[PREFIX]", "{{FILL_HERE}}")
"""Of fill-in-the-middle, in the forms of Qwen, StarCoder, CodeLlama, Codestral, DeepSeek, Granite and editors. All have
an F in them: single characters are looked for first, since that is far quicker."""
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
"""What system prompts call who works on code, in lower case."""
PROGRAMMER_WITHIN_CHARS = 400
"""How far into a system prompt they are looked for: programs say at its beginning who answers."""
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
"""What such calls ask for; estimates."""
BACKGROUND_WITHIN_CHARS = 250
"""How far into a text their patterns are looked for: their instruction stands first."""
SURE = 0.92
"""By this factor the words' probability of the likeliest task is lowered; the result is the part of that probability
that is believed, and ``unknown`` gets the rest. So a task is named from 0.65 on. Between 0.84 and 1 it moves one
request in a hundred from wrong to unknown. It was chosen by the recorded requests; chosen for each of their 19 sources
from the other eighteen, it makes nearly the same of them (docs/learning.md)."""
LONG_CHARS = 8_000
"""Longer than any text that the model was trained on."""
SURE_OF_LONG = 0.75
"""The same as ``SURE`` for such texts; of nine long documents two are still named wrongly."""
CLEARLY = 0.75
"""Words that tell a task so clearly outvote the tools that are offered."""
CALL_OF_FITTING_TOOL = 0.7
"""Probability of a tool call after the first message, where the user's words occur in the name of a tool. This one and
the next ones are estimates for programs that serve a user: whether such a program calls a tool or answers is half and
half, and can hardly be seen from outside (docs/learning.md)."""
CALL_OF_ANY_TOOL = 0.48
"""The same where they don't."""
CALL_ALL_THE_SAME = 0.2
"""The same where they don't, and clearly ask for what needs no tool."""
CALL_AFTER_AGREEMENT = 0.49
"""After a later message that agrees to something, or names an order, a flight, an account."""
CALL_AFTER_MESSAGE = 0.4
"""After any other message."""
CALL_AFTER_FAILURE = 0.49
"""After a tool has failed, or has returned ``MANY_RESULTS`` times."""
CALL_AFTER_RESULT = 0.45
"""After any other result."""
LIKELY_CALL = 0.48
"""A call that is less likely than this, in a program that serves a user, is not told from an answer: it is unknown."""
LOOP_BESIDE_WORDS = 0.55
"""Part, 0 to 1, of the place in the loop where a later message to a program that works on files clearly is a question,
or holds what is to be edited: it may look at files first. An estimate."""
ENOUGH_TO_EDIT_CHARS = 400
"""A message at least so long brings along the text that is to be edited; shorter ones are about files. A guess."""
MANY_RESULTS = 3
"""After so many results in a row the next call is likelier than an answer (most times in airline dialogues)."""
SHORT_CHARS = 300
"""In a later message shorter than this an identifier is what a tool was waiting for."""
FITS_WITHIN_CHARS = 1000
"""How far into a message words of the tools' names are looked for."""
MIN_FITTING_CHARS = 4
"""Shorter words of the tools' names ("get", "set") occur anywhere."""
STEM_CHARS = 5
"""Of such a word, its beginning is enough: it may be inflected."""
LINE_CHARS = 240
"""At either end of a prompt to go on with, what is looked at."""
MIN_SPEAKER_LINES = 3
"""Line ends in the beginning of a prompt that is a dialogue."""
SPEAKERS_WITHIN_CHARS = 8 * LINE_CHARS
"""How far into a prompt they are counted."""
_NEED_NO_TOOL = frozenset((Task.CREATE, Task.TRANSLATE, Task.CODE, Task.CHAT, Task.SUMMARISE, Task.EDIT, Task.REASON))
_WITHOUT_FILES = frozenset((Task.CREATE, Task.TRANSLATE))
"""What a program that works on files answers without looking at them, where a later message clearly asks for it."""
_NO_INSTRUCTION = (Task.UNKNOWN, Task.CHAT, Task.ANSWER)
"""What a system prompt seems to ask for that only says who answers."""
_CLOSING: Tasks = {Task.CHAT: 0.45, Task.UNKNOWN: 0.25, Task.TOOL_CALL: 0.2, Task.ANSWER: 0.1}
"""What follows a message that ends a conversation, or only chats; estimates."""
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
PROMPT_OF_CODE: Mapping[Task, float] = {Task.CODE: 6.0, Task.EDIT: 0.5, Task.CHAT: 0.1, Task.TRANSLATE: 0.2}
"""The same where a prompt to go on with begins or ends with code."""
_SPEAKER = re.compile(r"\n[^\n:]{1,40}:\s*$")
_DIALOGUE: Tasks = {Task.CHAT: 0.6, Task.CREATE: 0.2, Task.ANSWER: 0.2}
"""What follows in a prompt that ends with a speaker's name; estimates."""
GOES_ON_OPEN = 0.6
"""Part, 0 to 1, of ``create`` in a prompt that ends within a sentence; a guess."""
GOES_ON_CLOSED = 0.2
"""The same of one that ends with a sentence; a guess."""

_IN_LOOP: Mapping[Turn, Tasks] = {
    Turn.FIRST: {Task.TOOL_CALL: 0.75, Task.EDIT: 0.05, Task.ANSWER: 0.05, Task.UNKNOWN: 0.15},
    Turn.USER: {Task.TOOL_CALL: 0.4, Task.EDIT: 0.1, Task.ANSWER: 0.05, Task.UNKNOWN: 0.45},
    Turn.READ: {Task.TOOL_CALL: 0.48, Task.EDIT: 0.12, Task.ANSWER: 0.05, Task.UNKNOWN: 0.35},
    Turn.RAN: {Task.TOOL_CALL: 0.48, Task.EDIT: 0.1, Task.ANSWER: 0.07, Task.UNKNOWN: 0.35},
    Turn.PASSED: {
        Task.TOOL_CALL: 0.3,
        Task.SUMMARISE: 0.15,
        Task.ANSWER: 0.1,
        Task.CHAT: 0.05,
        Task.UNKNOWN: 0.4,
    },
    Turn.FAILED: {Task.TOOL_CALL: 0.48, Task.EDIT: 0.2, Task.UNKNOWN: 0.32},
    Turn.NOT_WRITTEN: {Task.EDIT: 0.42, Task.TOOL_CALL: 0.25, Task.UNKNOWN: 0.33},
    Turn.CREATED: {Task.EDIT: 0.48, Task.CODE: 0.12, Task.TOOL_CALL: 0.1, Task.UNKNOWN: 0.3},
    Turn.WROTE: {Task.TOOL_CALL: 0.42, Task.SUMMARISE: 0.1, Task.ANSWER: 0.1, Task.CHAT: 0.03, Task.UNKNOWN: 0.35},
}
"""What follows in the loop of a program that works on files; estimates. Where a tool returned, none is sure."""
IN_LOOP = {turn: ranked([(share, task) for task, share in shares.items()]) for turn, shares in _IN_LOOP.items()}
"""The same, the likeliest first."""


class Clues(Struct, frozen=True, gc=False):
    """What the tasks are recognised by."""

    text: str
    """What the user wrote last, out of its wrappings."""
    features: Features
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
    if "F" not in text:
        return False
    return any(marker[0] in text and marker in text for marker in _BRACKETED_MARKERS)


def tasks_of(request: Request, clues: Clues) -> tuple[Tasks, str]:
    """Probabilities of the tasks, the likeliest first, and what else than the words they are recognised by."""
    # 1. Fields and markers that leave no doubt.
    fields = request.fields
    if fields.get("prediction"):
        return {Task.EDIT: 1.0}, "prediction"
    if is_to_fill(request, clues.text):
        return {Task.CODE: 1.0}, "infill"
    if read.must_call_tool(fields):
        return {Task.TOOL_CALL: 1.0}, "tool_choice"

    # 2. Else what the words say, and in a tool loop the place there.
    tasks = _of_words(clues)
    if read.offers_tools(fields) or clues.place.in_text or clues.place.results:
        return _with_tools(tasks, clues), "tools"
    if len(clues.system) > SYSTEM_PROMPT_CHARS and speaks_of_tools(clues.system):
        return _on_files(tasks, clues), "tools"

    # 3. Outside a loop they are shifted by what else is known, and doubted.
    if clues.place.turn is Turn.PROMPT:
        return _honest(_of_prompt(tasks, clues.text), len(clues.text)), ""
    if clues.holds_code:
        works_on_code = len(clues.system) > SYSTEM_PROMPT_CHARS and _is_programmer(clues.system)
        tasks = _shifted(tasks, ON_FILES_IN_CHAT if works_on_code else AFTER_CODE)
    if clues.structure:
        best = next(iter(tasks))
        unclear = 1 - tasks[best] if best is not Task.UNKNOWN else 1.0
        tasks = mixed(_honest(tasks, len(clues.text)), {Task.EXTRACT: 1.0}, STRUCTURED_IS_EXTRACT * unclear)
        return tasks, clues.structure
    return _honest(tasks, len(clues.text)), ""


def _of_words(clues: Clues) -> Tasks:
    """What the words say: of the last message, of a conversation's first if that one is short, of a system prompt."""
    model = task_model()
    if not _BACKGROUND_WORDS.isdisjoint(clues.features.words) and (background := _background(clues.text)):
        return background
    tasks = model.probabilities(clues.features)
    if clues.first and len(clues.text) <= FOLLOW_UP_CHARS and tasks[next(iter(tasks))] < CLEARLY:
        of_first = _of_text(clues.first)
        tasks = mixed(tasks, of_first, FIRST_MESSAGE_SHARE * (1 - of_first.get(Task.UNKNOWN, 0.0)))
    if clues.system and len(clues.system) <= SYSTEM_PROMPT_CHARS:
        of_system = _of_text(clues.system)
        says_nothing = sum([of_system.get(task, 0.0) for task in _NO_INSTRUCTION])
        tasks = mixed(tasks, of_system, SYSTEM_PROMPT_SHARE * (1 - says_nothing))
    return tasks


def _of_text(text: str) -> Tasks:
    """What the words of a text say that comes again with every request of a conversation, or of a program."""
    return _remembered(text) if len(text) <= SYSTEM_PROMPT_CHARS else task_model().probabilities(features(text))


@lru_cache(maxsize=64)
def _remembered(text: str) -> Tasks:
    return task_model().probabilities(features(text))


def _is_programmer(system: str) -> bool:
    beginning = system[:PROGRAMMER_WITHIN_CHARS].lower()
    return any(word in beginning for word in _PROGRAMMER)


def _background(text: str) -> Tasks | None:
    """Of the calls that clients make beside the user's own: titles, tags, follow-up questions, search queries."""
    beginning = text[:BACKGROUND_WITHIN_CHARS]
    if _CONVERSATION.search(beginning) is None:
        return None
    match = _BACKGROUND.search(beginning)
    if match is None or match.lastgroup is None:
        return None
    return _BACKGROUND_TASKS[match.lastgroup]


def _with_tools(tasks: Tasks, clues: Clues) -> Tasks:
    """Where tools may be called: by programs that work on files on their own, or to serve a user."""
    if clues.place.in_text or any(
        not _FILES.isdisjoint(map(str.lower, _NAME_WORD.findall(name))) for name in clues.tool_names
    ):
        return _on_files(tasks, clues)
    turn, results, _ = clues.place
    if turn in (Turn.FIRST, Turn.USER):
        return _after_message(tasks, clues)
    if turn in (Turn.FAILED, Turn.NOT_WRITTEN) or results >= MANY_RESULTS:
        return _call_or_answer(CALL_AFTER_FAILURE)
    return _call_or_answer(CALL_AFTER_RESULT)


def _after_message(tasks: Tasks, clues: Clues) -> Tasks:
    """After a user's message to a program that serves users with its tools."""
    text, best = clues.text, next(iter(tasks))
    is_short = len(text) <= FOLLOW_UP_CHARS
    if clues.place.turn is Turn.USER:
        if _AGREES.match(text) or (len(text) < SHORT_CHARS and _IDENTIFIER.search(text)):
            return _call_or_answer(CALL_AFTER_AGREEMENT)
        if is_short and (best is Task.CHAT or _CLOSES.search(text)):
            return _CLOSING
    elif len(clues.system) <= SYSTEM_PROMPT_CHARS:
        if _fits(text, clues.tool_names):
            return _call_or_answer(CALL_OF_FITTING_TOOL)
        needs_no_tool = is_short if best is Task.CHAT else best in _NEED_NO_TOOL and tasks[best] >= CLEARLY
        if needs_no_tool:
            return mixed(_honest(tasks, len(text)), {Task.TOOL_CALL: 1.0}, CALL_ALL_THE_SAME)
        return _call_or_answer(CALL_OF_ANY_TOOL)
    return _call_or_answer(CALL_AFTER_MESSAGE)


def _call_or_answer(call: float) -> Tasks:
    """Where a tool call has the probability ``call``, and else an answer follows, of whatever kind."""
    answer = 1 - call
    if call >= LIKELY_CALL:
        return _ranked({Task.TOOL_CALL: call, Task.UNKNOWN: answer / 2, Task.CHAT: answer / 4, Task.ANSWER: answer / 4})
    return _ranked(
        {
            Task.UNKNOWN: 0.5,
            Task.TOOL_CALL: call / 2,
            Task.CHAT: answer / 4,
            Task.ANSWER: answer / 6,
            Task.RETRIEVE: answer / 12,
        }
    )


def _on_files(tasks: Tasks, clues: Clues) -> Tasks:
    """In the loop of a program that works on files: what the place there says, and words that are clear."""
    turn = clues.place.turn
    best = next(iter(tasks))
    likely = tasks[best] >= ENOUGH
    if turn in (Turn.FIRST, Turn.USER):
        if likely and best is Task.CHAT:
            return mixed(tasks, IN_LOOP[Turn.USER], 0.5)
        if turn is Turn.USER and tasks[best] >= CLEARLY:
            if best in _WITHOUT_FILES:
                return mixed(_honest(tasks, len(clues.text)), {Task.TOOL_CALL: 1.0}, CALL_ALL_THE_SAME)
            if best is Task.ANSWER or (best is Task.EDIT and len(clues.text) >= ENOUGH_TO_EDIT_CHARS):
                return mixed(tasks, IN_LOOP[Turn.USER], LOOP_BESIDE_WORDS)
        if likely and best in _ABOUT_SOMETHING:
            return IN_LOOP[Turn.USER]
    elif turn in (Turn.READ, Turn.RAN) and likely and best in (Task.EDIT, Task.CODE):
        return {Task.UNKNOWN: 0.45, best: 0.3, Task.TOOL_CALL: 0.25}
    elif turn in (Turn.READ, Turn.RAN, Turn.WROTE) and likely and best in _ABOUT_SOMETHING:
        return {Task.UNKNOWN: 0.4, Task.TOOL_CALL: 0.3, Task.ANSWER: 0.2, Task.SUMMARISE: 0.1}
    return IN_LOOP.get(turn, IN_LOOP[Turn.USER])


def _fits(text: str, tool_names: Sequence[str]) -> bool:
    """Whether the user's words occur in the names of tools."""
    beginning = text[:FITS_WITHIN_CHARS].lower()
    for name in tool_names:
        for word in _NAME_WORD.findall(name):
            if len(word) >= MIN_FITTING_CHARS and word[:STEM_CHARS].lower() in beginning:
                return True
    return False


def _of_prompt(tasks: Tasks, text: str) -> Tasks:
    """Of a text that a base model is to go on with."""
    end = text[-LINE_CHARS:]
    beginning = text[:LINE_CHARS]
    if holds_code(beginning) or holds_code(end):
        return _shifted(tasks, PROMPT_OF_CODE)
    if _SPEAKER.search(end) and text.count("\n", 0, SPEAKERS_WITHIN_CHARS) >= MIN_SPEAKER_LINES:
        return mixed(tasks, _DIALOGUE, 0.5)
    best = next(iter(tasks))
    if tasks[best] >= CLEARLY:
        return tasks
    ends_open = end.rstrip()[-1:] not in ".?!:。？！"
    return mixed(tasks, {Task.CREATE: 1.0}, GOES_ON_OPEN if ends_open else GOES_ON_CLOSED)


def _shifted(tasks: Tasks, factors: Mapping[Task, float]) -> Tasks:
    """``tasks`` where some are commoner or rarer than usual."""
    return _ranked({task: share * factors.get(task, 1.0) for task, share in tasks.items()})


def _ranked(shares: Mapping[Task, float]) -> Tasks:
    return ranked([(share, task) for task, share in shares.items()])


def _honest(tasks: Tasks, chars: int) -> Tasks:
    """With the more of ``unknown`` the less likely the likeliest task is. The words' model is too sure of itself on
    programs that it was not trained on: where it says 0.6 it is right in half of the cases, where 0.85 nearly always.
    """
    best = next(iter(tasks))
    if best is Task.UNKNOWN:
        return tasks
    likely = tasks[best] * (SURE if chars <= LONG_CHARS else SURE_OF_LONG)
    unknown = 1 - likely + likely * tasks.get(Task.UNKNOWN, 0.0)
    doubted: dict[Task, float] = {}
    for task, share in tasks.items():
        if task is not Task.UNKNOWN:
            share *= likely
            if share < unknown and Task.UNKNOWN not in doubted:
                doubted[Task.UNKNOWN] = unknown
            doubted[task] = share
    doubted.setdefault(Task.UNKNOWN, unknown)
    return doubted
