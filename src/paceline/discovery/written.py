"""The configuration that is made of what was found, with comments for those who go on with it."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from paceline.discovery.providers import Provider
from paceline.planning.written_plan import engine_table
from paceline.settings import LocalEngineSettings

WIDTH = 100
"""Characters of a comment's line."""


class Chosen(Struct, frozen=True, kw_only=True):
    """What a configuration is to have.

    Args:
        engines: with what is said above the table of each.
        clouds: the models of each provider; those of which none are to be used stand as comments.
        key_file: holds the key that requests need; ``None`` for none, on this machine alone.
    """

    port: int
    engines: Sequence[tuple[str, LocalEngineSettings]]
    clouds: Sequence[tuple[Provider, Sequence[str]]] = ()
    key_file: Path | None = None


def configuration_text(chosen: Chosen, file: Path, made_at: str) -> str:
    """The whole file.

    Args:
        file: as it is called in the commands above it.
        made_at: a day.
    """
    parts = [
        f"""\
# Written by `paceline init` on {made_at}; change what you like.
#   paceline check --config {file}     says whether it can be used
#   paceline doctor --config {file}    looks at what it names, too
#   paceline serve --config {file}     runs it
# docs/configuration.md has every key.

[server]
{_server(chosen)}"""
    ]
    for comment, engine in chosen.engines:
        parts.append(f"{_comment(comment)}\n{engine_table(engine)}")
    parts += [_cloud(provider, models) for provider, models in chosen.clouds]
    parts.append(_MORE)
    return "\n".join(parts)


_MORE = """\
# Further names for the model, such as clients insist on:
# [[model]]
# name = "..."                          # as `paceline lanes` shows it
# aliases = ["gpt-*", "claude-*"]

# What the machine costs, for `paceline cost`:
# [cost]
# watts = 350
# price_per_kwh = 0.30
"""


def _server(chosen: Chosen) -> str:
    if chosen.key_file is None:
        return f"""\
port = {chosen.port}
# host = "0.0.0.0"                      # opens it to other machines; then clients need a key:
# api_keys = ["env:PACELINE_API_KEY"]   # "file:PATH" reads it from a file
"""
    return f"""\
host = "0.0.0.0"                        # other machines reach it, with the key
port = {chosen.port}
api_keys = [{_quoted(f"file:{chosen.key_file}")}]
"""


def _cloud(provider: Provider, models: Sequence[str]) -> str:
    values: Mapping[str, str] = {
        "name": _quoted(provider.name),
        "kind": _quoted(provider.kind),
        **({"url": _quoted(provider.url)} if provider.url else {}),
        "api_key": _quoted(f"env:{provider.variable}"),
        "models": f"[{', '.join(map(_quoted, models))}]" if models else '["..."]',
    }
    lines = ["[[engine]]", *(f"{key} = {value}" for key, value in values.items())]
    if models:
        said = f"# {provider.title}, for requests that name these models; docs/placement.md has it stand in for others."
        return "\n".join([said, *lines, ""])
    said = f"# {provider.title}, whose key is in the environment: name models of it, and take the # away."
    return "\n".join([said, *(f"# {line}" for line in lines), ""])


def _comment(text: str) -> str:
    lines = [part for line in text.splitlines() for part in textwrap.wrap(line, WIDTH) or [""]]
    return "\n".join(f"# {line}".rstrip() for line in lines)


def _quoted(text: str) -> str:
    """A basic string of TOML has the escapes of JSON's."""
    return json.dumps(text, ensure_ascii=False)
