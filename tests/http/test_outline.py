"""Large bodies: what of them is read, and that nothing else stops meanwhile."""

import asyncio
import json
from collections.abc import Coroutine
from time import perf_counter
from typing import Any

import msgspec
import pytest
from tests.patient import TRIES, shortest_s

from paceline.http.errors import ApiError
from paceline.http.outline import outlined
from paceline.http.parse import MAX_WHOLE_BYTES, parse_request
from paceline.types import Api, Request

LARGE = MAX_WHOLE_BYTES + 1


async def parsed(body: bytes) -> Request:
    return await parse_request(Api.OPENAI_CHAT, "/v1/chat/completions", body, [])


def chat(content: Any, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": content}], "max_tokens": 7, **more}


async def test_the_small_members_of_a_large_body_are_all_there() -> None:
    body = json.dumps(chat("x" * LARGE, stream=True, tools=[{"type": "function"}])).encode()
    request = await parsed(body)
    assert (request.model, request.stream, request.fields["max_tokens"]) == ("m", True, 7)
    assert request.fields["tools"] == [{"type": "function"}]
    assert request.body == body
    assert request.elided_chars > 0


async def test_of_a_long_text_the_beginning_and_the_end_are_read() -> None:
    text = 'Rename \\ "x":\n' + "é\U0001f600\\n" * 300_000 + "\nto y.\t"
    request = await parsed(json.dumps(chat(text), ensure_ascii=False).encode())
    content = request.fields["messages"][0]["content"]
    assert content.startswith('Rename \\ "x":\né\U0001f600\\n')
    assert content.endswith("\nto y.\t")
    assert len(content) + request.elided_chars >= len(text)


@pytest.mark.parametrize("ensure_ascii", [True, False])
@pytest.mark.parametrize("unit", ["\\", '"', "é", "\U0001f600", "\x01", "a\\u00e9", "\ud7ff"])
async def test_a_text_is_cut_between_characters(unit: str, ensure_ascii: bool) -> None:
    for shift in range(7):
        text = "." * shift + unit * LARGE
        body = json.dumps({"prompt": text}, ensure_ascii=ensure_ascii).encode()
        outline, _ = await outlined(body)
        head, _, tail = outline["prompt"].partition("\n")
        assert text.startswith(head)
        assert len(head) > 1000
        assert tail[20:] in text


async def test_of_many_messages_the_first_and_the_newest_are_read() -> None:
    messages = [{"role": "system", "content": "be brief"}]
    messages += [{"role": "user", "content": f"{number} " + "x" * 1000} for number in range(3000)]
    request = await parsed(json.dumps({"messages": messages}).encode())
    read = request.fields["messages"]
    assert read[0] == messages[0]
    assert read[-1] == messages[-1]
    assert 100 < len(read) < 300
    assert read[1:] == messages[-len(read) + 1 :]


MONSTERS = {
    "small objects": json.dumps({"messages": [chat([[{"text": "x"}] * 64] * 64)["messages"][0]] * 64}),
    "integers": '{"prompt": [' + "1," * 10_000_000 + "1]}",
    "floats": '{"prompt": [' + "1e-7," * 4_000_000 + "1]}",
    "nested lists": '{"messages": ' + "[" * 400 + "1," * 4_000_000 + "1" + "]" * 400 + "}",
    "many members": "{" + ",".join(f'"{number}":1' for number in range(1_500_000)) + "}",
    "many messages": json.dumps({"messages": [{"role": "user", "content": "x"}] * 400_000}),
    "escapes": '{"prompt": "' + "\\u0041" * 3_000_000 + '"}',
    "backslashes": '{"prompt": "' + "\\\\" * 9_000_000 + '"}',
}


@pytest.mark.parametrize("monster", MONSTERS)
async def test_no_shape_keeps_others_waiting(monster: str) -> None:
    """The longest stop beside the time that the decoder takes to pass over the document once, which no outline can
    save; on an idle machine that is below 50 ms for the largest of these."""
    body = MONSTERS[monster].encode()
    once_s = shortest_s(lambda: msgspec.json.decode(body, type=dict[str, msgspec.Raw]), 0.0)
    longest_stop_s = float("inf")
    for _ in range(TRIES):  # a machine that is busy with something else makes a stop longer, never shorter
        longest_stop_s = min(longest_stop_s, await longest_stop_of(parsed(body)))
        if longest_stop_s < 3 * once_s + 0.05:
            break
    assert longest_stop_s < 3 * once_s + 0.05


async def longest_stop_of(work: Coroutine[Any, Any, object]) -> float:
    """The longest time in seconds for which nothing else could run meanwhile."""
    stops: list[float] = []
    task = asyncio.create_task(work)
    while not task.done():
        began_s = perf_counter()
        await asyncio.sleep(0)
        stops.append(perf_counter() - began_s)
    await task
    return max(stops)


@pytest.mark.parametrize("end", [b"", b"]", b'"', b"}x", b"\xff}"])
async def test_a_large_body_that_is_no_json_is_refused(end: bytes) -> None:
    with pytest.raises(ApiError) as refused:
        await parsed(b'{"prompt": "' + b"x" * LARGE + b'", "a": [1' + end)
    assert refused.value.status == 400


async def test_a_large_body_that_is_no_object_is_refused() -> None:
    for body in (b"[" + b"1," * LARGE + b"1]", b'"' + b"x" * LARGE + b'"'):
        with pytest.raises(ApiError) as refused:
            await parsed(body)
        assert refused.value.status == 400


@pytest.mark.parametrize("size", [0, LARGE])
async def test_marks_and_nuls_around_the_document_are_passed_over(size: int) -> None:
    body = b'\xef\xbb\xbf{"model": "m", "prompt": "' + b"x" * size + b'"}\0\0'
    assert (await parsed(body)).model == "m"


@pytest.mark.parametrize("model", [7, [], {}, True, "", None])
async def test_a_model_that_is_no_name_is_none(model: Any) -> None:
    assert (await parsed(json.dumps({"model": model}).encode())).model is None
