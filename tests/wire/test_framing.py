"""Where the bodies of requests end."""

import json
import random
import socket

import pytest
from tests.wire.serving import BODY, H2C, LENGTH, SECOND, Serve, Wire, assert_refused, body_of, chunks, post

from paceline.wire.framing import ChunkedBody
from paceline.wire.message import Refused


@pytest.mark.parametrize(
    "parts",
    [
        (post(LENGTH, BODY),),
        (post(LENGTH), 0.05, BODY[:10], 0.05, BODY[10:]),
        (post(b"Transfer-Encoding: Chunked\r\n", chunks(BODY)),),
        (post(b"Transfer-Encoding: chunked\r\n", b'%X;a=b;c="d;e"\r\n%s\r\n000\r\nT: x\r\n\r\n' % (len(BODY), BODY)),),
        (post(LENGTH + b"Expect: 100-continue\r\n"), 0.1, BODY),
        (post(LENGTH + b"Expect: foo\r\n", BODY),),
        (post(b"Content-Length:   %d  \r\n" % len(BODY), BODY),),
    ],
)
def test_bodies(parts: tuple[bytes | float, ...], serve: Serve) -> None:
    served = serve()
    wire = Wire(served.port, *parts)
    answer = wire.answer()
    assert body_of(answer) == BODY
    assert "t" not in dict(json.loads(answer[2])["headers"])
    wire.send(b"\r\n" + SECOND)
    assert wire.answer()[0] == 200


@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_any_cut_of_the_bytes_means_the_same(step: int, serve: Serve) -> None:
    sent = post(b"Transfer-Encoding: chunked\r\n" + H2C, b"5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nA: b\r\n\r\n") + SECOND
    wire = Wire(serve().port)
    wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for position in range(0, len(sent), step):
        wire.send(sent[position : position + step], 0.001)
    assert body_of(wire.answer()) == b"hello world"
    assert wire.answer()[0] == 200


def test_chunks_cut_anywhere() -> None:
    generator = random.Random(1)
    for _ in range(300):
        pieces = [generator.randbytes(generator.choice((1, 2, 15, 16, 300))) for _ in range(generator.randrange(6))]
        sent = b"".join(b"%0*x\r\n%s\r\n" % (generator.choice((1, 4)), len(piece), piece) for piece in pieces)
        sent += b"0\r\nTrailer: x\r\n\r\n" + SECOND
        body, content, rest, position = ChunkedBody(), b"", b"", 0
        while position < len(sent) and not body.is_complete:
            step = generator.choice((1, 2, 3, 50))
            more, rest = body.feed(sent[position : position + step])
            content += more
            position += step
        assert body.is_complete and content == b"".join(pieces)
        assert rest + sent[position:] == SECOND


BAD_CHUNKS = [
    b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    b"0x5\r\nhello\r\n0\r\n\r\n",
    b"+5\r\nhello\r\n0\r\n\r\n",
    b"-5\r\nhello\r\n0\r\n\r\n",
    b"5 \r\nhello\r\n0\r\n\r\n",
    b" 5\r\nhello\r\n0\r\n\r\n",
    b"5\nhello\n0\n\n",
    b"5\r\nhelloXX0\r\n\r\n",
    b"5\r\nhello\n\n0\r\n\r\n",
    b"FFFFFFFFFFFFFFF5F\r\nhello\r\n0\r\n\r\n",
    b"\r\n\r\n",
    b"5\rhello\r0\r\r",
    b"0\r\nno trailer\r\n\r\n",
    b"0\r\n folded: x\r\n\r\n",
    b"5;" + b"x" * 5000 + b"\r\nhello\r\n0\r\n\r\n",
    b"5;" + b"x" * 20000,
    b"0\r\n" + b"T: x\r\n" * 5000 + b"\r\n",
    b"1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nX\r\n" * 1000 + b"0\r\n\r\n",
]


@pytest.mark.parametrize("sent", BAD_CHUNKS)
def test_broken_chunks(sent: bytes, serve: Serve) -> None:
    assert_refused(Wire(serve().port, post(b"Transfer-Encoding: chunked\r\n", sent + SECOND)), 400)


@pytest.mark.parametrize("sent", BAD_CHUNKS)
def test_broken_chunks_byte_by_byte(sent: bytes) -> None:
    body = ChunkedBody()
    with pytest.raises(Refused):  # noqa: PT012
        for byte in sent:
            body.feed(bytes([byte]))
