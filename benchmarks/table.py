"""The table as markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from benchmarks.goals import Goal, Row
from benchmarks.loggers import PEERS
from benchmarks.place import Figures

_NOTHING = "-"
_UNSURE = "within noise"
_NEAR = 0.05
_ALL_DIGITS = 18
Measure = Callable[[str, str], Figures | None]


def table(rows: Iterable[Row], measure: Measure) -> list[str]:
    """Returns the lines of the table, measuring row by row."""
    head = ["row", "work", "goal", "metrana", "net", *PEERS.values(), "met?", "note"]
    return [_line(head), _line(["---"] * len(head)), *(_line(_cells(row, measure)) for row in rows)]


def _cells(row: Row, measure: Measure) -> list[str]:
    figures = measure(row.work, row.logger)
    peers = [_shown(row, measure(row.work, peer)) if row.has_peers else _NOTHING for peer in PEERS]
    return [
        row.name,
        row.title,
        _goals(row),
        _shown(row, figures),
        _shown(row, figures, "net_"),
        *peers,
        _verdict(row, figures),
        _note(row, figures),
    ]


def _goals(row: Row) -> str:
    wanted = [
        f"{goal.label} {'≥' if goal.at_least else '≤'} {goal.limit:g} {goal.unit}".strip()
        for goal in row.goals
        if goal.limit is not None and not goal.fault
    ]
    return ", ".join(wanted)


def _shown(row: Row, figures: Figures | None, prefix: str = "") -> str:
    if figures is None:
        return "failed"
    shown = [
        f"{goal.label} {_value(figures, prefix + goal.figure, goal)} {goal.unit}".strip()
        for goal in row.goals
        if prefix + goal.figure in figures
        and not (goal.fault and goal.is_met(figures[prefix + goal.figure]))
    ]
    return ", ".join(shown) or _NOTHING


def _value(figures: Figures, name: str, goal: Goal) -> str:
    value = _number(figures[name], goal)
    if not _has_interval(figures, name):
        return value
    low, high = (_number(figures[f"{name}_{end}"], goal) for end in ("low", "high"))
    return f"{value} ({low} to {high})"


def _number(value: float, goal: Goal) -> str:
    if goal.unit in ("points", ""):
        return f"{value:,.0f}"
    if goal.limit and abs(value / goal.limit - 1) < _NEAR:
        return _beside(goal.limit, value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _beside(limit: float, value: float) -> str:
    # With as many digits as it takes not to seem to be the limit.
    rounded = (f"{value:#.{digits}g}" for digits in range(4, _ALL_DIGITS))
    return next((text for text in rounded if float(text) != limit), f"{value:g}")


def _has_interval(figures: Figures, name: str) -> bool:
    return f"{name}_low" in figures


def _missed(row: Row, figures: Figures) -> list[Goal]:
    # What was not measured is not good enough. An interval misses a goal with both of its ends.
    return [goal for goal in _limited(row) if not any(_ends_met(goal, figures))]


def _unsure(row: Row, figures: Figures) -> list[Goal]:
    # One end of the interval would do, the other would not.
    return [goal for goal in _limited(row) if len(set(_ends_met(goal, figures))) > 1]


def _limited(row: Row) -> list[Goal]:
    return [goal for goal in row.goals if goal.limit is not None]


def _ends_met(goal: Goal, figures: Figures) -> list[bool]:
    name = goal.figure
    ends = (f"{name}_low", f"{name}_high") if _has_interval(figures, name) else (name,)
    return [end in figures and goal.is_met(figures[end]) for end in ends]


def _verdict(row: Row, figures: Figures | None) -> str:
    if figures is None:
        return "no"
    for word, goals in (("**no**", _missed(row, figures)), (_UNSURE, _unsure(row, figures))):
        if goals:
            names = ", ".join(goal.name for goal in goals)
            # A row's only figure needs no name.
            return word if not any(goal.label for goal in goals) else f"{word} ({names})"
    return "yes" if _goals(row) else _NOTHING


def _note(row: Row, figures: Figures | None) -> str:
    if figures is None:
        return "failed: see below"
    parts = [f"{figures['calls']:,.0f} calls"] if "calls" in figures else []
    parts += [row.note.format_map(figures)] if row.note else []
    missed = _missed(row, figures)
    for goal in missed:
        if not goal.fault:
            reason = goal.reason.format_map(figures) or "no reason is known yet"
            parts.append(f"missed: {f'{goal.label}: ' if goal.label else ''}{reason}")
    if _unsure(row, figures):
        parts.append(f"{_UNSURE}: the goal lies between the figures in brackets")
    if faults := [goal.fault for goal in missed if goal.fault]:
        parts.append(f"the figures do not count: {', '.join(faults)}")
    return "; ".join(parts) or _NOTHING


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
