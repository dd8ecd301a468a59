"""The router by itself: what it chooses, in which order others follow, and that explaining changes nothing."""

import doctest
import gc
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.entries import entries

from paceline import (
    Decision,
    Lane,
    LaneState,
    Observation,
    Outcome,
    Policy,
    Request,
    Router,
    RoutingSettings,
    Rule,
    Signals,
    Strategy,
    Task,
)
from paceline.decision import EXPLORATION
from paceline.routing import router as router_module
from paceline.types import LOGPROBS

PLAIN, NGRAM = Lane("plain", "plain", Strategy(), "gpu"), Lane("ngram", "ngram", Strategy("ngram", 8), "gpu")
MTP = [Lane(f"mtp/{cap}", "mtp", Strategy("mtp", cap), "gpu") for cap in (0, 2, 4)]
NOW_S = 1.7e9
EXPLORING = RoutingSettings(exploration=0.3)
NEVER = RoutingSettings(exploration=0)


def asking(text: str, **fields: Any) -> Request:
    return Request.of({"messages": [{"role": "user", "content": text}]} | fields)


EDIT = asking(
    "Correct the spelling, and print the whole text again:\n" + "The hous is read and the gras is grean. " * 20
)
STORY = asking("Tell me a story about a lighthouse.")


def served(decision: Decision, s_per_token: float = 0.02, number: int = 0) -> Outcome:
    observed = Observation(completion_tokens=100, decode_tokens=100, decode_s=100 * s_per_token)
    return Outcome(decision.lane, 200, 100 * s_per_token + 0.1, observed=observed, at_s=NOW_S + number)


def states(*lanes: Lane, **how: Any) -> list[LaneState]:
    return [LaneState(lane, model="m", **how) for lane in lanes]


def use(policy: Policy, requests: int) -> list[Decision]:
    """Decide on requests, one after another, and learn from each."""
    decisions = []
    for number in range(requests):
        decision = policy.choose(EDIT if number % 3 else STORY, Signals(), states(PLAIN, NGRAM, *MTP))
        policy.observe(decision, served(decision, 0.01 + 0.001 * (number % 5), number))
        decisions.append(decision)
    return decisions


# Explaining


def test_of_two_like_routers_the_one_that_explains_a_hundred_times_chooses_as_the_other() -> None:
    quiet, asked = (Router([PLAIN, NGRAM, *MTP], EXPLORING, seed=3) for _ in range(2))
    first, _ = use(asked, 20), use(quiet, 20)
    before = entries(asked.knowledge)
    for number in range(100):
        asked.explain(EDIT if number % 2 else STORY)
    assert entries(asked.knowledge) == before
    chosen = use(asked, 40)
    assert chosen == use(quiet, 40)
    assert len({decision.lane for decision in first + chosen}) > 1


def test_what_is_explained_is_what_is_chosen_next() -> None:
    router = Router([PLAIN, NGRAM, *MTP], EXPLORING, seed=1)
    explored = 0
    for number in range(60):
        explained = router.explain(STORY)
        decision = router.choose(STORY)
        assert decision == explained
        explored += decision.propensity < 0.5
        router.observe(decision, served(decision, number=number))
    assert explored, "also where it tries a lane that is not predicted to be the fastest"


def test_explaining_counts_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    router = Router([PLAIN, NGRAM])
    _break(monkeypatch, "decide")
    assert router.explain(STORY).lane == "plain"
    assert not router.failures


def test_what_exploration_may_cost_is_set_once() -> None:
    assert RoutingSettings().exploration == EXPLORATION


# What goes before predictions


def test_the_lane_that_a_request_forces_is_taken_and_learned_of() -> None:
    router = Router([PLAIN, NGRAM], seed=0)
    decision = router.choose(replace(EDIT, forced_lane="plain"))
    assert (decision.lane, decision.reason, decision.alternatives) == ("plain", "the request forces this lane", ())
    router.observe(decision, served(decision))
    assert router.knowledge.measured["plain", "plain"].decode_tokens == 100


def test_of_the_engine_that_a_request_forces_the_best_lane_is_taken() -> None:
    decision = Router([PLAIN, *MTP], NEVER).choose(replace(EDIT, forced_lane="mtp"))
    best = min(decision.predictions, key=lambda name: decision.predictions[name].relative)
    assert decision.lane == best != "mtp/0"
    assert decision.reason.startswith("the request forces mtp; ")
    assert {decision.lane, *decision.alternatives} == {"mtp/0", "mtp/2", "mtp/4"}


def test_a_lane_that_nobody_has_is_not_forced() -> None:
    decision = Router([PLAIN, NGRAM], NEVER).choose(replace(EDIT, forced_lane="ngrm"))
    assert decision.lane == "ngram"
    assert decision.reason.startswith("there is no lane 'ngrm'; ")


def test_the_first_rule_that_fits_goes_before_predictions_and_the_other_lanes_follow() -> None:
    rules = [Rule(lane="ngram", task=Task.MATH), Rule(lane="plain", model="m"), Rule(lane="ngram", model="m")]
    decision = Router([NGRAM, PLAIN], rules=rules).choose(replace(EDIT, model="m"))
    assert (decision.lane, decision.reason, decision.alternatives) == ("plain", "rule: model m", ("ngram",))


def test_a_rule_whose_lane_is_down_does_not_count_but_one_whose_engine_failed_lately_does() -> None:
    router = Router([PLAIN, NGRAM], NEVER, rules=[Rule(lane="ngram", task=Task.CREATE)])
    plain, ngram = states(PLAIN, NGRAM)
    assert router.choose(STORY, lanes=[plain, replace(ngram, is_up=False, healthy=False)]).lane == "plain"
    assert router.choose(STORY, lanes=[plain, replace(ngram, healthy=False)]).lane == "ngram"


def test_a_rule_for_one_lane_of_an_engine_is_no_rule_for_its_others() -> None:
    router = Router([PLAIN, *MTP], NEVER, rules=[Rule(lane="mtp/4", task=Task.CREATE)])
    assert "rule" in router.choose(STORY).reason
    assert "rule" not in router.choose(STORY, lanes=states(PLAIN, *MTP[:2])).reason
    router.lanes = [PLAIN, Lane("mtp", "mtp", Strategy("mtp"), "gpu")]
    assert router.choose(STORY).lane == "mtp", "it is as it was started now, and the rule means the engine"


def test_lanes_that_would_change_what_a_request_means_are_kept_in_reserve() -> None:
    router = Router([NGRAM, PLAIN], NEVER)
    lanes = [LaneState(NGRAM, cannot_keep=LOGPROBS), LaneState(PLAIN)]
    request = asking("Fix this code: x = = 1", logprobs=True)
    decision = router.choose(request, lanes=lanes)
    assert (decision.lane, decision.alternatives) == ("plain", ("ngram",))
    assert decision.reason.startswith("logprobs kept by plain decoding alone; ")
    last_resort = router.choose(request, lanes=[lanes[0], replace(lanes[1], healthy=False)])
    assert last_resort.lane == "ngram"
    assert last_resort.reason.startswith("no lane is well that keeps logprobs; ")
    forced = router.choose(replace(request, forced_lane="ngram"), lanes=lanes)
    assert forced.lane == "ngram"
    assert forced.reason == "logprobs changed by its drafts; the request forces this lane"


# Failures


def _break(monkeypatch: pytest.MonkeyPatch, *parts: str) -> None:
    def broken(*_: object) -> object:
        raise RuntimeError("a defect")

    for part in parts:
        monkeypatch.setattr(f"paceline.routing.router.{part}", broken)


def test_whatever_fails_the_default_lane_is_chosen_and_the_failure_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    router = Router([PLAIN, NGRAM])
    _break(monkeypatch, "inspect", "decide", "foresee", "learn")
    decision = router.choose(EDIT)
    router.observe(decision, served(decision))
    assert (decision.lane, decision.alternatives) == ("plain", ("ngram",))
    assert router.failures == {"inspection": 1, "decision": 1, "prediction": 1, "learning": 1}


def test_rules_that_cannot_be_read_cost_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GONE", raising=False)
    router = Router([PLAIN, NGRAM], rules=[Rule(lane="ngram", api_key="env:GONE")])
    assert router.choose(EDIT).lane == "plain"
    assert router.failures == {"decision": 1}


def test_without_a_lane_there_is_nothing_to_choose() -> None:
    with pytest.raises(ValueError, match="no lane to choose from"):
        Router([]).choose(STORY)


# What is in flight, and what is learned


def test_threads_may_share_a_router() -> None:
    router = Router([PLAIN, NGRAM, *MTP], EXPLORING, seed=0)

    def ask(number: int) -> None:
        decision = router.choose(EDIT if number % 2 else STORY)
        router.observe(decision, served(decision, number=number))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(ask, range(400)))
    assert sum(sums.requests for sums in router.knowledge.measured.values()) == 400
    assert not router.failures


def running_on(router: Router, lane: str) -> float:
    """Predicted time per token of a lane, which grows with what runs beside it."""
    return router.explain(STORY).predictions[lane].relative


def test_a_decision_is_in_flight_until_it_is_observed_or_dropped() -> None:
    router = Router([PLAIN], NEVER)
    alone = running_on(router, "plain")
    first, second = router.choose(STORY), router.choose(STORY)
    two_run = running_on(router, "plain")
    router.observe(first, Outcome("plain", 503, 0.1, error="it failed", at_s=NOW_S))
    one_runs = running_on(router, "plain")
    assert alone < one_runs < two_run
    del second
    gc.collect()
    assert running_on(router, "plain") == alone


def test_decisions_on_lanes_whose_state_is_given_are_not_counted() -> None:
    router = Router([PLAIN], NEVER)
    alone = running_on(router, "plain")
    decision = router.choose(STORY, lanes=states(PLAIN))
    assert running_on(router, "plain") == alone
    router.observe(decision, served(decision))


def test_what_shall_not_teach_does_not() -> None:
    router = Router([PLAIN, NGRAM])
    decision = router.choose(replace(STORY, teaches=False))
    router.observe(decision, served(decision))
    assert not router.knowledge.measured
    assert decision.signals is not None


def test_each_model_is_learned_apart() -> None:
    router = Router([PLAIN], NEVER)
    decision = router.choose(replace(STORY, model="small"))
    router.observe(decision, served(decision))
    assert router.explain(replace(STORY, model="small")).predictions["plain"].s_per_token == pytest.approx(
        0.02, rel=0.01
    )
    assert router.explain(replace(STORY, model="large")).predictions["plain"].s_per_token is None


def test_an_outcome_without_a_time_is_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paceline.routing.router.time", lambda: NOW_S)
    router = Router([PLAIN])
    decision = router.choose(STORY)
    router.observe(decision, replace(served(decision), at_s=0.0))
    assert router.knowledge.totals.at_s == NOW_S


def test_what_was_learned_is_saved_loaded_and_merged(tmp_path: Path) -> None:
    path = tmp_path / "learned.sqlite"
    router = Router([PLAIN, NGRAM], seed=0)
    router.load(path)
    assert not path.exists()
    for lane in (PLAIN, NGRAM):
        decision = router.choose(replace(STORY, forced_lane=lane.name))
        router.observe(decision, replace(served(decision), at_s=time.time()))
    router.save(path)
    router.save(path)
    again = Router([PLAIN, NGRAM])
    again.load(path)
    assert entries(again.knowledge) == entries(router.knowledge)
    again.merge(router.knowledge)
    assert again.knowledge.measured["plain", "plain"].requests == 2


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder can't be written: "):
        Router([PLAIN]).save(tmp_path / "folder")
    with pytest.raises(OSError, match="folder can't be read: "):
        Router([PLAIN]).load(tmp_path / "folder")


class Always:
    """A policy of somebody else's."""

    def choose(self, request: Request, signals: Signals, lanes: Sequence[LaneState]) -> Decision:
        return Decision(lanes[0].lane.name, "always", signals=signals)

    def observe(self, decision: Decision, outcome: Outcome) -> None:
        pass


def test_the_router_and_others_are_policies_alike() -> None:
    policies: list[Policy] = [Router([PLAIN, NGRAM]), Always()]
    assert [len(use(policy, 3)) for policy in policies] == [3, 3]


def test_the_example_in_its_description_is_right() -> None:
    assert doctest.testmod(router_module) == (0, 4)
