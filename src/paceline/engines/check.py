"""One check for every driver: :func:`check_engine` holds it to what ``interface.py`` promises.

It needs no engine: where one has to answer, a server on loopback answers garbage. A driver's own tests show that it
understands the real answers.
"""

import asyncio
import contextlib
import json
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from paceline.engines.examiner import Examiner
from paceline.engines.interface import AnyEngine, Examination, Facts, LaunchError, NotReady
from paceline.settings import EngineSettings, LocalEngineSettings, StrategyKind
from paceline.types import AS_STARTED, Abilities, Api, DraftControl, Drafter, DrafterControl, Request, Strategy
from paceline.wire.client import Client, ConnectFailed, ConnectionLost

DOCUMENTED_ERRORS = (NotReady, ConnectFailed, ConnectionLost, TimeoutError)
"""Of ``probe`` and ``examine``."""
GARBAGE: tuple[tuple[int, bytes], ...] = (
    (200, b""),
    (200, b"<html>it works!</html>"),
    (200, b"\xff\xfe\x00"),
    (200, b"[" * 100_000),
    (200, b"null"),
    (200, b"7"),
    (200, b"[]"),
    (200, b"{}"),
    (200, b'{"data": {"id": "m"}}'),
    (200, b'{"data": [7, null, {"id": 7}, {"id": "m", "aliases": 7, "max_model_len": "long"}]}'),
    (200, b'{"data": [{"id": "m"}], "choices": 7, "usage": [], "metrics": 7, "timings": "fast", "stats": 7}'),
    (200, b'{"data": [{"id": "m"}], "choices": [7], "metrics": {"speculative_decoding": {"num_draft_tokens": "x"}}}'),
    (400, b'{"error": 7}'),
    (404, b""),
    (429, b"busy"),
    (500, b'{"error": {"message": "out of memory"}}'),
    (503, b'{"error": {"message": "loading"}}'),
)
"""Statuses and bodies that something at an engine's address may answer with, whatever it is asked."""
PIECES = (
    *(b"data: {", b'"usage": 7}\n\n', b"\xff\xfe", b'data: {"choices": [7]}\n\n', b": ping\n\n"),
    *(b"data: [DONE]\n\n", b"}"),
)
"""Of an answer that makes no sense."""
CONTROL = DraftControl(
    min_yield=1.5,
    drafters={
        "ngram": DrafterControl((1.2, 1.4), (0.7,), {2: (0.5,), 8: (0.9, 0.9)}, 4.0),
        "mtp": DrafterControl((1.3, 1.5, 1.8), (0.8, 0.7, 0.6), weight=12.0),
    },
)
"""What requests are prepared with."""
LIMIT_S = 30.0
"""For each call that talks to the server; it answers at once."""


class BrokenPromises(AssertionError):
    """What a driver does not keep, a line for each promise."""


async def check_engine(engine: AnyEngine, page: str | None = None) -> None:
    """Check a driver of any kind.

    Args:
        page: the text of ``docs/engines.md``; ``None`` leaves the check of its row out.

    Raises:
        BrokenPromises: it does not keep all that is promised of drivers.
    """
    broken = []
    for check in CHECKS:
        try:
            await check(engine)
        except AssertionError as error:
            broken.append(f"{check.__name__.strip('_').replace('_', ' ')}: {error}")
    kind = _kind(engine)
    if page is not None and f"| `{kind}`" not in page:
        broken.append(f"documentation: docs/engines.md has no row whose second column begins with `{kind}`")
    if broken:
        raise BrokenPromises("\n".join(f"{kind}: {problem}" for problem in broken))


async def _kind_is_named(engine: AnyEngine) -> None:
    kind = _kind(engine)
    settings_type = engine.settings_type
    _expect(issubclass(settings_type, EngineSettings), "settings_type does not derive from EngineSettings")
    _expect(kind != settings_type.__name__, "settings_type has no tag= that names the kind")
    _expect(re.fullmatch(r"[a-z0-9][a-z0-9._-]*", kind), f"{kind!r} is no name of small letters, digits and . _ -")
    _expect(settings_type.__struct_config__.frozen, "settings_type is not frozen")
    _expect(settings_type.__struct_config__.forbid_unknown_fields, "settings_type takes unknown keys")


async def _settings_are_documented(engine: AnyEngine) -> None:
    _expect(engine.settings_type.__doc__, "settings_type has no docstring")
    hints = get_type_hints(engine.settings_type, include_extras=True)
    for name in engine.settings_type.__struct_fields__:
        metas = [meta for meta in getattr(hints[name], "__metadata__", ()) if isinstance(meta, Meta)]
        _expect(any(meta.description for meta in metas), f"the key {name} has no Meta(description=...)")


async def _settings_round_trip(engine: AnyEngine) -> None:
    for settings in _examples(engine):
        table = json.loads(msgspec.json.encode(settings))
        _expect(table.get("kind") == _kind(engine), f"as a table, its kind is {table.get('kind')!r}")
        _expect(msgspec.convert(table, engine.settings_type) == settings, f"{settings} is not read back as it was")


async def _strategies_round_trip(engine: AnyEngine) -> None:
    for kind in get_args(StrategyKind):
        for n_max in (None, 4):
            settings = engine.settings_type(name="example", strategy=kind, n_max=n_max)
            _expect(settings.as_started == Strategy(kind, n_max), f"strategy = {kind!r} becomes {settings.as_started}")
            (lane,) = settings.lanes()
            _expect(lane.name == "example", f"an engine with one strategy has a lane {lane.name!r}, not named like it")
    for abilities in _abilities():
        lanes = engine.settings_type(name="example").lanes(abilities)
        names = {lane.name for lane in lanes}
        _expect(len(names) == len(lanes), f"two lanes have one name: {sorted(lane.name for lane in lanes)}")
        _expect(
            not abilities.drafters or {lane.strategy for lane in lanes} == set(_strategies(abilities)),
            f"its lanes are not what it was found able to do: {sorted(names)}",
        )


async def _prepare_changes_only_what_it_says(engine: AnyEngine) -> None:
    for request in _requests(engine.written_fields):
        body, fields = request.body, msgspec.json.encode(request.fields)
        for abilities in _abilities():
            for strategy in _strategies(abilities):
                sent = engine.prepare(request, strategy, abilities, CONTROL)
                _expect(
                    sent == engine.prepare(request, strategy, abilities, CONTROL),
                    "the same request is changed anew",
                )
                _expect_kept(body, sent, engine.written_fields)
        _expect(msgspec.json.encode(request.fields) == fields, "prepare changes the request that it is given")


async def _an_observer_for_every_api(engine: AnyEngine) -> None:
    for api in Api:
        for is_stream in (False, True):
            for strategy in (Strategy(), Strategy("draft", 4)):
                observer = engine.observe(Request(api=api, path="/", body=b"{}", fields={}, stream=is_stream), strategy)
                passed_on = b"".join(observer.feed(piece, number / 10) for number, piece in enumerate(PIECES))
                passed_on += observer.end(1.0) if is_stream else b""
                _expect(passed_on == b"".join(PIECES), f"an answer of {api} is not passed on as it came: {passed_on!r}")
                observed = observer.observation()
                _expect(not observed.drafted and not observed.decode_s, f"of garbage it observes {observed}")


async def _probe_survives_garbage(engine: AnyEngine) -> None:
    for status, body in GARBAGE:
        async with _server(status, body) as client:
            facts = await _documented(engine.probe(client), f"probe, answered {status} {body[:60]!r},")
            _expect(facts is None or isinstance(facts, Facts), f"probe returns {facts!r}")
    async with _server(0, b"") as client:
        _expect(await _documented(engine.probe(client), "probe of nobody") is None, "probe finds facts where nobody is")


async def _examination_survives_garbage(engine: AnyEngine) -> None:
    """Nothing is believed of garbage, and whatever an examination ends with, the engine serves as it was started."""
    for settings in _examples(engine):
        for status, body in (*GARBAGE, (0, b"")):
            case = f"examine, answered {status} {body[:60]!r},"
            async with _server(status, body) as client:
                examination = await _documented(engine.examine(client, settings), case)
                _expect(examination is None or isinstance(examination, Examination), f"{case} returns {examination!r}")
                examiner = Examiner(engine, settings)
                with contextlib.suppress(ConnectFailed, ConnectionLost):
                    await examiner.examine_if_due(client, Facts())
                lanes = [lane.name for lane in settings.lanes(examiner.abilities)]
                _expect(lanes == [settings.name], f"{case} makes requests choose among {lanes}")


async def _launch_checks_the_program(engine: AnyEngine) -> None:
    with contextlib.suppress(LaunchError):
        command = engine.launch(("paceline-no-such-program", "{port}"), 1)
        _expect(False, f"launch takes a program that is not there, as {command}")
    command = engine.launch((sys.executable, "--port={port}"), 4321)
    _expect("--port=4321" in command, f"launch does not fill in the port: {command}")
    variable = engine.key_variable((sys.executable, "--port={port}"))
    _expect(variable is None or variable.isidentifier(), f"key_variable returns {variable!r}")


async def _names_of_models_lead_to_themselves(engine: AnyEngine) -> None:
    for name in ("m", "org/model:8b", ""):
        full = engine.full_model_name(name)
        _expect(engine.full_model_name(full) == full, f"the full name of {name!r} is {full!r}, which has another one")


CHECKS: tuple[Callable[[AnyEngine], Awaitable[None]], ...] = (
    _kind_is_named,
    _settings_are_documented,
    _settings_round_trip,
    _strategies_round_trip,
    _prepare_changes_only_what_it_says,
    _an_observer_for_every_api,
    _probe_survives_garbage,
    _examination_survives_garbage,
    _launch_checks_the_program,
    _names_of_models_lead_to_themselves,
)


def _kind(engine: AnyEngine) -> str:
    return str(engine.settings_type.__struct_config__.tag)


def _expect(holds: object, problem: str) -> None:
    if not holds:
        raise AssertionError(problem)


def _expect_kept(body: bytes, sent: bytes, written_fields: frozenset[str]) -> None:
    """That a body differs from the one that was sent in the written fields alone, and that objects in those keep what
    the client wrote."""
    before, after = (msgspec.json.decode(text, type=dict[str, msgspec.Raw]) for text in (body, sent))
    for name in before.keys() | after.keys():
        old, new = before.get(name), after.get(name)
        if old is not None and new is not None and bytes(old) == bytes(new):
            continue
        _expect(name in written_fields, f"prepare changes the field {name}, which is not among its written_fields")
        if old is None:
            continue
        given, written = msgspec.json.decode(old), msgspec.json.decode(new) if new is not None else None
        keeps = isinstance(given, dict) and isinstance(written, dict) and given.items() <= written.items()
        _expect(keeps, f"prepare writes {written} over the client's own {name}, {given}")


def _examples(engine: AnyEngine) -> Iterator[EngineSettings]:
    """Settings of the kind: plain, drafting, and with all of the kind's own keys that take a text."""
    yield engine.settings_type(name="example")
    yield engine.settings_type(name="example", strategy="draft", n_max=4)
    hints = get_type_hints(engine.settings_type)
    own = set(engine.settings_type.__struct_fields__) - set(LocalEngineSettings.__struct_fields__)
    texts: dict[str, Any] = {
        name: ("example",) if get_origin(hints[name]) is tuple else "example"
        for name in own
        if str in (hints[name], *get_args(hints[name])) and get_origin(hints[name]) is not dict
    }
    if texts:
        yield engine.settings_type(name="example", strategy="draft", **texts)


def _abilities() -> Iterator[Abilities]:
    yield AS_STARTED
    yield Abilities((Drafter("draft", "small", 8),))
    yield Abilities((Drafter("draft", "small", None, "m"),))
    yield Abilities((Drafter("ngram", "ngram-simple", 12), Drafter("mtp", "draft-mtp", 3)))
    yield Abilities((Drafter("ngram", "ngram-simple", 12), Drafter("mtp", "draft-mtp", 3)), controls_drafts=True)


def _strategies(abilities: Abilities) -> list[Strategy]:
    return abilities.strategies() or [Strategy(), Strategy("draft", 4)]


def _requests(written_fields: frozenset[str]) -> Iterator[Request]:
    """Of all APIs, whole and streamed, also ones in which the client has written the fields itself."""
    base: dict[str, Any] = {"model": "m", "prompt": "Grüße", "temperature": 0.70, "x": {"y": [1, None]}}
    written: list[dict[str, Any]] = [{}]
    written += [{name: value} for name in sorted(written_fields) for value in ({"own": 1}, 7)]
    for api in Api:
        for is_stream in (False, True):
            for more in written:
                fields = base | more | ({"stream": True} if is_stream else {})
                body = json.dumps(fields, ensure_ascii=False, indent=1).encode()
                yield Request(api=api, path="/", body=body, fields=fields, model="m", stream=is_stream)


async def _documented(call: Awaitable[Any], case: str) -> Any:
    """What a call returns; ``None`` where it raises an error that it may raise."""
    try:
        async with asyncio.timeout(LIMIT_S):
            return await call
    except DOCUMENTED_ERRORS:
        return None
    except Exception as error:
        raise AssertionError(f"{case} raises {error!r}") from error


@contextlib.asynccontextmanager
async def _server(status: int, body: bytes) -> AsyncIterator[Client]:
    """Connections to a server that answers everything alike; with the status 0, by ending the connection."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while status:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: *(\d+)", head)
                await reader.readexactly(int(length[1]) if length else 0)
                writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n" % (status, len(body)) + body)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    client = Client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        yield client
    finally:
        client.close()
        server.close()
