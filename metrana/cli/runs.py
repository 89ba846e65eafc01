"""`metrana runs`: what there is."""

from __future__ import annotations

import argparse
from typing import Any

from rich.table import Table
from rich.text import Text

from metrana.cli.output import DONE, NOT_FOUND, complain, console, print_json, visible
from metrana.cli.reading import nothing_yet, reading


def run(arguments: argparse.Namespace) -> int:
    """Lists runs."""
    with reading(arguments) as client:
        found = client.runs(arguments.project, as_="arrow").to_pylist()
        rows = [row for row in found if _is_in(row, arguments.workspace)]
        is_asked_all = arguments.project is None
        is_empty = not found and (is_asked_all or not len(client.runs(as_="arrow")))
    if arguments.json:
        print_json(rows)
    elif rows:
        console().print(_table(rows))
    else:
        complain(nothing_yet(arguments) if is_empty else _no_runs(arguments))
    return DONE if rows else NOT_FOUND


def _is_in(row: dict[str, Any], workspace: str | None) -> bool:
    return workspace is None or row["workspace_name"] == workspace


def _no_runs(arguments: argparse.Namespace) -> str:
    asked = (("project", arguments.project), ("workspace", arguments.workspace))
    return "no runs" + "".join(f" in {kind} {name!r}" for kind, name in asked if name)


def _table(rows: list[dict[str, Any]]) -> Table:
    # Who has one workspace does not think of it.
    names = ["project_name", "run_name"]
    if len({row["workspace_name"] for row in rows}) > 1:
        names.insert(0, "workspace_name")
    table = Table(box=None, pad_edge=False)
    for heading in (*(name.removesuffix("_name") for name in names), "status", "created", "tags"):
        table.add_column(heading)
    table.add_column("points", justify="right")
    for row in rows:
        table.add_row(
            *(Text(visible(row[name])) for name in names),
            str(row["status"]),
            f"{row['created_at']:%Y-%m-%d %H:%M}",
            Text(visible(", ".join(row["tags"]))),
            f"{row['point_count']:,}",
        )
    return table
