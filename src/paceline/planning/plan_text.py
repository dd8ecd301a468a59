"""A plan as people read it."""

from collections.abc import Iterator, Sequence

from paceline.planning.memory import Model, Use, token_bytes
from paceline.planning.plan import Budget, Plan
from paceline.text_table import columns

GIB = 1 << 30
KIB = 1 << 10
DIFFERENCE = 0.01
"""From which on formulas and dry run are said to differ."""


def plan_text(plan: Plan, model: Model, speeds: Sequence[str] = ()) -> str:
    """The plan in full.

    Args:
        speeds: sentences on how fast it will be.
    """
    lines = [_headline(plan, model), "", _table(plan, model)]
    lines += [_verdict(plan), *(choice.reason for choice in plan.choices), *speeds, *plan.warnings]
    return "\n".join(lines)


def _headline(plan: Plan, model: Model) -> str:
    parts = [f"{len(model.layers) - model.mtp_layers} layers"]
    if model.expert_count:
        parts.append(f"{model.expert_count} experts of which {model.experts_used} work")
    parts.append(f"{model.weight_bytes / GIB:.1f} GiB")
    if model.architecture and model.architecture.trained_tokens:
        parts.append(f"trained for {model.architecture.trained_tokens:,} tokens")
    name = plan.model.removesuffix(".gguf")
    text = f"{name} ({plan.architecture}): {', '.join(parts)}; MTP layers in the file: {model.mtp_layers or 'none'}"
    if not plan.is_known:
        text += (
            f"\nThe architecture {plan.architecture} is not known here: what its cache takes is left to the dry run"
            + (", which told it." if plan.judgement else ", and there was none. The figures are for the most it can be.")
        )
    return text


def _table(plan: Plan, model: Model) -> str:
    settings = plan.settings
    budgets = [*plan.devices, plan.host]
    rows: list[Sequence[str]] = [("", *(budget.name for budget in budgets), "")]

    def row(name: str, sizes: Sequence[int | None], note: str = "") -> None:
        rows.append((name, *(_gib(size) for size in sizes), note))

    def uses(of: str) -> list[int]:
        return [getattr(budget.use, of) for budget in budgets]

    cache = f"cache, {settings.slots} slot{'s' * (settings.slots > 1)}"
    note = f"{plan.context_tokens:,} tokens each, {settings.key_type}"
    if model.architecture:
        note += f", {token_bytes(model.architecture, settings) / KIB:.1f} KiB a token"
    row("weights", uses("weights"), "GiB")
    row(cache, uses("cache"), note)
    if any(uses("drafter")):
        row("drafter", uses("drafter"), "weights, cache and buffers")
    row("compute", uses("compute"))
    row("driver, margin", [budget.reserved for budget in budgets])
    judged = "by formulas alone: build the engine to have them checked (paceline engine build)"
    if plan.judgement:
        judged = f"checked by a dry run of llama.cpp b{plan.judgement.build} ({plan.judgement.took_s:.1f} s)"
    row("free after", [budget.left for budget in budgets], judged)
    return columns(rows)


def _verdict(plan: Plan) -> str:
    text = "Fits."
    if not plan.fits:
        text = f"{plan.wish.context_tokens or 0:,} tokens do not fit; the plan is for {plan.context_tokens:,}."
    elif plan.largest_context_tokens and plan.largest_context_tokens > plan.context_tokens:
        text += f" {plan.largest_context_tokens:,} tokens would fit as well."
    if plan.judgement and plan.judgement.difference > DIFFERENCE:
        text += (
            f" The dry run differs from the formulas by {plan.judgement.difference:.1%} of a device; its figures are the "
            "ones above."
        )
    return text


def _gib(size: int | None) -> str:
    return "?" if size is None else f"{size / GIB:.1f}"


def json_of(plan: Plan) -> dict[str, object]:
    """What ``--json`` prints beside the plan's own fields."""
    return {"devices": [_json(budget) for budget in plan.devices], "host": _json(plan.host)}


def _json(budget: Budget) -> dict[str, object]:
    use: Use = budget.use
    return {"name": budget.name, "free_bytes": budget.free, "used_bytes": use.total, "left_bytes": budget.left}


def _lines(text: str) -> Iterator[str]:
    yield from text.splitlines()
