"""MTPLX's driver against a server that answers as its source does (``_build_timings``, ``_public_mtplx_stats``,
``_request_depth_for_generation``). It was not run for real."""

import json
from typing import Any

import pytest
from tests.conftest import StartEngine, StartGateway
from tests.fake_engine import Received, Script, Wire, event

from paceline.engines.mtplx import Mtplx
from paceline.types import NO_CONTROL, Abilities, Api, Drafter, Observation, Request, Strategy

CHAT = {"messages": [{"role": "user", "content": "Print the file again."}]}
USAGE = {
    "prompt_tokens": 109,
    "completion_tokens": 17,
    "total_tokens": 126,
    "prompt_tokens_details": {"cached_tokens": 100},
}


def answer(depth: int, accepted: tuple[int, ...] = (5, 4, 2)) -> dict[str, Any]:
    """Of an answer that drafted so deep, 0 for none."""
    drafted, taken = 6 * depth, sum(accepted[:depth])
    return {
        "usage": USAGE,
        "mtplx_stats": {
            "generation_mode": "mtp" if depth else "ar",
            "accepted_drafts": taken,
            "drafted_tokens": drafted,
            "verify_calls": 6,
            "accepted_by_depth": list(accepted[:depth]),
            "drafted_by_depth": [6] * depth,
            **{f"time_of_part_{number}_s": number / 7 for number in range(600)},
        },
        "timings": {
            "prompt_n": 109,
            "predicted_n": 17,
            "prompt_ms": 90.0,
            "predicted_ms": 400.0,
            "prompt_per_second": 1211.1,
            "predicted_per_second": 42.5,
            "draft_n": drafted,
            "draft_n_accepted": taken,
        },
    }


def server(mode: str = "mtp", has_heads: bool = True, listens: bool = True, lowest: int = 1) -> Script:
    async def script(received: Received, wire: Wire) -> None:
        asked = received.json if listens else {}
        wanted = asked.get("generation_mode", mode)
        if wanted == "mtp" and not has_heads:
            await wire.json({"detail": "generation_mode 'mtp' requires a runtime loaded with MTP"}, 400)
            return
        depth = asked.get("depth", 3)
        if wanted == "mtp" and not lowest <= depth <= 3:
            await wire.json({"detail": f"draft depth must be between {lowest} and 3"}, 400)
            return
        await wire.json({"choices": [], **answer(depth if wanted == "mtp" else 0)})

    return script


def configured(url: str, strategy: str = "mtp") -> str:
    return f'[[engine]]\nname = "mac"\nkind = "mtplx"\nurl = "{url}"\nstrategy = "{strategy}"\n'


async def test_requests_choose_their_depth(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine(server(), models=("qwen",))
    running = await start_gateway(configured(engine.url))
    assert list(running.gateway.fleet.lanes) == ["mac/plain", "mac/mtp-1", "mac/mtp-2", "mac/mtp-3"]
    assert running.gateway.fleet.engines["mac"].supervisor.warnings == ()
    await running.http.post("/v1/chat/completions", json=CHAT, headers={"x-paceline-lane": "mac/plain"})
    asked = engine.requests[-1].json
    assert (asked["generation_mode"], asked.get("depth")) == ("ar", None)
    await running.http.post("/v1/chat/completions", json=CHAT, headers={"x-paceline-lane": "mac/mtp-2"})
    asked = engine.requests[-1].json
    assert (asked["generation_mode"], asked["depth"]) == ("mtp", 2)
    seen = (await running.outcome_number(2)).observed
    assert (seen.drafted, seen.accepted, seen.accepted_by_position) == (12, 9, (5, 4))


@pytest.mark.parametrize(
    ("script", "strategy", "lanes", "warning"),
    [
        (server(mode="ar"), "autoregressive", ["mac/plain", "mac/mtp-1", "mac/mtp-2", "mac/mtp-3"], None),
        (server(mode="ar", has_heads=False), "mtp", ["mac"], "drafted 0 tokens"),
        (server(listens=False), "mtp", ["mac"], None),
        (server(listens=False), "autoregressive", ["mac"], "configured as autoregressive, but drafted 18"),
        (server(lowest=2), "mtp", ["mac/plain", "mac/mtp"], None),
    ],
    ids=["plain by default", "no heads", "does not listen", "is not plain", "blocks"],
)
async def test_lanes_are_what_was_seen(
    script: Script,
    strategy: str,
    lanes: list[str],
    warning: str | None,
    start_engine: StartEngine,
    start_gateway: StartGateway,
) -> None:
    engine = await start_engine(script, models=("qwen",))
    running = await start_gateway(configured(engine.url, strategy))
    fleet = running.gateway.fleet
    assert list(fleet.lanes) == lanes
    running.assert_warned("mac", warning)
    if warning and "autoregressive" in warning:
        assert fleet.lanes["mac"].lane.strategy.drafts  # it is not offered as plain


def observed(body: bytes, is_stream: bool = False) -> Observation:
    request = Request(Api.OPENAI_CHAT, "/v1/chat/completions", b"{}", {}, stream=is_stream)
    observer = Mtplx().observe(request, Strategy("mtp", 3))
    observer.feed(body, 1.0)
    return observer.observation()


def test_drafts_are_read_by_depth_out_of_a_long_report() -> None:
    expected = Observation(
        prompt_tokens=9,
        cached_tokens=100,
        completion_tokens=17,
        prefill_s=0.09,
        decode_tokens=16,
        decode_s=0.4,
        drafted=18,
        accepted=11,
        drafting_steps=6,
        accepted_by_position=(5, 4, 2),
    )
    told = answer(3)
    assert len(json.dumps(told["mtplx_stats"])) > 8192
    text = 'it is "accepted_by_depth": [9, 9, 9]'
    choices = [{"index": 0, "message": {"content": text}}]
    assert observed(json.dumps({"choices": choices, **told}).encode()) == expected
    final = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], **told}
    assert observed(event(final) + event(b"[DONE]"), is_stream=True) == expected


def test_what_the_client_asks_for_stays() -> None:
    able = Abilities((Drafter("mtp", "mtp", 3),))
    for name in ("generation_mode", "depth", "draft_block_size"):
        request = Request(Api.OPENAI_CHAT, "/v1/chat/completions", b'{"%b": 1}' % name.encode(), {name: 1})
        assert Mtplx().prepare(request, Strategy("mtp", 2), able, NO_CONTROL) == request.body
