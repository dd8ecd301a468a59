"""The worlds of ``benchmarks/worlds`` keep what they promise; ``python -m benchmarks.worlds`` runs policies in them."""

from collections.abc import Mapping

import numpy as np
import pytest
from benchmarks.worlds import REPORTING_SEEDS, TUNING_SEEDS
from benchmarks.worlds.catalogue import worlds
from benchmarks.worlds.counted import CountedWorld
from benchmarks.worlds.policies import POLICIES, EmaByBatchSize, RepetitionGate, Ucb, paceline, policy
from benchmarks.worlds.published import (
    acceptance_by_position,
    content_costs,
    idle_tax,
    numbers,
    request_spread,
    shifted,
    step_costs,
    tokens_per_step,
    with_share,
)
from benchmarks.worlds.run import hindsight, run
from benchmarks.worlds.tables import result, summary, table
from benchmarks.worlds.traffic import Traffic

from paceline import LaneState, Observation, Outcome, Signals
from paceline.types import Api, Lane, Request, Strategy

pytestmark = pytest.mark.slow

REQUESTS = 400
REQUEST = Request(Api.OPENAI_CHAT, "/v1/chat/completions", b"", {})
ALL = sorted(worlds())


def traffic(name: str, requests: int = REQUESTS, seed: int = 1000) -> Traffic:
    return worlds()[name].traffic(requests, seed)


def best_lanes(drawn: Traffic) -> Mapping[str, str]:
    """By kind: the lane that is the best for all its requests."""
    found = {}
    for kind in set(drawn.kinds):
        rows = [number for number, name in enumerate(drawn.kinds) if name == kind]
        found[kind] = drawn.lanes[int(drawn.expected_s[rows].sum(axis=0).argmin())].name
    return found


def test_every_table_names_its_source() -> None:
    for section, tables in numbers().items():
        for name, content in tables.items() if "source" not in tables else [(section, tables)]:
            assert content["source"], name


def test_tuning_and_reporting_share_no_seed() -> None:
    assert not set(TUNING_SEEDS) & set(REPORTING_SEEDS)


@pytest.mark.parametrize("curve", sorted(numbers()["curves"]))
def test_acceptance_stays_on_the_published_curve(curve: str) -> None:
    acceptance = acceptance_by_position(curve)
    published = np.maximum.accumulate(numbers()["curves"][curve]["lengths"])
    made = [float(tokens_per_step(acceptance, drafted)) for drafted in range(1, len(published) + 1)]
    assert all(length <= limit + 1e-9 for length, limit in zip(made, published, strict=True))
    assert np.allclose(made[:3], published[:3])
    assert ((acceptance >= 0) & (acceptance <= 1)).all()


def test_shifting_moves_every_position_the_same_way() -> None:
    acceptance = acceptance_by_position("glm-52-mtp")
    assert (shifted(acceptance, 0.5)[:7] > acceptance[:7]).all()
    assert shifted(acceptance, np.array([0.0, -1.0])).shape == (2, 8)
    fitted = with_share(acceptance, 3, 0.5)
    assert float(tokens_per_step(fitted, 3)) == pytest.approx(2.5)


def test_step_costs_go_on_by_the_slope() -> None:
    costs = step_costs("rtx-5090", 8)
    assert costs[0] == 1.0
    assert costs[6] == 2.06
    assert costs[8] > costs[7] > costs[6]
    assert idle_tax(2) == pytest.approx(0.066)
    assert idle_tax(189) == pytest.approx(0.216)
    assert 0.3 < request_spread() < 0.6
    factors = content_costs("qwen36-35b-a3b-3060", "qwen36-35b-a3b-3060")
    assert factors["summarise"] < 1 < factors["answer"]


@pytest.mark.parametrize("name", ALL)
def test_a_world_is_sound(name: str) -> None:
    assert worlds()[name].about
    drawn, again, other = traffic(name), traffic(name), traffic(name, seed=1001)
    assert np.array_equal(drawn.observed_s, again.observed_s)
    assert drawn.signals == again.signals
    assert not np.array_equal(drawn.observed_s, other.observed_s)
    assert drawn.expected_s.shape == (REQUESTS, len(drawn.lanes))
    assert (drawn.expected_s > 0).all()
    assert len({lane.name for lane in drawn.lanes}) == len(drawn.lanes)
    for number in range(0, REQUESTS, 40):
        for column, lane in enumerate(drawn.lanes):
            seen = drawn.observation(number, column)
            assert seen.decode_tokens
            if not lane.strategy.drafts or drawn.drafted is None:
                assert seen.drafted is None
                continue
            assert seen.drafted is not None
            assert seen.accepted is not None
            assert seen.accepted <= seen.drafted
            assert seen.accepted < seen.decode_tokens
            if positions := seen.accepted_by_position:
                assert sum(positions) == seen.accepted
                assert list(positions) == sorted(positions, reverse=True)
                assert positions[0] <= (seen.drafting_steps or 0)


@pytest.mark.parametrize("name", ALL)
def test_what_is_observed_is_what_is_expected_on_average(name: str) -> None:
    drawn = traffic(name, requests=1500)
    paces = drawn.observed_s.sum(axis=0) / drawn.tokens.sum(axis=0)
    lengths = drawn.tokens.mean() if drawn.drafted is None else drawn.tokens[:, 0].mean()
    expected = drawn.expected_s.mean(axis=0) / lengths
    assert paces == pytest.approx(expected, rel=0.06)


@pytest.mark.parametrize("name", ALL)
def test_the_oracle_is_never_beaten(name: str) -> None:
    drawn = traffic(name, requests=150)
    oracle = drawn.expected_s.min(axis=1)
    sound = dict(hindsight(drawn))
    sound.pop("acceptance gate (imp)", None)  # it changes lanes within a request
    sound |= {label: run(drawn, make, 1000) for label, make in POLICIES.items()}
    for label, seconds in sound.items():
        assert (seconds >= oracle - 1e-12).all(), label
    static = min(float(seconds.sum()) for label, seconds in sound.items() if label.startswith("always "))
    assert sound["knows the tasks"].sum() <= static + 1e-9
    assert sound["knows the kinds"].sum() <= static + 1e-9


def test_drafting_never_pays_for_any_task() -> None:
    assert set(best_lanes(traffic("never-pays", 2000)).values()) == {"plain"}


def test_the_sign_flips_with_load() -> None:
    drawn = traffic("load-mi355x")
    alone, crowded = drawn.expected_s[drawn.beside == 0], drawn.expected_s[drawn.beside == 31]
    assert alone[:, 0].sum() / alone[:, 1].sum() == pytest.approx(1.75, rel=0.1)
    assert crowded[:, 0].sum() / crowded[:, 1].sum() == pytest.approx(0.63, rel=0.1)


def test_an_idle_drafter_is_never_worth_having() -> None:
    drawn = traffic("idle-drafter")
    assert (drawn.expected_s[:, 1] > drawn.expected_s[:, 0]).all()
    assert drawn.lanes[0].engine != drawn.lanes[1].engine
    crowded = drawn.expected_s[drawn.beside == 63].sum(axis=0)
    assert crowded[0] < crowded[2]


def test_only_who_asks_tells_two_applications_apart() -> None:
    for name, least in (("two-applications", 0.02), ("agents", 0.01)):
        drawn = traffic(name, 1000)
        oracle, known = drawn.expected_s.min(axis=1).sum(), hindsight(drawn)
        assert oracle / known["knows the kinds"].sum() - oracle / known["knows the tasks"].sum() > least
        assert all(signals.conversation for signals in drawn.signals)


def test_a_task_is_turned_upside_down_where_it_is_said() -> None:
    for name in ("falls", "rises", "falls-to-nothing", "rises-from-nothing"):
        changes = worlds()[name].changes
        assert changes
        kind, since = changes
        drawn = traffic(name, 1500)
        columns = []
        for span in (range(since), range(since, len(drawn))):
            rows = [number for number in span if drawn.kinds[number] == kind]
            columns.append(int(drawn.expected_s[rows].sum(axis=0).argmin()))
        assert (columns[0] > columns[1]) == name.startswith("falls")
        assert drawn.epochs[since - 1] == 0
        assert drawn.epochs[since] == 1


def test_what_else_is_nasty() -> None:
    tokens = np.sort(traffic("heavy-tails", 2000).tokens[:, 0])
    assert tokens[-200:].sum() > 0.4 * tokens.sum()
    assert np.mean([kind == "create" for kind in traffic("one-task", 2000).kinds]) > 0.97
    drawn = traffic("wrong-labels", 2000)
    wrong = np.mean([signals.task != kind for signals, kind in zip(drawn.signals, drawn.kinds, strict=True)])
    assert 0.3 < wrong < 0.45
    drawn = traffic("never-accepts")
    assert drawn.accepted is not None
    assert drawn.drafted is not None
    assert drawn.accepted[:, 1:4].sum() < 0.12 * drawn.drafted[:, 1:4].sum()
    assert traffic("no-counts").drafted is None
    assert len(traffic("twelve-lanes").lanes) == 12
    drawn = traffic("throttling", 1000)
    assert drawn.epochs[-1] == 3
    drifting, slow = traffic("drift", 1000), traffic("slow-plain")
    assert (slow.expected_s[:, 0] > slow.expected_s[:, 1]).all()
    changed = [number for number in range(1, 1000) if drifting.epochs[number] != drifting.epochs[number - 1]]
    assert all(number % 60 == 0 for number in changed)
    assert len(changed) > 10


def test_no_world_follows_the_formula_of_the_decision() -> None:
    """Acceptance is no constant rate by position in any world that counts."""
    for world in worlds().values():
        if isinstance(world, CountedWorld):
            shapes = [one.acceptance for kinds in world.drafting.values() for one in kinds.values()]
            assert any(np.ptp(shape) > 0.02 for shape in shapes), world.name


def test_paceline_goes_through_a_world_without_a_failure() -> None:
    routers = []

    def make(seed: int) -> object:
        routers.append(paceline(seed))
        return routers[-1]

    drawn = traffic("twelve-lanes", 120)
    run(drawn, make, 1000)  # type: ignore[arg-type]
    assert not routers[0].failures
    assert len(routers[0].knowledge.measured) > 1


def lanes(*strategies: Strategy) -> list[LaneState]:
    return [LaneState(Lane(strategy.name, "engine", strategy)) for strategy in strategies]


def test_the_moving_average_lengthens_drafts_that_are_accepted() -> None:
    present = lanes(Strategy(), Strategy("mtp", 1), Strategy("mtp", 3), Strategy("mtp", 6))
    ema = EmaByBatchSize(0)
    assert ema.choose(REQUEST, Signals(), present).lane == "mtp-3"
    for _ in range(40):
        decision = ema.choose(REQUEST, Signals(), present)
        length = int(decision.lane.split("-")[1])
        seen = Observation(decode_tokens=10, decode_s=1.0, drafted=10 * length, accepted=10 * length, drafting_steps=10)
        ema.observe(decision, Outcome(decision.lane, 200, 1.0, observed=seen))
    assert ema.choose(REQUEST, Signals(), present).lane == "mtp-6"


def test_the_prompt_gate_looks_up_only_what_repeats() -> None:
    present = lanes(Strategy(), Strategy("mtp", 1), Strategy("mtp", 3), Strategy("ngram", 8))
    gate = RepetitionGate(0)
    assert gate.choose(REQUEST, Signals(copy=0.8), present).lane == "ngram-8"
    assert gate.choose(REQUEST, Signals(copy=0.0), present).lane == "mtp-3"
    assert gate.choose(REQUEST, Signals(copy=0.0), present[:1] + present[3:]).lane == "plain"


def test_the_bandit_finds_the_best_lane() -> None:
    present, bandit = lanes(Strategy(), Strategy("mtp", 1), Strategy("mtp", 3)), Ucb(0)
    paces = {"plain": 1.0, "mtp-1": 0.8, "mtp-3": 0.6}
    for _ in range(60):
        decision = bandit.choose(REQUEST, Signals(), present)
        seen = Observation(decode_tokens=100, decode_s=100 * paces[decision.lane])
        bandit.observe(decision, Outcome(decision.lane, 200, 100.0, observed=seen))
    assert bandit.choose(REQUEST, Signals(), present).lane == "mtp-3"


def test_a_policy_is_found_by_name_or_by_path() -> None:
    assert policy("UCB by task") is Ucb
    assert policy("benchmarks.worlds.policies:Ucb") is Ucb
    with pytest.raises(ValueError, match=r"no policy 'nothing'; there are .*paceline"):
        policy("nothing")


def test_tables_are_markdown_with_standard_errors() -> None:
    results = [result("falls", ["UCB by task"], 500, seed) for seed in (1000, 1001)]
    shown = table(results, ["UCB by task"])
    assert shown.startswith("**falls**. From request 300")
    assert "changed: 1-30" in shown
    assert "(best static)" in shown
    assert " ± " in shown
    assert "| falls | " in summary({"falls": results}, "UCB by task")
