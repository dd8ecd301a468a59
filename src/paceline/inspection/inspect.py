"""The first inspector: explicit fields, and a few words that people use when they want text back changed."""

import re
from typing import Any

from paceline.inspection.text import Part, excerpt, parts
from paceline.types import Request, Signals, Task

GIVEN_TEXT_CHARS = 300
"""A prompt part at least this long is taken to carry text that the answer may copy from."""

_EDIT = re.compile(
    r"\b(edit|refactor|rename|renamed|rewrite|modify|replace|fix|correct|proofread|reformat|update|apply|convert|"
    r"add (?:\w+ ){0,3}(?:to|in)\b|remove (?:\w+ ){0,3}from\b|change|(?:print|return|give|output|show) (?:me )?the "
    r"(?:whole|full|complete|entire|updated|corrected) )",
    re.IGNORECASE,
)
_EXTRACT = re.compile(
    r"\b(extract|quote|verbatim|copy|cite|transcribe|find all|list (?:all|every|each)|identify (?:all|every|the)|"
    r"pull out|(?:as|into|to|in) (?:json|csv|xml|yaml)|named entit)",
    re.IGNORECASE,
)
_CODE = re.compile(
    r"```|^(?:diff --git|@@ |--- a/|import \w|from \w+ import|#include|def \w+\(|class \w+|function \w+\()",
    re.MULTILINE,
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
    wish = excerpt(asked)
    code = next((found for text in reversed(given) if (found := _CODE.search(excerpt(text)))), None)
    # Someone who pastes text puts the wish before or after it; a verb in the middle is the text's own.
    edges = f"{wish[:400]}\n{wish[-400:]}"
    if code and (verb := _EDIT.search(edges)):
        return Task.EDIT, f"{verb[0].strip().lower()} + code"
    if any(len(text) >= GIVEN_TEXT_CHARS for text in given):
        if verb := _EXTRACT.search(edges):
            return Task.EXTRACT, f"{verb[0].strip().lower()} + given text"
        if (verb := _EDIT.search(edges)) and verb[0].lower() in {
            "edit",
            "correct",
            "proofread",
            "fix",
            "replace",
        }:
            return Task.EDIT, f"{verb[0].lower()} + given text"
    return Task.OPEN_ENDED, "nothing to copy from"


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
