"""``benchmarks/messy`` plays recorded requests as they would come; ``python -m benchmarks.messy`` makes the table."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.messy.__main__ import TOLD, shares
from benchmarks.messy.arriving import Recorded, groups_of, halves, in_order, recorded
from benchmarks.messy.world import traffic, world

from paceline.types import Task

TOOLS = [{"type": "function", "function": {"name": name}} for name in ("Bash", "Edit")]


def row(source: str, number: int, ok: str, *messages: str, **fields: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    turns = [{"role": roles[place % 2], "content": text} for place, text in enumerate(messages)]
    path = "/v1/chat/completions"
    return {
        "source": source,
        "id": str(number),
        "ok": [ok, "answer"],
        "path": path,
        "body": {"messages": turns, **fields},
    }


@pytest.fixture
def requests(tmp_path: Path) -> list[Recorded]:
    rows = []
    for number in range(4):
        begun = f"Fix the bug number {number} in parse.py"
        rows.append(row("agent", 2 * number, "tool-call", begun, tools=TOOLS))
        rows.append(row("agent", 2 * number + 1, "edit", begun, "Where?", "In line 3.", tools=TOOLS))
        rows.append(row("people", number, "create", f"Write a story about {number} foxes."))
        rows.append(row("letters", number, "translate", f"Translate into French: I have {number} cats."))
    path = tmp_path / "requests.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return recorded(path)


def test_agents_and_people_are_told_apart(requests: list[Recorded]) -> None:
    groups = groups_of(requests)
    assert {request.source for request in groups["agents"]} == {"agent"}
    assert {request.source for request in groups["chat"]} == {"people", "letters"}
    assert len(groups["all"]) == len(requests) == 16
    assert [{request.source for request in half} for half in halves(requests)] == [{"agent", "letters"}, {"people"}]


def test_turns_come_in_their_order_and_no_conversation_comes_twice(requests: list[Recorded]) -> None:
    arriving = in_order(requests, 40, np.random.default_rng(0))
    assert len(arriving) == 40
    true_by_conversation: dict[str, list[Task]] = {}
    for request in arriving[:32]:
        true_by_conversation.setdefault(request.signals.conversation, []).append(request.true)
    assert len(true_by_conversation) == 24
    assert [Task.TOOL_CALL, Task.EDIT] in true_by_conversation.values()
    assert [Task.EDIT, Task.TOOL_CALL] not in true_by_conversation.values()
    assert [request.source for request in arriving[:16]] != [request.source for request in arriving[16:32]]


def test_what_is_accepted_follows_from_what_was_truly_asked(requests: list[Recorded]) -> None:
    rng = np.random.default_rng(0)
    played = traffic(in_order(requests, 400, rng), rng, 3.0)
    longest = [lane.name for lane in played.lanes].index("mtp-6")
    assert played.drafted is not None
    assert played.accepted is not None
    kinds = np.array(played.kinds)
    accepted = {
        kind: played.accepted[kinds == kind, longest].sum() / played.drafted[kinds == kind, longest].sum()
        for kind in ("edit", "create")
    }
    assert accepted["edit"] > 1.5 * accepted["create"]
    assert {kind.task for kind in world().mix.kinds} == set(Task) - {Task.UNKNOWN}


def test_policies_are_told_what_they_are_said_to_be(requests: list[Recorded]) -> None:
    rng = np.random.default_rng(0)
    played = traffic(in_order(requests, 20, rng), rng)
    assert [signals.task for signals in TOLD["the true task alone"](played)] == played.kinds
    beside = TOLD["the true task beside the rest"](played)
    assert [signals.task for signals in beside] == played.kinds
    assert [signals.turn for signals in beside] == [signals.turn for signals in played.signals]
    assert {signals.task for signals in TOLD["nothing"](played)} == {Task.UNKNOWN}


@pytest.mark.slow
def test_who_knows_the_true_tasks_is_faster(requests: list[Recorded]) -> None:
    made = shares(requests, ["paceline"], 400, 0, apart=3.0)
    assert made["paceline, told nothing"] < made["paceline, told the true task alone"] <= 1.0
    assert made["paceline, told the true task alone"] > max(
        share for name, share in made.items() if name.startswith("always ")
    )
