"""A decision log as a table for other programs."""

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


class CannotExport(Exception):
    """``str()`` says what is missing."""


def export(entries: Iterable[Mapping[str, Any]], columns: list[str], path: Path) -> int:
    """Write entries as CSV or Parquet, by the file's ending; signals and predictions as JSON. Returns their number.

    Raises:
        CannotExport: the ending is neither, or Parquet is wanted and pyarrow is not installed.
        OSError: the file can't be written.
    """
    flat = ({name: _flat(entry[name]) for name in columns} for entry in entries)
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, columns)
            writer.writeheader()
            count = 0
            for row in flat:
                writer.writerow(row)
                count += 1
        return count
    if path.suffix != ".parquet":
        raise CannotExport(f"{path}: the name of a file to export to ends with .csv or .parquet")
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise CannotExport("Parquet needs pyarrow; `pip install 'paceline[parquet]'` brings it") from error
    table = pyarrow.Table.from_pylist(list(flat))
    pyarrow.parquet.write_table(table, path)
    return int(table.num_rows)


def _flat(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict) else value
