"""What the fields of a request say outright, in the dialects of OpenAI, Anthropic and llama.cpp."""

from collections.abc import Mapping
from typing import Any

Fields = Mapping[str, Any]

_TELLTALES = (
    ("claude code", "claude-code"),
    ("aider", "aider"),
    ("cline", "cline"),
    ("roo", "roo-code"),
    ("opencode", "opencode"),
    ("codex", "codex"),
    ("cursor", "cursor"),
    ("openhands", "openhands"),
    ("search/replace", "aider"),
)
"""Names and habits in the system prompts of agent frameworks."""
TELLTALE_CHARS = 600
_FORMATS = (
    ("response_format", "response_format", ""),
    ("text.format", "text", "format"),
    ("output_config.format", "output_config", "format"),
)
"""Where a form of the answer is demanded: its name, the field, and what in it."""


def structure(fields: Fields) -> str:
    """The field that demands a structured answer; empty where there is none."""
    for name, key, inner in _FORMATS:
        value = fields.get(key)
        if inner and isinstance(value, dict):
            value = value.get(inner)
        if isinstance(value, dict) and value.get("type") not in (None, "text"):
            return f"{name} {value['type']}"
    for key in ("json_schema", "grammar", "structured_outputs", "guided_json"):
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
    begun = system[:TELLTALE_CHARS].lower()
    for telltale, name in _TELLTALES:
        if telltale in begun:
            return name
    return "unnamed" if has_tool_results else ""


def number(fields: Fields, key: str) -> float | None:
    value = fields.get(key)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def first_count(fields: Fields, *keys: str) -> int | None:
    """The first of the fields that holds a whole number from 0 on."""
    for key in keys:
        value = fields.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
    return None


def conversation_name(fields: Fields) -> str:
    """What the client itself calls the conversation; empty where it does not."""
    for key in ("conversation", "prompt_cache_key", "session_id"):
        value = fields.get(key)
        if isinstance(value, dict):
            value = value.get("id")
        if isinstance(value, str) and value:
            return value
    return ""


def _tool_choice(fields: Fields) -> Any:
    choice = fields.get("tool_choice")
    return choice.get("type") if isinstance(choice, dict) else choice
