"""imp's driver against a server that answers as its source does (``parse_spec_field_``, ``add_spec_usage_``). It was
not run for real."""

import json
from typing import Any

import pytest
from tests.conftest import StartEngine, StartGateway
from tests.fake_engine import Received, Script, Wire, event

from paceline.engines.imp import Imp
from paceline.types import Api, Observation, Request, Strategy

CHAT = {"messages": [{"role": "user", "content": "Print the file again."}]}


def counts(drafted: int) -> dict[str, Any]:
    if not drafted:
        return {}
    return {
        "imp_spec_drafted": drafted,
        "imp_spec_accepted": drafted // 2,
        "imp_spec_emitted": drafted,
        "imp_spec_verify_steps": 5,
    }


def usage(drafted: int) -> dict[str, Any]:
    told = {"prompt_tokens": 9, "completion_tokens": 16, "total_tokens": 25}
    told["prompt_tokens_details"] = {"cached_tokens": 0}  # type: ignore[assignment]
    return told | ({"completion_tokens_details": counts(drafted)} if drafted else {})


def server(armed: int = 2, matches: bool = True, listens: bool = True) -> Script:
    """With a head that drafts so far, and an n-gram matcher that drafts 8 tokens of a text that repeats itself."""

    async def script(received: Received, wire: Wire) -> None:
        asked = received.json.get("speculative") if listens else None
        length, drafts = armed, asked is not False
        if isinstance(asked, dict):
            length = asked.get("mtp_k", armed)
            ceiling = armed or 16
            if not 0 <= length <= ceiling:
                armed_by = "the MTP chain depth this server armed"
                unarmed = "no MTP head is armed; the bound is the device chain cap"
                said = (
                    f'"speculative.mtp_k" is {length}, outside the accepted range 0..{ceiling} '
                    f"({armed_by if armed else unarmed})"
                )
                await wire.json({"error": {"message": said, "type": "invalid_request_error"}}, 400)
                return
        drafted = (10 * min(length, armed) + 8 * matches) * drafts
        await wire.json({"choices": [], "usage": usage(drafted)})

    return script


def configured(url: str, strategy: str = "mtp") -> str:
    return f'[[engine]]\nname = "imp"\nkind = "imp"\nurl = "{url}"\nstrategy = "{strategy}"\n'


async def test_requests_choose_the_head_the_matcher_or_neither(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine(server(), models=("qwen",))
    running = await start_gateway(configured(engine.url))
    assert running.gateway.fleet.engines["imp"].supervisor.warnings == ()
    sent = {
        "imp/plain": (False, None),
        "imp/mtp-1": ({"mtp_k": 1}, 18),
        "imp/mtp-2": ({"mtp_k": 2}, 28),
        "imp/ngram": ({"mtp_k": 0}, 8),
    }
    assert list(running.gateway.fleet.lanes) == list(sent)
    for number, (lane, (field, drafted)) in enumerate(sent.items()):
        await running.http.post("/v1/chat/completions", json=CHAT, headers={"x-paceline-lane": lane})
        assert engine.requests[-1].json["speculative"] == field
        assert (await running.outcome_number(number + 1)).observed.drafted == drafted


@pytest.mark.parametrize(
    ("script", "strategy", "lanes", "warning"),
    [
        (server(matches=False), "mtp", ["imp/plain", "imp/mtp-1", "imp/mtp-2"], None),
        (server(armed=0), "ngram", ["imp/plain", "imp/ngram"], None),
        (server(armed=0, matches=False), "autoregressive", ["imp"], None),
        (server(armed=0, matches=False), "mtp", ["imp"], "configured as mtp, but drafted 0"),
        (server(listens=False), "mtp", ["imp"], None),
        (server(listens=False), "autoregressive", ["imp"], "configured as autoregressive, but drafted 28"),
    ],
    ids=["head", "matcher", "plain", "drafts nothing", "does not listen", "is not plain"],
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
    running.assert_warned("imp", warning)
    if warning and "autoregressive" in warning:
        assert fleet.lanes["imp"].lane.strategy.drafts  # it is not offered as plain


@pytest.mark.parametrize(
    ("api", "document"),
    [
        (Api.OPENAI_CHAT, {"choices": [], "usage": usage(20)}),
        (Api.ANTHROPIC_MESSAGES, {"usage": {"input_tokens": 9, "output_tokens": 16, **counts(20)}}),
        (
            Api.OPENAI_RESPONSES,
            {"usage": {"input_tokens": 9, "output_tokens": 16, "output_tokens_details": counts(20)}},
        ),
    ],
)
def test_drafts_are_read_on_every_api(api: Api, document: dict[str, Any]) -> None:
    seen = observed(api, document)
    assert (seen.completion_tokens, seen.drafted, seen.accepted, seen.drafting_steps) == (16, 20, 10, 5)
    assert observed(api, document, Strategy()).drafted is None


def test_an_answer_without_counts_drafted_nothing() -> None:
    seen = observed(Api.OPENAI_CHAT, {"choices": [], "usage": usage(0)})
    assert (seen.drafted, seen.accepted, seen.drafting_steps) == (0, 0, 0)
    assert observed(Api.OPENAI_CHAT, {"choices": []}).drafted is None


def observed(api: Api, document: dict[str, Any], strategy: Strategy = Strategy("mtp", 2)) -> Observation:  # noqa: B008
    streams = (False, True) if api is Api.OPENAI_CHAT else (False,)
    found = []
    for is_stream in streams:
        observer = Imp().observe(Request(api, "/", b"{}", {}, stream=is_stream), strategy)
        observer.feed(event(document) + event(b"[DONE]") if is_stream else json.dumps(document).encode(), 1.0)
        found.append(observer.observation())
    assert len({(one.drafted, one.accepted, one.drafting_steps) for one in found}) == 1
    return found[0]
