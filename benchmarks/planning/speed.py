"""How right is what a plan says of speed, and of what verifying drafts costs?

    python -m benchmarks.planning.speed

Compares ``paceline.planning.speed`` with public measurements (``public_speeds.toml``). No GPU is needed.
"""

import tomllib
from pathlib import Path
from statistics import mean, median
from typing import Any

from msgspec.structs import replace

from paceline.planning.devices import Machine
from paceline.planning.given_devices import given_machine
from paceline.planning.speed import (
    Experts,
    NotPredicted,
    Predicted,
    Step,
    decode_speed,
    prefill_seconds,
    verify_cost,
)
from paceline.text_table import columns

CASES = Path(__file__).with_name("public_speeds.toml")
WITHIN = 0.2


def cases(kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tomllib.loads(CASES.read_text())[kind]
    return found


def machine_of(case: dict[str, Any]) -> Machine:
    machine = given_machine(case["gpus"])
    if "bandwidth_gb_per_s" not in case:
        return machine
    faster = case["bandwidth_gb_per_s"] * 1e9
    return replace(machine, devices=tuple(replace(device, bandwidth_bytes_per_s=faster) for device in machine.devices))


def decode_of(case: dict[str, Any]) -> Predicted | NotPredicted:
    machine = machine_of(case)
    count = len(machine.devices)
    step = Step(
        weight_bytes=(int(case["read_gb"] * 1e9 / count),) * count,
        host_bytes=1 if case.get("on_host") else 0,
        architecture=case["architecture"],
        has_experts=case["architecture"] != "qwen35",
    )
    return decode_speed(step, machine, case["split"])


def experts_of(case: dict[str, Any]) -> Experts | None:
    if "experts" not in case:
        return None
    total, used = case["experts"]
    return Experts(total, used, case["expert_share"])


def verify_of(case: dict[str, Any]) -> list[tuple[int, float, float]]:
    """Drafted tokens, measured and predicted cost in plain steps."""
    rows = zip(case["drafted"], case["tokens_per_s"], case["accepted"], strict=True)
    return [
        (
            drafted,
            (1 + drafted * accepted) / (speed / case["plain_tokens_per_s"]),
            verify_cost(
                *(drafted, case["card_class"]),
                draft_share=case["draft_share"],
                experts=experts_of(case),
                power=case.get("power", 1.0),
            ),
        )
        for drafted, speed, accepted in rows
    ]


def batches_of(case: dict[str, Any]) -> list[tuple[int, float, float]]:
    """Tokens of a batch, measured and predicted cost in plain steps; nothing drafts."""
    plain = case["tokens_per_s"][0]
    return [
        (
            tokens,
            tokens * plain / speed,
            verify_cost(tokens - 1, case["card_class"], draft_share=0.0, experts=experts_of(case)),
        )
        for tokens, speed in zip(case["tokens"][1:], case["tokens_per_s"][1:], strict=True)
    ]


def prefill_of(case: dict[str, Any]) -> Predicted | NotPredicted:
    return prefill_seconds(
        case["tokens"], case["parameters"], case["attention_width"], machine_of(case), case.get("split", "layer")
    )


def _held_out(case: dict[str, Any]) -> str:
    return "held out" if case.get("held_out") else ""


def show_decode() -> None:
    rows = [("plain decoding, one stream", "measured", "predicted", "", "")]
    errors: dict[str, list[float]] = {"": [], "held out": []}
    inside: dict[str, list[bool]] = {"": [], "held out": []}
    for case in cases("decode"):
        found, measured = decode_of(case), case["tokens_per_s"]
        if isinstance(found, NotPredicted):
            rows.append((case["case"], f"{measured:.1f}", "not predicted", "", ""))
            continue
        is_inside = found.low <= measured <= found.high
        errors[_held_out(case)].append(found.middle / measured - 1)
        inside[_held_out(case)].append(is_inside)
        rows.append(
            (
                *(case["case"], f"{measured:.1f}", f"{found.low:.1f} to {found.high:.1f}"),
                *("" if is_inside else "outside", _held_out(case)),
            )
        )
    print(columns(rows))
    for name, values in errors.items():
        near = sum(abs(value) < WITHIN for value in values)
        print(
            f"{name or 'looked at'}: in the range {sum(inside[name])} of {len(values)}; the middle within 20 %: {near} "
            f"of {len(values)}, off by {mean(map(abs, values)):.1%} in the mean"
        )


def show_verify() -> None:
    rows = [("verifying, in plain steps (measured / predicted)", "", "")]
    ratios = []
    for kind, of in (("verify", verify_of), ("batches", batches_of)):
        for case in cases(kind):
            found = of(case)
            ratios += [predicted / measured for _, measured, predicted in found]
            shown = "  ".join(f"{n}: {measured:.2f}/{predicted:.2f}" for n, measured, predicted in found)
            rows.append((case["case"], shown, _held_out(case)))
    print(columns(rows))
    near = sum(abs(ratio - 1) < WITHIN for ratio in ratios)
    print(f"within 20 %: {near} of {len(ratios)}; predicted over measured in the median {median(ratios):.2f}")


def show_prefill() -> None:
    rows = [("prompts, tokens per second", "measured", "predicted", "")]
    for case in cases("prefill"):
        found = prefill_of(case)
        said = "not predicted"
        if isinstance(found, Predicted):
            said = f"{case['tokens'] / found.high:.0f} to {case['tokens'] / found.low:.0f}"
        rows.append((case["case"], f"{case['tokens_per_s']}", said, _held_out(case)))
    print(columns(rows))


if __name__ == "__main__":
    show_decode()
    print()
    show_verify()
    print()
    show_prefill()
