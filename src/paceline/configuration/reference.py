"""Writes the reference of all keys: ``python -m paceline.configuration.reference`` prints what
``docs/configuration.md`` holds between two markers."""

import inspect
import textwrap
import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import FieldInfo

from paceline.configuration.toml import KIND, SETTINGS_BY_KIND, allowed_words
from paceline.settings import (
    BudgetSettings,
    CloudEngineSettings,
    CloudModel,
    Configuration,
    CostSettings,
    DeviceSettings,
    EvidenceSettings,
    KeySettings,
    LocalEngineSettings,
    ModelSettings,
    OfferSettings,
    PlacementSettings,
    PrivacySettings,
    RoutingSettings,
    Rule,
    ServerSettings,
    SharingSettings,
)

TABLES: Mapping[str, type[Struct]] = {
    "[server]": ServerSettings,
    "[routing]": RoutingSettings,
    "[placement]": PlacementSettings,
    "[privacy]": PrivacySettings,
    "[[budget]]": BudgetSettings,
    "[evidence]": EvidenceSettings,
    "[sharing]": SharingSettings,
    "[cost]": CostSettings,
    "[[cloud]]": CloudModel,
    "[[rule]]": Rule,
    "[[key]]": KeySettings,
    "[[model]]": ModelSettings,
    "[[model.offer]]": OfferSettings,
    "[[device]]": DeviceSettings,
}
"""All but the engines, in the order of the page."""
MAX_WORDS_IN_CELL = 3
"""A key that takes one of more words than this has them in a list below its table."""
WIDTH = 120
"""Characters of a line of prose, as in the rest of docs/."""
HEAD = ("| key | type | default | meaning |", "|---|---|---|---|")


def reference() -> str:
    """The reference as Markdown, a section for each table of a configuration."""
    missing = set(Configuration.__struct_fields__) - {name.strip("[]") for name in TABLES} - {"engine"}
    assert not missing, f"tables without a section in the reference: {missing}"
    sections = [_section(f"## `{name}`", struct, msgspec.structs.fields(struct)) for name, struct in TABLES.items()]
    return "\n\n".join([*sections, *_engine_sections()]) + "\n"


def _engine_sections() -> list[str]:
    """The keys that all kinds of engines of one's own have, once; those that all providers have beside the usual ones;
    then the keys that a kind has alone, or with a meaning of its own."""
    common = msgspec.structs.fields(LocalEngineSettings)
    shared = {_row(info, LocalEngineSettings) for info in common}
    kinds = ", ".join(f"`{kind}`" for kind in SETTINGS_BY_KIND)
    providers = [kind for kind, settings in SETTINGS_BY_KIND.items() if issubclass(settings, CloudEngineSettings)]
    parts = [
        "## `[[engine]]`",
        "One engine: already running (`url`), or started and supervised by Paceline (`launch`); or a provider's API.",
        "\n".join(
            [
                *HEAD,
                f"| `{KIND}` | string | **required** | What it is; see below. |",
                *(_row(info, LocalEngineSettings) for info in common),
            ]
        ),
        *_lists(common, LocalEngineSettings),
        _wrapped(
            f"`{KIND}` is one of {kinds}. Some kinds have keys of their own, too; with any other kind they are errors. "
            f"Of the keys above, providers ({_listed(providers)}) have no {_listed(_missing_at_providers(common))}."
        ),
    ]
    of_providers = [
        info for info in msgspec.structs.fields(CloudEngineSettings) if _row(info, CloudEngineSettings) not in shared
    ]
    for kind, settings in SETTINGS_BY_KIND.items():
        if providers and kind == providers[0]:
            parts.append(_section("### Providers", CloudEngineSettings, of_providers))
            shared |= {_row(info, CloudEngineSettings) for info in of_providers}
        own = [info for info in msgspec.structs.fields(settings) if _row(info, settings) not in shared]
        if own:
            parts.append(_section(f'### `kind = "{kind}"`', settings, own))
    return parts


def _missing_at_providers(common: Iterable[FieldInfo]) -> list[str]:
    return [info.name for info in common if info.name not in CloudEngineSettings.__struct_fields__]


def _listed(names: list[str]) -> str:
    quoted = [f"`{name}`" for name in names]
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]]) if len(quoted) > 1 else quoted[0]


def _section(heading: str, struct: type[Struct], infos: Iterable[FieldInfo]) -> str:
    infos = list(infos)
    table = "\n".join([*HEAD, *(_row(info, struct) for info in infos)])
    return "\n\n".join([heading, _prose(struct), table, *_lists(infos, struct)])


def _prose(struct: type[Struct]) -> str:
    """A docstring as Markdown has it: without the indentation of its source, and with single backticks."""
    return _wrapped((inspect.getdoc(struct) or "").replace("``", "`"))


def _wrapped(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), WIDTH, break_long_words=False, break_on_hyphens=False)


def _row(info: FieldInfo, struct: type[Struct]) -> str:
    annotation = get_type_hints(struct, include_extras=True)[info.name]
    default = "**required**" if info.required else f"`{_as_toml(_default(info))}`"
    return f"| `{info.name}` | {_type_name(annotation)} | {default} | {_description(annotation)} |"


def _lists(infos: Iterable[FieldInfo], struct: type[Struct]) -> list[str]:
    """The words of keys that have too many for a cell, a paragraph for each key."""
    hints = get_type_hints(struct, include_extras=True)
    words_by_key = {info.name: allowed_words(hints[info.name]) for info in infos}
    return [
        _wrapped(f"{_whose_words(key, hints[key])} {_quoted(words, ', ')}.")
        for key, words in words_by_key.items()
        if len(words) > MAX_WORDS_IN_CELL
    ]


def _whose_words(key: str, annotation: Any) -> str:
    origins = {get_origin(part) for part in (get_args(annotation) or (annotation,))} | {
        get_origin(part) for inner in get_args(annotation) for part in get_args(inner)
    }
    if dict in origins:
        return f"Keys in `{key}` are"
    return f"Each of `{key}` is one of" if tuple in origins else f"`{key}` is one of"


def _quoted(words: Iterable[str], separator: str) -> str:
    return separator.join(f'`"{word}"`' for word in words)


def _default(info: FieldInfo) -> Any:
    return info.default if info.default_factory is msgspec.NODEFAULT else info.default_factory()


def _as_toml(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return "[]"
    if isinstance(value, dict):
        return "{}"
    return str(msgspec.json.encode(value), "ascii")


def _description(annotation: Any) -> str:
    metas = [meta for meta in getattr(annotation, "__metadata__", ()) if isinstance(meta, Meta)]
    return next(meta.description for meta in metas if meta.description)


def _type_name(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is dict:
        return f"table of {_type_name(get_args(annotation)[1])}s"
    if origin is Annotated and get_origin(get_args(annotation)[0]) is dict:
        return _type_name(get_args(annotation)[0])
    if words := allowed_words(annotation):
        return _quoted(words, " or ") if len(words) <= MAX_WORDS_IN_CELL else "string, see below"
    if origin is Annotated:
        return _type_name(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return _type_name(next(part for part in get_args(annotation) if part is not type(None)))
    if origin is tuple:
        inner = get_args(annotation)[0]
        is_table = isinstance(inner, type) and issubclass(inner, Struct)
        return "tables" if is_table else f"list of {_type_name(inner)}s"
    return {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}[annotation.__name__]


if __name__ == "__main__":
    print(reference(), end="")
