"""What is kept of requests, as a file for others."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from tests.decision_logs import written

from paceline.cli import main


def test_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "requests.sqlite"
    written(path, 3)
    for name in ("out.csv", "out.parquet"):
        assert main(["export", str(tmp_path / name), "--log", str(path)]) == 0
    assert "3 requests" in capsys.readouterr().out
    with (tmp_path / "out.csv").open() as file:
        rows: list[Any] = list(csv.DictReader(file))
    assert [row["lane"] for row in rows] == ["plain"] * 3
    assert json.loads(rows[0]["signals"])["tasks"] == {"answer": 1.0}
    assert rows[0]["prefill_s"] == ""
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert table.column("decode_s").to_pylist() == [pytest.approx(5.0)] * 3
    assert main(["export", str(tmp_path / "out.txt"), "--log", str(path)]) == 1
    assert main(["export", str(tmp_path / "x.csv"), "--log", str(tmp_path / "none")]) == 1
    assert "there is no log" in capsys.readouterr().err
