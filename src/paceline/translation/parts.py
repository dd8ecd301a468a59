"""What all directions share: reading a parsed body whose types nobody has checked, and saying what can't be said."""

from collections.abc import Callable, Collection, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NoReturn

import msgspec

MAX_QUOTED_CHARS = 60
"""Of what a client wrote, in an error."""


class Untranslatable(Exception):
    """A request says something that the engine's dialect has no words for. ``str()`` tells people what, and where."""


class Garbled(Exception):
    """An engine's answer is none of its dialect."""


def refuse(where: str, why: str) -> NoReturn:
    """
    Args:
        where: the path of the field: ``messages[2].content[0]``.

    Raises:
        Untranslatable: always.
    """
    raise Untranslatable(f"{where}: {why}")


Meaningful = Mapping[str, Sequence[Any]]
"""Fields that change what is answered and have no translation, with the values at which they ask for nothing."""


def check(fields: Mapping[str, Any], meaningful: Meaningful, where: str = "") -> None:
    """Refuse what would change the answer by its loss.

    Args:
        where: the path of the object that has the fields; empty for the body.

    Raises:
        Untranslatable: such a field is given; ``null`` counts as not given.
    """
    for name, asks_for_nothing in meaningful.items():
        value = fields.get(name)
        if value is not None and value not in asks_for_nothing:
            refuse(
                f"{where}.{name}" if where else name,
                "the engine that would serve this speaks another API, which has no such field",
            )


def unheard_of(fields: Mapping[str, Any], known: Collection[str], meaningful: Meaningful) -> tuple[str, ...]:
    """Names of fields that are left out without it being known what they are for."""
    return tuple(name for name, value in fields.items() if value is not None and name not in {*known, *meaningful})


def as_list(value: Any, where: str) -> list[Any]:
    """
    Raises:
        Untranslatable: it is none.
    """
    if not isinstance(value, list):
        refuse(where, "is no list")
    return value


def as_object(value: Any, where: str) -> dict[str, Any]:
    """
    Raises:
        Untranslatable: it is none.
    """
    if not isinstance(value, dict):
        refuse(where, "is no object")
    return value


def as_text(value: Any, where: str) -> str:
    """
    Raises:
        Untranslatable: it is none.
    """
    if not isinstance(value, str):
        refuse(where, "is no text")
    return value


def as_arguments(text: str, where: str) -> dict[str, Any]:
    """The arguments of a tool's call, which OpenAI writes as JSON in a text and Anthropic as an object.

    Raises:
        Untranslatable: they are no JSON object.
    """
    if not text.strip():
        return {}
    try:
        arguments = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        refuse(where, f"is no JSON object: {text[:MAX_QUOTED_CHARS]!r}")
    return arguments


def as_json(value: Any) -> str:
    """A document as JSON in a text."""
    return msgspec.json.encode(value).decode()


def data_url(url: str, where: str) -> tuple[str, str] | None:
    """Media type and base64 of a ``data:`` URL; ``None`` for any other.

    Raises:
        Untranslatable: it is one, but not in base64.
    """
    if not url.startswith("data:"):
        return None
    kind, marker, data = url[len("data:") :].partition(";base64,")
    if not marker:
        refuse(where, "is a data: URL that is not in base64")
    return kind.partition(";")[0], data


def each(values: Any, translate: Callable[[Any, str], Any], where: str) -> list[Any] | None:
    """The translations of a list's members, ``None`` for an empty one or none.

    Args:
        translate: takes a member and its path.

    Raises:
        Untranslatable: it is no list, or a member can't be translated.
    """
    if not values:
        return None
    return [translate(value, f"{where}[{number}]") for number, value in enumerate(as_list(values, where))]


def short_id(value: Any, most: int) -> Any:
    """An identifier of somebody that is not longer than an API takes: a hash of a longer one, which stays the same."""
    if isinstance(value, str) and len(value) > most:
        return blake2b(value.encode("utf-8", "replace"), digest_size=32).hexdigest()
    return value


def present(**fields: Any) -> dict[str, Any]:
    """Those that have a value."""
    return {name: value for name, value in fields.items() if value is not None}


def count(value: Any) -> int:
    """A number of tokens; 0 for what is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
