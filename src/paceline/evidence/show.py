"""A report as tables and sentences, which the terminal and the page have in common."""

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct

from paceline.evidence.comparison import Comparison
from paceline.evidence.cost import Cost
from paceline.evidence.estimate import Estimate
from paceline.evidence.report import Report, TooFew
from paceline.text_table import columns, shown_name


class Table(Struct, frozen=True):
    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    """As long as the head each."""


def text(found: Report) -> str:
    """For a terminal; a verdict comes last."""
    parts = [size(found)]
    if found.cost:
        parts.append(_lines(money(found.cost)))
    for one in found.comparisons:
        parts.append(f"{heading(one)}:")
        parts += [_lines(policies(one)), _lines(tasks(one)), "\n".join(remarks(one)), verdict(one)]
    return "\n\n".join(parts)


def _lines(table: Table) -> str:
    return f"{table.title}:\n{columns([table.head, *table.rows])}"


def size(found: Report) -> str:
    """How much of the log is compared. Tokens and seconds are told model by model: together they are no speed."""
    used = sum(one.requests for one in found.comparisons)
    rest = ""
    if found.left_out:
        rest = f"; {found.left_out} had other lanes to choose from, models or settings, too few to compare"
    return "\n".join([f"{used} of {found.requests} requests{rest}", *(too_few(one) for one in found.too_few)])


def too_few(some: TooFew) -> str:
    requests = f"{some.requests} request{'s' * (some.requests != 1)}"
    return f"{_named(some.model)}{requests} so far that chose among {', '.join(some.lanes)} as they are now"


def heading(found: Comparison) -> str:
    """Which model, which lanes, and of settings that are no longer, until when."""
    past = ""
    if not found.is_current:
        past = f", with settings that were last seen on {datetime.fromtimestamp(found.until_s):%Y-%m-%d at %H:%M}"
    return f"{_named(found.model)}{found.requests} requests that chose among {', '.join(found.lanes)}{past}"


def _named(model: str | None) -> str:
    return f"{shown_name(model)}: " if model else ""


def policies(found: Comparison) -> Table:
    rows = []
    for lane, one in found.fixed.items():
        what = " (plain)" if lane == found.plain else " (always on)" if lane == found.on else ""
        rows.append(_policy_row(f"always {lane}{what}", one))
    if found.rules:
        rows.append(_policy_row("your rules alone", found.rules))
    rows.append(_policy_row("best of each task, in hindsight", found.hindsight))
    return Table(
        "What other settings would have taken on the same requests (doubly robust, from this log)",
        ("policy", "time over routed", "95 % interval", "by inverse propensity", "self-normalised", "by prediction"),
        rows,
    )


def _policy_row(name: str, one: Estimate) -> tuple[str, ...]:
    agreed = one.agreed > 0
    return (
        name,
        f"{one.ratio:.2f}",
        f"{one.low:.2f} to {one.high:.2f}",
        f"{one.inverse_propensity:.2f}" if agreed else "-",
        f"{one.self_normalised:.2f}" if agreed else "-",
        f"{one.on_predictions:.0%}",
    )


def tasks(found: Comparison) -> Table:
    rows = [
        (
            task.task,
            str(task.requests),
            f"{task.share:.0%}",
            f"{task.tokens_per_s:.1f}",
            "-" if task.acceptance is None else f"{task.acceptance:.2f}",
            "-" if task.break_even is None else f"{task.break_even:.2f}" if task.break_even <= 1 else "none is enough",
            f"{task.drafting:.0%}",
            "-" if task.speed_up is None else f"{task.speed_up:.2f}",
        )
        for task in found.tasks
    ]
    head = ("task", "requests", "of the time", "tokens/s", "accepted", "break-even", "drafted for", "over plain")
    return Table("By task", head, rows)


def money(cost: Cost) -> Table:
    rows = [("this machine, power alone", f"{cost.total:.4g}", f"{cost.per_million:.4g}")]
    rows += [(one.name, f"{one.total:.4g}", f"{one.per_million:.4g}") for one in cost.elsewhere]
    return Table(
        f"What {cost.generated_tokens} generated and {cost.prompt_tokens} prompt tokens cost ({cost.kwh:.3g} kWh in "
        f"{cost.busy_s:.0f} s)",
        ("where", f"in all, {cost.currency}", f"per million generated tokens, {cost.currency}"),
        rows,
    )


def remarks(found: Comparison) -> list[str]:
    right = found.calibration
    off = "What a plain step takes was not known yet, so no times were predicted."
    if right.error is not None:
        off = f"Predicted times were off by {right.error:.0%} (median); actual over predicted: {right.bias:.2f}."
    return [
        f"{found.tokens} tokens were decoded in {found.seconds:.0f} s.",
        off,
        f"Exploring was to cost {found.exploring_s:.1f} s, {found.exploring_s / found.seconds:.1%} of the time.",
        f"Regret against the best lane of each task: {found.regret_s:.1f} s, {1 - found.hindsight.ratio:.1%} "
        f"({1 - found.hindsight.high:.1%} to {1 - found.hindsight.low:.1%}).",
    ]


def _how_many_more(needed: int | None) -> str:
    if needed is None:
        return "How many more requests would tell can't be foreseen."
    rounded = max(10, round(needed, 1 - len(str(needed))))  # to one digit: it is no more than an order of magnitude
    return f"If it stays like this, about {rounded} more requests would tell."


def verdict(found: Comparison) -> str:
    """One sentence or two. What to use is said only where that is beyond doubt."""
    lane, ratio = found.best
    spread = f"{ratio.low:.2f} to {ratio.high:.2f}"
    if found.pays:
        return (
            f"Routing pays here: the best fixed setting, {lane}, would have taken {ratio.ratio:.2f} ({spread}) times "
            "as long."
        )
    if found.is_alike:
        return f"Routing and always {lane} are about as fast here: that would have taken {ratio.ratio:.2f} ({spread})."
    if found.pays is None:
        return (
            f"It can't be told yet whether routing pays here: always {lane} would have taken {ratio.ratio:.2f} of the "
            f"time, but anything from {spread} is possible. {_how_many_more(found.more_needed)}"
        )
    return (
        f"Routing does not pay here: always {lane} would have taken {ratio.ratio:.2f} ({spread}) of the time. "
        f"Use {lane}."
    )
