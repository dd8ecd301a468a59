"""How well the tasks of recorded requests are recognised: whole bodies as clients send them, each with its acceptable
tasks.

A line of the file is one request: ``source``, ``id``, ``ok`` (the acceptable tasks), ``path``, ``body``.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from paceline.inspection import inspect
from paceline.types import Api, Request, Signals, Task

CONFIDENT = 0.5
"""A wrong task is named confidently where it is said to be at least so likely."""


class Inspected(NamedTuple):
    """What was found of one request."""

    source: str
    name: str
    ok: tuple[str, ...]
    signals: Signals

    @property
    def is_acceptable(self) -> bool:
        return self.signals.task in self.ok

    @property
    def is_unknown(self) -> bool:
        return self.signals.task is Task.UNKNOWN

    @property
    def is_confidently_wrong(self) -> bool:
        wrong = not (self.is_acceptable or self.is_unknown)
        return wrong and self.signals.tasks[self.signals.task] >= CONFIDENT


def holds_traffic(path: Path) -> bool:
    """Whether a file's first line is a request in this form."""
    with path.open("rb") as file:
        return "body" in json.loads(file.readline())


def inspected(path: Path) -> list[Inspected]:
    """Inspect every request of a file."""
    rows = [json.loads(line) for line in path.read_bytes().splitlines()]
    return [Inspected(row["source"], row["id"], tuple(row["ok"]), inspect(request_of(row))) for row in rows]


def request_of(row: Mapping[str, Any]) -> Request:
    return Request(_api(row["path"]), row["path"], b"", row["body"])


def report(requests: Iterable[Inspected]) -> None:
    """Print, by source, the shares that are acceptable, unknown, either of both, and confidently wrong."""
    by_source: dict[str, list[Inspected]] = {}
    for request in requests:
        by_source.setdefault(request.source, []).append(request)
    print(f"| source | requests | acceptable | unknown | either | confidently wrong (≥ {CONFIDENT}) |")
    print("|---|---|---|---|---|---|")
    everything = [request for group in by_source.values() for request in group]
    for name, group in (*by_source.items(), ("all", everything)):
        right, unknown, confident = (
            sum(flags) / len(group)
            for flags in (
                [request.is_acceptable for request in group],
                [request.is_unknown for request in group],
                [request.is_confidently_wrong for request in group],
            )
        )
        print(f"| {name} | {len(group)} | {right:.2f} | {unknown:.2f} | {right + unknown:.2f} | {confident:.3f} |")


def _api(path: str) -> Api:
    if path.endswith("/chat/completions"):
        return Api.OPENAI_CHAT
    if path.endswith("/responses"):
        return Api.OPENAI_RESPONSES
    if path.endswith("/messages"):
        return Api.ANTHROPIC_MESSAGES
    return Api.OPENAI_COMPLETIONS if path.endswith("/v1/completions") else Api.LLAMA_CPP
