"""An answer on its way to the client: when it begins, what it is when it does, and how it ends."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.patient import jumping_clock

from paceline.engines import ENGINES, Observer
from paceline.http.errors import api_error
from paceline.serving.errors import ServingError
from paceline.serving.relay import MAX_PING_HELD_S, MAX_WHOLE_BYTES, EngineSilent, Relay
from paceline.types import Api, Request, Strategy
from paceline.wire.client import Answer, ConnectionLost
from paceline.wire.headers import Headers

EVENTS, JSON, OTHER = b"text/event-stream", b"application/json", b"application/x-ndjson"
TOKEN = b'data: {"choices": [{"index": 0, "delta": {"content": "x"}}]}\n\n'
ERROR = b'data: {"error": {"message": "out of memory", "code": 500}}\n\n'
LOST = ConnectionLost("reset by peer")
Step = bytes | float | ConnectionLost


class Scripted(Answer):
    """An answer whose pieces come as told: bytes; seconds of silence; a loss. Afterwards it ends."""

    has_all_come = False

    def __init__(self, steps: Sequence[Step], content_type: bytes | None, status: int = 200, **headers: bytes) -> None:
        named = [(b"Content-Type", content_type)] if content_type else []
        self.status = status
        self.headers = [*named, *((name.replace("_", "-").encode(), value) for name, value in headers.items())]
        self._steps = list(steps)
        self._closed = asyncio.Event()

    async def read(self) -> bytes:
        while self._steps and not self._closed.is_set():
            step = self._steps[0]
            if isinstance(step, float):
                try:
                    await asyncio.wait_for(self._closed.wait(), step)
                except TimeoutError:
                    self._steps.pop(0)
                continue
            self._steps.pop(0)
            if isinstance(step, ConnectionLost):
                raise step
            return step
        return b""  # as a body without a length ends when its connection is closed

    def close(self) -> None:
        self._closed.set()


class Client:
    """Keeps what it is sent."""

    def __init__(self, takes_s: float = 0.0, api: Api = Api.OPENAI_CHAT) -> None:
        self.status: int | None = None
        self.headers: list[tuple[bytes, bytes]] = []
        self.sent: list[bytes] = []
        self.at_s: list[float] = []
        self.has_ended = self.is_cut = False
        self._takes_s = takes_s
        self._api = api
        self._began_s = asyncio.get_running_loop().time()

    @property
    def body(self) -> bytes:
        return b"".join(self.sent)

    async def start(self, status: int, headers: Headers) -> None:
        assert self.status is None
        self.status, self.headers = status, list(headers)

    async def send(self, data: bytes) -> None:
        assert self.status is not None and not self.has_ended
        self.sent.append(data)
        self.at_s.append(asyncio.get_running_loop().time() - self._began_s)
        if self._takes_s:
            await asyncio.sleep(self._takes_s)

    async def end(self, data: bytes = b"") -> None:
        await self.send(data)
        self.has_ended = True

    async def end_with(self, error: ServingError, is_inside_event: bool) -> None:
        await self.end((b"\n\n" if is_inside_event else b"") + api_error(error).event(self._api))

    def abort(self) -> None:
        self.is_cut = True


def observer(api: Api = Api.OPENAI_CHAT, kind: str = "openai", **fields: Any) -> Observer:
    fields = {"stream": True, **fields}
    return ENGINES[kind].observe(Request(api, "/", json.dumps(fields).encode(), fields, stream=True), Strategy())


def relay(
    steps: Sequence[Step],
    client: Client,
    content_type: bytes | None = EVENTS,
    *,
    watching: Observer | None = None,
    status: int = 200,
    first_byte_timeout_s: float = 60.0,
    idle_timeout_s: float = 60.0,
    **headers: bytes,
) -> Relay:
    return Relay(
        answer=Scripted(steps, content_type, status, **headers),
        observer=watching or observer(),
        reply=client,
        sent_s=asyncio.get_running_loop().time(),
        extra_headers=[(b"x-own", b"1")],
        first_byte_timeout_s=first_byte_timeout_s,
        idle_timeout_s=idle_timeout_s,
    )


@pytest.fixture(autouse=True)
async def clock_s(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[[], float]]:
    """Jumps over all waiting, and shows that every test ends within seconds though the limits are a minute."""
    with jumping_clock() as clock_s:
        monkeypatch.setattr("paceline.serving.relay.perf_counter", clock_s)
        async with asyncio.timeout(20):
            yield clock_s


# Beginning


@pytest.mark.parametrize(
    "before", [b"", b": ping\n\n", b'event: ping\ndata: {"type": "ping"}\n\n', b"retry: 9\r\n\r\n"]
)
@pytest.mark.parametrize("event", [TOKEN, b'data: {"choices": []}\n\n', b"data: [DONE]\n\n", b"data: text\n\n"])
async def test_a_stream_begins_with_its_first_event(before: bytes, event: bytes) -> None:
    client = Client()
    one = relay([before or b": x\n\n", 0.05, event, 0.05, TOKEN], client)
    assert await one.begin() is None
    assert client.status is None and not one.began
    assert await one.run() is None
    assert client.body == (before or b": x\n\n") + event + TOKEN
    assert client.sent[0] == (before or b": x\n\n") + event  # at once, and the next one when it comes
    assert client.headers[0] == (b"x-own", b"1")


@pytest.mark.parametrize("content_type", [EVENTS, b"Text/Event-Stream; charset=utf-8"])
@pytest.mark.parametrize("before", [b"", b": ping\n\n"])
async def test_an_error_as_the_first_event_is_told_before_anything_is_sent(before: bytes, content_type: bytes) -> None:
    client, watching = Client(), observer()
    one = relay([before + ERROR[:9], ERROR[9:], TOKEN], client, content_type, watching=watching)
    assert await one.begin() == "out of memory"
    assert client.status is None and not watching.error_is_clients
    await one.run()  # if no other engine serves
    assert client.body == before + ERROR + TOKEN
    assert watching.error == "out of memory"


async def test_an_error_after_a_token_comes_too_late() -> None:
    client, watching = Client(), observer()
    one = relay([TOKEN, ERROR], client, watching=watching)
    assert await one.begin() is None
    assert await one.run() is None
    assert client.body == TOKEN + ERROR
    assert watching.error == "out of memory"


async def test_a_stream_without_an_event_is_an_error() -> None:
    client = Client()
    one = relay([b": ping\n\n"], client)
    assert await one.begin() == "the stream ended before its first event"
    await one.run()
    assert client.body == b": ping\n\n" and client.has_ended


async def test_pings_are_held_for_a_second_and_not_longer() -> None:
    client = Client()
    one = relay([b": 1\n\n", 0.3, b": 2\n\n", 2 * MAX_PING_HELD_S, ERROR], client)
    assert await one.begin() is None
    assert one.began and client.body == b": 1\n\n: 2\n\n"
    assert client.at_s[0] == pytest.approx(MAX_PING_HELD_S, abs=0.001)
    await one.run()
    assert client.body == b": 1\n\n: 2\n\n" + ERROR


async def test_a_flood_of_pings_is_not_held() -> None:
    client = Client()
    one = relay([b": ping\n\n" * 1000] * 20, client)
    assert await one.begin() is None
    assert one.began
    await one.run()
    assert client.body == b": ping\n\n" * 20_000


@pytest.mark.parametrize("content_type", [JSON, b"application/problem+json", b"Application/JSON; charset=utf-8"])
async def test_json_is_held_until_it_is_known_whether_it_is_an_error(content_type: bytes) -> None:
    client = Client()
    one = relay([b'{"error": {"mess', 0.05, b'age": "boom"}}'], client, content_type)
    assert await one.begin() == "boom"
    assert client.status is None
    await one.run()
    assert client.body == b'{"error": {"message": "boom"}}' and client.has_ended


@pytest.mark.parametrize("extra", [-1, 0, 1, 100_000])
async def test_json_of_any_length_passes(extra: int) -> None:
    client = Client()
    body = b'{"a": "' + b"x" * (MAX_WHOLE_BYTES + extra - 9) + b'"}'
    one = relay([body[:100_000], body[100_000:700_000], body[700_000:]], client, JSON, content_length=b"%d" % len(body))
    assert await one.begin() is None
    assert not one.began
    await one.run()
    assert client.body == body
    assert (b"content-length", b"%d" % len(body)) in client.headers


@pytest.mark.parametrize("content_type", [JSON, OTHER, None])
async def test_reports_are_read_whatever_the_type(content_type: bytes | None) -> None:
    watching = observer()
    await relay([b'{"usage": {"completion_tokens": 7}}'], Client(), content_type, watching=watching).run()
    assert watching.observation().completion_tokens == 7


async def test_what_is_compressed_is_not_read() -> None:
    client = Client()
    one = relay([b"\x1f\x8b\n\n" * 9], client, EVENTS, content_encoding=b"gzip")
    assert await one.begin() is None
    await one.run()
    assert client.body == b"\x1f\x8b\n\n" * 9


async def test_a_stream_of_known_length_may_become_shorter() -> None:
    usage = b'data: {"choices": [], "usage": {"completion_tokens": 1}}\r\n\r\n'
    client, watching = Client(), observer(kind="vllm")
    one = relay([TOKEN + usage], client, watching=watching, content_length=b"%d" % len(TOKEN + usage))
    await one.run()
    assert client.body == TOKEN
    assert b"content-length" not in dict(client.headers)
    assert watching.observation().completion_tokens == 1


# Losing the engine


@pytest.mark.parametrize("content_type", [EVENTS, JSON, OTHER, None])
@pytest.mark.parametrize("before", [(), (b": ping\n\n",)])
async def test_a_loss_before_the_beginning_is_the_callers(content_type: bytes | None, before: tuple[Step, ...]) -> None:
    if before and content_type in (OTHER, None):
        pytest.skip("what is held of these is their first piece")
    client = Client()
    one = relay([*before, LOST], client, content_type)
    with pytest.raises(ConnectionLost, match="reset by peer"):
        await one.begin()
    assert client.status is None and not one.began
    with pytest.raises(ServingError) as raised:
        await relay([*before, LOST], client, content_type).run()
    assert raised.value.status == 502
    assert client.status is None and not client.is_cut


@pytest.mark.parametrize("api", list(Api))
@pytest.mark.parametrize("half", [b"", b"data: half"])
async def test_a_stream_that_is_lost_ends_with_an_error_event(api: Api, half: bytes) -> None:
    client = Client(api=api)
    broken = await relay([TOKEN, half, LOST] if half else [TOKEN, LOST], client).run()
    assert broken is not None and broken.status == 502
    assert client.body == TOKEN + api_error(broken).event(api) and client.has_ended


async def test_a_loss_within_a_long_event_ends_it_first() -> None:
    client = Client()
    broken = await relay([b"data: " + b"x" * 100_000, LOST], client).run()
    assert broken is not None
    shown, _, rest = client.body.partition(b"\n\n")
    assert shown.startswith(b"data: xxx") and rest == api_error(broken).event(Api.OPENAI_CHAT)


@pytest.mark.parametrize(
    ("content_type", "steps"),
    [(JSON, [b"x" * (MAX_WHOLE_BYTES + 1), LOST]), (OTHER, [b"{}\n", LOST]), (None, [b"x", LOST])],
)
async def test_what_can_not_carry_an_error_is_cut(content_type: bytes | None, steps: list[Step]) -> None:
    client = Client()
    with pytest.raises(ServingError) as raised:
        await relay(steps, client, content_type).run()
    assert raised.value.status == 502
    assert client.is_cut and not client.has_ended


# Time limits


@pytest.mark.parametrize("content_type", [EVENTS, JSON, OTHER])
async def test_an_engine_that_sends_no_first_byte_is_given_up(content_type: bytes) -> None:
    client = Client()
    one = relay([5.0, TOKEN], client, content_type, first_byte_timeout_s=0.2)
    with pytest.raises(EngineSilent, match=r"no first byte within 0.2 s \(server.first_byte_timeout_s\)"):
        await one.begin()
    assert client.status is None
    with pytest.raises(ServingError) as raised:
        await relay([5.0, TOKEN], client, content_type, first_byte_timeout_s=0.2).run()
    assert raised.value.status == 504
    assert "server.first_byte_timeout_s" in str(raised.value)


async def test_an_engine_that_falls_silent_is_given_up() -> None:
    client = Client()
    one = relay([TOKEN, 0.1, TOKEN, 5.0, TOKEN], client, idle_timeout_s=0.3)
    broken = await one.run()
    assert broken is not None and "no byte for 0.3 s (server.idle_timeout_s)" in str(broken)
    assert client.body == 2 * TOKEN + api_error(broken).event(Api.OPENAI_CHAT)
    assert one.last_byte_s is not None


async def test_silence_within_json_is_the_callers_to_judge() -> None:
    with pytest.raises(EngineSilent, match="idle"):
        await relay([b"{", 5.0, b"}"], Client(), JSON, idle_timeout_s=0.2).begin()
    client = Client()
    with pytest.raises(ServingError):
        await relay([b"{}\n", 5.0], client, OTHER, idle_timeout_s=0.2).run()
    assert client.is_cut


@pytest.mark.parametrize("life", [b": ping\n\n", b"da", b"\n", TOKEN])
async def test_any_byte_is_a_sign_of_life(life: bytes) -> None:
    client = Client()
    often: list[Step] = [0.1, life]
    steps: list[Step] = [TOKEN, *often * 8]
    assert await relay(steps, client, idle_timeout_s=0.3).run() is None
    assert client.body == TOKEN + 8 * life


async def test_a_client_that_takes_its_time_is_no_silence_of_the_engine() -> None:
    client, watching = Client(takes_s=0.5), observer()
    one = relay([TOKEN, TOKEN, 0.1, TOKEN], client, watching=watching, idle_timeout_s=0.3)
    assert await one.run() is None
    assert client.body == 3 * TOKEN
    assert not watching.clock_is_valid


async def test_no_timer_outlives_its_relay() -> None:
    """It would close a connection that serves another request by then."""
    answers = []
    scripts: list[list[Step]] = [[TOKEN], [ERROR], [TOKEN, LOST]]
    for steps in scripts:
        one = relay(steps, Client(), idle_timeout_s=0.1)
        await one.run()
        answers.append(one._answer)
    begun = relay([ERROR], Client(), idle_timeout_s=0.1)
    await begun.begin()  # and dropped
    answers.append(begun._answer)
    await asyncio.sleep(0.3)
    assert not any(answer._closed.is_set() for answer in answers if isinstance(answer, Scripted))


# Any borders, any amount


@given(
    data=st.lists(
        st.sampled_from(
            [
                TOKEN,
                ERROR,
                b": c\n\n",
                b"\r\n",
                b"\n",
                b"\r",
                b"data: half",
                b"event: e\r\ndata: 1\r\n\r\n",
                b"\x00\xff",
            ]
        ),
        max_size=12,
    ).map(b"".join),
    borders=st.lists(st.integers(0, 600), max_size=12),
    content_type=st.sampled_from([EVENTS, JSON, OTHER]),
)
async def test_bytes_pass_unchanged_however_they_are_cut(data: bytes, borders: list[int], content_type: bytes) -> None:
    at = [0, *sorted(border % (len(data) + 1) for border in borders), len(data)]
    pieces = [piece for begin, end in pairwise(at) if (piece := data[begin:end])]
    client = Client()
    assert await relay(pieces, client, content_type).run() is None
    assert client.body == data and client.has_ended


@pytest.mark.parametrize(
    "piece",
    [
        b"x" * 300_000,
        TOKEN * 5000,
        b"\n\n" * 150_000,
        b":\n\n" * 100_000,
        b"data:{}\n\n" * 35_000,
        b"data: 1\n\n" * 35_000,
    ],
    ids=["no end", "tokens", "empty", "comments", "documents", "numbers"],
)
async def test_a_large_piece_does_not_stop_the_loop(piece: bytes) -> None:
    """Others have their turn at least every 50 ms of computing."""
    client = Client()
    longest_s = 0.0

    async def watch() -> None:
        nonlocal longest_s
        while not client.has_ended:
            before_s = time.thread_time()
            await asyncio.sleep(0)
            longest_s = max(longest_s, time.thread_time() - before_s)

    watching = asyncio.create_task(watch())
    await relay([piece] * 4, client).run()
    await watching
    assert client.body == 4 * piece
    assert longest_s < 0.05


@pytest.mark.parametrize(
    ("content_type", "steps"),
    [
        (JSON, [b"{}"]),
        (EVENTS, [TOKEN]),
        (OTHER, [b"one"]),
        (EVENTS, [TOKEN, LOST]),
    ],
)
async def test_a_client_that_is_slow_to_take_the_end_is_what_is_waited_for(
    content_type: bytes, steps: list[Step]
) -> None:
    """Else the engine, which has done its part, would count as silent."""
    taken = asyncio.Event()

    class Slow(Client):
        async def end(self, data: bytes = b"") -> None:
            await taken.wait()
            await super().end(data)

    slow = Slow()
    relayed = relay(steps, slow, content_type)
    running = asyncio.create_task(relayed.run())
    await asyncio.sleep(0.05)
    waits = relayed.sending_since_s is not None
    assert (waits, slow.has_ended) == (True, False)
    taken.set()
    await running
    waits = relayed.sending_since_s is not None
    assert (waits, slow.has_ended) == (False, True)
