"""Which endpoint a request goes to, what it becomes, and what is learned: on engines with sockets, before a small
gateway."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from tests.conftest import RunningGateway, StartEngine, StartGateway, chat, lane
from tests.fake_engine import ANSWER, FakeEngine, Received, Wire
from tests.integrations.endpoint_picker.small_gateway import SmallGateway
from tests.patient import until

from paceline.integrations.endpoint_picker.messages import BodyMode, Go, Refuse, RequestBody, RequestHeaders
from paceline.integrations.endpoint_picker.picking import Limits, Picker
from paceline.integrations.endpoint_picker.stream import OutOfTurn

USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":40}}\n\n'
MODES = [BodyMode.DUPLEX, BodyMode.BUFFERED]


class Pool:
    """Two engines, a pipeline that knows them, and a picker among them."""

    def __init__(self, running: RunningGateway, engines: list[FakeEngine], limits: Limits) -> None:
        self.running, self.engines = running, engines
        self.picker = Picker(limits)
        self.picker.pipeline = running.gateway.pipeline
        self.gateway = SmallGateway(self.picker)

    @property
    def received(self) -> list[Received]:
        """What the engines got, but for looks at them."""
        return [one for engine in self.engines for one in engine.requests if one.method == "POST"]

    @property
    def addresses(self) -> list[str]:
        return [engine.url.removeprefix("http://") for engine in self.engines]


StartPool = Callable[..., Awaitable[Pool]]


@pytest.fixture
def start_pool(start_engine: StartEngine, start_gateway: StartGateway) -> StartPool:
    async def start(
        limits: Limits = Limits(),  # noqa: B008
        kind: str = "openai",
        more: str = "",
        of_engines: str = "",
        of_the_last: str = "",
    ) -> Pool:
        engines = [await start_engine(), await start_engine()]
        keys = (of_engines, of_the_last or of_engines)
        tables = [
            lane(name, one.url, more=own).replace('strategy = "autoregressive"\nstrategy', "strategy")
            for name, one, own in zip("ab", engines, keys, strict=True)
        ]
        text = "".join(tables).replace('kind = "openai"', f'kind = "{kind}"')
        running = await start_gateway(more + text)
        await until(lambda: all(one.is_up for one in running.gateway.fleet.engines.values()))
        for engine in engines:
            engine.requests.clear()  # by which they were examined
        return Pool(running, engines, limits)

    return start


async def streamed(received: Received, wire: Wire) -> None:
    """A stream with tokens, and its usage where that was asked for."""
    if received.method == "GET":
        await wire.json({}, 404)
        return
    await wire.stream_head()
    for word in range(40):
        await wire.chunk(b'data: {"choices":[{"index":0,"delta":{"content":"word %d"}}]}\n\n' % word)
    if received.json.get("stream_options", {}).get("include_usage"):
        await wire.chunk(USAGE)
    await wire.chunk(b"data: [DONE]\n\n")
    await wire.end()


@pytest.mark.parametrize("mode", MODES)
async def test_a_request_is_decided_on_and_its_answer_learned_from(start_pool: StartPool, mode: BodyMode) -> None:
    pool = await start_pool()
    pool.gateway.mode = mode
    reply = await pool.gateway.post(chat("Tell me a story.", model="m"))
    assert reply.status == 200 and reply.json == ANSWER
    assert reply.headers["x-paceline-lane"] in ("a", "b") and reply.headers["x-paceline-reason"]
    outcome = await pool.running.outcome_number(1)
    assert outcome.is_whole and outcome.observed.completion_tokens == 3 and outcome.deliveries == 1
    assert pool.running.gateway.pipeline.router.knowledge.measured
    assert pool.picker.decided == 1 and pool.picker.in_flight == 0 and pool.picker.buffered_bytes == 0


@pytest.mark.parametrize("mode", MODES)
async def test_the_strategys_fields_stand_in_the_body_and_what_they_bring_stays_here(
    start_pool: StartPool, mode: BodyMode
) -> None:
    """A vLLM tells a stream's usage only if asked, which the client did not."""
    pool = await start_pool(kind="vllm")
    pool.gateway.mode = mode
    for engine in pool.engines:
        engine.script = streamed
    reply = await pool.gateway.post(chat("hi", model="m", stream=True))
    (received,) = pool.received
    assert received.json["stream_options"] == {"include_usage": True}
    assert reply.body.count(b"data: ") == 41 and b"usage" not in reply.body and reply.body.endswith(b"[DONE]\n\n")
    outcome = await pool.running.outcome_number(1)
    assert outcome.observed.completion_tokens == 40


async def test_a_body_whose_answer_is_not_handed_over_is_asked_for_nothing(start_pool: StartPool) -> None:
    pool = await start_pool(kind="vllm")
    pool.gateway.response_mode = BodyMode.NONE
    reply = await pool.gateway.post(chat("hi", model="m", stream=True))
    assert reply.status == 200
    (received,) = pool.received
    assert "stream_options" not in received.json
    assert (await pool.running.outcome_number(1)).is_whole


async def test_load_is_counted_from_the_word_to_the_end_of_the_answer(start_pool: StartPool) -> None:
    pool = await start_pool()
    begun = [await pool.gateway.begin(chat(f"story {number}", model="m")) for number in range(4)]
    assert pool.picker.in_flight == 4
    assert {one.endpoints for _, answers in begun for one in answers if isinstance(one, Go)} == {
        (address,) for address in pool.addresses
    }
    for stream, _ in begun:
        stream.close()  # as where the client leaves
        stream.close()
    assert pool.picker.in_flight == 0
    outcome = await pool.running.outcome_number(4)
    assert outcome.status == 499 and not outcome.is_failure


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("body", "headers", "path"),
    [
        (b'{"messages": [', {}, "/v1/chat/completions"),
        (b"[1, 2]", {}, "/v1/chat/completions"),
        (b"\xff\xfe" * 4000, {}, "/v1/chat/completions"),
        (b"[" * 100_000, {}, "/v1/messages"),
        (b"anything", {"content-encoding": "br"}, "/v1/chat/completions"),
        (b'{"input": "a text"}', {}, "/v1/embeddings"),
        (b'{"messages": []}', {"x-paceline-learn": "perhaps"}, "/v1/chat/completions"),
        (b'{"messages": []}', {"x-paceline-lane": "no such lane"}, "/v1/chat/completions"),
    ],
)
async def test_what_cant_be_decided_on_goes_on_as_it_came(
    start_pool: StartPool, mode: BodyMode, body: bytes, headers: dict[str, str], path: str
) -> None:
    pool = await start_pool()
    pool.gateway.mode = mode
    reply = await pool.gateway.post(body, path, headers)
    assert reply.status == 200
    (received,) = pool.received
    assert received.body == body
    assert pool.picker.decided == 0 and pool.picker.passed.total() == 1 and pool.picker.in_flight == 0


async def test_a_defect_of_the_router_breaks_no_request(start_pool: StartPool, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = await start_pool()
    monkeypatch.setattr(pool.running.gateway.pipeline, "plan", lambda *_: 1 / 0)
    body = b'{"model": "m", "messages": []}'
    assert (await pool.gateway.post(body)).status == 200
    (received,) = pool.received
    assert received.body == body and pool.picker.passed["ZeroDivisionError"] == 1


PRIVATE_HEADER = {"x-paceline-private": "yes"}
SECRET = b"AKIA" + b"ABCDEFGHIJKLMNOP"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("body", "headers", "path"),
    [
        (b'{"model": "m", "messages": []}', PRIVATE_HEADER, "/v1/chat/completions"),
        (b'{"model": "m", "messages": [{"role": "user", "content": "%b"}]}' % SECRET, {}, "/v1/chat/completions"),
        (b'{"model": "m", "input": "%b"}' % SECRET, {}, "/v1/embeddings"),
        (b"whatever is in it", {"content-encoding": "br"}, "/v1/chat/completions"),
        (b'{"prompt": "%b"}' % (b"word " * 10_000), {}, "/v1/completions"),
    ],
)
async def test_what_is_private_goes_to_no_endpoint_that_may_not_have_it(
    start_pool: StartPool, mode: BodyMode, body: bytes, headers: dict[str, str], path: str
) -> None:
    pool = await start_pool(
        Limits(max_body_bytes=10_000), more="[privacy]\nsecrets = true\n", of_engines="takes_private = false\n"
    )
    pool.gateway.mode = mode
    reply = await pool.gateway.post(body, path, headers)
    assert reply.status == 403 and "private" in reply.json["error"]["message"]
    assert not pool.received and pool.picker.refused[403] == 1 and pool.picker.in_flight == 0
    ordinary = await pool.gateway.post({"model": "m", "input": "hi"}, "/v1/embeddings")
    assert ordinary.status == 200 and (await pool.gateway.get("/v1/models")).status == 200


async def test_what_is_private_goes_undecided_to_an_endpoint_that_may_have_it(start_pool: StartPool) -> None:
    pool = await start_pool(of_engines="takes_private = false\n", of_the_last="takes_private = true\n")
    for _ in range(3):
        reply = await pool.gateway.post({"input": "hi"}, "/v1/embeddings", PRIVATE_HEADER)
        assert reply.status == 200 and reply.endpoints == (pool.addresses[1],)


async def test_a_gateway_that_repeats_itself_is_out_of_turn(start_pool: StartPool) -> None:
    pool = await start_pool()
    for mode in MODES:
        pool.gateway.mode = mode
        stream, _ = await pool.gateway.begin(chat("hi", model="m"))
        with pytest.raises(OutOfTurn):
            await stream.take(RequestHeaders(headers=[(b":path", b"/v1/chat/completions")], request_mode=mode))
        if mode is BodyMode.BUFFERED:
            with pytest.raises(OutOfTurn):
                await stream.take(RequestBody(b"{}", ends=True))
        assert pool.picker.in_flight == 1
        stream.close()
        assert pool.picker.in_flight == 0


async def test_a_large_body_passes_in_pieces_and_is_not_held(start_pool: StartPool) -> None:
    pool = await start_pool(Limits(max_body_bytes=10_000))
    body = b'{"prompt": "' + b"word " * 10_000 + b'"}'
    reply = await pool.gateway.post(body, "/v1/completions")
    assert reply.status == 200
    (received,) = pool.received
    assert received.body == body and pool.picker.passed["too large"] == 1 and pool.picker.buffered_bytes == 0


async def test_bodies_of_all_clients_are_bounded(start_pool: StartPool) -> None:
    pool = await start_pool(Limits(max_buffered_bytes=5_000))
    pool.picker.buffered_bytes = 4_500  # of others
    assert (await pool.gateway.post(b'{"prompt": "' + b"word " * 300 + b'"}', "/v1/completions")).status == 200
    assert pool.picker.passed["too large"] == 1 and pool.picker.buffered_bytes == 4_500


async def test_requests_without_a_body_go_where_there_is_the_least_to_do(start_pool: StartPool) -> None:
    pool = await start_pool()
    stream, answers = await pool.gateway.begin(chat("hi", model="m"))
    (busy,) = next(one.endpoints for one in answers if isinstance(one, Go))
    reply = await pool.gateway.get("/v1/models")
    assert reply.status == 200 and reply.endpoints != (busy,)
    stream.close()


async def test_a_subset_is_kept_to_with_and_without_ports(start_pool: StartPool) -> None:
    pool = await start_pool(Limits(fallbacks=3))
    first, second = pool.addresses
    for subset in ((first,), (second,)):
        pool.gateway.subset = subset
        for number in range(3):
            reply = await pool.gateway.post(chat(f"{number}", model="m"))
            assert reply.endpoints == subset
    pool.gateway.subset = (first.rpartition(":")[0],)
    assert set((await pool.gateway.post(chat("hi", model="m"))).endpoints) == {first, second}
    for nothing in ((), ("10.9.9.9:1",)):
        pool.gateway.subset = nothing
        reply = await pool.gateway.post(chat("hi", model="m"))
        assert reply.status == 503 and "no endpoint" in reply.json["error"]["message"]
        assert (await pool.gateway.get("/v1/models")).status == 503
    assert pool.picker.refused[503] == 4


async def test_503_before_any_endpoint_is_known_and_when_none_is_up(start_pool: StartPool) -> None:
    nobody = SmallGateway(Picker())
    assert (await nobody.post(chat("hi"))).status == 503 and not nobody.picker.is_ready
    pool = await start_pool()
    for engine in pool.engines:
        await engine.stop()
    await until(lambda: not pool.picker.is_ready)
    reply = await pool.gateway.post({"messages": [], "max_tokens": 1}, "/v1/messages")
    assert reply.status == 503 and reply.json["type"] == "error"  # in the words of the client's API


async def test_429_when_all_have_as_much_as_they_may(start_pool: StartPool) -> None:
    pool = await start_pool(Limits(queue_limit=1))  # beside the one that each decodes
    begun = [await pool.gateway.begin(chat(f"{number}", model="m")) for number in range(5)]
    refused = [one for _, answers in begun for one in answers if isinstance(one, Refuse)]
    assert [one.status for one in refused] == [429] and refused[0].retry_after_s
    for stream, _ in begun:
        stream.close()
    assert (await pool.gateway.post(chat("hi", model="m"))).status == 200


async def test_one_that_is_ill_is_not_picked_and_comes_back(start_pool: StartPool) -> None:
    pool = await start_pool()
    first = pool.engines[0]
    port = first.port
    await first.stop()
    await until(lambda: not pool.running.gateway.fleet.engines["a"].is_up)
    for number in range(3):
        assert (await pool.gateway.post(chat(f"{number}", model="m"))).endpoints == (pool.addresses[1],)
    await first.start(port)
    await until(lambda: pool.running.gateway.fleet.engines["a"].is_up)
    pool.gateway.subset = (pool.addresses[0],)
    assert (await pool.gateway.post(chat("hi", model="m"))).status == 200


async def test_an_endpoint_that_answers_with_errors_is_left_out_for_a_while(start_pool: StartPool) -> None:
    async def fails(_: Received, wire: Wire) -> None:
        await wire.json({"error": "out of memory"}, 500)

    pool = await start_pool()
    pool.engines[0].script = fails
    pool.gateway.subset = (pool.addresses[0],)
    for number in range(3):
        assert (await pool.gateway.post(chat(f"{number}", model="m"))).status == 500
    assert pool.running.gateway.fleet.engines["a"].illness.is_ejected
    pool.gateway.subset = None
    for number in range(3):
        assert (await pool.gateway.post(chat(f"{number}", model="m"))).endpoints == (pool.addresses[1],)


async def test_what_the_next_endpoint_served_is_learned_of_that(start_pool: StartPool) -> None:
    pool = await start_pool(Limits(fallbacks=1), more='[[rule]]\nmodel = "m"\nlane = "a"\n')
    pool.gateway.unreachable = {pool.addresses[0]}
    reply = await pool.gateway.post(chat("hi", model="m"))
    assert reply.endpoints == tuple(pool.addresses) and reply.status == 200
    assert reply.headers["x-paceline-lane"] == "b"
    assert not pool.running.gateway.fleet.engines["a"].device.running
    record = (await pool.running.outcome_number(1), pool.running.records[0])
    assert record[0].lane == "b" and [name for name, _ in record[0].failed] == ["a"]
    engines = pool.running.gateway.fleet.engines.values()
    assert [engine.in_flight for engine in engines] == [0, 0]


async def test_the_next_endpoints_answer_is_not_put_down_to_the_first_where_it_has_no_such_lane(
    start_pool: StartPool,
) -> None:
    async def fails(_: Received, wire: Wire) -> None:
        await wire.json({"error": "out of memory"}, 500)

    rule = '[[rule]]\nmodel = "m"\nlane = "a"\n'
    pool = await start_pool(Limits(fallbacks=1), more=rule, of_the_last='strategy = "ngram"\n')
    pool.engines[1].script = fails
    pool.gateway.unreachable = {pool.addresses[0]}
    for number in range(1, 4):
        reply = await pool.gateway.post(chat("hi", model="m"))
        assert reply.status == 500 and "x-paceline-lane" not in reply.headers
        outcome = await pool.running.outcome_number(number)
        assert outcome.lane == "a" and outcome.first_byte_s is None and not outcome.is_failure
    engines = pool.running.gateway.fleet.engines.values()
    assert not any(engine.illness.is_ejected for engine in engines) and pool.picker.in_flight == 0


async def test_what_runs_beside_a_request_is_counted_on_the_device_that_serves_it(start_pool: StartPool) -> None:
    pool = await start_pool(Limits(fallbacks=1), more='[[rule]]\nmodel = "m"\nlane = "a"\n')
    pool.gateway.subset = (pool.addresses[1],)
    begun = [await pool.gateway.begin({"input": "x"}, "/v1/embeddings"), await pool.gateway.begin(chat("x", model="m"))]
    await asyncio.sleep(0.3)  # so long another has run on the second one
    pool.gateway.subset, pool.gateway.unreachable = None, {pool.addresses[0]}
    for stream, _ in begun:
        stream.close()
    await pool.running.outcome_number(1)
    assert (await pool.gateway.post(chat("hi", model="m"))).status == 200
    outcome = await pool.running.outcome_number(2)
    assert outcome.lane == "b" and outcome.concurrent == pytest.approx(0, abs=0.01)
    assert [engine.device.running for engine in pool.running.gateway.fleet.engines.values()] == [0, 0]


async def test_the_endpoint_is_shown_its_key(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine()
    running = await start_gateway(lane("a", engine.url, more='api_key = "of-the-engine"'))
    picker = Picker()
    picker.pipeline = running.gateway.pipeline
    reply = await SmallGateway(picker).post(chat("hi", model="m"), headers={"authorization": "Bearer of-the-client"})
    assert reply.status == 200
    assert engine.requests[0].headers["authorization"] == "Bearer of-the-engine"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings"])
async def test_an_endpoint_is_not_shown_anothers_key(start_pool: StartPool, path: str) -> None:
    keys = {"of_engines": 'api_key = "of-the-first"\n', "of_the_last": 'api_key = "of-the-last"\n'}
    pool = await start_pool(Limits(fallbacks=1), **keys)
    assert len((await pool.gateway.post(chat("hi", model="m"), path)).endpoints) == 1
    alike = await start_pool(Limits(fallbacks=1), of_engines='api_key = "of-both"\n')
    assert len((await alike.gateway.post(chat("hi", model="m"), path)).endpoints) == 2
