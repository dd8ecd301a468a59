"""The tiny request that an engine which is left out has to answer before it is used again."""

import asyncio

import msgspec

from paceline.serving.handles import EngineHandle
from paceline.types import AS_STARTED, NO_CONTROL, Api, Request, Strategy
from paceline.wire.client import ConnectFailed, ConnectionLost

TRIAL_TIMEOUT_S = 10.0
"""For two tokens; an engine that is slower than that is not well."""
MAX_TRIAL_BYTES = 1_000_000
"""Of its answer. Two tokens take some hundred bytes."""


async def passes_trial(engine: EngineHandle, model: str | None) -> bool:
    """Whether an engine answers a tiny request of the form that failed last.

    Args:
        model: by the engine's own name.
    """
    supervisor, illness = engine.supervisor, engine.illness
    request = tiny_request(illness.failed_api, illness.failed_stream, model)
    if supervisor.client is None:
        return False
    observer = supervisor.engine.observe(request, Strategy())
    body = supervisor.engine.prepare(request, Strategy(), AS_STARTED, NO_CONTROL)
    kind = (b"content-type", b"application/json")
    try:
        async with asyncio.timeout(TRIAL_TIMEOUT_S):
            async with await supervisor.client.send("POST", request.path, [kind, *engine.key_headers], body) as answer:
                whole = await answer.read_all(MAX_TRIAL_BYTES)
                media_type = (answer.header(b"content-type") or b"").lower()
                is_stream = media_type.startswith(b"text/event-stream")
                if is_stream:
                    observer.feed(whole, 0.0)
                    observer.end(0.0)
                elif b"json" in media_type:
                    observer.read_whole(whole)
                is_served = answer.status < 500 and answer.status not in (401, 407) and observer.error is None
                return is_served and (observer.has_begun or not is_stream)
    except (ConnectFailed, ConnectionLost, TimeoutError):
        return False


_PATHS = {
    Api.OPENAI_CHAT: "/v1/chat/completions",
    Api.OPENAI_COMPLETIONS: "/v1/completions",
    Api.OPENAI_RESPONSES: "/v1/responses",
    Api.ANTHROPIC_MESSAGES: "/v1/messages",
    Api.LLAMA_CPP: "/completion",
}


def tiny_request(api: Api, stream: bool, model: str | None) -> Request:
    """The request of a trial: one or two tokens, in a dialect."""
    fields: dict[str, object] = {"stream": stream, **({"model": model} if model else {})}
    messages = [{"role": "user", "content": "Say OK."}]
    fields |= {
        Api.OPENAI_CHAT: {"messages": messages, "max_tokens": 2},
        Api.OPENAI_COMPLETIONS: {"prompt": "1 2 3", "max_tokens": 2},
        Api.OPENAI_RESPONSES: {"input": "Say OK.", "max_output_tokens": 16, "store": False},
        Api.ANTHROPIC_MESSAGES: {"messages": messages, "max_tokens": 2},
        Api.LLAMA_CPP: {"prompt": "1 2 3", "n_predict": 2},
    }[api]
    return Request(
        api=api,
        path=_PATHS[api],
        body=msgspec.json.encode(fields),
        fields=fields,
        model=model,
        stream=stream,
        teaches=False,
    )
