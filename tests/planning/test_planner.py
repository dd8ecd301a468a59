"""Plans: that they fit, what is given up for it, and what the engine's own planner says of them."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
from benchmarks.planning.hollow_models import write
from benchmarks.planning.shapes import REAL, TINY
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.planning.hollow import hollow

from paceline.engines.llama_cpp_build import build
from paceline.paths import cache_directory
from paceline.planning.devices import Backend, Device, Machine
from paceline.planning.drafters import FoundDrafter
from paceline.planning.dry_run import DeviceUse, DryRun, DryRunFailed, Judge, Part, dry_run
from paceline.planning.given_devices import given_machine
from paceline.planning.memory import HOST, Model
from paceline.planning.placing import budget_bytes
from paceline.planning.plan import Aim, DoesNotFit, Plan, Wish
from paceline.planning.planner import make_plan
from paceline.planning.search import HOST_MARGIN_BYTES

GIB, MIB = 1 << 30, 1 << 20


def planned(name: str, gpus: str, wish: Wish | None = None, host_gib: float = 64, judge: Judge | None = None) -> Plan:
    return of_model(hollow(name), given_machine(gpus, int(host_gib * GIB)), wish or Wish(), judge)


def of_model(model: Model, machine: Machine, wish: Wish, judge: Judge | None = None) -> Plan:
    drafter = FoundDrafter("mtp", 4) if model.mtp_layers else None
    return make_plan(model, machine, wish, drafter, judge)


def flags(plan: Plan) -> dict[str, str]:
    words = plan.engine_flags
    return {word: words[at + 1] for at, word in enumerate(words[:-1]) if word.startswith("--")}


def given_up(plan: Plan) -> list[str]:
    return [choice.subject for choice in plan.choices if choice.has_price]


def test_layers_of_two_equal_cards() -> None:
    plan = planned("DeepSeek-V4-Flash", "2x RTX PRO 6000", Wish(context_tokens=524288))
    assert plan.fits
    assert given_up(plan) == []
    assert flags(plan)["--split-mode"] == "layer"
    assert flags(plan)["--tensor-split"] == "22,22"
    assert "the whole cache" in str(plan.choices)
    assert plan.largest_context_tokens == 1048576


def test_tensors_of_two_equal_cards() -> None:
    plan = planned("Qwen3.6-27B-Q4_K", "2x RTX 5060 Ti 16GB", Wish(context_tokens=131072))
    assert flags(plan)["--split-mode"] == "tensor"
    assert flags(plan)["--flash-attn"] == "on"
    first, second = plan.devices
    assert first.use == second.use
    layers = hollow("Qwen3.6-27B-Q4_K").layers
    assert 2 * first.use.weights > sum(layer.shared for layer in layers[:-1])  # norms and biases are on both


def test_several_requests_at_once_are_not_split_by_tensors() -> None:
    plan = planned("Qwen3.6-27B-Q4_K", "2x RTX 5060 Ti 16GB", Wish(context_tokens=16384, aim="throughput"))
    assert plan.split == "layer"
    assert plan.settings.slots == 4


def test_one_card_that_holds_everything_is_used_alone() -> None:
    plan = planned("Qwen3.6-27B-Q4_K", "RTX 3060 12GB, RTX 5090", Wish(context_tokens=32768))
    assert plan.used_devices == (1,)
    assert flags(plan)["--main-gpu"] == "1"
    assert flags(plan)["--spec-draft-n-max"] == "4"  # Blackwell's, not Ampere's


def test_the_faster_of_unlike_cards_is_filled_first() -> None:
    plan = planned("Qwen3-32B-Q4_K", "RTX 4060 Ti 16GB, RTX 4090", Wish(context_tokens=40960))
    slow, fast = plan.devices
    assert plan.split == "layer"
    assert fast.left is not None and slow.left is not None
    assert fast.left < slow.left
    counts = flags(plan)["--tensor-split"].split(",")
    assert sum(map(int, counts)) == REAL["Qwen3-32B-Q4_K"].layers + 1


def test_experts_on_the_host_come_with_a_split() -> None:
    """By itself, ``--n-cpu-moe`` leaves the cut where it was, and the last card gets nearly everything."""
    plan = planned("gpt-oss-120b", "2x RTX 3090", Wish(context_tokens=131072))
    assert plan.fits
    words = flags(plan)
    first, second = map(int, words["--tensor-split"].split(","))
    assert first > second
    assert int(words["--n-cpu-moe"]) == plan.placement.host_experts > 0
    assert "experts" in given_up(plan)
    moved = sum(layer.experts for layer in hollow("gpt-oss-120b").layers[: plan.placement.host_experts])
    assert plan.host.use.weights > moved


def test_what_is_given_up_and_taken_back() -> None:
    """A context of F16 does not fit; of 8 bits it does, also with large micro-batches."""
    plan = planned("Qwen3.6-27B-Q4_K", "RTX 3090", Wish(context_tokens=131072))
    assert given_up(plan) == ["cache type"]
    assert plan.settings.key_type == "q8_0"
    assert plan.settings.micro_batch == 512
    forced = planned("Qwen3.6-27B-Q4_K", "RTX 3090", Wish(context_tokens=131072, cache_type="f16"))
    assert not forced.fits
    assert forced.settings.key_type == "f16"
    assert 65536 < forced.context_tokens < 131072


def test_slots_that_nobody_asked_for_are_given_up() -> None:
    usual = Wish(context_tokens=131072, usual_slots=4)
    assert planned("Qwen3.6-27B-Q4_K", "RTX 3090", usual).settings.slots == 1
    asked = Wish(context_tokens=16384, slots=4)
    assert planned("Qwen3.6-27B-Q4_K", "RTX 3090", asked).settings.slots == 4


def test_a_dense_model_that_is_too_large_for_the_card() -> None:
    plan = planned("Llama-3.3-70B-Q4_K", "RTX 4090")
    on_host = plan.placement.layers.count(HOST)
    assert 0 < on_host < 80
    assert plan.placement.layers[:on_host] == (HOST,) * on_host
    assert int(flags(plan)["--n-gpu-layers"]) == 81 - on_host
    assert "layers" in given_up(plan)


def test_a_model_that_is_far_too_large() -> None:
    with pytest.raises(DoesNotFit, match=r"366\.0 GiB of weights, and devices and host have room for 107\.9 GiB"):
        planned("DeepSeek-V3-Q4_K", "2x RTX 3090")


def test_without_a_card() -> None:
    plan = of_model(hollow("Qwen3.6-35B-A3B-Q4_K"), Machine(devices=(), host_memory_bytes=32 * GIB), Wish())
    assert plan.devices == ()
    assert plan.context_tokens == 8192
    assert "--n-gpu-layers" not in plan.flags
    assert plan.drafted_token_cost is None
    assert plan.host.use.weights == pytest.approx(hollow("Qwen3.6-35B-A3B-Q4_K").weight_bytes, rel=0.05)


def test_one_memory_for_both() -> None:
    plan = planned("gpt-oss-120b", "Strix Halo 128GB", host_gib=120)
    assert plan.placement.host_experts == 0
    assert plan.host.left is not None
    assert plan.host.left < 60 * GIB
    with pytest.raises(DoesNotFit):
        planned("gpt-oss-120b", "Strix Halo 64GB", host_gib=60)


def test_lookups_are_no_longer_than_the_snapshots() -> None:
    """Else each of them would cost a checkpoint."""
    plan = planned("Qwen3.6-27B-Q4_K", "RTX 3090", Wish(context_tokens=32768))
    lookup, mtp = plan.drafters
    assert mtp.strategy.n_max == 2
    assert lookup.strategy.n_max == 2
    assert planned("Llama-3.3-70B-Q4_K", "2x RTX 3090").drafters[0].strategy.n_max == 12


def test_checkpoints_leave_room_on_the_host() -> None:
    many = planned("Qwen3.6-27B-Q4_K", "RTX 5090", Wish(context_tokens=16384), host_gib=64)
    assert many.checkpoints == 32
    few = planned("Qwen3.6-27B-Q4_K", "RTX 5090", Wish(context_tokens=16384), host_gib=6)
    assert few.checkpoints is not None
    assert few.checkpoints < 10
    assert flags(few)["--ctx-checkpoints"] == str(few.checkpoints)
    assert int(flags(few)["--cache-ram"]) < 8192
    assert planned("Llama-3.3-70B-Q4_K", "2x RTX 3090").checkpoints is None


def test_a_draft_model_has_a_cache_for_the_whole_context(tmp_path: Path) -> None:
    file = write(tmp_path, "draft", replace(TINY["llama"], hidden=1024, layers=16, heads=16, kept=8, head=64))
    drafter = FoundDrafter("draft", 8, file)
    machine = given_machine("2x RTX 3090", 64 * GIB)
    model = hollow("Llama-3.3-70B-Q4_K")
    roomy = make_plan(model, machine, Wish(context_tokens=8192), drafter)
    assert flags(roomy)["--spec-draft-type-k"] == "q8_0"
    cache = 16 * 8 * 64 * 2 * 8192 * 34 // 32
    assert sum(budget.use.drafter for budget in roomy.devices) > cache
    tight = make_plan(model, machine, Wish(context_tokens=65536), drafter)
    assert "draft model" in given_up(tight)
    assert [loaded.strategy.kind for loaded in tight.drafters] == ["ngram"]


def test_an_unknown_architecture_is_planned_for_the_most_it_can_be() -> None:
    model = replace(hollow("gemma-3-27b-Q4_K"), architecture=None)
    plan = of_model(model, given_machine("2x RTX 5090", 64 * GIB), Wish(context_tokens=32768))
    assert not plan.is_known
    assert plan.split != "tensor"
    known = planned("gemma-3-27b-Q4_K", "2x RTX 5090", Wish(context_tokens=32768, aim="throughput", slots=1))
    assert sum(budget.use.cache for budget in plan.devices) > 2 * sum(budget.use.cache for budget in known.devices)


def said(devices: Sequence[Device], plan_bytes: int) -> DryRun:
    """An engine that takes the same of each device."""
    uses = [
        DeviceUse(f"CUDA{at}", card.memory_bytes, card.free_bytes, plan_bytes, 0, 0) for at, card in enumerate(devices)
    ]
    return DryRun(build=1, fit=None, parts=(Part("target", None, (*uses, DeviceUse("host", 0, 0, GIB, 0, 0))),))


def test_the_engine_has_the_last_word() -> None:
    """It takes 2 GiB more than the formulas say: room is left for that in the next plan."""
    asked: list[int] = []

    def judge(words: Sequence[str], devices: Sequence[Device]) -> DryRun:
        context = int(words[words.index("--ctx-size") + 1])
        asked.append(context)
        return said(devices, 16 * GIB + context * 64 * 1024)

    plan = planned("Qwen3.6-27B-Q4_K", "RTX 3090", Wish(cache_type="f16"), judge=judge)
    assert len(asked) > 1
    assert asked[-1] < asked[0]
    (card,) = plan.devices
    assert card.left is not None and card.left >= 0
    assert plan.judgement is not None
    assert plan.judgement.difference > 0.01


def test_an_engine_that_refuses_is_said() -> None:
    def judge(words: Sequence[str], devices: Sequence[Device]) -> DryRun:
        raise DryRunFailed("no such tensor")

    plan = planned("Qwen3.6-27B-Q4_K", "RTX 3090", judge=judge)
    assert plan.judgement is None
    assert "no such tensor" in plan.warnings[0]


backends: st.SearchStrategy[Backend] = st.sampled_from(["cuda", "rocm", "vulkan"])
cards = st.builds(
    lambda gib, free, backend, speed: Device(
        name=f"{gib} GiB",
        backend=backend,
        memory_bytes=int(gib * GIB),
        free_bytes=int(gib * GIB * free),
        bandwidth_bytes_per_s=speed,
    ),
    st.sampled_from([8, 12, 16, 24, 32, 48, 96]),
    st.floats(0.5, 1.0),
    backends,
    st.sampled_from([None, 3.6e11, 9.36e11, 1.79e12]),
)
machines = st.builds(
    lambda devices, same, host: Machine(
        devices=tuple(devices[:1] * 2 if same else devices), host_memory_bytes=int(host * GIB)
    ),
    st.lists(cards, min_size=1, max_size=4),
    st.booleans(),
    st.sampled_from([8, 32, 128, 512]),
)
aims: st.SearchStrategy[Aim] = st.sampled_from(["latency", "throughput"])
wishes = st.builds(
    Wish,
    context_tokens=st.none() | st.sampled_from([4096, 32768, 131072, 524288]),
    slots=st.none() | st.integers(1, 8),
    aim=aims,
    cache_type=st.sampled_from([None, "f16", "q8_0"]),
)
models = st.sampled_from(sorted(REAL)).map(hollow)


def check(plan: Plan, machine: Machine) -> None:
    """Nothing is over what the machine has, and every layer is somewhere."""
    for at, budget in zip(plan.used_devices, plan.devices, strict=True):
        assert budget.use.total <= budget_bytes(machine.devices[at])
    assert plan.host.use.total <= (machine.host_memory_bytes or 0) - HOST_MARGIN_BYTES
    layers = plan.placement.layers
    assert len(layers) == plan.placement.layer_counts[0] or plan.placement.devices > 1 or HOST in layers
    assert list(layers) == sorted(layers)  # in order, those on the host first
    if plan.placement.host_experts and plan.placement.devices > 1:
        assert "--tensor-split" in plan.flags
    if plan.wish.context_tokens and plan.fits:
        assert plan.context_tokens >= plan.wish.context_tokens
    assert plan.largest_context_tokens is not None
    assert plan.largest_context_tokens >= plan.context_tokens


@settings(max_examples=60)
@given(model=models, machine=machines, wish=wishes)
def test_no_plan_is_over_a_budget(model: Model, machine: Machine, wish: Wish) -> None:
    try:
        plan = of_model(model, machine, wish)
    except DoesNotFit:
        return
    check(plan, machine)


@pytest.mark.engines
@settings(max_examples=40)
@given(model=models, machine=machines, wish=wishes)
def test_no_plan_is_over_a_budget_by_the_engines_own_figures(model: Model, machine: Machine, wish: Wish) -> None:
    program = build(cache_directory()).dry_run
    judge = partial(dry_run, program)
    try:
        plan = of_model(model, machine, wish, judge)
    except DoesNotFit:
        return
    assert plan.judgement is not None, plan.warnings
    check(plan, machine)


@pytest.mark.engines
def test_an_unknown_architecture_is_told_by_the_engine() -> None:
    judge = partial(dry_run, build(cache_directory()).dry_run)
    model = replace(hollow("gemma-3-27b-Q4_K"), architecture=None)
    plan = of_model(model, given_machine("2x RTX 5090", 64 * GIB), Wish(context_tokens=32768), judge)
    assert plan.judgement is not None
    cache = sum(budget.use.cache for budget in plan.devices)
    assert cache / MIB == pytest.approx(10 * 256 + 52 * 12, rel=0.001)  # ten layers of 32,768 tokens, the rest windows
