"""What is private never leaves this machine: recording sinks stand in for cloud engines, and no byte may come there,
whatever is asked, is down, or is reloaded."""

import asyncio
import gzip
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.conftest import RunningGateway
from tests.fake_engine import ANSWER, FakeEngine, Received, Wire, token
from tests.recording_sink import RecordingSink

from paceline.engines import ENGINES
from paceline.settings import LocalEngineSettings, RoutingSettings

REQUESTS = 5_000
AT_ONCE = 24
MARK = "zqx-private-"
"""In every private request, somewhere."""
PUBLIC = "zqx-public-"
PUBLIC_KEY, LEGAL_KEY, ADMIN_KEY = "key-public", "key-legal", "key-admin"

RULES = f"""
server.port = 0
server.health_interval_s = 0.1
server.queue_timeout_s = 0.3
server.connect_timeout_s = 1
server.first_byte_timeout_s = 2
server.admin_key = "{ADMIN_KEY}"
server.log_requests = false

[privacy]
paths = ["/v1/moderations", "/v1/legal/*"]
headers = ["x-team: legal", "x-confidential"]
patterns = ["(?i)patient \\\\d+", "\\\\bIBAN\\\\b"]
secrets = true

[[key]]
name = "everyone"
key = "{PUBLIC_KEY}"
paths = ["*"]

[[key]]
name = "legal"
key = "{LEGAL_KEY}"
paths = ["*"]
private = true

"""
CLOUDS = [
    'kind = "openai"\ncloud = true\n',
    *(
        f'kind = "{kind}"\nmodels = ["m"]\napi_key = "env:SINK_KEY"\n'
        for kind, driver in ENGINES.items()
        if not issubclass(driver.settings_type, LocalEngineSettings)
    ),
]
"""What makes an engine a provider's."""
PRIVATE_MODEL = '[[model]]\nname = "house"\naliases = ["house-*"]\nprivate = true\n'
PUBLIC_MODEL = '[[model]]\nname = "coder"\n'


def configuration(local: FakeEngine, sinks: list[RecordingSink], dice: random.Random) -> str:
    """One of many: names of engines that change their sides, modes, deadlines, budgets, no local engine at all."""
    a, b, c = dice.sample(["gpu", "cloud", "other"], 3)
    has_local = dice.random() < 0.85
    own = 'kind = "openai"\n'
    sides = [(a, local.url, own)] * has_local
    # one is a cloud engine by its kind or a setting; the other by its address, which is none of this machine's
    sides += [(b, sinks[0].url, dice.choice(CLOUDS)), (c, sinks[1].url, own + "takes_private = false\n")]
    dice.shuffle(sides)
    engines = "".join(f'[[engine]]\nname = "{name}"\nurl = "{url}"\n{more}\n' for name, url, more in sides)
    names = [name for name, _, _ in sides]
    offers = "".join(
        f'[[model.offer]]\nengine = "{name}"\nmodel = "m"\nquality = {dice.random():.2f}\n' for name in names
    )
    lanes = f"lanes = {json.dumps(names)}\n"
    mode = dice.choice(["local-first", "balanced", "fastest", "cheapest", "best"])
    more = f'[placement]\nmode = "{mode}"\n'
    if dice.random() < 0.3:
        more += "deadline_s = 0.001\n"
    if dice.random() < 0.3:
        more += "[[budget]]\nlimit = 0.0001\n"
    more += '[[cloud]]\nname = "m"\ninput_price = 1.0\noutput_price = 2.0\n'
    if "hedging" in RoutingSettings.__struct_fields__ and dice.random() < 0.5:
        more += "[routing]\nhedging = true\n"
    if dice.random() < 0.3:
        more += f'[[rule]]\nlane = "{b}"\nmodel = "m"\n'
    models = [name + dice.choice([lanes, offers]) for name in (PRIVATE_MODEL, PUBLIC_MODEL)]
    dice.shuffle(models)  # the first of them serves requests that name none
    return RULES + "".join(models) + more + engines


@dataclass
class Asked:
    """A request, and whether it is private."""

    path: str
    body: bytes
    headers: dict[str, str]
    method: str = "POST"
    is_private: bool = False


@dataclass
class Client:
    """Makes requests of all kinds; each private one for one reason alone."""

    dice: random.Random
    number: int = 0
    kinds: Counter[str] = field(default_factory=Counter)

    def ask(self) -> Asked:
        self.number += 1
        is_private = self.dice.random() < 0.5
        mark = f"{MARK if is_private else PUBLIC}{self.number}"
        reason = self.dice.choice(REASONS) if is_private else ""
        self.kinds[reason or "public"] += 1
        headers = {"authorization": f"Bearer {PUBLIC_KEY}", "content-type": "application/json"}
        if self.dice.random() < 0.3:
            headers["x-request-id"] = mark
        if self.dice.random() < 0.3:
            headers["x-paceline-deadline-ms"] = self.dice.choice(["1", "50", "100000"])
        if self.dice.random() < 0.1:
            headers["x-paceline-max-cost"] = self.dice.choice(["0", "0.5"])
        if self.dice.random() < 0.3:
            headers["x-paceline-lane"] = self.dice.choice(["gpu", "cloud", "other"])
        model = self.dice.choice(["coder", "m", "unknown-model", None])
        text = f"please look at {mark}"
        # 1. Why it is private.
        path = self.dice.choice(PATHS)
        if reason == "header":
            headers["x-paceline-private"] = "yes"
        elif reason == "team":
            headers["x-team"] = "legal"
        elif reason == "confidential":
            headers["x-confidential"] = "whatever"
        elif reason == "key":
            headers["authorization"] = f"Bearer {LEGAL_KEY}"
        elif reason == "model":
            model = self.dice.choice(["house", "HOUSE", "house-large"])
        elif reason == "path":
            path = self.dice.choice(["/v1/moderations", "/v1/legal/search"])
        elif reason == "pattern":
            text += self.dice.choice([" of Patient 4711", " \n\nIBAN\n"])
        elif reason == "secret":
            text += " -----BEGIN RSA PRIVATE KEY----- "
        # 2. Its body, in one of the forms that clients write.
        body = self._body(path, text, model, mark)
        if path == "/v1/files":
            headers["content-type"] = "multipart/form-data; boundary=xxx"
        elif self.dice.random() < 0.1:
            body, headers["content-encoding"] = gzip.compress(body), "gzip"
        method = "POST"
        if reason in ("header", "team", "key") and self.dice.random() < 0.1:
            path, body, method = f"/v1/responses/{mark}", b"", "GET"
            headers.pop("content-encoding", None)
        return Asked(path, body, headers, method, is_private)

    def _body(self, path: str, text: str, model: str | None, mark: str) -> bytes:
        if path == "/v1/files":
            lines = ["--xxx", 'Content-Disposition: form-data; name="model"', "", model or "m", "--xxx"]
            lines += ['Content-Disposition: form-data; name="file"; filename="a.txt"', "", text, "--xxx--", ""]
            return "\r\n".join(lines).encode()
        fields: dict[str, Any] = {} if model is None else {"model": model}
        if path in ("/v1/chat/completions", "/v1/messages"):
            fields["messages"] = self._messages(text)
        elif path == "/v1/responses":
            fields["input"] = text
            if self.dice.random() < 0.5:
                fields["previous_response_id"] = f"resp-{mark}"
        elif path == "/infill":
            fields |= {"input_prefix": text, "input_suffix": ""}
        else:
            fields |= {"prompt": text, "input": text, "content": text}
        if self.dice.random() < 0.3:
            fields["stream"] = True
        if self.dice.random() < 0.02:
            fields["padding"] = "long words " * 40_000
        return json.dumps(fields, ensure_ascii=self.dice.random() < 0.5).encode()

    def _messages(self, text: str) -> list[dict[str, Any]]:
        shape = self.dice.randrange(5)
        if shape == 0:
            return [{"role": "user", "content": text}]
        if shape == 1:  # further up in the conversation
            return [
                {"role": "user", "content": text},
                {"role": "assistant", "content": "I see."},
                {"role": "user", "content": "And now?"},
            ]
        if shape == 2:  # in a tool's result
            call = {"id": "c1", "type": "function", "function": {"name": "read", "arguments": "{}"}}
            return [
                {"role": "user", "content": "read it"},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c1", "content": text},
            ]
        if shape == 3:  # in a tool's call: JSON within JSON
            call = {"id": "c1", "type": "function", "function": {"name": "w", "arguments": json.dumps({"x": text})}}
            return [
                {"role": "user", "content": "write it"},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c1", "content": "done"},
            ]
        return [{"role": "user", "content": [{"type": "text", "text": text}, {"type": "text", "text": "Go on."}]}]


PATHS = (
    *("/v1/chat/completions",) * 4,
    *("/v1/completions", "/v1/responses", "/v1/messages", "/completion", "/infill"),
    *("/v1/embeddings", "/tokenize", "/v1/files", "/v1/unheard/of"),
)
REASONS = ("header", "team", "confidential", "key", "model", "path", "pattern", "secret")


def moody(dice: random.Random) -> Callable[[Received, Wire], Any]:
    """An engine that answers, most of the time."""

    async def script(received: Received, wire: Wire) -> None:
        mood = dice.random()
        if received.method == "GET":
            await wire.json({"error": {"message": "not found"}}, 404)
        elif mood < 0.08:
            await wire.json({"error": {"message": "no"}}, dice.choice([500, 503, 429]))
        elif mood < 0.12:
            wire.die()
            raise ConnectionError
        elif b'"stream": true' in received.body:
            await wire.stream_head()
            await wire.chunk(token("yes"))
            if mood < 0.16:
                wire.die()
                raise ConnectionError
            await wire.chunk(b"data: [DONE]\n\n")
            await wire.end()
        else:
            await asyncio.sleep(0.01 * dice.random())
            await wire.json(ANSWER)

    return script


@pytest.fixture
async def sinks() -> AsyncIterator[list[RecordingSink]]:
    dice = random.Random(3)
    sinks = [await RecordingSink(moody(dice)).start(), await RecordingSink(moody(dice)).start()]
    yield sinks
    for sink in sinks:
        await sink.stop()


async def test_no_private_byte_arrives_at_a_cloud_engine(
    sinks: list[RecordingSink], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SINK_KEY", "known-to-sinks")
    dice = random.Random(19)
    local = await FakeEngine(moody(random.Random(5))).start()
    running = RunningGateway(configuration(local, sinks, dice), tmp_path / "log", tmp_path / "state")
    await running.start()
    await running.lanes_settle()
    client, left, statuses = Client(random.Random(7)), iter(range(REQUESTS)), Counter[tuple[bool, int]]()
    is_over = asyncio.Event()

    async def ask() -> None:
        for _ in left:
            asked = client.ask()
            try:
                answer = await running.http.request(asked.method, asked.path, content=asked.body, headers=asked.headers)
                statuses[asked.is_private, answer.status_code] += 1
            except httpx2.HTTPError:  # cut off in the midst of a stream
                statuses[asked.is_private, 0] += 1

    async def trouble() -> None:
        """The local engine dies and comes back, and the configuration changes, all the time."""
        while not is_over.is_set():
            await asyncio.sleep(0.1 + 0.2 * dice.random())
            event = dice.random()
            if event < 0.3:
                port = local.port
                await local.stop()
                await asyncio.sleep(0.1 * dice.random())
                await local.start(port)
            elif event < 0.8:
                running.text = configuration(local, sinks, dice)
                await running.gateway.reload()

    troubling = asyncio.create_task(trouble())
    try:
        await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
    finally:
        is_over.set()
        await troubling
        await running.stop()
        await local.stop()
    # 1. No private byte.
    for sink in sinks:
        text = bytes(sink.seen)
        at = text.find(MARK.encode())
        assert at < 0, text[max(0, at - 1500) : at + 200]
        assert b"PRIVATE KEY" not in text
        assert LEGAL_KEY.encode() not in text
    # 2. Not since nothing was sent: each reason came often, public requests arrived there, private ones were served.
    assert min(client.kinds[reason] for reason in REASONS) > REQUESTS / 40
    assert all(sink.seen.count(PUBLIC.encode()) > 100 for sink in sinks), [len(sink.seen) for sink in sinks]
    assert statuses[True, 200] > REQUESTS / 20
    assert statuses[True, 403] > REQUESTS / 20
    assert sum(MARK.encode() in received.body for received in local.requests) > REQUESTS / 20
    assert running.gateway.pipeline.failures["placement"] == 0
