"""What a plan says of its speed."""

from tests.planning.hollow import hollow
from tests.planning.test_planner import planned

from paceline.planning.devices import Machine
from paceline.planning.given_devices import given_machine
from paceline.planning.memory import EXPERTS
from paceline.planning.plan import Plan, Wish
from paceline.planning.plan_speed import speed_sentences
from paceline.planning.planner import make_plan

GIB = 1 << 30


def said(name: str, gpus: str, wish: Wish | None = None) -> str:
    plan: Plan = planned(name, gpus, wish)
    return " ".join(speed_sentences(plan, hollow(name), given_machine(gpus, 64 * GIB)))


def test_a_dense_model_on_one_card() -> None:
    text = said("Qwen3.6-27B-Q4_K", "RTX 3090", Wish(context_tokens=131072))
    assert text.startswith("Speed: 32 to 51 tokens/s for one request that does not draft (14.8 GB a step over 936 GB/s")
    assert "At 131,072 tokens:" in text
    assert "First token of a prompt of 131,072 tokens: after" in text


def test_two_cards_read_at_once_where_tensors_are_split() -> None:
    text = said("Qwen3.6-27B-Q4_K", "2x RTX 5060 Ti 16GB", Wish(context_tokens=32768))
    assert "over 896 GB/s" in text


def test_what_is_not_predicted_is_said() -> None:
    assert "not predicted for mixtures of experts" in said("gpt-oss-120b", "RTX PRO 6000")
    assert "not predicted for deepseek4" in said("DeepSeek-V4-Flash", "2x RTX PRO 6000")
    on_host = said("Llama-3.3-70B-Q4_K", "RTX 4090")
    assert "while weights are in the host's memory" in on_host
    assert "weights that are copied from the host" in on_host
    nobody = Machine(devices=(), host_memory_bytes=64 * GIB)
    model = hollow("Qwen3-32B-Q4_K")
    assert list(speed_sentences(make_plan(model, nobody, Wish()), model, nobody)) == [
        "Speed: not predicted for processors; `paceline calibrate` measures it."
    ]


def test_experts_that_do_not_work_are_not_read() -> None:
    model = hollow("gpt-oss-120b")
    experts = sum(layer.experts for layer in model.layers)
    assert model.active_bytes < model.weight_bytes - experts * 0.9
    assert any(EXPERTS.match(tensor.name) for tensor in model.header.tensors)
