"""What translating an answer costs, per event of a stream and per request, and what any-llm's code takes for the same.

``python -m benchmarks.translation``; any-llm is measured where it is installed (``pip install any-llm-sdk==1.40.0``,
which wants ``anthropic<1`` and so an environment of its own). Streams of both APIs, of 400 events of text, are fed an
event at a time, as they arrive. any-llm takes and gives objects of pydantic, so that the bytes are decoded and encoded
for it as its own gateway would: with the models that it works on.
"""

import importlib.util
import json
from collections.abc import Callable
from importlib import import_module
from statistics import median
from time import perf_counter
from typing import Any

from paceline.translation.chat_to_messages import Stream as MessagesToChunks
from paceline.translation.messages_to_chat import Stream as ChunksToMessages
from paceline.translation.responses_to_chat import Stream as ChunksToResponse

EVENTS, ROUNDS = 400, 15
WORDS = ["The", " quick", " brown", ' "fox"', " jumps\n", " über", " the", " lazy", " dog", "."]


def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    """A chunk of chat."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def chat_events() -> list[bytes]:
    """A stream of chat."""
    documents = [chunk({"role": "assistant", "content": ""})]
    documents += [chunk({"content": WORDS[number % len(WORDS)]}) for number in range(EVENTS)]
    documents.append(chunk({}, "stop"))
    usage = {"prompt_tokens": 10, "completion_tokens": EVENTS, "total_tokens": EVENTS + 10}
    documents.append(chunk({}) | {"choices": [], "usage": usage})
    return [b"data: " + json.dumps(document).encode() + b"\n\n" for document in documents] + [b"data: [DONE]\n\n"]


def message_events() -> list[bytes]:
    """A stream of messages."""
    usage = {"input_tokens": 10, "output_tokens": 1}
    head: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
    }
    documents: list[dict[str, Any]] = [
        {"type": "message_start", "message": head | {"stop_sequence": None, "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    ]
    documents += [
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": WORDS[number % len(WORDS)]},
        }
        for number in range(EVENTS)
    ]
    documents += [
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": EVENTS},
        },
        {"type": "message_stop"},
    ]
    return [f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in documents]


def fed(translator: Callable[[], Any], events: list[bytes]) -> Callable[[], int]:
    """Feeds our translator; returns the bytes that came out."""

    def run() -> int:
        stream = translator()
        return sum([len(stream.feed(event)) for event in events]) + len(stream.end())

    return run


def any_llms() -> dict[str, Callable[[], int]]:
    """The same by any-llm; nothing where it is not installed."""
    if importlib.util.find_spec("any_llm") is None:
        return {}
    to_chunk = import_module("any_llm.providers.anthropic.utils")._create_openai_chunk_from_anthropic_chunk
    chunk_type = import_module("any_llm.types.completion").ChatCompletionChunk
    compat = import_module("any_llm.utils.messages_compat")
    event_type = import_module("pydantic").TypeAdapter(import_module("anthropic.types").RawMessageStreamEvent)

    def to_messages() -> int:
        state, size = compat.StreamingState(), 0
        for event in chat_events_made:
            if b"[DONE]" not in event:
                given = chunk_type.model_validate_json(event[6:])
                for made in compat.chat_completion_chunk_to_message_stream_events(given, state):
                    size += len(f"event: {made.type}\ndata: {made.model_dump_json(exclude_none=True)}\n\n")
        return size

    def to_chunks() -> int:
        size = 0
        for event in message_events_made:
            given = event_type.validate_json(event.partition(b"data: ")[2])
            made = to_chunk(given, "m")
            size += len(f"data: {made.model_dump_json(exclude_none=True)}\n\n")
        return size

    return {"any-llm: chunks to messages": to_messages, "any-llm: messages to chunks": to_chunks}


chat_events_made, message_events_made = chat_events(), message_events()


def main() -> None:
    """Print a line for each direction."""
    cases = {
        "chunks to messages": fed(ChunksToMessages, chat_events_made),
        "messages to chunks": fed(lambda: MessagesToChunks(tells_usage=True, now_s=1), message_events_made),
        "chunks to a response": fed(lambda: ChunksToResponse({}, 1), chat_events_made),
    } | any_llms()
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, run in cases.items():
            began_s = perf_counter()
            size = run()
            times[name].append(perf_counter() - began_s)
            assert size > EVENTS
    print(f"Microseconds per event, streams of {EVENTS} events of text, median of {ROUNDS} rounds:")
    for name, took in times.items():
        print(f"  {name:<28} {1e6 * median(took) / EVENTS:6.1f}")


if __name__ == "__main__":
    main()
