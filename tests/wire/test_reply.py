"""Answers as the server frames them."""

import asyncio
import http.client
import json
import logging
import time
from collections.abc import Coroutine
from typing import Any

import pytest
from tests.patient import PATIENCE_S, wait_until
from tests.wire.serving import BODY, LENGTH, SECOND, Serve, Wire, body_of, echo, post

from paceline.wire.message import Refused
from paceline.wire.server import HttpRequest, Reply


def test_answers_without_a_body(serve: Serve) -> None:
    async def bodiless(request: HttpRequest, reply: Reply) -> None:
        status = int(request.path[1:])
        await reply.start(status, [(b"content-length", b"5")] if status != 201 else [])
        await reply.send(b"hel")
        await reply.end(b"lo")

    wire = Wire(serve(bodiless).port)
    wire.send(b"GET /304 HTTP/1.1\r\nHost: a\r\n\r\nGET /204 HTTP/1.1\r\nHost: a\r\n\r\n")
    status, headers, _ = wire.answer()
    assert (status, headers["content-length"]) == (304, "5")
    status, headers, _ = wire.answer()
    assert status == 204 and "content-length" not in headers and "transfer-encoding" not in headers
    wire.send(b"HEAD /200 HTTP/1.1\r\nHost: a\r\n\r\nHEAD /201 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert wire.answer("HEAD")[1]["content-length"] == "5"
    assert wire.answer("HEAD")[0] == 201
    wire.send(b"GET /200 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert wire.answer()[2] == b"hello"


def test_failing_handlers(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    async def fail(request: HttpRequest, reply: Reply) -> None:
        if request.path == "/silent":
            return
        if request.path == "/later":
            await reply.start(200, [])
            await reply.send(b"half")
        raise KeyError("a fault of ours")

    served = serve(fail)
    for path in (b"/at-once", b"/silent"):
        wire = Wire(served.port, b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % path)
        status, _, body = wire.answer()
        assert status == 500 and json.loads(body)["error"]["code"] == "internal_error" and b"ours" not in body
    wire = Wire(served.port, b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n")
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        wire.answer()
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 3


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
@pytest.mark.parametrize("length", [[], [(b"content-length", b"10")]])
def test_a_broken_answer_does_not_look_whole(
    version: bytes, length: list[tuple[bytes, bytes]], serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async def cut(request: HttpRequest, reply: Reply) -> None:
        await reply.start(200, length)
        await reply.send(b"half")
        if request.path == "/abort":
            reply.abort()
        elif length:
            await reply.end()
        else:
            raise Refused(502, "lost")

    served = serve(cut)
    for path in (b"/abort", b"/end"):
        wire = Wire(served.port, b"GET %s %s\r\nHost: a\r\n\r\n" % (path, version))
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            wire.answer()
    assert not caplog.records


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x", b"a\r\nset-cookie: b")],
        [(b"x", b"a\nb")],
        [(b"x", b"a\rb")],
        [(b"x", b"a\0b")],
        [(b"x\r\ny", b"b")],
        [(b"content-length", b"5"), (b"content-length", b"6")],
        [(b"content-length", b"-1")],
    ],
)
def test_headers_can_t_be_injected(headers: list[tuple[bytes, bytes]], serve: Serve) -> None:
    async def inject(request: HttpRequest, reply: Reply) -> None:
        with pytest.raises(ValueError, match=r"header|length"):
            await reply.start(200, headers)
        assert not reply.started
        await echo(request, reply)

    assert Wire(serve(inject).port, SECOND).answer()[0] == 200


def test_misuse_of_a_reply(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    wrong: list[BaseException] = []

    async def misuse(request: HttpRequest, reply: Reply) -> None:
        async def attempt(work: Coroutine[Any, Any, None]) -> None:
            with pytest.raises((RuntimeError, ValueError)) as caught:
                await work
            wrong.append(caught.value)

        await attempt(reply.send(b"x"))
        await reply.start(200, [(b"content-length", b"2")])
        await attempt(reply.start(200, []))
        await attempt(reply.send(b"too long"))
        await reply.end(b"ok")
        await attempt(reply.send(b"x"))

    assert Wire(serve(misuse).port, SECOND).answer()[2] == b"ok"
    wait_until(lambda: len(wrong) == 4)


def test_the_handler_may_answer_before_the_body(serve: Serve) -> None:
    async def early(request: HttpRequest, reply: Reply) -> None:
        await reply.start(401, [(b"content-length", b"2")])
        await reply.end(b"no")

    served = serve(early)
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE_S)
    connection.request("POST", "/x", bytes(20_000_000))
    response = connection.getresponse()
    assert (response.status, response.getheader("connection"), response.read()) == (401, "close", b"no")
    connection.close()
    wire = Wire(served.port, post(LENGTH, BODY) * 2)  # a body that is there already is no reason to part
    assert [wire.answer()[0] for _ in range(2)] == [401, 401]
    wait_until(lambda: served.server.buffered_bytes == 0)


def test_many_small_chunks_don_t_stop_the_loop(serve: Serve) -> None:
    served = serve()
    longest_s = 0.0

    async def watch() -> None:
        nonlocal longest_s
        while True:
            begun_s = time.thread_time()
            await asyncio.sleep(0)
            longest_s = max(longest_s, time.thread_time() - begun_s)
            await asyncio.sleep(0.001)

    watcher = asyncio.run_coroutine_threadsafe(watch(), served.loop)
    wire = Wire(served.port, post(b"Transfer-Encoding: chunked\r\n", b"1\r\nX\r\n" * 300_000 + b"0\r\n\r\n" + SECOND))
    assert body_of(wire.answer()) == b"X" * 300_000
    assert wire.answer()[0] == 200
    watcher.cancel()
    assert longest_s < 1  # of computing; unsliced it is 2 s
