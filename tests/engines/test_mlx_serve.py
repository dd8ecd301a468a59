"""mlx-serve's driver against a server that answers, and saves time, as its source does (``formatTimingsObject``,
``pickStreamMode``). It was not run for real."""

import asyncio
import json
from typing import Any

import pytest
from tests.conftest import StartEngine, StartGateway
from tests.fake_engine import Received, Script, Wire

from paceline.engines.mlx_serve import MlxServe
from paceline.types import Api, Observation, Request, Strategy

CHAT = {"messages": [{"role": "user", "content": "Print the file again."}]}
PLAIN_S = 0.08
TIMES_AS_FAST = {"enable_mtp": 4, "enable_drafter": 3, "enable_pld": 2}
"""In the order in which the server prefers them."""


def server(loaded: tuple[str, ...], default: tuple[str, ...] = ()) -> Script:
    async def script(received: Received, wire: Wire) -> None:
        asked = received.json
        on = [name for name in TIMES_AS_FAST if name in loaded and asked.get(name, name in default)]
        if received.target == "/v1/completions":
            await asyncio.sleep(PLAIN_S / (TIMES_AS_FAST[on[0]] if on else 1))
        await wire.json({"choices": [], "usage": USAGE, "timings": TIMINGS})

    return script


USAGE = {"prompt_tokens": 109, "completion_tokens": 17, "total_tokens": 126}
TIMINGS = {
    "prompt_n": 109,
    "cached_n": 100,
    "prompt_ms": 90.0,
    "prompt_per_second": 100.0,
    "predicted_n": 17,
    "predicted_ms": 400.0,
    "predicted_per_second": 42.5,
    "tokenize_ms": 0.2,
}


def about(loaded: tuple[str, ...]) -> dict[str, Any]:
    meta = {"drafter_loaded": "enable_drafter" in loaded, "mtp_loaded": "enable_mtp" in loaded}
    return {"context_length": 32768, "meta": {"architecture": "qwen3_5"} | meta}


def configured(url: str, strategy: str) -> str:
    return f'[[engine]]\nname = "mac"\nkind = "mlx-serve"\nurl = "{url}"\nstrategy = "{strategy}"\n'


@pytest.mark.parametrize(
    ("loaded", "default", "strategy", "lanes", "warning"),
    [
        (("enable_pld",), "enable_pld", "ngram", ["mac/plain", "mac/ngram"], None),
        (("enable_pld", "enable_mtp"), "enable_mtp", "mtp", ["mac/plain", "mac/ngram", "mac/mtp"], None),
        (
            ("enable_pld", "enable_drafter"),
            "enable_drafter",
            "dflash",
            ["mac/plain", "mac/ngram", "mac/dflash"],
            None,
        ),
        (("enable_pld",), "enable_pld", "autoregressive", ["mac/plain", "mac/ngram"], "but drafts save time"),
        ((), "", "ngram", ["mac"], "no drafts save any time"),
        ((), "", "autoregressive", ["mac"], None),
    ],
    ids=["lookup", "head", "dflash", "is not plain", "drafts nothing", "plain"],
)
async def test_lanes_are_what_saves_time(
    loaded: tuple[str, ...],
    default: str,
    strategy: str,
    lanes: list[str],
    warning: str | None,
    start_engine: StartEngine,
    start_gateway: StartGateway,
) -> None:
    engine = await start_engine(server(loaded, (default,)), models=("qwen",))
    engine.about = about(loaded)
    running = await start_gateway(configured(engine.url, strategy))
    assert list(running.gateway.fleet.lanes) == lanes
    running.assert_warned("mac", warning)
    facts = running.gateway.fleet.engines["mac"].supervisor.facts
    assert facts
    assert facts.context_tokens == 32768


async def test_each_lane_leaves_one_drafter_on(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    loaded = ("enable_pld", "enable_mtp")
    engine = await start_engine(server(loaded, ("enable_mtp",)), models=("qwen",))
    engine.about = about(loaded)
    running = await start_gateway(configured(engine.url, "mtp"))
    for lane, on in (("mac/plain", None), ("mac/ngram", "enable_pld"), ("mac/mtp", "enable_mtp")):
        await running.http.post("/v1/chat/completions", json=CHAT, headers={"x-paceline-lane": lane})
        asked = engine.requests[-1].json
        assert {name: asked[name] for name in TIMES_AS_FAST} == {name: name == on for name in TIMES_AS_FAST}
    await running.http.post("/v1/chat/completions", json=CHAT | {"enable_pld": True})
    assert "enable_mtp" not in engine.requests[-1].json


def test_times_are_read_and_cached_tokens_told_apart() -> None:
    def observed(document: dict[str, Any]) -> Observation:
        request = Request(Api.OPENAI_CHAT, "/v1/chat/completions", b"{}", {})
        observer = MlxServe().observe(request, Strategy("ngram"))
        observer.feed(json.dumps({"choices": [], **document}).encode(), 1.0)
        return observer.observation()

    assert observed({"usage": USAGE, "timings": TIMINGS}) == Observation(9, 100, 17, 0.09, 16, 0.4)
    assert observed({"usage": USAGE}) == Observation(109, None, 17)
