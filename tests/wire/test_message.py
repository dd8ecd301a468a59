"""Heads of requests: how they are read, and what is refused."""

import contextlib
import json
import time

import pytest
from tests.wire.serving import (
    BODY,
    H2C,
    LENGTH,
    SECOND,
    STREAMED,
    Serve,
    Wire,
    assert_refused,
    body_of,
    chunks,
    echo,
    post,
    stream,
)

from paceline.wire.server import HttpRequest, Reply


def test_a_request_as_the_client_wrote_it(serve: Serve) -> None:
    wire = Wire(serve().port, b"\r\nPUT /a%2fb%C3%A4?q=%20&x#frag HTTP/1.1\r\nHOST: a:1\r\nX-A: 1\r\nx-a:\r\n\r\n")
    seen = json.loads(wire.answer()[2])
    assert seen["method"] == "PUT" and seen["target"] == "/a%2fb%C3%A4?q=%20&x" and seen["version"] == "1.1"
    assert seen["path"] == "/a/bä" and seen["query"] == "q=%20&x"
    assert seen["headers"] == [["host", "a:1"], ["x-a", "1"], ["x-a", ""]]


@pytest.mark.parametrize(
    ("asked", "target", "host"),
    [
        (b"http://u:p@other.example:8/x?y=1", "/x?y=1", "other.example:8"),
        (b"HTTPS://other.example", "/", "other.example"),
        (b"http://other.example?", "/?", "other.example"),
        (b"/a?", "/a?", "a"),
        (b"//v1//models", "//v1//models", "a"),
        (b"/a%00b%zz", "/a%00b%zz", "a"),
    ],
)
def test_targets(asked: bytes, target: str, host: str, serve: Serve) -> None:
    seen = json.loads(Wire(serve().port, b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % asked).answer()[2])
    assert seen["target"] == target and dict(seen["headers"])["host"] == host


OFFERS = [
    H2C,
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
    b"Upgrade: TLS/1.0\r\nConnection: upgrade\r\n",
    b"Connection: keep-alive, Upgrade\r\nUpgrade: a, b\r\n",
]


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("chunked", [False, True])
def test_an_offer_to_upgrade_is_passed_over(offer: bytes, later: bool, chunked: bool, serve: Serve) -> None:
    served = serve()
    body = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    framing = b"Transfer-Encoding: chunked\r\n" if chunked else b"Content-Length: %d\r\n" % len(body)
    framed = chunks(body) if chunked else body
    wire = Wire(served.port, post(framing + offer), *([0.1] if later else []), framed + SECOND + SECOND)
    assert body_of(wire.answer()) == body
    assert [json.loads(wire.answer()[2])["target"] for _ in range(2)] == ["/second", "/second"]
    wire.send(b"GET /x HTTP/1.1\r\nHost: a\r\n" + offer + b"\r\n")
    assert wire.answer()[0] == 200
    assert [request.target for request in served.seen] == ["/x", "/second", "/second", "/x"]


def _with(headers: bytes, body: bytes = b"") -> bytes:
    return post(headers, body)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        *(
            (_with(b"Content-Length: " + value + b"\r\n", SECOND), 400)
            for value in (b"+5", b"-5", b"0x5", b"5, 5", b"")
        ),
        *((_with(b"Content-Length: " + value + b"\r\n", SECOND), 400) for value in (b"5 a", b"1e1", b"%d" % 2**64)),
        (_with(b"Content-Length: 0\r\nContent-Length: 5\r\n", SECOND), 400),
        (_with(b"Content-Length : 5\r\n", SECOND), 400),
        (_with(b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", chunks(SECOND)), 400),
        (_with(b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", chunks(SECOND)), 400),
        (_with(b"Transfer-Encoding: identity, chunked\r\n", chunks(SECOND)), 501),
        (_with(b"Transfer-Encoding: gzip, chunked\r\n", chunks(SECOND)), 501),
        (_with(b"Transfer-Encoding: gzip\r\n", chunks(SECOND)), 400),
        (_with(b"Transfer-Encoding: \x0bchunked\r\n", chunks(SECOND)), 400),
        (_with(b"Transfer-Encoding:\r\n chunked\r\n", chunks(SECOND)), 400),
        (_with(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", chunks(SECOND)), 400),
        (b"POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(SECOND), 400),
        (b"GET /x HTTP/1.1\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /x HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\nHost: a b/c\r\n\r\n", 400),
        (b"GET http://a,b/@c HTTP/1.1\r\nHost: a\r\n\r\n" + b"", 200),
        (b"GET http://<a>/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n" + SECOND, 405),
        (b"CONNECT /x HTTP/1.1\r\nHost: a\r\n\r\n" + SECOND, 405),
        (b"FOO /x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"get /x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /x HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET /x HTTP/1.2\r\nHost: a\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET /x\r\n\r\n", 400),
        (b"DESCRIBE /x RTSP/1.0\r\nHost: a\r\n\r\n", 400),
        (b"SOURCE /x ICE/1.0\r\nHost: a\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\nHost: a\n\n", 400),
        (b"GET /x HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\rHost: a\r\r", 400),
        (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\n Host: a\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\nHost: a\r\nX y: b\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 60, 400),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
        (b"GET /x HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n", 431),
        (b"GET /x HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 300 + b"\r\n", 431),
        (b"GET /x HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 200_000, 431),
        (b"GET /x HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 12_000 + b"\r\n\r\n", 200),
        (b"GET /x HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 255 + b"\r\n", 200),
    ],
)
def test_what_is_refused(sent: bytes, status: int, serve: Serve) -> None:
    served = serve()
    wire = Wire(served.port, sent)
    if status == 200:
        assert wire.answer()[0] == 200
    else:
        assert_refused(wire, status)
        assert served.seen == []


def test_a_header_that_never_ends_costs_little(serve: Serve) -> None:
    served = serve(max_header_bytes=64 * 1024)
    wire = Wire(served.port, b"GET /x HTTP/1.1\r\nHost: a\r\nX: ")
    begun_s = time.thread_time()
    with contextlib.suppress(OSError):
        for _ in range(100):
            wire.send(b"a" * 500)
            time.sleep(0.001)
        wire.send(b"a" * 40_000)
    assert_refused(wire, 431, "headers_too_large")
    assert time.thread_time() - begun_s < 1
    assert served.seen == []


def test_http_1_0(serve: Serve) -> None:
    async def either(request: HttpRequest, reply: Reply) -> None:
        await (stream if request.path == "/stream" else echo)(request, reply)

    served = serve(either)
    wire = Wire(served.port, b"GET /stream HTTP/1.0\r\n\r\n")
    head, _, body = wire.rest().partition(b"\r\n\r\n")
    assert body == STREAMED and b"transfer-encoding" not in head and b"connection: close" in head
    wire = Wire(served.port, post(LENGTH, BODY, version=b"HTTP/1.0") * 2)
    assert body_of(wire.answer()) == BODY
    assert wire.rest() == b""
    kept = b"Connection: keep-alive\r\n"
    wire = Wire(served.port, post(LENGTH + kept, BODY, version=b"HTTP/1.0") * 2)
    assert wire.answer()[1]["connection"] == "keep-alive"
    assert body_of(wire.answer()) == BODY
    wire.send(b"GET /stream HTTP/1.0\r\n" + kept + b"\r\n")
    assert wire.rest().endswith(b"\r\n\r\n" + STREAMED)
    assert_refused(Wire(served.port, b"POST /x HTTP/1.0\r\nContent-Length: x\r\n\r\n"), 400)
