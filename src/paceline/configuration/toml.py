"""TOML in, checked settings out. Every error names file, line and key, and says what to do."""

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from paceline.configuration.check import contradictions, contradictions_here
from paceline.configuration.places import KeyPath, Problem, located
from paceline.engines import ENGINES
from paceline.settings import NAME, URL, Configuration, ConfigurationError, EngineSettings

SETTINGS_BY_KIND: Mapping[str, type[EngineSettings]] = {kind: engine.settings_type for kind, engine in ENGINES.items()}
KIND = "kind"
"""The key of an ``[[engine]]`` table that says which of the types it is read into."""


def load(
    path: Path,
    server: Mapping[str, Any] = MappingProxyType({}),
    *,
    engines: Sequence[EngineSettings] = (),
    here: bool = True,
) -> Configuration:
    """Read and check a configuration file.

    Args:
        server: settings of ``[server]`` that take the place of the file's.
        engines: that were found elsewhere, behind the file's own.
        here: whether it is to be served with, on this machine and in this environment: then variables that it names
            have to be set, and it must not be open to strangers.

    Raises:
        ConfigurationError: the file can't be read, is no TOML, or holds a wrong or missing key.
    """
    try:
        text = path.read_text("utf-8-sig")  # some editors put a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: {error.strerror if isinstance(error, OSError) else error}") from error
    return parse(text, str(path), server, engines=engines, here=here)


def parse(
    text: str,
    source: str = "configuration",
    server: Mapping[str, Any] = MappingProxyType({}),
    *,
    engines: Sequence[EngineSettings] = (),
    here: bool = True,
) -> Configuration:
    """Like :func:`load`, from a string; ``source`` is the name used in errors."""

    def refuse(problems: list[Problem]) -> None:
        if problems:
            raise ConfigurationError(located(source, text, problems))

    # 1. TOML into tables.
    table = _tables(text, source)
    if server and isinstance(table.setdefault("server", {}), dict):
        table["server"] |= server
    # 2. Keys and values, each by itself; then the tables become settings.
    refuse(list(_problems(table, Configuration)))
    own = [msgspec.convert(engine, _any_engine(), strict=True) for engine in table.pop("engine", [])]
    configuration = msgspec.structs.replace(msgspec.convert(table, Configuration, strict=True), engine=(*own, *engines))
    # 3. What they say together.
    refuse([*contradictions(configuration), *(contradictions_here(configuration) if here else ())])
    return configuration


def located_in(path: Path, problems: Iterable[Problem]) -> str:
    """Problems of a file that was read, a line for each: file, line, key, and what is wrong."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        text = ""  # it is gone meanwhile
    return located(str(path), text, problems)


def _tables(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = re.sub(r" \(at (line (\d+), column \d+|end of document)\)$", "", str(error))
        place = re.search(r"line (\d+)", str(error))
        line = int(place[1]) if place else text.count("\n") + 1
        raise ConfigurationError(f"{source}:{line}: {message}") from error
    except RecursionError as error:
        raise ConfigurationError(f"{source}: is nested too deeply") from error


def _any_engine() -> Any:
    """The tagged union of all kinds' settings."""
    return Union[tuple(SETTINGS_BY_KIND.values())]  # noqa: UP007 - the members are only known at run time


def _problems(table: Mapping[str, Any], struct: type[Struct], at: KeyPath = ()) -> Iterator[Problem]:
    """All wrong keys and values of a table, where msgspec alone would stop at the first."""
    hints = get_type_hints(struct, include_extras=True)
    for key, value in table.items():
        if key not in hints:
            yield (*at, key), f"unknown key; known here: {', '.join(hints)}{_meant(key, hints)}"
        else:
            yield from _problems_of_value(value, hints[key], (*at, key))
    yield from _missing_keys(table, struct, at)


def _problems_of_value(value: Any, annotation: Any, at: KeyPath) -> Iterator[Problem]:
    struct = _struct_in(annotation)
    if struct and get_origin(annotation) is tuple:
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            yield at, f"write it as tables, each under [[{at[-1]}]]"
            return
        for index, item in enumerate(value):
            is_engine = issubclass(struct, EngineSettings)
            yield from _problems_of_engine(item, (*at, index)) if is_engine else _problems(item, struct, (*at, index))
    elif struct and isinstance(value, dict):
        yield from _problems(value, struct, at)
    else:
        try:
            msgspec.convert(value, annotation, strict=True)
        except msgspec.ValidationError as error:
            yield at, _explained(str(error), value, allowed_words(annotation))


def _problems_of_engine(table: Mapping[str, Any], at: KeyPath) -> Iterator[Problem]:
    """Like :func:`_problems`; the kind says which keys there are. Where it is missing or unknown, all kinds' are
    taken."""
    kind = table.get(KIND)
    keys = {key: value for key, value in table.items() if key != KIND}
    if isinstance(kind, str) and kind in SETTINGS_BY_KIND:
        struct = SETTINGS_BY_KIND[kind]
        hints = get_type_hints(struct, include_extras=True)
    else:
        struct, hints = EngineSettings, _hints_of_all_kinds()
        if KIND in table:
            yield (*at, KIND), _explained(f"Invalid enum value {kind!r}", kind, list(SETTINGS_BY_KIND))
        else:
            yield at, f"needs the key {KIND}"
    for key, value in keys.items():
        if key in hints:
            yield from _problems_of_value(value, hints[key], (*at, key))
        elif kinds := [other for other, settings in SETTINGS_BY_KIND.items() if key in settings.__struct_fields__]:
            yield (
                (*at, key),
                f'an engine of kind "{kind}" does not have this key; only {_kinds(kinds)}: leave it out, or name '
                "another kind",
            )
        else:
            yield (*at, key), f"unknown key; known here: {', '.join((KIND, *hints))}{_meant(key, hints)}"
    yield from _missing_keys(keys, struct, at)


def _missing_keys(table: Mapping[str, Any], struct: type[Struct], at: KeyPath) -> Iterator[Problem]:
    for info in msgspec.structs.fields(struct):
        if info.required and info.name not in table:
            yield at, f"needs the key {info.name}"


def _hints_of_all_kinds() -> dict[str, Any]:
    hints: dict[str, Any] = {}
    for settings in SETTINGS_BY_KIND.values():
        hints |= get_type_hints(settings, include_extras=True)
    return hints


def _kinds(kinds: list[str]) -> str:
    names = [f'"{kind}"' for kind in kinds]
    return f"those of kind {names[0]} do" if len(names) == 1 else f"those of the kinds {', '.join(names)} do"


def _explained(error: str, value: Any, allowed: list[str]) -> str:
    """A type's complaint about a value, with the words of which it has to be one, if there are such."""
    complaint = error.split(" - at `$")[0]
    if allowed and isinstance(value, str):
        return f"{complaint}; it may be: {', '.join(allowed)}{_meant(value, allowed)}"
    if "length >= 1" in complaint:
        return f"{complaint}: it is empty"
    for pattern, hint in ((URL, "write it as http://127.0.0.1:8001"), (NAME, "use letters, digits, dots, _ and -")):
        if pattern in complaint:
            return f"{complaint}; {hint}"
    return complaint


def allowed_words(annotation: Any) -> list[str]:
    """The words of which a value has to be one; none where it may be any."""
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return [str(value) for value in annotation]
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    return [word for part in get_args(annotation) for word in allowed_words(part)]


def _meant(word: str, choices: Iterable[str]) -> str:
    """A question after the word that it is close to."""
    close = difflib.get_close_matches(word.lower(), choices, 1)
    return f'; did you mean "{close[0]}"?' if close else ""


def _struct_in(annotation: Any) -> type[Struct] | None:
    """The Struct that an annotation is, or is a tuple of."""
    for part in (annotation, *get_args(annotation)):
        if isinstance(part, type) and issubclass(part, Struct):
            return part
    return None
