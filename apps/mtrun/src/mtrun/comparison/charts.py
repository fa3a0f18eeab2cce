"""Charts as inline SVG, without a library. Colours are those of the page they stand in, or of `alone`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

FONT, LETTER = 12, 6.6  # pixels; LETTER is about the width of one
WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 62, 24, 16, 46
LONGEST = 30  # letters of a name

# The colours that the charts use, for light and for dark pages.
LIGHT = {
    "page": "#ffffff",
    "ink": "#1f2328",
    "faint": "#656d76",
    "line": "#d0d7de",
    "accent": "#0b6bcb",
    "other": "#a2530a",
}
DARK = {
    "page": "#0d1117",
    "ink": "#e6edf3",
    "faint": "#9198a1",
    "line": "#3d444d",
    "accent": "#58a6ff",
    "other": "#f0a35e",
}

STYLE = """
.chart { font: 12px system-ui, "Segoe UI", sans-serif; }
.chart text { fill: var(--ink); paint-order: stroke; stroke: var(--page); stroke-width: 3px; }
.chart .faint { fill: var(--faint); }
.chart .axis, .chart .grid { stroke: var(--line); stroke-width: 1; }
.chart .front { stroke: var(--accent); fill: none; stroke-width: 1.5; stroke-dasharray: 5 3; }
.chart .measured { fill: var(--accent); stroke: var(--accent); }
.chart .published { fill: none; stroke: var(--other); stroke-width: 1.5; stroke-dasharray: 3 2; }
.chart .spread { stroke: var(--ink); stroke-width: 1.2; }
.chart .zero { stroke: var(--faint); stroke-dasharray: 4 3; }
"""


@dataclass(frozen=True)
class Mark:
    """One row in a chart.

    Attributes:
        x: trainable parameters; unused in bars.
        spread: standard deviation of y; NaN without.
        shown: y as text.
    """

    name: str
    x: float
    y: float
    spread: float
    published: bool
    shown: str


def pareto(marks: Sequence[Mark], y_title: str, higher: bool = True) -> str:
    """Accuracy against trainable parameters (logarithmic), with the front of what was measured.

    Args:
        marks: with x > 0 and finite y.
        higher: whether a higher y is better.
    """
    across = _Log(min(m.x for m in marks), max(m.x for m in marks))
    lows = [m.y - _or_zero(m.spread) for m in marks]
    highs = [m.y + _or_zero(m.spread) for m in marks]
    up = _Linear(min(lows), max(highs))
    x = {id(m): LEFT + across.share(m.x) * (WIDTH - LEFT - RIGHT) for m in marks}
    y = {id(m): _down(up.share(m.y)) for m in marks}
    parts = list(_frame(across, up, "trainable parameters", y_title))
    steps = _front([m for m in marks if not m.published], higher)
    if len(steps) > 1:
        path = f"M{x[id(steps[0])]:.1f} {y[id(steps[0])]:.1f}"
        path += "".join(f" H{x[id(m)]:.1f} V{y[id(m)]:.1f}" for m in steps[1:])
        parts.append(f'<path class="front" d="{path}"><title>Pareto front of the measured rows</title></path>')
    for m in marks:
        if m.spread > 0:
            ends = (_down(up.share(m.y - m.spread)), _down(up.share(m.y + m.spread)))
            parts.append(_line(x[id(m)], ends[0], x[id(m)], ends[1], "spread"))
        title = f"{m.name}: {m.shown} with {_count(m.x)} trainable{', published' if m.published else ''}"
        kind = "published" if m.published else "measured"
        parts.append(
            f'<circle class="{kind}" cx="{x[id(m)]:.1f}" cy="{y[id(m)]:.1f}" r="5">'
            f"<title>{escape(title)}</title></circle>"
        )
    parts += _names(marks, x, y)
    return _svg(WIDTH, HEIGHT, parts, f"{y_title} against trainable parameters")


def bars(marks: Sequence[Mark], title: str, reference: float = math.nan) -> str:
    """A bar from 0 for each mark, its number behind it.

    Args:
        marks: with finite y.
        reference: drawn as a line; NaN for none.
    """
    name, number, row, width = LETTER * (max(len(_short(m.name)) for m in marks) + 1), 124, 22, 600
    height = 26 + row * len(marks) + 4
    ends = [m.y for m in marks] + [m.y + m.spread for m in marks if m.spread > 0]
    ends += [reference] if math.isfinite(reference) else []
    low, high = min(0.0, *ends), max(0.0, *ends)

    def place(value: float) -> float:
        return name + 8 + (value - low) / ((high - low) or 1) * (width - name - number - 8)

    parts = [f'<text x="0" y="14" font-weight="600">{escape(title)}</text>']
    for i, m in enumerate(marks):
        top = 26 + i * row
        start, end = sorted((place(0), place(m.y)))
        kind = "published" if m.published else "measured"
        tip = f"{m.name}: {m.shown}{', published' if m.published else ''}"
        parts += [
            f'<text x="{name:.1f}" y="{top + 14}" text-anchor="end">{escape(_short(m.name))}'
            f"<title>{escape(tip)}</title></text>",
            f'<rect class="{kind}" x="{start:.1f}" y="{top + 3}" width="{max(end - start, 0.5):.1f}" '
            f'height="{row - 8}" rx="2"><title>{escape(tip)}</title></rect>',
        ]
        if m.spread > 0:
            parts.append(_line(place(m.y - m.spread), top + 10, place(m.y + m.spread), top + 10, "spread"))
        parts.append(f'<text x="{width - number + 10}" y="{top + 14}">{escape(m.shown)}</text>')
    if math.isfinite(reference):
        parts.append(_line(place(reference), 24, place(reference), height - 2, "zero"))
    return _svg(width, height, parts, title)


def alone(svg: str) -> str:
    """A chart as a file of its own."""
    colours = [";".join(f"--{name}: {value}" for name, value in palette.items()) for palette in (LIGHT, DARK)]
    dark = f"@media (prefers-color-scheme: dark) {{ svg {{ {colours[1]} }} }}"
    style = f"<style>svg {{ {colours[0]} }} {dark} {STYLE}</style>"
    head, rest = svg.split(">", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg">{style}{rest}\n'


@dataclass(frozen=True)
class _Linear:
    """An axis with round ticks."""

    low: float
    high: float

    @property
    def ends(self) -> tuple[float, float]:
        span = (self.high - self.low) or abs(self.high) or 1.0
        return self.low - 0.08 * span, self.high + 0.08 * span

    def share(self, value: float) -> float:
        low, high = self.ends
        return (value - low) / (high - low)

    def ticks(self) -> Iterator[tuple[float, str]]:
        low, high = self.ends
        rough = (high - low) / 6
        power = 10.0 ** math.floor(math.log10(rough))
        step = next((f * power for f in (1, 2, 5) if f * power >= rough), 10 * power)
        digits = max(0, -math.floor(math.log10(step)))
        for i in range(math.ceil(low / step), math.floor(high / step) + 1):
            yield i * step, f"{i * step:.{digits}f}"


@dataclass(frozen=True)
class _Log:
    """A logarithmic axis of counts."""

    low: float
    high: float

    @property
    def ends(self) -> tuple[float, float]:
        low, high = math.log10(self.low), math.log10(self.high)
        pad = max(0.06 * (high - low), 0.08)
        return low - pad, high + pad + 0.12 * (high - low)  # names stand to the right

    def share(self, value: float) -> float:
        low, high = self.ends
        return (math.log10(value) - low) / (high - low)

    def ticks(self) -> Iterator[tuple[float, str]]:
        low, high = self.ends
        if high - low < 0.7:
            yield from ((value, _count(value)) for value, _ in _Linear(10**low, 10**high).ticks() if value > 0)
            return
        factors = (1, 2, 5) if high - low < 3 else (1,)
        for power in range(math.floor(low), math.ceil(high) + 1):
            for factor in factors:
                if low <= math.log10(factor) + power <= high:
                    yield factor * 10.0**power, _count(factor * 10.0**power)


def _frame(across: _Log, up: _Linear, x_title: str, y_title: str) -> Iterator[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    for value, text in up.ticks():
        y = _down(up.share(value))
        yield _line(LEFT, y, right, y, "zero" if value == 0 else "grid")
        yield f'<text class="faint" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
    for value, text in across.ticks():
        if not 0 <= across.share(value) <= 1:
            continue
        x = LEFT + across.share(value) * (right - LEFT)
        yield _line(x, bottom, x, bottom + 5, "axis")
        yield f'<text class="faint" x="{x:.1f}" y="{bottom + 19}" text-anchor="middle">{text}</text>'
    yield _line(LEFT, bottom, right, bottom, "axis")
    yield f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_title)}</text>'
    middle = (TOP + bottom) / 2
    yield f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">{escape(y_title)}</text>'


def _names(marks: Sequence[Mark], x: dict[int, float], y: dict[int, float]) -> Iterator[str]:
    """A name beside each mark, where there is room; the others show theirs when pointed at."""
    taken = [(x[id(m)] - 5, y[id(m)] - 5, x[id(m)] + 5, y[id(m)] + 5) for m in marks]
    for m in sorted(marks, key=lambda m: m.published):
        text, a, b = _short(m.name), x[id(m)], y[id(m)]
        wide = LETTER * len(text)
        for left, base in ((a + 9, b + 4), (a - 9 - wide, b + 4), (a - wide / 2, b - 10), (a - wide / 2, b + 19)):
            box = (left, base - FONT, left + wide, base + 3)
            inside = box[0] >= LEFT and box[2] <= WIDTH and box[1] >= 0 and box[3] <= HEIGHT - BOTTOM
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                kind = ' class="faint"' if m.published else ""
                yield f'<text{kind} x="{left:.1f}" y="{base:.1f}">{escape(text)}</text>'
                break


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _front(marks: Sequence[Mark], higher: bool) -> list[Mark]:
    """Those that no other beats with as few parameters, from few parameters to many."""
    sign = 1 if higher else -1
    found: list[Mark] = []
    for m in sorted(marks, key=lambda m: (m.x, -sign * m.y)):
        if not found or sign * m.y > sign * found[-1].y:
            found.append(m)
    return found


def _down(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _svg(width: float, height: float, parts: Sequence[str], title: str) -> str:
    head = f'<svg class="chart" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title)}">'
    return "\n".join([head, *parts, "</svg>"])


def _count(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}\u2026"


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value
