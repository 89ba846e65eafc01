"""`metrana runs`: what there is."""

from __future__ import annotations

import argparse

from rich.table import Table
from rich.text import Text

from metrana.cli.output import DONE, NOT_FOUND, complain, console, print_json
from metrana.query import Client


def run(arguments: argparse.Namespace) -> int:
    """Lists runs."""
    with Client(arguments.url, data_dir=arguments.data_dir) as client:
        rows = client.runs(arguments.project, as_="arrow").to_pylist()
    if arguments.json:
        print_json(rows)
    elif rows:
        console().print(_table(rows))
    else:
        complain("no runs" + (f" in project {arguments.project!r}" if arguments.project else ""))
    return DONE if rows else NOT_FOUND


def _table(rows: list[dict[str, object]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("project", "run", "status", "created", "tags"):
        table.add_column(heading)
    table.add_column("points", justify="right")
    for row in rows:
        tags = row["tags"]
        table.add_row(
            Text(str(row["project_name"])),
            Text(str(row["run_name"])),
            str(row["status"]),
            f"{row['created_at']:%Y-%m-%d %H:%M}",
            Text(", ".join(tags) if isinstance(tags, list) else ""),
            f"{row['point_count']:,}",
        )
    return table
