"""A treemap: rectangles whose areas are as the values, each as near to a square as the others allow.

By "Squarified Treemaps" (Bruls, Huizing, van Wijk, 2000): rows are filled along the shorter side for as long as that
makes their rectangles less oblong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from zotctl.web.words import MOST

WIDTH, HEIGHT = 960.0, 440.0
"""Of the whole map, in the units of its picture."""
LETTER_WIDTH = 7.8
LABEL_HEIGHT, TWO_LABELS_HEIGHT = 22.0, 40.0


class Area(NamedTuple):
    """What a rectangle stands for. `value` is its share of the map; `kind` is its style."""

    label: str
    value: float
    note: str
    kind: str


class Rectangle(NamedTuple):
    """Where an area lies. `label` and `note`: as much as fits, "" if nothing does."""

    x: float
    y: float
    width: float
    height: float
    area: Area
    label: str
    note: str


def layout(areas: Sequence[Area], width: float = WIDTH, height: float = HEIGHT) -> list[Rectangle]:
    """The rectangles of all areas with a value, the largest first."""
    known = (area._replace(value=min(area.value, MOST)) for area in areas if area.value > 0)
    left = sorted(known, key=lambda area: -area.value)
    scale = width * height / (sum(area.value for area in left) or 1.0)
    placed: list[Rectangle] = []
    x = y = 0.0
    while left:
        side = min(width, height)
        row, rest = _row(left, scale, side)
        thickness = sum(area.value for area in row) * scale / side if side else 0.0
        along = 0.0
        for area in row:
            length = area.value * scale / thickness if thickness else 0.0
            if width >= height:
                placed.append(_rectangle(x, y + along, thickness, length, area))
            else:
                placed.append(_rectangle(x + along, y, length, thickness, area))
            along += length
        if width >= height:
            x, width = x + thickness, max(0.0, width - thickness)
        else:
            y, height = y + thickness, max(0.0, height - thickness)
        left = rest
    return placed


def _row(areas: list[Area], scale: float, side: float) -> tuple[list[Area], list[Area]]:
    """The first areas, as many as make the worst of them no more oblong; and the rest."""
    best = float("inf")
    total = 0.0
    for count, area in enumerate(areas):
        total += area.value * scale
        worst = _worst(areas[0].value * scale, area.value * scale, total, side)
        if worst > best:
            return areas[:count], areas[count:]
        best = worst
    return areas, []


def _worst(largest: float, smallest: float, total: float, side: float) -> float:
    """The ratio of the sides of the most oblong rectangle of a row along `side` with areas of `total`."""
    return max(side * side * largest / (total * total), total * total / (side * side * smallest or 1e-9))


def _rectangle(x: float, y: float, width: float, height: float, area: Area) -> Rectangle:
    letters = int((width - 14) / LETTER_WIDTH)
    fits = height >= LABEL_HEIGHT and letters >= 4
    label = _cut(area.label, letters) if fits else ""
    note = area.note if fits and height >= TWO_LABELS_HEIGHT and len(area.note) <= letters else ""
    return Rectangle(round(x, 1), round(y, 1), round(width, 1), round(height, 1), area, label, note)


def _cut(text: str, letters: int) -> str:
    """The end of a name tells more than its beginning."""
    return text if len(text) <= letters else f"…{text[-(letters - 1) :]}"
