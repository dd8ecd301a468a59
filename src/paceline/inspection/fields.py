"""What the fields of a request say outright, in the dialects of OpenAI, Anthropic and llama.cpp."""

import re
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

Fields = Mapping[str, Any]

_TELLTALES = (
    ("Claude Code", "claude-code", r"\bClaude Code\b"),
    ("ider", "aider", r"\b[Aa]ider\b"),
    ("SEARCH/REPLACE", "aider", r"\*?SEARCH/REPLACE\*? (?:block|edit)"),
    ("Cline", "cline", r"\bCline\b"),
    ("Roo", "roo-code", r"\bRoo(?: Code)?\b(?! [A-Z])"),
    ("pen", "opencode", r"\b[Oo]pen[Cc]ode\b"),
    ("Codex", "codex", r"\bCodex\b"),
    ("Cursor", "cursor", r"\b(?:in|by|is|are|called|within) Cursor\b|\bCursor(?: IDE|, (?:the|an) )"),
    ("Open", "openhands", r"\bOpen[Hh]ands\b"),
)
"""Names in the system prompts of agent frameworks: what is looked for first, since that is quick, the framework, and
the whole name."""
_NAMES = tuple((sign, name, re.compile(pattern)) for sign, name, pattern in _TELLTALES)
TELLTALE_CHARS = 600
"""How far into a system prompt they are looked for; chosen by hand, since frameworks introduce themselves first. It
only decides the name under which an agent is reported."""
_FORMATS = (
    ("response_format", "response_format", ""),
    ("text.format", "text", "format"),
    ("output_config.format", "output_config", "format"),
)
"""Where a form of the answer is demanded: its name, the field, and what in it."""
_OTHER_FORMATS = ("json_schema", "grammar", "structured_outputs", "guided_json")
"""Fields that demand a form by being there."""
_STRUCTURE_FIELDS = frozenset((*(key for _, key, _ in _FORMATS), *_OTHER_FORMATS, "tools"))
_STRUCTURES = frozenset(("json_object", "json_schema", "grammar", "regex", "structural_tag", "ebnf"))
"""Types of a form, by the interfaces of OpenAI, Anthropic, vLLM and SGLang; all else is ``other``, since what is found
of a request is kept, and must hold none of its text."""
MAX_TOKENS = 10_000_000
"""Answers are shorter; a larger number means as many as fit, and would only upset who calculates with it."""
MAX_TEMPERATURE = 100.0
"""Far above what any engine takes (2 in the API of OpenAI); it only keeps absurd numbers out of what is learned."""

_CONVERSATION = ("conversation", "conversation_id", "prompt_cache_key", "session_id", "thread_id", "chat_id")
_CONVERSATION_FIELDS = frozenset(_CONVERSATION)
_IN_METADATA = ("session_id", "conversation_id", "thread_id", "chat_id")
_CONVERSATION_HEADERS = frozenset(
    (
        b"x-conversation-id",
        b"x-session-id",
        b"x-claude-code-session-id",
        b"session_id",
        b"session-id",
        b"conversation_id",
        b"x-session-affinity",
        b"x-opencode-session",
        b"x-thread-id",
    )
)
"""What clients call a conversation in: fields, entries of ``metadata``, headers (of Open WebUI, Claude Code, Codex,
OpenCode and proxies before them)."""
_SESSION = "session_"
"""Claude Code names its session in ``metadata.user_id``: ``user_..._account_..._session_...``."""
MAX_IDENTIFIER_CHARS = 400
"""Of an identifier, only so much tells it from others."""
MAX_TOOLS = 32
"""Tools, or properties of a schema, whose names are read. Chosen by hand, so that inspection takes bounded time; a
program that offers more is still told by the first ones."""
MAX_NAME_CHARS = 64
"""Of a tool's name: the longest that the API of OpenAI allows."""
_KEYS = frozenset((b"authorization", b"x-api-key", b"api-key", b"x-forwarded-user"))


def structure(fields: Fields) -> str:
    """The field that demands a structured answer; empty where there is none."""
    if fields.keys().isdisjoint(_STRUCTURE_FIELDS):  # most requests
        return ""
    for name, key, inner in _FORMATS:
        value = fields.get(key)
        if inner and isinstance(value, dict):
            value = value.get(inner)
        if isinstance(value, dict) and value.get("type") not in (None, "text"):
            kind = value["type"]
            return f"{name} {kind if isinstance(kind, str) and kind in _STRUCTURES else 'other'}"
    for key in _OTHER_FORMATS:
        if fields.get(key):
            return key
    return "tool_choice" if must_call_tool(fields) else ""


def offers_tools(fields: Fields) -> bool:
    return bool(fields.get("tools")) and _tool_choice(fields) != "none"


def must_call_tool(fields: Fields) -> bool:
    return bool(fields.get("tools")) and _tool_choice(fields) not in (None, "none", "auto")


def reasoning(fields: Fields) -> bool | None:
    """Whether thinking before the answer is asked for, or turned off; ``None`` where nothing is said."""
    effort = fields.get("reasoning_effort")
    if effort is None and isinstance(asked := fields.get("reasoning"), dict):
        effort = asked.get("effort")
    if isinstance(effort, str):
        return effort not in ("none", "minimal")
    if isinstance(thinking := fields.get("thinking"), dict):
        return thinking.get("type") != "disabled"
    template = fields.get("chat_template_kwargs")
    if isinstance(template, dict) and isinstance(enabled := template.get("enable_thinking"), bool):
        return enabled
    return None


def agent(system: str, has_tool_results: bool) -> str:
    """The agent framework by its telltales; ``"unnamed"`` where only tool results give one away, else empty."""
    beginning = system[:TELLTALE_CHARS]
    for sign, name, pattern in _NAMES if beginning else ():
        if sign in beginning and pattern.search(beginning):
            return name
    return "unnamed" if has_tool_results else ""


def number(fields: Fields, key: str, most: float) -> float | None:
    """A number, brought to between 0 and ``most``; ``None`` where there is none, or it is none."""
    value = fields.get(key)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or value != value:
        return None
    return float(min(max(value, 0), most))


def first_count(fields: Fields, *keys: str) -> int | None:
    """The first of the fields that holds a whole number from 0 on, which is brought to at most ``MAX_TOKENS``."""
    for key in keys:
        value = fields.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return min(value, MAX_TOKENS)
    return None


def conversation_name(fields: Fields, headers: Sequence[tuple[bytes, bytes]] = ()) -> str:
    """What the client itself calls the conversation; empty where it does not."""
    for key in _CONVERSATION if not fields.keys().isdisjoint(_CONVERSATION_FIELDS) else ():
        value = fields.get(key)
        if isinstance(value, dict):
            value = value.get("id")
        if isinstance(value, str) and value:
            return value[:MAX_IDENTIFIER_CHARS]
    metadata = fields.get("metadata")
    if isinstance(metadata, dict):
        for key in _IN_METADATA:
            value = metadata.get(key)
            if isinstance(value, str) and value:
                return value[:MAX_IDENTIFIER_CHARS]
        user = metadata.get("user_id")
        if isinstance(user, str) and _SESSION in user[:MAX_IDENTIFIER_CHARS]:
            return user[:MAX_IDENTIFIER_CHARS]
    for name, value in headers:
        if name in _CONVERSATION_HEADERS and value:
            return value[:MAX_IDENTIFIER_CHARS].decode("latin-1")
    return ""


def who_asks(fields: Fields, headers: Sequence[tuple[bytes, bytes]] = ()) -> str:
    """What tells one client from another, as far as they say: a user's name, a key. Conversations of different clients
    that begin alike are different ones. Only ever to be hashed."""
    metadata = fields.get("metadata")
    users = [fields.get("user"), fields.get("safety_identifier")]
    users.append(metadata.get("user_id") if isinstance(metadata, dict) else None)
    names = [value[:MAX_IDENTIFIER_CHARS] for value in users if isinstance(value, str)]
    return "\n".join([*names, client_key(headers)] if headers else names)


def tool_names(fields: Fields) -> list[str]:
    """Names of the first tools that are offered."""
    tools = fields.get("tools")
    names = []
    for tool in tools[:MAX_TOOLS] if isinstance(tools, list) else ():
        if isinstance(tool, dict):
            function = tool.get("function")
            name = function.get("name") if isinstance(function, dict) else tool.get("name")
            if isinstance(name, str):
                names.append(name[:MAX_NAME_CHARS])
    return names


def schema_names(fields: Fields) -> list[str]:
    """Names of the first properties in the schema of the answer, where there is one."""
    schema: Any = fields.get("json_schema")
    for _, key, inner in _FORMATS:
        value = fields.get(key)
        if inner and isinstance(value, dict):
            value = value.get(inner)
        if isinstance(value, dict):
            schema = value.get("json_schema", value)
            break
    if isinstance(schema, dict) and isinstance(inner_schema := schema.get("schema"), dict):
        schema = inner_schema
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict):
        return []
    return [name[:MAX_NAME_CHARS] for name in islice(properties, MAX_TOOLS)]


def client_key(headers: Sequence[tuple[bytes, bytes]]) -> str:
    """The key that the client gave. Only ever to be hashed."""
    return "\n".join([value[:MAX_IDENTIFIER_CHARS].decode("latin-1") for name, value in headers if name in _KEYS])


def _tool_choice(fields: Fields) -> Any:
    choice = fields.get("tool_choice")
    return choice.get("type") if isinstance(choice, dict) else choice
