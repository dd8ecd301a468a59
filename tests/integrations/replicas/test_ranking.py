"""Replicas that are alike are one engine to the Router; the order in which they are asked, and what each is told."""

from collections.abc import Sequence

import pytest

from paceline import Outcome, Router, RoutingSettings, Rule, Strategy, Task
from paceline.integrations.replicas.notes import (
    FIELD,
    Choice,
    Offer,
    OfferedLane,
    Tried,
    body_at,
    fields_of,
    note_in,
    offer_in,
    request_of,
    with_note,
)
from paceline.integrations.replicas.ranking import Candidate, Ranker, choice
from paceline.types import Observation

PLAIN, LOOKUP = OfferedLane("plain", Strategy()), OfferedLane("ngram-8", Strategy("ngram", 8))
STORY = {"messages": [{"role": "user", "content": "Tell me a story about a lighthouse."}]}
EDIT = {"messages": [{"role": "user", "content": "Rename x to y in this file:\n```\n" + "x = x + 1\n" * 40 + "```"}]}


def offer(engine: str, *lanes: OfferedLane, device: str = "", slots: int = 4, is_well: bool = True) -> Offer:
    return Offer(
        engine=engine,
        fingerprint=f"of {engine}",
        model="m",
        device=device or engine,
        lanes=lanes or (PLAIN, LOOKUP),
        slots=slots,
        is_well=is_well,
    )


def ranker(*rules: Rule, exploration: float = 0.0) -> Ranker:
    return Ranker(Router((), RoutingSettings(exploration=exploration), rules=rules, seed=1), seed=1)


def names(order: Sequence[Sequence[str]]) -> list[str]:
    return [name for group in order for name in group]


def test_of_replicas_that_are_alike_the_least_busy_is_asked_first() -> None:
    alike = offer("llama")
    candidates = [Candidate("a", 3, alike), Candidate("b", 1, alike), Candidate("c", 2, alike)]
    ranking = ranker().rank(request_of(STORY), candidates)
    assert names(ranking.order) == ["b", "c", "a"]
    assert ranking.decision is not None
    assert {lane.partition("/")[0] for lane in ranking.decision.predictions} == {"llama"}, "one engine to the Router"


def test_each_kind_of_replica_is_told_its_own_lane() -> None:
    candidates = [Candidate("a", 0, offer("plain", PLAIN)), Candidate("b", 0, offer("lookup", LOOKUP))]
    ranking = ranker().rank(request_of(EDIT), candidates)
    assert names(ranking.order) == ["b", "a"], "an edit repeats what stands in its prompt"
    told = choice(ranking, "router", 7)
    assert told is not None
    assert told.lanes == {"of plain": "plain/plain", "of lookup": "lookup/ngram-8"}
    assert (told.fingerprint, told.number) == ("of lookup", 7)


def test_engines_of_one_name_that_are_not_alike_are_told_apart() -> None:
    one, other = offer("llama", PLAIN), offer("llama", PLAIN)
    other = Offer("llama", "another", "m", "elsewhere", (PLAIN,))
    ranking = ranker().rank(request_of(STORY), [Candidate("a", 0, one), Candidate("b", 0, other)])
    assert set(ranking.lanes) == {"of llama", "another"}
    assert len(set(ranking.lanes.values())) == 2


def test_what_is_learned_of_one_replica_holds_for_its_siblings() -> None:
    ranking_of = ranker()
    alike = offer("llama")
    for number in range(12):
        ranking = ranking_of.rank(request_of(STORY), [Candidate("a", 0, alike)])
        decision = ranking.decision
        assert decision is not None
        s_per_token = 0.02 if decision.lane.endswith("plain") else 0.05
        observed = Observation(prompt_tokens=20, completion_tokens=100, decode_tokens=100, decode_s=100 * s_per_token)
        outcome = Outcome(decision.lane, 200, 100 * s_per_token, observed=observed, at_s=1e9 + number)
        ranking_of.router.observe(decision, outcome)
    ranking = ranking_of.rank(request_of(STORY), [Candidate("new", 0, alike)])
    assert names(ranking.order) == ["new"]
    assert ranking.decision is not None
    assert ranking.decision.predictions["llama/plain"].s_per_token == pytest.approx(0.02, rel=0.2)


def test_a_busy_device_is_busy_for_all_replicas_on_it() -> None:
    shared, alone = offer("shared", PLAIN, device="cpu"), offer("alone", PLAIN, device="gpu")
    candidates = [Candidate("a", 4, shared), Candidate("b", 0, shared), Candidate("c", 1, alone)]
    decision = ranker().rank(request_of(STORY), candidates).decision
    assert decision is not None
    assert decision.predictions["shared/plain"].concurrent == 4
    assert decision.predictions["alone/plain"].concurrent == 1


def test_requests_beyond_a_replicas_slots_wait_and_are_not_decoded() -> None:
    candidates = [Candidate("a", 10, offer("llama", PLAIN, slots=4))]
    decision = ranker().rank(request_of(STORY), candidates).decision
    assert decision is not None
    assert decision.predictions["llama/plain"].concurrent == 4


def test_a_conversation_stays_where_its_beginning_is_cached_unless_much_more_is_to_do_there() -> None:
    alike, ranking_of = offer("llama"), ranker()
    turn = STORY | {"user": "u", "session_id": "s"}
    first = names(ranking_of.rank(request_of(turn), [Candidate("a", 0, alike), Candidate("b", 0, alike)]).order)[0]
    other = "b" if first == "a" else "a"

    def next_turn(in_flight: int) -> str:
        candidates = [Candidate(first, in_flight, alike), Candidate(other, 0, alike)]
        return names(ranking_of.rank(request_of(turn), candidates).order)[0]

    assert next_turn(1) == first
    assert next_turn(5) == other


def test_who_is_ill_or_tells_nothing_or_has_failed_is_asked_last() -> None:
    candidates = [
        Candidate("tells nothing", 0, None),
        Candidate("ill", 0, offer("llama", is_well=False)),
        Candidate("failed", 0, offer("llama")),
        Candidate("well", 9, offer("llama")),
    ]
    order = names(ranker().rank(request_of(STORY), candidates, avoid=["failed"]).order)
    assert order[0] == "well"
    assert set(order) == {"well", "ill", "failed", "tells nothing"}, "but it is asked"


def test_where_nobody_tells_anything_the_least_busy_serves() -> None:
    ranking = ranker().rank(request_of(STORY), [Candidate("a", 2, None), Candidate("b", 1, None)])
    assert names(ranking.order) == ["b", "a"]
    assert choice(ranking, "router", 1) is None


def test_rules_name_lanes_of_engines() -> None:
    rule = Rule(lane="llama/plain", task=Task.EDIT)
    decision = ranker(rule).rank(request_of(EDIT), [Candidate("a", 0, offer("llama"))]).decision
    assert decision is not None
    assert decision.lane == "llama/plain"
    assert "rule" in decision.reason


# What they tell one another


def test_an_offer_comes_back_as_it_was_told() -> None:
    told = offer("llama", device="node/gpu")
    assert offer_in(told.told()) == told


@pytest.mark.parametrize("told", [None, {}, {FIELD: 1}, {FIELD: "{"}, {FIELD: '{"engine": 1}'}, {FIELD: "[" * 10_000}])
def test_what_is_no_offer_is_none(told: dict[str, object] | None) -> None:
    assert offer_in(told) is None


def test_a_note_in_a_body_is_seen_by_paceline_alone() -> None:
    note = Tried(("a",))
    body = with_note(STORY, note)
    assert note_in(body) == note
    assert FIELD not in STORY
    assert fields_of(body) == STORY


@pytest.mark.parametrize("said", ["yes", 1, {"replicas": ["a"]}, None])
def test_what_a_client_writes_in_its_place_counts_for_nothing(said: object) -> None:
    body = STORY | {FIELD: said}
    assert note_in(body) is None
    assert fields_of(body) == STORY


class AsPydantic:
    """What Ray's LLM deployments take: a model of pydantic's, as far as it is used."""

    def __init__(self, **fields: object) -> None:
        self.__dict__ |= fields

    def model_dump(self, *, exclude_unset: bool) -> dict[str, object]:
        assert exclude_unset
        return dict(self.__dict__)

    def model_copy(self, *, update: dict[str, object]) -> "AsPydantic":
        return AsPydantic(**self.__dict__ | update)


def test_models_of_pydantics_are_bodies_too() -> None:
    body = AsPydantic(**STORY)
    assert body_at(["x", body]) == 1
    told = with_note(body, Choice("r", 1, {}, "f", "why"))
    assert isinstance(note_in(told), Choice)
    assert fields_of(told) == STORY
    assert note_in(body) is None


def test_an_argument_that_is_no_generation_request_is_no_body() -> None:
    assert body_at([1, {"a": 1}, b"{}", None]) is None
