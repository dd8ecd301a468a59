"""Draws what was measured as one picture: how long the same mix of requests took under some settings, and routed.

    python -m benchmarks.real_size.picture FILE [--concurrency 1] --out PICTURE.svg

A bar is the time of all requests, one after another, and a piece of it a request in the colour of its task; the
requests stand in the same order in each bar. Where the reader's machine allows movement, the bars fill at the speed
that was measured.
"""

import argparse
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from msgspec import convert

from benchmarks.real_size.measure import PLAIN, ROUTED_WITH_CONTROL, Sample
from benchmarks.real_size.show import seconds_per_token

WIDTH, LABEL_WIDTH, END_WIDTH = 860, 178, 74
BAR, GAP, TOP = 30, 14, 34
SPEED_UP = 4.0
"""How much faster the picture moves than the requests did."""
COLOURS = ("#0f766e", "#c2410c", "#1d4ed8", "#a16207", "#7e22ce", "#be123c", "#4d7c0f", "#0369a1", "#475569")
WAYS = {
    PLAIN: "never drafting",
    "mtp-2": "always up to 2 drafted",
    "mtp-4": "always up to 4 drafted",
    ROUTED_WITH_CONTROL: "Paceline",
}
"""Which are drawn, and what they are called."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="samples, one a line, as --json of the benchmark wrote them")
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.file.read_text().splitlines()]
    samples = [convert(row, Sample) for row in rows if row["concurrency"] == options.concurrency]
    options.out.write_text(picture(samples))


def picture(samples: Sequence[Sample]) -> str:
    """An SVG of the ways in :data:`WAYS`."""
    tasks = dict(sorted({sample.number: sample.task for sample in samples}.items()))
    tokens = {sample.number: sample.tokens for sample in samples if sample.way == PLAIN}
    times = {way: {number: s * tokens[number] for number, s in seconds_per_token(samples, way).items()} for way in WAYS}
    colours = dict(zip(dict.fromkeys(tasks.values()), COLOURS, strict=False))
    totals = {way: sum(each.values()) for way, each in times.items()}
    scale = (WIDTH - LABEL_WIDTH - END_WIDTH) / max(totals.values())
    lines = [_legend(colours)]
    for place, (way, label) in enumerate(WAYS.items()):
        top = TOP + place * (BAR + GAP)
        weight = ' class="ours"' if way == ROUTED_WITH_CONTROL else ""
        lines.append(f'<text{weight} x="{LABEL_WIDTH - 10}" y="{top + 20}" text-anchor="end">{escape(label)}</text>')
        x, pieces = float(LABEL_WIDTH), []
        for number, task in tasks.items():
            width = times[way][number] * scale
            title = f"<title>{escape(task)}: {times[way][number]:.1f} s</title>"
            pieces.append(
                f'<rect x="{x:.1f}" y="{top}" width="{max(width - 1, 0.5):.1f}" height="{BAR}" '
                f'fill="{colours[task]}">{title}</rect>'
            )
            x += width
        lines.append(f'<g style="animation-duration:{totals[way] / SPEED_UP:.2f}s">{"".join(pieces)}</g>')
        lines.append(f'<text{weight} x="{x + 8:.0f}" y="{top + 20}">{totals[way]:.1f} s</text>')
    height = TOP + len(WAYS) * (BAR + GAP)
    named = ", ".join(f"{label} {totals[way]:.1f} s" for way, label in WAYS.items())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="Time of the same {len(tasks)} requests: {escape(named)}">\n{STYLE}\n'
        + "\n".join(lines)
        + "\n</svg>\n"
    )


STYLE = """<style>
text { font: 13px system-ui, sans-serif; fill: #334155 }
.ours { font-weight: 700 }
g { animation: fill linear 1 both }
@keyframes fill { from { clip-path: inset(0 100% 0 0) } to { clip-path: inset(0 0 0 0) } }
@media (prefers-reduced-motion: reduce) { g { animation: none } }
@media (prefers-color-scheme: dark) { text { fill: #cbd5e1 } }
</style>"""


def _legend(colours: dict[str, str]) -> str:
    """The tasks, one after another above the bars."""
    x, parts = float(LABEL_WIDTH), []
    for task, colour in colours.items():
        parts.append(f'<rect x="{x:.0f}" y="8" width="11" height="11" fill="{colour}"/>')
        parts.append(f'<text x="{x + 16:.0f}" y="18">{escape(task)}</text>')
        x += 30 + 7.2 * len(task)
    return "".join(parts)


if __name__ == "__main__":
    main()
