"""Curves drawn with characters: two by four Braille dots in each.

Drawn here rather than by a library: it is little, and needs no colour to be read in a pipe.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

_HEIGHT: Final = 10
_DOTS: Final = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_BRAILLE: Final = 0x2800
_SPREAD: Final = "·"
_AXIS_NAMES: Final = {"ML_STEP": "step", "EPISODE": "episode", "ENVIRONMENT_STEP": "rl_step"}


def axis_of(scale: str) -> str:
    """Names what a metric of a scale is drawn over.

    Steps inside an episode begin anew with each, so their curve is drawn over the updates instead.
    """
    return _AXIS_NAMES[scale]


@dataclass(slots=True)
class _Slot:
    """What the series of a plot have in one bucket."""

    x: float = 0.0
    means: list[tuple[float, int]] = field(default_factory=list)
    least: float = math.inf
    greatest: float = -math.inf

    def add(self, bucket: dict[str, Any]) -> None:
        finite = bucket["count"] - bucket["nonfinite_count"]
        self.x = (bucket["x_min"] + bucket["x_max"]) / 2
        self.means.append((bucket["mean"], finite))
        self.least = min(self.least, bucket["min"])
        self.greatest = max(self.greatest, bucket["max"])


def weighted_mean(values: Sequence[tuple[float, int]]) -> float:
    """Gives the mean of values, each with its weight, even where their sum is beyond a float."""
    greatest = max(abs(value) for value, _ in values)
    # Beside a NaN, the greatest is whichever of them comes first.
    if not all(math.isfinite(value) for value, _ in values):
        return sum(value * weight for value, weight in values) / sum(w for _, w in values)
    scale = _exponent(greatest)
    total = sum(math.ldexp(value, -scale) * weight for value, weight in values)
    mean = total / sum(weight for _, weight in values)
    most = math.ldexp(greatest, -scale)  # rounding may leave it by a bit
    return math.ldexp(max(-most, min(mean, most)), scale)


def _exponent(value: float) -> int:
    """Gives the power of two that brings a value near 1: scaling by it rounds nothing."""
    return math.frexp(value)[1]


def draw(title: str, scale: str, buckets: Iterable[dict[str, Any]], width: int) -> str | None:
    """Draws one metric as the mean of all its series with dots at the least and the greatest.

    Args:
        title: What stands above.
        scale: The metric's, for the axis.
        buckets: Rows of `Client.buckets`, of one call, so that bucket numbers agree.
        width: In characters.

    Returns:
        The plot; None if there is no curve.
    """
    slots: defaultdict[int, _Slot] = defaultdict(_Slot)
    for bucket in buckets:
        if bucket["mean"] is not None:
            slots[bucket["bucket"]].add(bucket)
    drawn = [slots[number] for number in sorted(slots)]
    if len(drawn) < 2:
        return None  # a curve needs two points; the table has the one
    low = min(slot.least for slot in drawn)
    high = max(slot.greatest for slot in drawn)
    labels = [f"{value:.5g}" for value in (high, weighted_mean([(low, 1), (high, 1)]), low)]
    margin = max(map(len, labels))
    rows = _canvas(drawn, low, high, max(width - margin - 2, 10))
    sides = {0: labels[0], _HEIGHT // 2: labels[1], _HEIGHT - 1: labels[2]}
    if low == high:
        sides = {_HEIGHT // 2: labels[1]}
    lines = [f"{sides.get(at, ''):>{margin}} │{row}".rstrip() for at, row in enumerate(rows)]
    first, last = f"{drawn[0].x:,.0f}", f"{drawn[-1].x:,.0f}"
    middle = axis_of(scale).center(len(rows[0]) - len(first) - len(last))
    indent = " " * (margin + 2)
    frame = f"{' ' * margin} └{'─' * len(rows[0])}"
    return "\n".join([f"{indent}{title}", *lines, frame, f"{indent}{first}{middle}{last}".rstrip()])


def _canvas(drawn: list[_Slot], low: float, high: float, width: int) -> list[str]:
    """Draws the means as a line over dots where other values are; returns a text a row."""
    first, last = drawn[0].x, drawn[-1].x
    x_scale = (2 * width - 1) / (last - first) if last > first else 0.0
    # The difference of huge values is beyond a float, and what divides by that of tiny ones too.
    unit = -_exponent(max(abs(low), abs(high)))
    top_y = math.ldexp(high, unit)
    span = top_y - math.ldexp(low, unit)

    def place(x: float, y: float) -> tuple[int, int]:
        # What does not vary is drawn in the middle.
        share = (top_y - math.ldexp(y, unit)) / span if span else 0.5
        row = round(min(max(share, 0.0), 1.0) * (4 * _HEIGHT - 1))
        return round((x - first) * x_scale), row

    cells = [[0] * width for _ in range(_HEIGHT)]
    spread = [[False] * width for _ in range(_HEIGHT)]
    before: tuple[int, int] | None = None
    for slot in drawn:
        here = place(slot.x, weighted_mean(slot.means))
        top, bottom = place(slot.x, slot.greatest)[1], place(slot.x, slot.least)[1]
        for row in range(top // 4, bottom // 4 + 1):
            spread[row][here[0] // 2] = True
        for x, y in _line(before or here, here):
            cells[y // 4][x // 2] |= _DOTS[y % 4][x % 2]
        before = here
    return [
        "".join(
            chr(_BRAILLE + dots) if dots else _SPREAD if dotted else " "
            for dots, dotted in zip(row, dotted_row, strict=True)
        )
        for row, dotted_row in zip(cells, spread, strict=True)
    ]


def _line(start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    """Gives the dots from one to another."""
    (x0, y0), (x1, y1) = start, end
    count = max(abs(x1 - x0), abs(y1 - y0), 1)
    return [
        (x0 + round((x1 - x0) * step / count), y0 + round((y1 - y0) * step / count))
        for step in range(count + 1)
    ]
