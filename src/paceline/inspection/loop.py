"""Where a request stands in an agent's loop: after the user, or after a tool's result, and what that tool did.

Tools are called by fields (``tool_calls``, ``tool_use``, ``function_call``), or in the text of an answer, with the
result coming back as a user's message. Only the last entries of the conversation are read.
"""

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple

# All of these are chosen by hand, so that inspection takes bounded time; no measurement of a single one is on record.
LOOKED_AT_TURNS = 8
"""Blocks of a message that are read from its end; of the conversation, three times as many entries. They are to hold
``tasks.MANY_RESULTS`` results; more make no difference."""
LOOKED_AT_CHARS = 600
"""Of a result, at either end: where tools report that they failed. A text that was merely read counts as failed only
where it is shorter. Of an answer that may call a tool in its text, four times as many at its end."""
MAX_CALLS = 8
"""Calls, or blocks, at the end of an answer among which the last call is looked for."""
MAX_TAG_INDENT = 40
"""Characters of white space before a tag at the beginning of a text."""
PROMPT_LINE_CHARS = 20
"""At the end of a result, where a shell's prompt may stand."""
MAX_TOOL_NAME_CHARS = 100
"""Longer than the 64 that the API of OpenAI allows; only words of the name are used."""
MAX_COMMAND_CHARS = 64
"""Of a command that is called in the text of an answer; only words of its name are used."""


class Turn(StrEnum):
    """What the answer follows."""

    PROMPT = "prompt"
    """No conversation: a text to go on with."""
    FIRST = "first"
    """The user's first message."""
    USER = "user"
    """A later one."""
    READ = "read"
    """A tool that looked something up has returned."""
    WROTE = "wrote"
    """A tool that changed something."""
    RAN = "ran"
    """A command or a test."""
    PASSED = "passed"
    """The same where its result says that it went well: what was to be done may be done."""
    FAILED = "failed"
    """A tool reports an error."""
    NOT_WRITTEN = "not written"
    """The same of a tool that was to change something."""
    CREATED = "created"
    """A new file is there, and empty."""
    ASSISTANT = "assistant"
    """The beginning of the answer itself."""


_TOOLS = (
    "tool use",
    "access to tools",
    "access to the following",
    "access to a set of",
    "access to special",
    "the following tools",
    "the following commands",
    "the following functions",
    "use these tools",
    "special commands",
    "commands:",
    "one tool",
    "one command",
    "tool call",
    "function call",
    "action input",
)
"""What system prompts say that describe tools or commands, in lower case. Substrings: a pattern takes ten times as
long."""
SPEAKS_OF_TOOLS_CHARS = 3_000
"""How far into a system prompt tools and commands are looked for: chosen by hand. A program sends the same prompt again
and again, so that what is found is remembered, and the length hardly costs time."""


def speaks_of_tools(system: str) -> bool:
    """Whether a system prompt describes tools or commands."""
    return bool(system) and _describes_tools(system[:SPEAKS_OF_TOOLS_CHARS])


@lru_cache(maxsize=64)
def _describes_tools(beginning: str) -> bool:
    """A program sends the same system prompt again and again."""
    beginning = beginning.lower()
    return any(phrase in beginning for phrase in _TOOLS)


class Place(NamedTuple):
    """The place in the loop."""

    turn: Turn
    results: int = 0
    """Tool results since the user wrote last, of those that are looked at."""
    in_text: bool = False
    """Whether tools are called in the text of answers."""


_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_WRITES = frozenset(
    "write edit create replace insert update patch apply delete remove add book cancel send submit save set move rename"
    " str append put post modify".split()
)
_RUNS = frozenset(
    "bash shell sh execute exec run command terminal test tests pytest python python3 node npm make cargo go java gcc"
    " calculate powershell".split()
)
_CREATES = frozenset(("create", "touch", "new"))
"""Commands that make an empty file."""
_FAILURES = (
    "error",
    "failed",
    "failure",
    "traceback",
    "exception",
    "not found",
    "no such",
    "invalid",
    "denied",
    "cannot",
    "did not match",
)
"""What failing tools say, in lower case."""
_COUNTED = re.compile(r"\b[1-9]\d* (?:failed|failures?|errors?)\b", re.IGNORECASE)
_WENT_WELL = re.compile(
    r"\b(?:0 (?:errors?|failed|failures)|no errors?|passed|success(?:ful(?:ly)?)?)\b", re.IGNORECASE
)
_CALL_TAG = re.compile(
    r"<(?:function[=_ ]?|invoke name=\"|tool_call>\s*\{\"name\": ?\")?"
    r"([a-z][a-z0-9]*(?:[_-][a-z0-9]+)+|bash|command|execute|tool|invoke)\b"
)
_ACTION = re.compile(r"^(?:Action|ACTION|Tool|Command): ?`?([\w.-]{2,40})", re.MULTILINE)
_FENCED = re.compile(r"```(?:bash|sh|shell|console|powershell)?\n\s*([\w./-]{1,40})[^`]{0,2000}```\s*$")
_OBSERVED = re.compile(
    r"^\s*(?:\[?[\w .'\"/-]{2,80}\]? ?(?:result|output):?|observation:|execution result|tool result"
    r"|<(?:tool|function)_(?:result|response)|<returncode>|<output>|exit code)",
    re.IGNORECASE,
)
_PROMPT_LINE = re.compile(r"(?:\$|#|>|>>>)\s*$")


def place_of(turns: Sequence[Any], last_texts: Sequence[str], user_turns: int, system: str) -> Place:
    """The place in the loop.

    Args:
        turns: entries of the conversation.
        last_texts: texts of the last entry.
        user_turns: messages of the user.
        system: the system prompt, which may speak of tools or commands.
    """
    last = turns[-1] if turns else None
    if not isinstance(last, dict):
        return Place(Turn.FIRST if last_texts else Turn.PROMPT)
    role = last.get("role")
    if role == "assistant":
        return Place(Turn.ASSISTANT)
    if role == "tool" or role == "function" or last.get("type") == "function_call_output" or _holds_result(last):
        results, name = _results(turns)
        return Place(_after(name, last_texts, bool(last.get("is_error"))), results)
    if (
        user_turns > 1
        and len(turns) > 1
        and isinstance(before := turns[-2], dict)
        and before.get("role") == "assistant"
    ):
        tool = _called_in_text(before.get("content"), system, last_texts)
        if tool:
            return Place(_after(tool, last_texts, False), 1, True)
    return Place(Turn.USER if user_turns > 1 else Turn.FIRST)


def _after(name: str, texts: Sequence[str], is_error: bool) -> Turn:
    result = next((text for text in texts if not _is_tagged(text)), texts[-1] if texts else "")
    words = {word.lower() for word in _WORDS.findall(name)} or {name}
    runs, writes = bool(words & _RUNS), bool(words & _WRITES)
    may_fail = runs or writes or len(result) < LOOKED_AT_CHARS  # longer texts that were read speak of errors, too
    if is_error or (may_fail and _fails(result)):
        return Turn.NOT_WRITTEN if writes else Turn.FAILED
    if name in _CREATES:
        return Turn.CREATED
    if writes:
        return Turn.WROTE
    if runs:
        return Turn.PASSED if _WENT_WELL.search(_ends_of(result)) else Turn.RAN
    return Turn.READ


def _ends_of(result: str) -> str:
    return result if len(result) <= 2 * LOOKED_AT_CHARS else result[:LOOKED_AT_CHARS] + result[-LOOKED_AT_CHARS:]


def _fails(result: str) -> bool:
    """Whether a tool's result tells of a failure."""
    result = _ends_of(result).lower()
    if not any([sign in result for sign in _FAILURES]):  # noqa: C419 - quicker than a generator
        return False
    return _COUNTED.search(result) is not None or _WENT_WELL.search(result) is None


def _holds_result(turn: Mapping[str, Any]) -> bool:
    """Whether the message's last blocks are a tool's result, in Anthropic's form; what is written below it is the
    user's own only where no reminder is wrapped around it."""
    content = turn.get("content")
    if not isinstance(content, list):
        return False
    for block in reversed(content[-LOOKED_AT_TURNS:]):
        if isinstance(block, dict):
            if block.get("type") == "tool_result":
                return True
            text = block.get("text")
            if isinstance(text, str) and not _is_tagged(text):
                return False
    return False


def _is_tagged(text: str) -> bool:
    return text[:MAX_TAG_INDENT].lstrip().startswith("<")


def _results(turns: Sequence[Any]) -> tuple[int, str]:
    """How many results have come since the user wrote, and the name of the tool called last."""
    count, name = 0, ""
    for turn in reversed(turns[-3 * LOOKED_AT_TURNS :]):
        if not isinstance(turn, dict):
            continue
        role, kind = turn.get("role"), turn.get("type")
        if role in ("tool", "function") or kind == "function_call_output":
            count += 1
            name = name or _text(turn.get("name"))
        elif kind == "function_call":
            name = name or _text(turn.get("name"))
        elif role == "assistant":
            name = name or _called(turn)
        elif role == "user":
            if not _holds_result(turn):
                break
            count += 1
    return count, name


def _called(turn: Mapping[str, Any]) -> str:
    """The name of the last tool that an answer calls by its fields."""
    calls = turn.get("tool_calls")
    if isinstance(calls, list):
        for call in reversed(calls[-MAX_CALLS:]):
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict):
                return _text(function.get("name"))
    content = turn.get("content")
    if isinstance(content, list):
        for block in reversed(content[-MAX_CALLS:]):
            if isinstance(block, dict) and block.get("type") == "tool_use":
                return _text(block.get("name"))
    return ""


def _called_in_text(content: Any, system: str, following: Sequence[str]) -> str:
    """The tool or command that the text of an answer calls, where the message after it looks like its result."""
    if isinstance(content, list):
        texts = [block.get("text") for block in content[-MAX_CALLS:] if isinstance(block, dict)]
        content = next((text for text in reversed(texts) if isinstance(text, str)), "")
    if not isinstance(content, str):
        return ""
    end = content[-4 * LOOKED_AT_CHARS :]
    result = following[0] if following else ""
    observed = bool(_OBSERVED.match(result[:LOOKED_AT_CHARS]) or _PROMPT_LINE.search(result[-PROMPT_LINE_CHARS:]))
    if not (observed or speaks_of_tools(system)):
        return ""
    tags = _CALL_TAG.findall(end)
    if tags and (tag := tags[0]) and (observed or f"</{tag}>" in end):
        if tag in ("command", "bash", "execute", "tool", "invoke"):
            inner = end.partition(f"<{tag}>")[2].split(None, 1)
            return inner[0][:MAX_COMMAND_CHARS] if inner else tag
        return str(tag)
    for pattern in (_ACTION, _FENCED):
        match = pattern.search(end)
        if match:
            return str(match[1])
    return "unnamed" if observed else ""


def _text(value: Any) -> str:
    return value[:MAX_TOOL_NAME_CHARS] if isinstance(value, str) else ""
