"""The linear model: sound as a policy, and good where it is easy to tell."""

from collections import Counter
from math import inf, log, nan

import numpy as np
import pytest
from benchmarks.worlds.catalogue import worlds
from benchmarks.worlds.linear_belief import MAX_KEYS, Belief, Changes, Recent
from benchmarks.worlds.linear_exploring import MAX_SHARE, expected_gain, explored
from benchmarks.worlds.linear_model import MAX_CONVERSATIONS, MAX_GROUPS, LinearModel
from benchmarks.worlds.linear_prior import Prior, Shapes, load_shapes
from benchmarks.worlds.run import hindsight, run
from benchmarks.worlds.traffic import CountedByPosition, Traffic

from paceline.types import Api, Lane, LaneState, Observation, Outcome, Request, Signals, Strategy, Task

pytestmark = pytest.mark.slow

REQUEST = Request(Api.OPENAI_CHAT, "/v1/chat/completions", b"", {})
SEED = 1000


def lanes(*strategies: Strategy, running: int = 0) -> list[LaneState]:
    return [LaneState(Lane(strategy.name, "engine", strategy), running=running) for strategy in strategies]


HEADS = lanes(Strategy(), *(Strategy("mtp", cap) for cap in (1, 2, 3, 4)))


def taught(name: str = "base", requests: int = 60) -> tuple[LinearModel, Traffic]:
    """A model after a world's first requests."""
    model, traffic = LinearModel(SEED), worlds()[name].traffic(requests, SEED)
    go_on(model, traffic)
    return model, traffic


def go_on(model: LinearModel, traffic: Traffic) -> list[str]:
    numbers = {lane.name: number for number, lane in enumerate(traffic.lanes)}
    taken = []
    for request, signals in enumerate(traffic.signals):
        decision = model.choose(REQUEST, signals, traffic.lane_states(int(traffic.beside[request])))
        taken.append(decision.lane)
        model.observe(decision, traffic.outcome(request, numbers[decision.lane], 0.0))
    return taken


def test_propensities_are_what_happens() -> None:
    model, traffic = taught("drafters-imp", 40)
    states, signals = traffic.lane_states(0), Signals(tasks={Task.CREATE: 1.0})
    decisions = [model.choose(REQUEST, signals, states) for _ in range(4000)]
    promised = decisions[0].propensities
    assert sum(promised.values()) == pytest.approx(1.0)
    assert len(promised) > 1
    counts = Counter(decision.lane for decision in decisions)
    for lane, share in promised.items():
        assert counts[lane] / len(decisions) == pytest.approx(share, abs=0.03)
    for decision in decisions:
        assert decision.propensity == promised[decision.lane] > 0


def test_explaining_changes_nothing() -> None:
    asked, silent = taught()[0], taught()[0]
    traffic = worlds()["base"].traffic(60, SEED + 1)
    for signals in (Signals(), traffic.signals[0], Signals(application="never met", conversation="nor this")):
        terms = asked.explain(signals, traffic.lane_states(3))
        assert set(terms) == {lane.name for lane in traffic.lanes}
    assert go_on(asked, traffic) == go_on(silent, traffic)


def test_the_terms_add_up_to_the_time() -> None:
    model, traffic = taught("two-applications", 200)
    for request in (10, 50, 190):
        true = [
            log(traffic.expected_s[request, lane] / traffic.tokens[request, lane]) for lane in range(len(traffic.lanes))
        ]
        terms = model.explain(traffic.signals[request], traffic.lane_states(0))
        assert [sum(term.values()) for term in terms.values()] == pytest.approx(true, abs=0.5)


def test_before_anything_is_known_the_terms_are_the_priors() -> None:
    terms = LinearModel(0).explain(Signals(tasks={Task.CREATE: 1.0}), HEADS)
    assert terms["plain"]["cost"] == terms["plain"]["strength"] == 0.0
    assert terms["mtp-3"]["strength"] > 0 > terms["mtp-3"]["length"]


def test_it_is_determined_by_its_seed() -> None:
    traffic = worlds()["agents"].traffic(120, SEED)
    first, again, other = (go_on(LinearModel(seed), traffic) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("name", ["card-m3-ultra", "two-applications", "load-mi355x"])
def test_it_is_no_worse_than_the_best_static_lane(name: str) -> None:
    traffic = worlds()[name].traffic(400, SEED)
    seconds = run(traffic, LinearModel, SEED)
    static = min(taken[100:].sum() for label, taken in hindsight(traffic).items() if label.startswith("always "))
    assert seconds[100:].sum() <= 1.005 * static


def test_exploring_pays_where_a_drafter_is_misjudged() -> None:
    traffic = worlds()["drafters-xinfer"].traffic(400, SEED)
    with_it = run(traffic, LinearModel, SEED)[100:].sum()
    without = run(traffic, lambda seed: LinearModel(seed, horizon=None), SEED)[100:].sum()
    assert with_it < 1.002 * without


def test_garbage_does_no_harm() -> None:
    model, traffic = taught()
    states, signals = traffic.lane_states(0), traffic.signals[0]
    decision = model.choose(REQUEST, signals, states)
    garbage = [
        Observation(),
        Observation(decode_s=0.0, decode_tokens=10),
        Observation(decode_s=-1.0, decode_tokens=10),
        Observation(decode_s=1.0, decode_tokens=-3),
        Observation(decode_s=nan, decode_tokens=10),
        Observation(decode_s=inf, decode_tokens=10),
        Observation(decode_s=1e-12, decode_tokens=10_000_000),
        Observation(decode_s=1e9, decode_tokens=1),
        Observation(decode_s=1.0, decode_tokens=10, drafted=5, accepted=900),
        Observation(decode_s=1.0, decode_tokens=10, drafted=-5, accepted=-900),
        CountedByPosition(decode_s=1.0, decode_tokens=10, drafted=8, accepted=4, accepted_by_position=(9, -20)),
    ]
    for observed in garbage:
        for lane in (decision.lane, "plain", "mtp-3", "no such lane"):
            for beside in (0.0, 1e9, inf, nan, -1.0):
                model.observe(decision, Outcome(lane, 200, 1.0, observed=observed, concurrent=beside))
    expected = [sum(terms.values()) for terms in model.explain(signals, states).values()]
    assert np.isfinite(expected).all()
    assert sum(model.choose(REQUEST, signals, states).propensities.values()) == pytest.approx(1.0)


def test_what_was_learned_can_be_saved_as_rows() -> None:
    for name in ("base", "load-trtllm", "drafters-imp"):
        model, traffic = taught(name, 150)
        states = traffic.lane_states(3)
        restored = LinearModel(SEED)
        restored.teach(model.evidence(), states)
        for signals in traffic.signals[:5]:
            learned, again = model.explain(signals, states), restored.explain(signals, states)
            for lane, terms in learned.items():
                for term in set(terms) - {"residual"}:
                    assert again[lane][term] == pytest.approx(terms[term], abs=1e-6), (name, lane, term)


def test_what_two_have_learned_adds_up() -> None:
    """The surer one counts more, and both make it surer."""
    first, traffic = taught("base", 100)
    second, both = LinearModel(1), LinearModel(SEED)
    go_on(second, worlds()["base"].traffic(100, SEED + 1))
    states = traffic.lane_states(0)
    both.teach([*first.evidence(), *second.evidence()], states)
    terms = [model.explain(Signals(tasks={Task.MATH: 1.0}), states)["mtp-3"] for model in (first, second, both)]
    low, high = sorted(sum(parts.values()) - parts["residual"] for parts in terms[:2])
    assert low - 0.05 <= sum(terms[2].values()) <= high + 0.05
    assert both._belief.covariance[0, 0] < first._belief.covariance[0, 0]


def test_what_it_remembers_is_bounded() -> None:
    model = LinearModel(0)
    for number in range(3 * MAX_GROUPS):
        signals = Signals(application=f"program {number}", conversation=f"talk {number}", reasoning=number % 2 == 0)
        decision = model.choose(REQUEST, signals, HEADS)
        observed = Observation(decode_s=1.0 + number % 3, decode_tokens=100)
        model.observe(decision, Outcome(decision.lane, 200, 1.0, observed=observed))
    shared = 1 + 2 * len(HEADS)
    assert model._belief.count == shared + 3 * MAX_GROUPS + MAX_CONVERSATIONS
    assert np.linalg.eigvalsh(model._belief.covariance).min() > -1e-9


def test_lanes_may_be_missing_but_not_new() -> None:
    model = taught()[0]
    present = [HEADS[0], HEADS[3]]
    for _ in range(50):
        assert model.choose(REQUEST, Signals(), present).lane in ("plain", "mtp-3")
    with pytest.raises(ValueError, match="'dspark-7' was not there"):
        model.choose(REQUEST, Signals(), [*HEADS, *lanes(Strategy("dspark", 7))])


def test_an_unknown_is_learned_as_a_mean_is() -> None:
    belief = Belief()
    index = belief.add(np.zeros(1), np.eye(1))
    indexes, factors = np.array([index]), np.ones(1)
    for value in (1.0, 0.5, 0.9):
        belief.observe(indexes, factors, value, 1.0)
    assert belief.mean[0] == pytest.approx(2.4 / 4)
    assert belief.covariance[0, 0] == pytest.approx(1 / 4)
    together = Belief()
    together.add(np.zeros(1), np.eye(1))
    together.observe_together(np.array([0]), np.ones((3, 1)), np.array([1.0, 0.5, 0.9]), np.eye(3))
    assert together.mean[0] == pytest.approx(2.4 / 4)


def test_a_dictionary_keeps_what_was_written_last() -> None:
    recent: Recent[int] = Recent()
    for number in range(MAX_KEYS + 5):
        recent[number] = number
        recent[0] = number
    assert len(recent) == MAX_KEYS
    assert 0 in recent
    assert 1 not in recent


def test_a_change_is_told_by_repeated_misses() -> None:
    changes = Changes(6.0)
    assert not any(changes.has("noisy", 2.0 * (-1) ** number, 1.0) for number in range(100))
    alarms = [changes.has("task", -2.5, 1.0) for _ in range(6)]
    assert alarms == [False, False, False, True, False, False]
    assert not changes.has("another", 5.0, 1.0)
    assert changes.has("another", 900.0, 1.0)


def test_a_task_that_changes_is_followed() -> None:
    traffic = worlds()["falls"].traffic(600, SEED)
    seconds, changed = run(traffic, LinearModel, SEED), [n for n in range(300, 600) if traffic.kinds[n] == "math"]
    assert traffic.expected_s[changed].min(axis=1).sum() / seconds[changed].sum() > 0.95


def test_only_what_may_turn_out_better_is_explored() -> None:
    behind, noise = np.array([0.0, 0.1, 0.1, 0.5]), np.full(4, 0.01)
    shares = explored(behind, np.array([0.0, 0.04, 1e-6, 0.01]), noise, [50.0] * 4)
    assert set(shares) == {1}
    assert 0 < shares[1] <= MAX_SHARE
    assert explored(behind, np.array([0.0, 0.04, 1e-6, 0.01]), noise, [0.5] * 4) == {}
    assert expected_gain(0.0, 1.0) == pytest.approx(0.3989, abs=1e-4)


def test_longer_drafts_are_expected_to_yield_and_cost_more() -> None:
    shapes = Shapes([state.lane for state in [*HEADS, *lanes(Strategy("ngram", 4), Strategy("ngram", 12))]])
    for shape in (shapes.cost, shapes.length, shapes.feels):
        assert shape[0] == 0.0
        assert (np.diff(shape[:5]) > 0).all()
        assert shape[6] > shape[5]
    assert shapes.shorter[3] == [1, 2, 3]
    for covariance in (
        shapes.cost_covariance(Prior()),
        shapes.length_covariance(Prior()),
        shapes.load_prior(Prior())[1],
    ):
        assert np.linalg.eigvalsh(covariance).min() > -1e-9


def test_load_is_told_apart_by_doublings() -> None:
    assert load_shapes(0.0) == []
    assert load_shapes(1.0) == [(0, 1.0)]
    assert load_shapes(7.0) == [(2, 1.0)]
    assert [knot for knot, _ in load_shapes(2.0)] == [0, 1]
    assert sum(share for _, share in load_shapes(2.0)) == pytest.approx(1.0)
    assert load_shapes(1e9) == [(6, 1.0)]
