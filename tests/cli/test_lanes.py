"""``paceline lanes``: how strategies are chosen, and what is wrong with drafters."""

from typing import Any

import pytest

from paceline.cli import lanes, main

FAULT = "drafts by mtp are hardly ever accepted (2% of 800 tokens): the head's tensors were quantized too far"


def lane(name: str, kind: str, n_max: int | None, among: list[Any], faults: list[str]) -> dict[str, Any]:
    measured = {"requests": 7, "tokens_per_s": 50.0, "acceptance": 0.02}
    engine: dict[str, Any] = {"name": "gpu", "kind": "llama.cpp", "build": None, "drafters": [{}], "warnings": []}
    return {
        "lane": f"gpu/{name}",
        "health": "up",
        "problem": None,
        "engine": engine | {"slots": 4, "context_tokens": 8192},
        "strategy": {"kind": kind, "n_max": n_max, "among": among},
        "faults": faults,
        "by_model": [{"model": "m", "measured": measured}],
    }


def test_it_tells_who_decides_and_each_fault_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drafter = {"kind": "mtp", "n_max": 3, "among": []}
    shown = [
        lane("mtp", "mtp", None, [drafter], [FAULT]),
        lane("all", "all", None, [drafter, drafter], [FAULT]),
        lane("ngram-8", "ngram", 8, [], []),
    ]
    older = lane("old", "ngram", 4, [], [])
    del older["faults"], older["strategy"]["among"]
    monkeypatch.setattr(lanes, "ask", lambda *_: {"lanes": [*shown, older]})
    assert main(["lanes"]) == 0
    said = capsys.readouterr().out
    rows = {line.split()[0]: line for line in said.splitlines()}
    assert "by step" in rows["gpu/mtp"]
    assert "by step" in rows["gpu/all"]
    assert "by request" in rows["gpu/ngram-8"]
    assert "by request" in rows["gpu/old"]
    assert said.count(FAULT) == 1
    assert f"gpu: {FAULT}" in said
