"""Charts as SVG inside HTML. Colours and type come from the page's classes: axis, line, dot, whisker, mark, soft."""

from collections.abc import Callable, Sequence
from html import escape
from math import floor, log10

WIDTH, ROW, LEFT, RIGHT = 640, 26, 190, 30
"""Of a chart with rows, in pixels: its width, a row's height, and the space beside the axis."""
SIDE, MARGIN = 260, 48
"""Of a square chart, in pixels."""
MAX_TICKS = 6
"""Numbers at an axis, so that they don't touch."""

Scale = Callable[[float], float]


def intervals(rows: Sequence[tuple[str, float, float, float]], title: str) -> str:
    """Names with a value, and the interval it lies in, beside a line at 1."""
    most = 1.1 * max(1.0, *(high for *_, high in rows))
    x = _scale(0.0, most, LEFT, WIDTH - RIGHT)
    parts = [_upright(x(1.0), len(rows), "mark-line")]
    for number, (name, value, low, high) in enumerate(rows):
        y = (number + 0.7) * ROW
        parts.append(_name(name, y))
        parts.append(f'<line class="whisker" x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<circle class="dot" cx="{x(value):.1f}" cy="{y:.1f}" r="4"/>')
    return _figure([*parts, *_bottom(x, most, len(rows))], WIDTH, (len(rows) + 1.6) * ROW, title)


def against_break_even(rows: Sequence[tuple[str, float | None, float | None]], title: str) -> str:
    """Names with a share, and the share that it has to reach; those without are left out."""
    complete = [(name, share, needed) for name, share, needed in rows if share is not None and needed is not None]
    if not complete:
        return "<p>Nothing was drafted.</p>"
    x = _scale(0.0, 1.0, LEFT, WIDTH - RIGHT)
    parts = []
    for number, (name, share, needed) in enumerate(complete):
        y = (number + 0.7) * ROW
        parts.append(_name(name, y))
        parts.append(f'<line class="line" x1="{x(0):.1f}" x2="{x(1):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        bar = x(min(1.0, needed))
        parts.append(f'<line class="mark-line" x1="{bar:.1f}" x2="{bar:.1f}" y1="{y - 8:.1f}" y2="{y + 8:.1f}"/>')
        parts.append(f'<circle class="dot" cx="{x(min(1.0, share)):.1f}" cy="{y:.1f}" r="5"/>')
    return _figure([*parts, *_bottom(x, 1.0, len(complete))], WIDTH, (len(complete) + 1.6) * ROW, title)


def scatter(points: Sequence[tuple[float, float]], title: str, unit: str) -> str:
    """Predicted to the right, actual upwards; the diagonal is where both are the same."""
    if not points:
        return f"<p>{escape(title)}: nothing to show yet.</p>"
    most = 1.1 * max(max(pair) for pair in points)
    x, y = _scale(0.0, most, MARGIN, MARGIN + SIDE), _scale(0.0, most, SIDE + 10, 10)
    parts = [
        f'<line class="line" x1="{x(0):.1f}" y1="{y(0):.1f}" x2="{x(most):.1f}" y2="{y(most):.1f}"/>',
        f'<line class="axis" x1="{x(0):.1f}" y1="{y(0):.1f}" x2="{x(most):.1f}" y2="{y(0):.1f}"/>',
        f'<line class="axis" x1="{x(0):.1f}" y1="{y(0):.1f}" x2="{x(0):.1f}" y2="{y(most):.1f}"/>',
    ]
    for value in _ticks(most):
        parts.append(
            f'<text class="soft" x="{x(value):.1f}" y="{y(0) + 16:.1f}" text-anchor="middle">{value:.3g}</text>'
        )
        if value:
            parts.append(
                f'<text class="soft" x="{x(0) - 6:.1f}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>'
            )
    parts.append(f'<text x="{x(most):.1f}" y="{y(0) + 32:.1f}" text-anchor="end">predicted {escape(unit)}</text>')
    parts.append(f'<text x="{x(0) + 6:.1f}" y="20">actual {escape(unit)}</text>')
    parts += [f'<circle class="dot" cx="{x(guess):.1f}" cy="{y(real):.1f}" r="4"/>' for guess, real in points]
    return _figure(parts, MARGIN + SIDE + 20, SIDE + 50, title)


def _scale(low: float, high: float, start: float, end: float) -> Scale:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _ticks(most: float) -> list[float]:
    """Round numbers from 0 to ``most``."""
    rough = most / MAX_TICKS
    unit = 10.0 ** floor(log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough)
    return [step * number for number in range(int(most / step) + 1)]


def _name(name: str, y: float) -> str:
    return f'<text x="{LEFT - 10}" y="{y + 4:.1f}" text-anchor="end">{escape(name)}</text>'


def _upright(x: float, rows: int, kind: str) -> str:
    return f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{(rows + 0.4) * ROW:.1f}"/>'


def _bottom(x: Scale, most: float, rows: int) -> list[str]:
    """The axis below the rows."""
    y = (rows + 0.4) * ROW
    return [
        f'<line class="axis" x1="{x(0):.1f}" x2="{x(most):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>',
        *(
            f'<text class="soft" x="{x(value):.1f}" y="{y + 18:.1f}" text-anchor="middle">{value:.3g}</text>'
            for value in _ticks(most)
        ),
    ]


def _figure(parts: Sequence[str], width: float, height: float, title: str) -> str:
    return (
        f'<figure><svg role="img" aria-label="{escape(title)}" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}">{"".join(parts)}</svg>'
        f"<figcaption>{escape(title)}</figcaption></figure>"
    )
