"""The first inspector: explicit fields, and a few words that people use when they want text back changed."""

import re
from typing import Any

from paceline.inspection.text import Part, excerpt, parts
from paceline.types import Request, Signals, Task

GIVEN_TEXT_CHARS = 300
"""A prompt part at least this long is taken to carry text that the answer may copy from."""

EDGE_CHARS = 400
"""Someone who pastes text says before or after it what is to be done; a verb in the middle is the text's own."""

_WORD = re.compile("[a-z]+")
_EDIT = frozenset(
    "edit refactor rename renamed rewrite modify replace fix correct proofread reformat update apply convert "
    "add remove change".split()
)
_EDIT_PROSE = frozenset("edit correct proofread fix replace".split())
_EDIT_PHRASES = tuple(f"the {which} " for which in ("whole", "full", "complete", "entire", "updated", "corrected"))
_EXTRACT = frozenset("extract quote verbatim copy cite transcribe".split())
_EXTRACT_PHRASES = (
    *(f"{verb} {which} " for verb in ("find", "list", "identify") for which in ("all", "every", "each")),
    *(f" {word} {form}" for word in ("as", "into", "to", "in") for form in ("json", "csv", "xml", "yaml")),
    "pull out",
    "named entit",
)
_CODE = (
    "```",
    *(f"\n{begin}" for begin in ("diff --git", "@@ ", "--- a/", "import ", "#include", "def ", "class ", "function ")),
    *(f"\n{begin}" for begin in ("public ", "private ", "const ", "fn ", "func ", "package ", "using ")),
)


def inspect(request: Request) -> Signals:
    """What a request asks for. Time is bounded however long the request is; unknown shapes are no error."""
    fields = request.fields
    texts = parts(request)
    task, evidence = _task(request, texts)
    return Signals(
        task=task,
        evidence=evidence,
        prompt_chars=sum(len(part.text) for part in texts),
        given_chars=sum(
            len(part.text) for part in texts if part.role != "system" and len(part.text) >= GIVEN_TEXT_CHARS
        ),
        temperature=_number(fields.get("temperature")),
        max_tokens=_first_count(fields, "max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict"),
    )


def _task(request: Request, texts: list[Part]) -> tuple[Task, str]:
    fields = request.fields
    if structure := _structure(fields):
        return Task.STRUCTURED, structure
    if fields.get("tools") and _tool_choice(fields) != "none":
        return Task.TOOL_CALL, "tools"
    if fields.get("prediction"):
        return Task.EDIT, "prediction"
    if request.path.endswith("/infill"):
        return Task.EDIT, "infill"
    asked = next((part.text for part in reversed(texts) if part.role == "user"), "")
    given = [part.text for part in texts if part.role in ("user", "tool")]
    edges = _edges(excerpt(asked)).lower()
    words = _WORD.findall(edges)
    if any(_holds_code(text) for text in reversed(given)) and (sign := _first(edges, words, _EDIT, _EDIT_PHRASES)):
        return Task.EDIT, f"{sign} + code"
    if any(len(text) >= GIVEN_TEXT_CHARS for text in given):
        if sign := _first(edges, words, _EXTRACT, _EXTRACT_PHRASES):
            return Task.EXTRACT, f"{sign} + given text"
        if sign := _first(edges, words, _EDIT_PROSE, ()):
            return Task.EDIT, f"{sign} + given text"
    return Task.OPEN_ENDED, "nothing to copy from"


def _edges(text: str) -> str:
    """Where the wish stands: the beginning and the end, outside of fenced code."""
    before, fence, rest = text.partition("```")
    after = rest.rpartition("```")[2] if fence else text
    return f"{before[:EDGE_CHARS]}\n{after[-EDGE_CHARS:]}"


def _holds_code(text: str) -> bool:
    begun = "\n" + excerpt(text)
    return any(sign in begun for sign in _CODE)


def _first(text: str, words: list[str], signs: frozenset[str], phrases: tuple[str, ...]) -> str:
    """The first of the words or phrases that stands in the text; empty where none does."""
    if found := next((word for word in words if word in signs), ""):
        return found
    return next((phrase.strip() for phrase in phrases if phrase in text), "")


def _structure(fields: Any) -> str:
    """The field that demands a structured answer; empty where there is none."""
    text = fields.get("text")
    output = fields.get("output_config")
    for name, value in (
        ("response_format", fields.get("response_format")),
        ("text.format", text.get("format") if isinstance(text, dict) else None),
        ("output_config.format", output.get("format") if isinstance(output, dict) else None),
    ):
        if isinstance(value, dict) and value.get("type") not in (None, "text"):
            return f"{name} {value['type']}"
    return next(
        (key for key in ("json_schema", "grammar", "structured_outputs", "guided_json") if fields.get(key)),
        "",
    )


def _tool_choice(fields: Any) -> Any:
    choice = fields.get("tool_choice")
    return choice.get("type") if isinstance(choice, dict) else choice


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _first_count(fields: Any, *keys: str) -> int | None:
    values = (fields.get(key) for key in keys)
    return next(
        (value for value in values if isinstance(value, int) and not isinstance(value, bool) and value >= 0),
        None,
    )
