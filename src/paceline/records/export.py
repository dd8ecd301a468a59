"""A decision log as a table for other programs."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

from msgspec import to_builtins
from msgspec.structs import fields

from paceline.records.decision_log import COLUMNS
from paceline.records.record import Record
from paceline.types import Decision, Outcome

_RENAMED = {f"outcome.{field.encode_name}": f"outcome.{field.name}" for field in fields(Outcome)}
"""Columns are found by what fields are called in a record's JSON, which may differ from the attribute's name."""
_GETTERS: Mapping[str, Callable[[Record], Any]] = {
    name: attrgetter(_RENAMED.get(path, path)) for name, path in COLUMNS.items()
}


class CannotExport(Exception):
    """``str()`` says what is missing."""


def export(numbered: Iterable[tuple[int, Record]], path: Path, with_text: bool = False) -> int:
    """Write records as CSV or Parquet, by the file's ending; signals, predictions and what each drafter did as JSON.
    Returns their number.

    Args:
        numbered: with their numbers in the log.
        with_text: with a column for the requests' bodies.

    Raises:
        CannotExport: the ending is neither, or Parquet is wanted and pyarrow is not installed.
        OSError: the file can't be written.
    """
    columns = [name for name in COLUMNS if with_text or name != "text"]
    rows = ({"number": number} | _row(record, columns) for number, record in numbered)
    if path.suffix == ".csv":
        return _write_csv(rows, ["number", *columns], path)
    if path.suffix == ".parquet":
        return _write_parquet(rows, path)
    raise CannotExport(f"{path}: the name of a file to export to ends with .csv or .parquet")


def _write_csv(rows: Iterator[dict[str, Any]], columns: list[str], path: Path) -> int:
    count = 0
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, columns)
        writer.writeheader()
        for row in rows:
            writer.writerow(row)
            count += 1
    return count


def _write_parquet(rows: Iterator[dict[str, Any]], path: Path) -> int:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise CannotExport("Parquet needs pyarrow; `pip install 'paceline[parquet]'` brings it") from error
    table = pyarrow.Table.from_pylist(list(rows))
    pyarrow.parquet.write_table(table, path)
    return int(table.num_rows)


def _row(record: Record, columns: Iterable[str]) -> dict[str, Any]:
    row = {name: _GETTERS[name](record) for name in columns}
    row["task"] = str(record.task)
    row["signals"] = json.dumps(to_builtins(record.signals))
    row["predictions"] = json.dumps(_predictions(record.decision))
    row["by_drafter"] = json.dumps(to_builtins(record.outcome.observed.by_drafter))
    return row


def _predictions(decision: Decision) -> dict[str, dict[str, Any]]:
    """By lane, each with what follows from its fields, and the probability with which its lane was picked."""
    propensities = decision.propensities or {decision.lane: decision.propensity}
    return {
        lane: to_builtins(prediction)
        | {
            "s_per_token": prediction.s_per_token,
            "relative": prediction.relative,
            "strategy": prediction.strategy.kind,
            "n_max": prediction.strategy.n_max,
            "propensity": propensities.get(lane, 0.0),
        }
        for lane, prediction in decision.predictions.items()
    }
