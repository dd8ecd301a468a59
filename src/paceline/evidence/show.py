"""A report as tables and sentences, which the terminal and the page have in common."""

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct

from paceline.evidence.comparison import Comparison
from paceline.evidence.cost import Cost
from paceline.evidence.estimate import Estimate
from paceline.evidence.report import Report, TooFew
from paceline.text_table import NEVER_PAYS, UNKNOWN, columns, shown_name, shown_number


class Table(Struct, frozen=True):
    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    """As long as the head each."""


def text(report: Report) -> str:
    """For a terminal; a verdict comes last."""
    parts = [size(report)]
    if report.cost:
        parts.append(_lines(money(report.cost)))
    for comparison in report.comparisons:
        parts.append(f"{heading(comparison)}:")
        parts += [_lines(policies(comparison)), _lines(tasks(comparison))]
        parts += ["\n".join(remarks(comparison)), verdict(comparison)]
    return "\n\n".join(parts)


def _lines(table: Table) -> str:
    return f"{table.title}:\n{columns([table.head, *table.rows])}"


def size(report: Report) -> str:
    """How much of the log is compared. Tokens and seconds are told model by model: together they are no speed."""
    compared = sum(comparison.requests for comparison in report.comparisons)
    rest = ""
    if report.left_out:
        rest = f"; {report.left_out} had other lanes to choose from, models or settings, too few to compare"
    return "\n".join([f"{compared} of {report.requests} requests{rest}", *map(too_few, report.too_few)])


def too_few(group: TooFew) -> str:
    requests = f"{group.requests} request{'s' * (group.requests != 1)}"
    return f"{_named(group.model)}{requests} so far that chose among {', '.join(group.lanes)} as they are now"


def heading(comparison: Comparison) -> str:
    """Which model, which lanes, and of settings that are no longer, until when."""
    past = ""
    if not comparison.is_current:
        past = f", with settings that were last seen on {datetime.fromtimestamp(comparison.until_s):%Y-%m-%d at %H:%M}"
    lanes = ", ".join(comparison.lanes)
    return f"{_named(comparison.model)}{comparison.requests} requests that chose among {lanes}{past}"


def _named(model: str | None) -> str:
    return f"{shown_name(model)}: " if model else ""


def policies(comparison: Comparison) -> Table:
    """What each fixed lane would have taken, the rules alone, and the best lane of each task."""
    rows = []
    for lane, estimate in comparison.fixed.items():
        what = " (plain)" if lane == comparison.plain else " (always on)" if lane == comparison.on else ""
        rows.append(_policy_row(f"always {lane}{what}", estimate))
    if comparison.rules:
        rows.append(_policy_row("your rules alone", comparison.rules))
    rows.append(_policy_row("best of each task, in hindsight", comparison.hindsight))
    return Table(
        title="What other settings would have taken on the same requests (doubly robust, from this log)",
        head=(
            "policy",
            "time over routed",
            "95 % interval",
            "by inverse propensity",
            "self-normalised",
            "by prediction",
        ),
        rows=rows,
    )


def _policy_row(name: str, estimate: Estimate) -> tuple[str, ...]:
    agreed = estimate.agreed > 0
    return (
        name,
        shown_number(estimate.ratio, ".2f"),
        f"{estimate.low:.2f} to {estimate.high:.2f}",
        shown_number(estimate.inverse_propensity if agreed else None, ".2f"),
        shown_number(estimate.self_normalised if agreed else None, ".2f"),
        shown_number(estimate.on_predictions, ".0%"),
    )


def tasks(comparison: Comparison) -> Table:
    """What each task took, drafted and gained."""
    rows = [
        (
            task.task,
            shown_number(task.requests),
            shown_number(task.share, ".0%"),
            shown_number(task.tokens_per_s, ".1f"),
            shown_number(task.acceptance, ".2f"),
            NEVER_PAYS if task.break_even is not None and task.break_even > 1 else shown_number(task.break_even, ".2f"),
            shown_number(task.drafting, ".0%"),
            shown_number(task.speed_up, ".2f"),
        )
        for task in comparison.tasks
    ]
    head = ("task", "requests", "of the time", "tokens/s", "accepted", "break-even", "drafted for", "over plain")
    return Table(title="By task", head=head, rows=rows)


def money(cost: Cost) -> Table:
    """What the tokens cost here, and would have cost elsewhere."""
    rows = [("this machine, power alone", shown_number(cost.total, ".4g"), shown_number(cost.per_million, ".4g"))]
    rows += [
        (bill.name, shown_number(bill.total, ".4g"), shown_number(bill.per_million, ".4g")) for bill in cost.elsewhere
    ]
    if cost.paid_requests:
        rows.append(
            (f"paid to cloud engines, for {cost.paid_requests} others", shown_number(cost.paid, ".4g"), UNKNOWN)
        )
    return Table(
        title=f"What {cost.generated_tokens} generated and {cost.prompt_tokens} prompt tokens cost "
        f"({cost.kwh:.3g} kWh in {cost.busy_s:.0f} s)",
        head=("where", f"in all, {cost.currency}", f"per million generated tokens, {cost.currency}"),
        rows=rows,
    )


def remarks(comparison: Comparison) -> list[str]:
    """What the tables don't say: size, calibration, exploration, regret, and drafters that don't work."""
    calibration, hindsight = comparison.calibration, comparison.hindsight
    off = "What a plain step takes was not known yet, so no times were predicted."
    if calibration.error is not None:
        off = f"Predicted times were off by {calibration.error:.0%} (median); actual over predicted: "
        off += f"{calibration.bias:.2f}."
    return [
        f"{comparison.tokens} tokens were decoded in {comparison.seconds:.0f} s.",
        off,
        f"Exploring was to cost {comparison.exploring_s:.1f} s, {comparison.exploring_s / comparison.seconds:.1%} of "
        "the time.",
        f"Regret against the best lane of each task: {comparison.regret_s:.1f} s, {1 - hindsight.ratio:.1%} "
        f"({1 - hindsight.high:.1%} to {1 - hindsight.low:.1%}).",
        *(f"{fault[0].upper()}{fault[1:]}." for fault in comparison.faults),
    ]


def _how_many_more(needed: int | None) -> str:
    if needed is None:
        return "How many more requests would tell can't be foreseen."
    rounded = max(10, round(needed, 1 - len(str(needed))))  # to one digit: it is no more than an order of magnitude
    return f"If it stays like this, about {rounded} more requests would tell."


def verdict(comparison: Comparison) -> str:
    """One sentence or two. What to use is said only where that is beyond doubt."""
    lane, ratio = comparison.best
    spread = f"{ratio.low:.2f} to {ratio.high:.2f}"
    if comparison.pays:
        return (
            f"Routing pays here: the best fixed setting, {lane}, would have taken {ratio.ratio:.2f} ({spread}) times "
            "as long."
        )
    if comparison.is_alike:
        return f"Routing and always {lane} are about as fast here: that would have taken {ratio.ratio:.2f} ({spread})."
    if comparison.pays is None:
        return (
            f"It can't be told yet whether routing pays here: always {lane} would have taken {ratio.ratio:.2f} of the "
            f"time, but anything from {spread} is possible. {_how_many_more(comparison.more_needed)}"
        )
    return (
        f"Routing does not pay here: always {lane} would have taken {ratio.ratio:.2f} ({spread}) of the time. "
        f"Use {lane}."
    )
