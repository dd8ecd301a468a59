"""A plan as people read it."""

import textwrap
from collections.abc import Iterator, Sequence

from paceline.planning.memory import Model, token_bytes
from paceline.planning.plan import Plan
from paceline.text_table import columns

GIB, KIB = 1 << 30, 1 << 10
WIDTH = 100
"""Characters of a line of sentences."""
DIFFERENCE = 0.01
"""From which on formulas and dry run are said to differ."""
ALWAYS_SHOWN = ("split", "drafting")
"""Choices that are shown beside what was given up; the rest is for ``--explain``."""


def plan_text(plan: Plan, model: Model, speeds: Sequence[str] = (), is_explained: bool = True) -> str:
    """The plan without its command line.

    Args:
        speeds: sentences on how fast it will be.
        is_explained: with every choice, not only those that cost something.
    """
    sentences = [_verdict(plan)]
    sentences += [
        choice.reason for choice in plan.choices if is_explained or choice.subject in ALWAYS_SHOWN or choice.has_price
    ]
    sentences += [*speeds, *plan.warnings]
    return "\n".join([*wrapped(_headline(plan, model)), "", _table(plan, model), *wrapped(*sentences)])


def decisions(plan: Plan) -> tuple[str, ...]:
    """What was decided, for those who did not ask: what had to be given up, how cards share the work, and warnings."""
    reasons = [choice.reason for choice in plan.choices if choice.has_price or choice.subject == "split"]
    verdict = [] if plan.fits else [_verdict(plan)]
    return tuple(wrapped(*verdict, *reasons, *plan.warnings))


def wrapped(*sentences: str) -> Iterator[str]:
    """Lines of sentences, each of which begins a new one."""
    for sentence in sentences:
        yield from textwrap.wrap(sentence, WIDTH, break_long_words=False, break_on_hyphens=False)


def _headline(plan: Plan, model: Model) -> str:
    parts = [f"{model.trunk_count} layers"]
    if model.expert_count:
        parts.append(f"{model.expert_count} experts of which {model.experts_used} work")
    parts.append(f"{model.weight_bytes / GIB:.1f} GiB")
    trained = model.header.own_number("context_length")
    if trained:
        parts.append(f"trained for {trained:,} tokens")
    name = plan.model.removesuffix(".gguf")
    mtp = f"{model.mtp_layers} MTP layer{'s' * (model.mtp_layers > 1)}" if model.mtp_layers else "no MTP layers"
    text = f"{name} ({plan.architecture}): {', '.join(parts)}; {mtp}."
    if plan.is_known:
        return text
    source = "the dry run says it" if plan.judgement else "there was no dry run, so the most it can be is planned for"
    return f"{text} What this architecture keeps of a context is not known here; {source}."


def _table(plan: Plan, model: Model) -> str:
    settings, budgets = plan.settings, [*plan.devices, plan.host]
    rows: list[Sequence[str]] = [("GiB", *(budget.name.rjust(6) for budget in budgets), "")]

    def row(name: str, sizes: Sequence[int | None], note: str = "") -> None:
        rows.append((name, *(("?" if size is None else f"{size / GIB:.1f}").rjust(6) for size in sizes), note))

    note = f"{plan.context_tokens:,} tokens{' each' if settings.slots > 1 else ''}, {settings.key_type}"
    if model.architecture:
        note += f", {token_bytes(model.architecture, settings) / KIB:.1f} KiB a token"
    row("weights", [budget.use.weights for budget in budgets])
    row(f"cache, {settings.slots} slot{'s' * (settings.slots > 1)}", [budget.use.cache for budget in budgets], note)
    if any(budget.use.drafter for budget in budgets):
        row("drafter", [budget.use.drafter for budget in budgets], "its weights, cache and buffers")
    row("compute", [budget.use.compute for budget in budgets])
    row("driver, margin", [budget.reserved for budget in budgets])
    row("kept prompts", [budget.kept for budget in budgets], "at most, checkpoints among them")
    judged = "by formulas alone; `paceline engine build` has them checked"
    if plan.judgement:
        judged = f"checked by a dry run of llama.cpp b{plan.judgement.build}, {plan.judgement.took_s:.1f} s"
    row("free after", [budget.left for budget in budgets], judged)
    return columns(rows)


def _verdict(plan: Plan) -> str:
    text = "Fits."
    if not plan.fits:
        text = f"{plan.wish.context_tokens or 0:,} tokens do not fit; the plan is for {plan.context_tokens:,}."
    elif plan.largest_context_tokens and plan.largest_context_tokens > plan.context_tokens:
        text += f" {plan.largest_context_tokens:,} tokens would fit as well."
    if plan.judgement and plan.judgement.difference > DIFFERENCE:
        difference = f"{plan.judgement.difference:.1%}"
        text += f" The dry run differs from the formulas by {difference} of a device; the figures above are its own."
    return text
