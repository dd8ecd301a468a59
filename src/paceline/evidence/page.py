"""A report as one HTML file that needs nothing else: no script, no outside request."""

from collections.abc import Sequence
from datetime import datetime
from html import escape

from paceline import __version__
from paceline.evidence import charts
from paceline.evidence.comparison import Comparison
from paceline.evidence.estimate import Estimate
from paceline.evidence.report import Report
from paceline.evidence.show import Table, heading, money, policies, remarks, size, tasks, verdict

STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1c2430; --soft: #5a6675; --line: #d5dae1; --mark: #b3500f;
  --good: #1f6f54; --plain: #2f6fae; }
@media (prefers-color-scheme: dark) { :root { --back: #14181e; --text: #e6eaf0; --soft: #a3aebb; --line: #38414d;
  --mark: #f0a35e; --good: #6fcfa8; --plain: #7db7ec; } }
body { margin: 0 auto; padding: 1rem; max-width: 76rem; background: var(--back); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; } h3 { font-size: 1.05rem; margin-top: 2rem; }
p, li, dd { max-width: 46rem; }
.verdict { border-left: 4px solid var(--mark); padding: .5rem 1rem; font-size: 1.1rem; }
.scroll { overflow-x: auto; margin-top: 1.5rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
caption { text-align: left; color: var(--soft); padding-bottom: .3rem; }
th, td { text-align: right; padding: .25rem .7rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; font-weight: normal; }
thead th { color: var(--soft); font-weight: normal; white-space: normal; vertical-align: bottom; }
dt { font-weight: 600; } dd { margin: 0 0 .6rem; color: var(--soft); }
@media (max-width: 44rem) {
  .scroll { overflow: visible; }
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  table, tbody, tr, th, td { display: block; }
  tr { display: grid; grid-template-columns: 1fr 1fr; gap: .1rem 1rem; padding: .5rem 0;
    border-bottom: 1px solid var(--line); }
  tbody th, tbody td { text-align: left; padding: 0; border: 0; white-space: normal; overflow-wrap: anywhere; }
  tbody th { grid-column: 1 / -1; font-weight: 600 !important; }
  tbody td::before { content: attr(data-label) " "; color: var(--soft); }
}
svg { max-width: 100%; height: auto; } svg text { fill: var(--text); font: 12px system-ui, sans-serif; }
svg .soft { fill: var(--soft); } svg .line { stroke: var(--line); } svg .axis { stroke: var(--soft); }
svg .dot { fill: var(--plain); } svg .whisker { stroke: var(--plain); stroke-width: 2; }
svg .mark { fill: var(--mark); } svg .mark-line { stroke: var(--mark); stroke-width: 3; }
footer { color: var(--soft); margin-top: 2rem; font-size: .9rem; }
"""


def page(report: Report) -> str:
    """The whole document."""
    body = ["<h1>What routing brought</h1>", *(f"<p>{escape(line)}</p>" for line in size(report).splitlines())]
    for comparison in report.comparisons:
        body += [f"<h2>{escape(heading(comparison))}</h2>", *_comparison(comparison)]
    if report.cost:
        body += ["<h2>Cost</h2>", _table(money(report.cost))]
    body += ["<h2>How to read it</h2>", _words()]
    made = f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>Paceline report</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + f"\n</main>\n<footer>Paceline {escape(__version__)}, {made}</footer>\n</body>\n</html>\n"
    )


def _comparison(comparison: Comparison) -> list[str]:
    intervals = [("routed", 1.0, 1.0, 1.0)]
    intervals += [_interval(f"always {lane}", estimate) for lane, estimate in comparison.fixed.items()]
    if comparison.rules:
        intervals.append(_interval("your rules alone", comparison.rules))
    accepted = [(task.task, task.acceptance, task.break_even) for task in comparison.tasks]
    calibration = comparison.calibration
    return [
        f'<p class="verdict">{escape(verdict(comparison))}</p>',
        "<h3>Against other settings</h3>",
        charts.intervals(
            intervals, "Time over that of routing; the line is its 95 % interval. Above 1, routing is faster"
        ),
        _table(policies(comparison)),
        "<h3>Tasks</h3>",
        _table(tasks(comparison)),
        charts.against_break_even(accepted, "Accepted per drafted token (dot), and from where on drafts pay (bar)"),
        "<h3>Were the predictions right?</h3>",
        "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in remarks(comparison)) + "</ul>",
        charts.scatter(
            [(1000 * group.predicted, 1000 * group.actual) for group in calibration.times],
            "Time per token in ms, predicted and actual, by groups of requests with like predictions",
            "ms",
        ),
        charts.scatter(
            [(group.predicted, group.actual) for group in calibration.acceptances],
            "Accepted per drafted token, predicted and actual, by groups of requests",
            "",
        ),
    ]


WORDS = {
    "always …": "What the same requests would have taken, had all of them gone down that lane. Above 1, routing was "
    "faster than that.",
    "95 % interval": "Where the true value lies in 95 of 100 cases. Where it holds 1, it cannot be told yet which side "
    "is faster: that is no reason to change anything.",
    "doubly robust": "How it is estimated: by the predictions, corrected by what the requests took that did go down "
    "the lane. It is right if either the predictions or the probabilities are.",
    "by inverse propensity, self-normalised, by prediction": "Three simpler estimates from the same log, to compare "
    "with: by the requests that went down the lane alone, each counted as often as it was unlikely to; the same, with "
    "its weights adding up to one; and the share of the estimate that rests on predictions alone.",
    "best of each task, in hindsight": "The best lane for each task, as one would choose knowing the outcome. It shows "
    "how much there is left to gain.",
    "accepted, break-even": "Of the tokens that were drafted, the share that the model took over; and the share from "
    "which on drafting is as fast as plain decoding.",
    "over plain": "How many times as fast these requests were as the predictions say of plain decoding.",
}
"""What the page's words mean."""


def _words() -> str:
    return (
        "<dl>" + "".join(f"<dt>{escape(word)}</dt><dd>{escape(about)}</dd>" for word, about in WORDS.items()) + "</dl>"
    )


def _interval(name: str, estimate: Estimate) -> tuple[str, float, float, float]:
    return name, estimate.ratio, estimate.low, estimate.high


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.head)
    rows = "\n".join(f"<tr>{_cells(row, table.head)}</tr>" for row in table.rows)
    title = escape(table.title)
    return (
        f'<div class="scroll" role="region" aria-label="{title}" tabindex="0"><table><caption>{title}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table></div>"
    )


def _cells(row: Sequence[str], head: Sequence[str]) -> str:
    """On a phone, where a row is a card, each cell says what it is."""
    first, *others = row
    labelled = zip(others, head[1:], strict=True)
    return f'<th scope="row">{escape(first)}</th>' + "".join(
        f'<td data-label="{escape(label)}">{escape(cell)}</td>' for cell, label in labelled
    )
