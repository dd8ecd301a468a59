import pytest
from benchmarks.planning.speed import batches_of, cases, decode_of, prefill_of, verify_of
from hypothesis import given
from hypothesis import strategies as st

from paceline.planning.devices import CardClass
from paceline.planning.given_devices import given_machine
from paceline.planning.speed import (
    FIRST_LENGTHS,
    VERIFY,
    Experts,
    NotPredicted,
    Predicted,
    Step,
    class_of,
    decode_speed,
    experts_read,
    first_length,
    power_of,
    prefill_seconds,
    verify_cost,
)

MODEL = Step(weight_bytes=(16_100_000_000,), architecture="qwen35")
"""A 27B in four bits."""
HALVES = Step(weight_bytes=(8_050_000_000, 8_050_000_000), architecture="qwen35")


def predicted(answer: Predicted | NotPredicted) -> Predicted:
    assert isinstance(answer, Predicted), answer
    return answer


def test_the_range_holds_what_was_published_of_dense_models() -> None:
    found = [(decode_of(case), case) for case in cases("decode")]
    inside = [
        answer.low <= case["tokens_per_s"] <= answer.high for answer, case in found if isinstance(answer, Predicted)
    ]
    assert (sum(inside), len(inside)) == (39, 45)
    held_out = [
        answer.low <= case["tokens_per_s"] <= answer.high
        for answer, case in found
        if isinstance(answer, Predicted) and case.get("held_out")
    ]
    assert (sum(held_out), len(held_out)) == (13, 14)


def test_mixtures_and_sparse_attention_are_not_predicted() -> None:
    for case in cases("decode"):
        assert isinstance(decode_of(case), NotPredicted) == (case["architecture"] != "qwen35"), case["case"]


def test_verifying_costs_what_was_published() -> None:
    ratios = [
        predicted_cost / measured
        for kind, of in (("verify", verify_of), ("batches", batches_of))
        for case in cases(kind)
        for _, measured, predicted_cost in of(case)
    ]
    near = sum(abs(ratio - 1) < 0.2 for ratio in ratios)
    assert near / len(ratios) >= 0.85


def test_prompts_are_read_as_fast_as_published() -> None:
    for case in cases("prefill"):
        answer = predicted(prefill_of(case))
        rate = case["tokens"] / case["tokens_per_s"]
        assert answer.low * 0.9 <= rate <= answer.high * 1.1, case["case"]


def test_layers_are_read_one_card_after_another_and_tensors_at_once() -> None:
    one = predicted(decode_speed(MODEL, given_machine("RTX 3090")))
    layers = predicted(decode_speed(HALVES, given_machine("2x RTX 3090"), "layer"))
    tensors = predicted(decode_speed(HALVES, given_machine("2x RTX 3090"), "tensor"))
    assert layers.middle == pytest.approx(one.middle)
    assert tensors.middle == pytest.approx(2 * one.middle)
    assert "16.1 GB a step over 936 GB/s" in layers.how
    assert "1,872 GB/s" in tensors.how


def test_context_makes_steps_slower_and_quantized_caches_more_so_for_their_bytes() -> None:
    machine = given_machine("V100 32GB")
    shallow = predicted(decode_speed(MODEL, machine))
    f16 = Step(weight_bytes=MODEL.weight_bytes, cache_bytes=(2_031_000_000,), architecture="qwen35")
    q8 = Step(weight_bytes=MODEL.weight_bytes, cache_bytes=(2_031_000_000,), cache_type="q8_0", architecture="qwen35")
    deep, quantized = predicted(decode_speed(f16, machine)), predicted(decode_speed(q8, machine))
    assert 1 / deep.middle - 1 / shallow.middle == pytest.approx(1 / 27.87 - 1 / 33.4, rel=0.1)  # as measured there
    assert quantized.middle < deep.middle
    assert "two public cases" in deep.how


@pytest.mark.parametrize(
    ("step", "gpus", "said"),
    [
        (Step(weight_bytes=(1,), architecture="deepseek4"), "RTX 3090", "deepseek4"),
        (Step(weight_bytes=(1,), has_experts=True), "RTX 3090", "mixtures of experts"),
        (Step(weight_bytes=(1,), host_bytes=1), "RTX 3090", "host's memory"),
        (Step(weight_bytes=(1,)), "24", "bandwidth"),
    ],
)
def test_what_no_measurement_supports_is_not_predicted(step: Step, gpus: str, said: str) -> None:
    answer = decode_speed(step, given_machine(gpus))
    assert isinstance(answer, NotPredicted)
    assert said in answer.why


def test_the_first_token_is_not_predicted_of_cards_without_a_figure() -> None:
    assert isinstance(prefill_seconds(4096, 27e9, 98304, given_machine("RTX 5090")), NotPredicted)
    assert isinstance(prefill_seconds(4096, 27e9, 98304, given_machine("RTX 3090, RTX 5090")), NotPredicted)


@given(st.sampled_from(sorted(VERIFY)), st.integers(0, 16), st.floats(0.3, 1.0))
def test_longer_drafts_cost_more(card_class: CardClass, drafted: int, power: float) -> None:
    experts = Experts(128, 8)
    assert verify_cost(0, card_class, experts=experts) == 1
    cost = verify_cost(drafted, card_class, power=power)
    assert cost < verify_cost(drafted + 1, card_class, power=power)
    assert cost <= verify_cost(drafted, card_class, experts=experts, power=power)


def test_experts_of_further_tokens_are_their_own() -> None:
    assert [round(experts_read(tokens, Experts(256, 8)), 2) for tokens in (1, 2, 3, 4, 5)] == [1, 1.97, 2.91, 3.82, 4.7]
    assert experts_read(10_000, Experts(128, 4)) == pytest.approx(32)


def test_the_first_length_is_the_class_s() -> None:
    assert set(FIRST_LENGTHS) == set(VERIFY)
    assert [first_length(name) for name in ("blackwell", "ada", "ampere", "apple")] == [4, 3, 2, 1]
    assert first_length("blackwell", has_experts=True) == 2


def test_all_wait_for_the_card_that_verifies_dearest() -> None:
    assert class_of(given_machine("RTX 3090, RTX 5090")) == "ampere"
    assert class_of(given_machine("24,24")) == "unknown"
    assert power_of(given_machine("RTX 3090")) == 1
