"""Plans of five set-ups as people read them, in ``plan_texts/``. PACELINE_WRITE_TEXTS=1 writes them anew."""

import os
from pathlib import Path

import pytest
from tests.planning.hollow import hollow

from paceline.planning.drafters import FoundDrafter
from paceline.planning.given_devices import given_machine
from paceline.planning.plan import DoesNotFit, Wish
from paceline.planning.plan_speed import speed_sentences
from paceline.planning.plan_text import decisions, plan_text
from paceline.planning.planner import make_plan

TEXTS = Path(__file__).parent / "plan_texts"
GIB = 1 << 30
SETUPS = {
    "deepseek-v4-flash-on-two-96-gb": ("DeepSeek-V4-Flash", "2x RTX PRO 6000", 128, 524288),
    "qwen3.6-27b-on-24-gb": ("Qwen3.6-27B-Q4_K", "RTX 3090", 64, 131072),
    "gpt-oss-120b-on-two-24-gb": ("gpt-oss-120b", "2x RTX 3090", 64, 131072),
    "qwen3.6-35b-a3b-on-12-gb": ("Qwen3.6-35B-A3B-Q4_K", "RTX 4070", 32, None),
    "deepseek-v3-on-two-24-gb": ("DeepSeek-V3-Q4_K", "2x RTX 3090", 64, 32768),
}


def told(name: str, gpus: str, host_gib: int, context: int | None, is_explained: bool = True) -> str:
    model, machine = hollow(name), given_machine(gpus, host_gib * GIB)
    drafter = FoundDrafter("mtp", 4) if model.mtp_layers else None
    try:
        plan = make_plan(model, machine, Wish(context_tokens=context), drafter)
    except DoesNotFit as error:
        return f"{error}\n"
    text = plan_text(plan, model, list(speed_sentences(plan, model, machine)), is_explained)
    return f"{text}\n\n{' '.join(plan.engine_flags)}\n"


@pytest.mark.parametrize("setup", SETUPS)
def test_the_text_of_a_plan(setup: str) -> None:
    text, file = told(*SETUPS[setup]), TEXTS / f"{setup}.txt"
    if os.environ.get("PACELINE_WRITE_TEXTS"):
        file.write_text(text)
    assert text == file.read_text()


def test_what_is_only_explained_is_not_always_said() -> None:
    whole, short = (told(*SETUPS["qwen3.6-27b-on-24-gb"], is_explained=wanted) for wanted in (True, False))
    assert "checkpoints a slot" in whole
    assert "checkpoints a slot" not in short
    assert "The cache is of 8 bits" in short


def test_who_did_not_ask_hears_what_was_given_up() -> None:
    model = hollow("Qwen3.6-27B-Q4_K")
    machine = given_machine("RTX 3090", 64 * GIB)
    plan = make_plan(model, machine, Wish(context_tokens=131072), FoundDrafter("mtp", 4))
    assert len(decisions(plan)) == 2  # lines of one sentence after another
    assert make_plan(model, machine, Wish(context_tokens=8192)).fits
    assert decisions(make_plan(model, machine, Wish(context_tokens=8192))) == ()
