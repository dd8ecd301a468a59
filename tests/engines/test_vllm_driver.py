"""vLLM's driver alone, against a server that cuts drafts as Paceline's scheduler does. ``test_vllm.py`` runs vLLM."""

import json
from typing import Any

import pytest
from tests.conftest import StartEngine, StartGateway
from tests.fake_engine import Received, Script, Wire

from paceline.engines.vllm import Vllm
from paceline.inside.request_control import RequestControl
from paceline.inside.vllm_arguments import CONTROL, MIN_YIELD, N_MAX
from paceline.types import (
    Abilities,
    Api,
    DraftControl,
    DraftCounts,
    Drafter,
    DrafterControl,
    Observation,
    Request,
    Strategy,
)

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Print the file again."}]}
LONGEST = 6
USAGE = {"prompt_tokens": 9, "completion_tokens": 16, "total_tokens": 25}


def server(knows_control: bool = True) -> Script:
    """Every draft is right."""

    async def script(received: Received, wire: Wire) -> None:
        if received.target == "/version":
            await wire.json({"version": "0.32.0"})
            return
        arguments = received.json.get("vllm_xargs") or {}
        longest = int(arguments.get(N_MAX, LONGEST))
        control = None
        if knows_control and CONTROL in arguments:
            control = RequestControl(json.loads(arguments[CONTROL]), longest, True)
        histogram, left, lengths = [0] * (LONGEST + 1), 16, []
        while left > 0:
            length = control.limit(longest) if control else longest
            if control:
                control.generated([1] * (length + 1), length)
            histogram[length] += length > 0
            lengths += [length] if length else []
            left -= length + 1
        await wire.json({"choices": [], "usage": USAGE, "metrics": metrics(histogram, sum(lengths), lengths)})

    return script


def metrics(histogram: list[int], drafted: int, lengths: list[int] | None = None) -> dict[str, Any]:
    steps = {"per_step_accepted": lengths, "per_step_drafted": lengths} if lengths else {}
    return {
        "speculative_decoding": {
            **steps,
            "acceptance_histogram": histogram,
            "num_spec_steps": sum(histogram),
            "num_accepted_draft_tokens": sum(n * steps for n, steps in enumerate(histogram)),
            "num_draft_tokens": drafted,
            "num_spec_tokens": LONGEST,
        }
    }


CONFIGURED = '[[engine]]\nname = "v"\nkind = "vllm"\nurl = "{url}"\nstrategy = "mtp"\n'


@pytest.mark.parametrize(
    ("knows_control", "more", "lanes"),
    [
        (True, "", ["v/plain", "v/mtp"]),
        (True, "draft_control = false\n", ["v/plain", "v/mtp-1", "v/mtp-2", "v/mtp-3", "v/mtp-6"]),
        (False, "", ["v/plain", "v/mtp-1", "v/mtp-2", "v/mtp-3", "v/mtp-6"]),
    ],
    ids=["control", "not wanted", "an older scheduler"],
)
async def test_control_is_seen_by_its_effect(
    knows_control: bool, more: str, lanes: list[str], start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine(server(knows_control))
    running = await start_gateway(CONFIGURED.format(url=engine.url) + more)
    assert list(running.gateway.fleet.lanes) == lanes
    assert running.gateway.fleet.engines["v"].supervisor.warnings == ()
    await running.http.post("/v1/chat/completions", json=CHAT, headers={"x-paceline-lane": lanes[-1]})
    seen = (await running.outcome_number(1)).observed
    assert seen.accepted_by_position[0]
    assert list(seen.by_drafter) == ["mtp"]
    assert engine.requests[-1].json["vllm_xargs"][N_MAX] == LONGEST


ABLE = Abilities((Drafter("mtp", "mtp", LONGEST),), controls_drafts=True)
CONTROLLED = Strategy("mtp", among=(Strategy("mtp", LONGEST),))
KNOWN = DraftControl(1.5, {"mtp": DrafterControl((1.25, 1.4), (0.8, 0.7), {4: (0.9,)}, 9.0)})


@pytest.mark.parametrize(
    ("strategy", "control", "sent"),
    [
        (Strategy(), KNOWN, {N_MAX: 0}),
        (CONTROLLED, KNOWN, {N_MAX: LONGEST, CONTROL: {"costs": [1.25, 1.4], "acceptance": [0.8, 0.7], "weight": 9.0}}),
        (CONTROLLED, DraftControl(), {N_MAX: LONGEST}),
        (Strategy("mtp", 3), KNOWN, {N_MAX: 3, MIN_YIELD: 1.5}),
        (Strategy("mtp", 3), DraftControl(), {N_MAX: 3}),
    ],
    ids=["plain", "controlled", "nothing is known", "fixed", "fixed, nothing is known"],
)
def test_what_a_request_tells_the_scheduler(strategy: Strategy, control: DraftControl, sent: dict[str, Any]) -> None:
    def arguments(asked: dict[str, Any]) -> dict[str, Any]:
        request = Request(Api.OPENAI_CHAT, "/v1/chat/completions", json.dumps(asked).encode(), asked)
        written = json.loads(Vllm().prepare(request, strategy, ABLE, control))["vllm_xargs"]
        assert all(isinstance(value, (str, int, float)) for value in written.values())  # vLLM takes no other types
        return {name: json.loads(value) if name == CONTROL else value for name, value in written.items()}

    assert arguments(CHAT) == sent
    assert arguments(CHAT | {"vllm_xargs": {N_MAX: 1, "mine": "x"}}) == sent | {N_MAX: 1, "mine": "x"}


def observed(told: Any, strategy: Strategy) -> Observation:
    observer = Vllm().observe(Request(Api.OPENAI_CHAT, "/v1/chat/completions", b"{}", {}), strategy)
    observer.feed(json.dumps({"choices": [], "usage": USAGE, "metrics": told}).encode(), 1.0)
    return observer.observation()


def test_positions_are_read_from_how_much_steps_accepted() -> None:
    told = metrics([2, 1, 0, 3, 0, 0, 0], 18)
    seen = observed(told, Strategy("mtp", 3))
    assert (seen.drafted, seen.accepted, seen.drafting_steps) == (18, 10, 6)
    assert seen.accepted_by_position == (4, 3, 3)
    assert seen.by_drafter == {"mtp": DraftCounts(6, 18, 10, (4, 3, 3), (6, 4, 3))}
    assert observed(told, Strategy()).by_drafter == {}


def test_positions_of_drafts_that_were_cut_are_read_from_the_steps() -> None:
    told = metrics([2, 1, 0, 3, 0, 0, 0], 15)
    seen = observed(told, CONTROLLED)  # how often a position was verified is not known
    assert (seen.accepted_by_position, seen.by_drafter) == ((), {"mtp": DraftCounts(6, 15, 10)})
    steps = {"per_step_drafted": [1, 2, 1, 3, 4, 4], "per_step_accepted": [0, 0, 1, 3, 3, 3]}
    detailed = {"speculative_decoding": told["speculative_decoding"] | steps}
    expected = DraftCounts(6, 15, 10, (4, 3, 3, 0), (6, 3, 3, 2))
    assert observed(detailed, CONTROLLED).by_drafter == {"mtp": expected}
    for wrong in ({"per_step_drafted": [1]}, {"per_step_accepted": [0, 0, 1, 3, 3, 5]}, {"per_step_drafted": "all"}):
        other = {"speculative_decoding": detailed["speculative_decoding"] | wrong}
        assert observed(other, CONTROLLED).by_drafter == {"mtp": DraftCounts(6, 15, 10)}


def test_a_report_of_a_thousand_steps_is_read() -> None:
    told = metrics([0, 0, 0, 2000, 0, 0, 0], 6000)
    steps = {"per_step_drafted": [3] * 2000, "per_step_accepted": [3] * 2000}
    seen = observed({"speculative_decoding": told["speculative_decoding"] | steps}, CONTROLLED)
    assert seen.by_drafter["mtp"].verified_by_position == (2000, 2000, 2000)


@pytest.mark.parametrize(
    "wrong",
    [
        {"acceptance_histogram": [2, 1]},
        {"acceptance_histogram": "many"},
        {"acceptance_histogram": [-1, 7]},
        {"num_draft_tokens": 4},
        {"num_spec_steps": 0},
    ],
    ids=str,
)
def test_positions_that_can_t_be_true_are_not_read(wrong: dict[str, Any]) -> None:
    told = metrics([2, 1, 0, 3, 0, 0, 0], 18)
    seen = observed({"speculative_decoding": told["speculative_decoding"] | wrong}, Strategy("mtp", 3))
    assert (seen.accepted_by_position, seen.by_drafter) == ((), {})
