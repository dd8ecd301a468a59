"""Reads a decision log, also while a gateway writes it."""

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from paceline.records.decision_log import COLUMNS, FORMAT

_ALL = 2**62


class NoLog(Exception):
    """There is no log that can be read; ``str()`` says why."""


def columns_of(keep_text: bool = False) -> list[str]:
    return ["number", *(name for name in COLUMNS if keep_text or name != "text")]


def entries(
    path: Path, since_s: float = 0.0, keep_text: bool = False, most: int | None = None
) -> Iterator[dict[str, Any]]:
    """Entries by their columns, the oldest first.

    Args:
        since_s: in seconds since 1970.
        most: of more, the last ones.

    Raises:
        NoLog: the file is not there, or is no log.
    """
    if not path.is_file():
        raise NoLog(f"there is no log {path}; a gateway with evidence.log writes one")
    names = columns_of(keep_text)
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0)
        try:
            if connection.execute("PRAGMA user_version").fetchone()[0] != FORMAT:
                raise NoLog(f"{path} is no log of this Paceline")
            rows = connection.execute(
                "SELECT number, entry FROM entries WHERE at_s >= ? AND number > "
                "(SELECT coalesce(max(number), 0) FROM entries) - ? ORDER BY number",
                (since_s, _ALL if most is None else most),
            )
            for number, entry in rows:
                yield _columns(number, msgspec.json.decode(entry), names)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise NoLog(f"{path}: {error}") from error


def _columns(number: int, entry: Any, names: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"number": number}
    for name in names[1:]:
        value = entry
        for step in COLUMNS[name].split("."):
            value = value[step]
        found[name] = value
    decision = entry["decision"]
    picked = decision["propensities"] or {decision["lane"]: decision["propensity"]}
    found["predictions"] = {
        lane: _prediction(one, picked.get(lane, 0.0)) for lane, one in decision["predictions"].items()
    }
    return found


def _prediction(one: dict[str, Any], propensity: float) -> dict[str, Any]:
    """With what follows from its fields, and the probability with which its lane was picked."""
    relative, step_s, strategy = one["plain_steps_per_token"] * one["correction"], one["plain_step_s"], one["strategy"]
    return one | {
        "s_per_token": None if step_s is None else relative * step_s,
        "relative": relative,
        "strategy": strategy["kind"],
        "n_max": strategy["n_max"],
        "propensity": propensity,
    }
