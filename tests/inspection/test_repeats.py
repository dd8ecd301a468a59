"""How much of what a conversation said last it had said before."""

from typing import Any

import pytest

from paceline.inspection import inspect
from paceline.inspection.repeats import ENTRY_CHARS, WINDOW_CHARS
from paceline.types import Api, Request

CODE = "def area(width, height):\n    return width * height\n"
NEW = "Whales sleep upright, in pods, without any sound."
OTHER = "My flight leaves from Oslo at seven tomorrow."


def repeats(*messages: dict[str, Any], **fields: Any) -> float:
    body = {"messages": list(messages), **fields}
    return inspect(Request(Api.OPENAI_CHAT, "/v1/chat/completions", b"", body)).repeats


def said(role: str, content: Any, **fields: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **fields}


def test_without_an_earlier_answer_nothing_repeats() -> None:
    assert repeats(said("user", CODE)) == 0
    assert repeats(said("system", CODE), said("user", CODE)) == 0
    assert repeats(said("user", CODE), said("user", CODE)) == 0
    assert repeats(said("user", "continue"), said("assistant", CODE)) == 0, "the answer's own beginning is none"
    assert inspect(Request(Api.LLAMA_CPP, "/completion", b"", {"prompt": CODE * 9})).repeats == 0


def test_what_stood_before_repeats() -> None:
    assert repeats(said("user", CODE), said("assistant", CODE), said("user", CODE)) == 1
    assert repeats(said("user", CODE), said("assistant", NEW), said("user", OTHER)) == 0


def test_a_text_counts_for_its_part_and_each_text_alike() -> None:
    mostly = CODE + CODE + NEW  # probes at its beginning, in its middle and at its end
    assert repeats(said("user", CODE), said("assistant", mostly), said("user", OTHER)) == pytest.approx(1 / 3)
    assert repeats(said("user", CODE), said("assistant", CODE * 9), said("user", OTHER)) == pytest.approx(1 / 2)


def test_an_answer_that_repeats_itself_repeats() -> None:
    """Lookups find what the answer itself said, too."""
    assert repeats(said("user", OTHER), said("assistant", NEW * 3), said("user", "Why is it?")) == pytest.approx(1 / 3)


def test_what_comes_later_does_not_count() -> None:
    assert repeats(said("user", OTHER), said("assistant", CODE), said("user", CODE)) == pytest.approx(1 / 2)


def test_users_messages_but_the_last_are_not_probed() -> None:
    copied = [said("user", CODE), said("user", CODE), said("assistant", NEW), said("user", OTHER)]
    assert repeats(*copied) == 0


def test_only_the_last_answers_count() -> None:
    copies = [said("assistant", CODE)] * 5
    news = [said("assistant", text) for text in (NEW, "Bees dance to show the way.", "Rye grows in poor soil.")]
    assert repeats(said("user", CODE), *copies, *news, said("user", OTHER)) == 0
    assert repeats(said("user", CODE), *copies, *news[1:], said("user", OTHER)) == pytest.approx(1 / 4)


ARGUMENTS = '{"path": "src/area.py", "width": 40}'
CALL = {"name": "write_to_file", "arguments": ARGUMENTS}
CALLS = {
    "chat completions": [
        said("assistant", None, tool_calls=[{"function": CALL}]),
        said("tool", "It is written, all of it."),
        said("assistant", None, tool_calls=[{"function": CALL}]),
    ],
    "messages": [
        said("assistant", [{"type": "tool_use", "name": "write_to_file", "input": {"path": ARGUMENTS}}]),
        said("user", [{"type": "tool_result", "content": "It is written, all of it."}]),
        said("assistant", [{"type": "tool_use", "name": "write_to_file", "input": {"path": ARGUMENTS}}]),
    ],
    "responses": [
        {"type": "function_call", **CALL},
        {"type": "function_call_output", "output": "It is written, all of it."},
        {"type": "function_call", **CALL},
    ],
}


@pytest.mark.parametrize("dialect", CALLS)
def test_calls_are_answers_in_every_dialect(dialect: str) -> None:
    once, result, again = CALLS[dialect]
    key = "input" if dialect == "responses" else "messages"

    def of(*turns: dict[str, Any]) -> float:
        return inspect(Request(Api.OPENAI_CHAT, "", b"", {key: [said("user", "Write it to src."), *turns]})).repeats

    mark = (1 / 3 + 0) / 2  # a call ends as it begins, and the wish is new
    assert of(once, said("user", OTHER)) == pytest.approx(mark)
    assert of(once, result, again, said("user", OTHER)) == pytest.approx((1 + 1 / 3 + 0) / 3)


def test_a_long_result_hides_no_answer() -> None:
    result = said("tool", " ".join(map(str, range(100_000))))
    assert repeats(said("user", CODE), said("assistant", CODE), result) != repeats(
        said("user", CODE), said("assistant", NEW), result
    )


def test_it_looks_back_so_far() -> None:
    between = [said("user", str(number) * (ENTRY_CHARS // 4)) for number in range(4 * WINDOW_CHARS // ENTRY_CHARS)]
    assert repeats(said("user", CODE), *between, said("assistant", CODE), said("user", OTHER)) == 0


SHAPES: list[list[dict[str, Any]]] = [
    [said("assistant", None, tool_calls=[1, {"function": {"name": {}, "arguments": []}}])] * 9,
    [said("assistant", [None, {"type": "tool_use", "input": 3}]), {"type": "function_call"}, said("user", 1)],
    [said("assistant", ""), said("user", "")],
    [said("assistant", "a" * 100), said("assistant", "aaaabaaa" * 9), said("user", "🐋" * 9_000)],
]


@pytest.mark.parametrize("messages", SHAPES)
def test_it_is_a_share_whatever_the_shape(messages: list[dict[str, Any]]) -> None:
    assert 0 <= repeats(*messages) <= 1
