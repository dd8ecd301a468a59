"""One private request in every form that bytes on the wire can have: none arrives elsewhere."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Sequence

import pytest
from tests.conftest import StartEngine, StartGateway, chat
from tests.fake_engine import ANSWER, FakeEngine, Received, Wire
from tests.recording_sink import RecordingSink

MARK = "zqx-private"
PATHS = (
    *("/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/completions", "/completion", "/infill"),
    *("/v1/embeddings", "/tokenize", "/v1/messages/count_tokens", "/v1/files", "/v1/responses/resp_1"),
    *("/v1/chat/completions?x=1", "/v1/chat%2fcompletions", "//v1/chat/completions", "/v1/chat/completions/"),
    "/V1/CHAT/COMPLETIONS",
)
PLAIN, BY_TEXT, BY_MODEL = (
    json.dumps(chat(text, model=model)).encode()
    for text, model in ((MARK, "coder"), (f"{MARK}\n\nIBAN", "coder"), (MARK, "house"))
)
FORMS: Sequence[tuple[Sequence[str], bytes]] = (
    (["x-paceline-private: yes"], PLAIN),
    (["X-PACELINE-PRIVATE:  YES "], PLAIN),
    (["x-paceline-private: no", "x-paceline-private: yes"], PLAIN),
    (["x-paceline-private: yes", "x-paceline-private: no"], PLAIN),
    (["x-paceline-private: maybe"], PLAIN),
    (["X-Team: legal "], PLAIN),
    (["X-Team: Legal"], PLAIN),
    (["X-Team: sales, legal"], PLAIN),
    ([], BY_TEXT),
    ([], BY_TEXT.replace(b"IBAN", b"\\u0049B\\u0041N")),
    ([], b"\xef\xbb\xbf" + BY_TEXT),
    ([], BY_MODEL),
    ([], BY_MODEL.replace(b"house", b"h\\u006fuse")),
    ([], b"\xef\xbb\xbf" + BY_MODEL),
    (["content-encoding: gzip"], gzip.compress(BY_TEXT)),
    (["content-encoding: br"], b"what nobody here unpacks"),
    (["x-paceline-lane: provider"], BY_TEXT),
    (["x-paceline-lane: elsewhere"], BY_TEXT),
    (["idempotency-key: IBAN"], PLAIN),
    (["x-title: an IBAN"], PLAIN),
    (["content-type: text/plain"], BY_TEXT),
    (["upgrade: websocket", "connection: upgrade"], BY_TEXT),
    (["upgrade: h2c", "connection: upgrade, http2-settings", "http2-settings: AA"], BY_TEXT),
)


@pytest.fixture
async def sinks() -> AsyncIterator[list[RecordingSink]]:
    sinks = [await RecordingSink(answers).start(), await RecordingSink(answers).start()]
    yield sinks
    for sink in sinks:
        await sink.stop()


async def answers(_: Received, wire: Wire) -> None:
    await wire.json(ANSWER)


def written(method: str, path: str, headers: Sequence[str], body: bytes, is_chunked: bool) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: localhost", "connection: close", *headers]
    if is_chunked:
        lines.append("transfer-encoding: chunked")
        pieces = [body[at : at + 7] for at in range(0, len(body), 7)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    else:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def configured(own: FakeEngine, sinks: list[RecordingSink]) -> str:
    """Of the models, one is private."""
    engines = (
        f'[[engine]]\nname = "provider"\nkind = "openai-api"\nurl = "{sinks[0].url}"\nmodels = ["m"]\n'
        'api_key = "env:SINK_KEY"\npass_headers = ["x-title"]\n'
        f'[[engine]]\nname = "elsewhere"\nkind = "openai"\nurl = "{sinks[1].url}"\ntakes_private = false\n'
        f'[[engine]]\nname = "own"\nkind = "openai"\nurl = "{own.url}"\n'
    )
    models = (
        '[[model]]\nname = "house"\nprivate = true\nlanes = ["provider", "elsewhere", "own"]\n'
        '[[model]]\nname = "coder"\nlanes = ["provider", "elsewhere"]\n'
    )
    return models + engines


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_no_form_of_a_private_request_arrives_elsewhere(
    is_chunked: bool,
    sinks: list[RecordingSink],
    start_engine: StartEngine,
    start_gateway: StartGateway,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SINK_KEY", "known-to-sinks")
    own = await start_engine(answers)
    rules = '[privacy]\nheaders = ["x-team: legal"]\npatterns = ["\\\\bIBAN\\\\b"]\n'
    running = await start_gateway(rules + configured(own, sinks))
    host, port = running.gateway.url.removeprefix("http://").rsplit(":", 1)

    async def answer_to(method: str, path: str, headers: Sequence[str], body: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(written(method, path, headers, body, is_chunked))
        async with asyncio.timeout(5):
            got = await reader.read()
        writer.close()
        return got

    assert b" 200 " in await answer_to("POST", PATHS[0], [], PLAIN)
    before = [len(sink.requests) for sink in sinks]
    assert sum(before) == 1, "what is not private does arrive"
    for path in PATHS:
        for headers, body in FORMS:
            for method in ("POST", "PUT", "GET", "HEAD", "OPTIONS") if body is BY_TEXT and not headers else ("POST",):
                await answer_to(method, path, headers, body)
                came = [sink.requests[count:] for sink, count in zip(sinks, before, strict=True)]
                assert came == [[], []], (method, path, headers, body)
    assert own.requests


def of_private_model(filling: str) -> bytes:
    """A body of the private model, with others' names before, within and behind it."""
    nested = json.dumps({"model": "coder", "text": '"model": "coder"'})
    return f'{{"metadata": {nested}, "model": "house", "input": [{filling}], "messages": [{nested}]}}'.encode()


@pytest.mark.parametrize(
    "body",
    [
        of_private_model("1"),
        of_private_model(json.dumps("x" * 3_000_000)),
        of_private_model(",".join(["[1]"] * 1_500_000)),
        of_private_model("1").replace(b'"model": "house"', rb'"m\u006fdel": "house"'),
        of_private_model("1").decode().encode("utf-16"),
        of_private_model(",".join(["1"] * 3_000_000))[:-1],
    ],
    ids=["small", "long", "dense", "escaped", "utf-16", "cut off"],
)
async def test_a_private_model_is_known_whatever_the_size_and_order(
    body: bytes,
    sinks: list[RecordingSink],
    start_engine: StartEngine,
    start_gateway: StartGateway,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SINK_KEY", "known-to-sinks")
    own = await start_engine(answers)
    running = await start_gateway(configured(own, sinks))
    for path in ("/v1/embeddings", "/v1/chat/completions", "/v1/responses", "/v1/messages/count_tokens", "/v1/files"):
        for headers in ({}, {"x-paceline-lane": "elsewhere"}):
            await running.http.post(path, content=body, headers={"content-type": "application/json"} | headers)
    assert [sink.requests for sink in sinks] == [[], []]
    public = await running.http.post("/v1/embeddings", json={"model": "coder", "input": "x"})
    assert (public.status_code, public.headers["x-paceline-lane"]) == (200, "elsewhere")
