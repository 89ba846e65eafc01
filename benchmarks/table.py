"""The table as markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from benchmarks.goals import Goal, Row
from benchmarks.loggers import PEERS
from benchmarks.place import Figures

_NOTHING = "-"
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
        if goal.limit is not None and not goal.is_quiet
    ]
    return ", ".join(wanted)


def _shown(row: Row, figures: Figures | None, prefix: str = "") -> str:
    if figures is None:
        return "failed"
    shown = [
        f"{goal.label} {_number(figures[prefix + goal.figure], goal)} {goal.unit}".strip()
        for goal in row.goals
        if prefix + goal.figure in figures
        and not (goal.is_quiet and goal.is_met(figures[prefix + goal.figure]))
    ]
    return ", ".join(shown) or _NOTHING


def _number(value: float, goal: Goal) -> str:
    if goal.unit in ("points", ""):
        return f"{value:,.0f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _missed(row: Row, figures: Figures) -> list[Goal]:
    # What was not measured is not good enough.
    return [
        goal
        for goal in row.goals
        if goal.limit is not None
        and not (goal.figure in figures and goal.is_met(figures[goal.figure]))
    ]


def _verdict(row: Row, figures: Figures | None) -> str:
    if figures is None:
        return "no"
    missed = _missed(row, figures)
    if not missed:
        return "yes"
    labels = ", ".join(goal.label for goal in missed if goal.label)
    return f"**no** ({labels})" if labels else "**no**"


def _note(row: Row, figures: Figures | None) -> str:
    if figures is None:
        return "failed: see below"
    parts = [row.note.format_map(figures)] if row.note else []
    missed = _missed(row, figures)
    if any(not goal.is_quiet for goal in missed):
        parts.append("missed: " + (row.reason.format_map(figures) or "no reason is known yet"))
    if invalid := [goal.label for goal in missed if goal.is_quiet]:
        parts.append(f"the figures do not count: {', '.join(invalid)}")
    return "; ".join(parts) or _NOTHING


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
