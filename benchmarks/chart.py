"""Charts as SVG, which need nothing but a browser."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from benchmarks.figures import Spread, number

COLOURS = ("#2563eb", "#dc2626", "#d97706", "#059669", "#7c3aed", "#0891b2", "#be185d")
_GREY = "#6b7280"
_STYLE = "text{font:11px sans-serif}.end{text-anchor:end}.middle{text-anchor:middle}.title{font-size:13px}"
_LABELS, _BARS, _FIGURES = 190, 380, 190
_BAR, _GAP = 13, 10


def _svg(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
        f'<rect width="{width}" height="{height}" fill="#fff"/>'
        f'<text x="{width // 2}" y="20" class="middle title">{escape(title)}</text>\n' + "\n".join(parts) + "\n</svg>\n"
    )


@dataclass(frozen=True)
class Bars:
    """One row of a chart: a bar for each server, as long as its figure in terms of the row's largest."""

    name: str
    unit: str
    figures: dict[str, Spread]
    limit: Spread | None = None


def bars(title: str, rows: Sequence[Bars], servers: Sequence[str]) -> str:
    """Bars with a line from the smallest to the largest turn, and a grey mark at the limit of the machine."""
    colours = dict(zip(servers, COLOURS, strict=False))
    parts, y = _legend(colours), 50
    for row in rows:
        found = {name: row.figures[name] for name in servers if name in row.figures}
        largest = max([one.high for one in (*found.values(), *([row.limit] if row.limit else []))], default=0)
        if not largest:
            continue
        top = y
        parts.append(f'<text x="{_LABELS - 8}" y="{y + 10}" class="end">{escape(row.name)}</text>')
        for name, one in found.items():
            parts += _bar(y, one, largest, colours[name], f"{number(one.middle)} {row.unit}")
            y += _BAR
        if row.limit is not None:
            x = _LABELS + _BARS * row.limit.middle / largest
            mark = f'<path d="M{x:.1f} {top - 2}V{y + 1}" stroke="{_GREY}" stroke-width="2" stroke-dasharray="3 2"/>'
            text = f'<text x="{x + 4:.1f}" y="{y + 9}" fill="{_GREY}">limit {number(row.limit.middle)}</text>'
            parts += [mark, text]
            y += _BAR
        y += _GAP
    return _svg(_LABELS + _BARS + _FIGURES, y, title, parts)


def _legend(colours: dict[str, str]) -> list[str]:
    parts, x = [], _LABELS
    for name, colour in colours.items():
        parts.append(f'<rect x="{x}" y="30" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{x + 14}" y="39">{escape(name)}</text>')
        x += 34 + 7 * len(name)
    return parts


def _bar(y: int, one: Spread, largest: float, colour: str, text: str) -> list[str]:
    def at(value: float) -> float:
        return _LABELS + _BARS * value / largest

    return [
        f'<rect x="{_LABELS}" y="{y + 1}" width="{at(one.middle) - _LABELS:.1f}" height="{_BAR - 3}" fill="{colour}"/>',
        f'<path d="M{at(one.low):.1f} {y + 6}H{at(one.high):.1f}" stroke="#111"/>',
        f'<text x="{at(one.high) + 6:.1f}" y="{y + 10}">{escape(text)}</text>',
    ]


@dataclass(frozen=True)
class Line:
    """A line of a chart."""

    label: str
    points: Sequence[tuple[float, float]]


def curves(title: str, lines: Sequence[Line]) -> str:
    """Both axes are logarithmic. "" without a point."""
    points = [point for line in lines for point in line.points]
    if not points:
        return ""
    xs, ys = [math.log10(x) for x, _ in points], [math.log10(y) for _, y in points]
    left, right, low, high = min(xs), max(xs), math.floor(min(ys)), math.ceil(max(ys))

    def at(x: float, y: float) -> tuple[float, float]:
        across = 60 + 460 * (math.log10(x) - left) / (right - left or 1)
        return across, 240 - 200 * (math.log10(y) - low) / (high - low or 1)

    parts = []
    for power in range(low, high + 1):
        _, y = at(10**left, 10**power)
        parts.append(f'<path d="M60 {y:.0f}H520" stroke="#ddd"/>')
        parts.append(f'<text x="54" y="{y + 4:.0f}" class="end">{10.0**power:g}</text>')
    for size in sorted({size for size, _ in points}):
        x, _ = at(size, 10**low)
        parts.append(f'<text x="{x:.0f}" y="258" class="middle">{_short(size)}</text>')
    for index, (line, colour) in enumerate(zip(lines, COLOURS, strict=False)):
        placed = [at(x, y) for x, y in line.points]
        road = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline points="{road}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in placed]
        parts.append(f'<text x="532" y="{50 + 18 * index}" fill="{colour}">{escape(line.label)}</text>')
    return _svg(720, 275, title, parts)


def _short(size: float) -> str:
    for factor, suffix in ((1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")):
        if size >= factor and size % factor == 0:
            return f"{size / factor:g}{suffix}"
    return f"{size:,g}" if size < 1e6 else f"{size:.0e}"
