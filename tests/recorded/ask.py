"""Sends a gateway the traffic that the recorded log holds.

    python -m tests.recorded.ask URL FIRST COUNT

It sends COUNT of the bench's own prompts from the FIRST on, the tasks in turn, as clients do that differ: over three
interfaces, streamed and whole, alone and three at a time, with lanes by name; then conversations of several turns,
tools, requests that are refused, and clients that leave before the end.
"""

import asyncio
import sys
from random import Random
from typing import Any

import httpx2

from paceline.bench.workload import Item, shipped

MODEL, ANOTHER = "SmolLM2-135M-Instruct", "another"
"""Names under which the recorded gateways served the bundled model."""
PER_TASK = 10
AT_ONCE = 3
LENGTHS = (24, 32, 48)
CHAT, COMPLETIONS, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/messages"
WEATHER = {
    "name": "weather",
    "description": "Tells the weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
FOLLOW_UPS = ("Say it again in fewer words.", "Print that once more, with a title above it.")


async def main(url: str, first: int, count: int) -> None:
    rng = Random(first)
    items = shipped().part(PER_TASK)[first : first + count]
    async with httpx2.AsyncClient(base_url=url, timeout=120, trust_env=False) as http:
        for start in range(0, len(items), 2 * AT_ONCE):
            for item in items[start : start + AT_ONCE]:
                await ask(http, *as_request(item, rng))
            together = items[start + AT_ONCE : start + 2 * AT_ONCE]
            await asyncio.gather(*(ask(http, *as_request(item, rng)) for item in together))
        await talk(http, items[0], named=False)
        await talk(http, items[1], named=True)
        await use_tools(http)
        await ask_for_what_is_refused(http)
        await leave(http, items[2])


def as_request(item: Item, rng: Random) -> tuple[str, dict[str, Any], dict[str, str]]:
    """Its path, its fields and its headers."""
    fields: dict[str, Any] = {"max_tokens": rng.choice(LENGTHS), "stream": rng.random() < 0.5} | item.fields
    fields["temperature"] = rng.choice((0, 0, 0.7))
    headers: dict[str, str] = {}
    odds = rng.random()
    if odds < 0.08:
        headers["x-paceline-lane"] = "plain"
    elif odds < 0.12:
        headers["x-paceline-learn"] = "no"
    elif odds < 0.3:
        headers["x-request-id"] = f"bench:{item.id}"
    messages = item.fields["messages"]
    is_one = [one["role"] for one in messages] == ["user"] and "response_format" not in fields
    if is_one and rng.random() < 0.25:
        del fields["messages"]
        return COMPLETIONS, fields | {"prompt": messages[0]["content"]}, headers
    if is_one and rng.random() < 0.5:
        return MESSAGES, fields | {"model": MODEL}, headers
    return CHAT, fields, headers


async def ask(
    http: httpx2.AsyncClient, path: str, fields: dict[str, Any], headers: dict[str, str] | None = None
) -> httpx2.Response:
    answer = await http.post(path, json=fields, headers=headers or {})
    print(answer.status_code, answer.headers.get("x-paceline-reason"))
    return answer


async def talk(http: httpx2.AsyncClient, item: Item, named: bool) -> None:
    """A conversation of three turns."""
    more = {"prompt_cache_key": f"talk-{item.id}"} if named else {}
    messages = list(item.fields["messages"])
    for follow_up in (*FOLLOW_UPS, ""):
        answer = await ask(http, CHAT, {"messages": messages, "max_tokens": 32, "temperature": 0} | more)
        messages += [answer.json()["choices"][0]["message"], {"role": "user", "content": follow_up}]


async def use_tools(http: httpx2.AsyncClient) -> None:
    question = [{"role": "user", "content": "What is the weather in Oslo and in Rome?"}]
    tools = [{"type": "function", "function": WEATHER}]
    await ask(http, CHAT, {"messages": question, "tools": tools, "max_tokens": 32})
    await ask(http, CHAT, {"messages": question, "tools": tools, "tool_choice": "required", "max_tokens": 32})
    tool = {"name": "weather", "description": "Tells the weather.", "input_schema": WEATHER["parameters"]}
    await ask(http, MESSAGES, {"model": MODEL, "messages": question, "tools": [tool], "max_tokens": 32})


async def ask_for_what_is_refused(http: httpx2.AsyncClient) -> None:
    question = {"messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 24}
    await ask(http, CHAT, question | {"model": ANOTHER})
    await ask(http, CHAT, question | {"model": "no-such-model"})
    await ask(http, COMPLETIONS, {"prompt": "Who are you?", "model": "no-such-model", "max_tokens": 24})
    await ask(http, CHAT, question, {"x-paceline-lane": "no-such-lane"})
    await ask(http, CHAT, question | {"messages": 7})


async def leave(http: httpx2.AsyncClient, item: Item) -> None:
    """Two clients that go away before the end: one amid its stream, one before its answer."""
    fields = item.fields | {"max_tokens": 400, "ignore_eos": True}
    async with http.stream("POST", CHAT, json=fields | {"stream": True}) as answer:
        async for _ in answer.aiter_bytes():
            break
    await asyncio.sleep(0.5)
    try:
        await http.post(CHAT, json=fields, timeout=0.3)
    except httpx2.TimeoutException:
        await asyncio.sleep(0.5)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
