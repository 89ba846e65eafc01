"""`metrana show RUN`: config, tags, a summary of every metric, and a plot of each."""

from __future__ import annotations

import argparse
import math
import re
from typing import Any, Final

import plotext
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from metrana.cli.output import DONE, print_json
from metrana.query import Client, RunInfo

_PLOT_HEIGHT: Final = 12
_MAX_PLOT_WIDTH: Final = 100
# Environments of one metric beyond this are not drawn one by one.
_MAX_CURVES: Final = 8
_MAX_ROWS: Final = 200


def run(arguments: argparse.Namespace) -> int:
    """Shows one run."""
    with Client(arguments.url, data_dir=arguments.data_dir) as client:
        info = client.run(**naming(arguments))
        series = client.series(run_id=info.run_id, as_="arrow").to_pylist()
        if arguments.json:
            print_json({**_fields(info), "series": [_with_labels(row) for row in series]})
            return DONE
        console = Console()
        _print_head(console, info)
        _print_series(console, series)
        width = min(console.width, _MAX_PLOT_WIDTH)
        for name in dict.fromkeys(row["metric_name"] for row in series):
            curves = client.buckets(run_id=info.run_id, metric_name=name, bucket_count=width)
            console.print(Text.from_ansi(_plot(name, curves, width)))
    return DONE


def naming(arguments: argparse.Namespace) -> dict[str, str]:
    """Takes 32 hex digits for a run_id and everything else for a name."""
    if re.fullmatch("[0-9a-f]{32}", arguments.run_name):
        return {"run_id": arguments.run_name}
    return {"run_name": arguments.run_name, "project_name": arguments.project}


def _fields(info: RunInfo) -> dict[str, Any]:
    names = (name for name in info.__dataclass_fields__ if not name.startswith("_"))
    return {name: getattr(info, name) for name in names}


def _with_labels(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "labels": dict(row["labels"])}


def _print_head(console: Console, info: RunInfo) -> None:
    console.print(f"[bold]{info.project_name}/{info.run_name}[/]  {info.status}", highlight=False)
    for label, value in (
        ("run id", info.run_id),
        ("created", f"{info.created_at:%Y-%m-%d %H:%M:%S} UTC"),
        ("tags", ", ".join(info.tags)),
        ("description", info.description),
        ("git", info.git_sha),
        ("points", f"{info.point_count:,}"),
    ):
        if value:
            console.print(Text(f"{label:<12}{value}"))
    if info.config:
        tree = Tree("config")
        _grow(tree, info.config)
        console.print(tree, highlight=False)


def _grow(tree: Tree, config: Any) -> None:
    items = config.items() if isinstance(config, dict) else enumerate(config)
    for key, value in items:
        if isinstance(value, dict | list) and value:
            _grow(tree.add(Text(str(key))), value)
        else:
            tree.add(Text(f"{key} = {value!r}"))


def _print_series(console: Console, series: list[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("metric")
    table.add_column("environment")
    for heading in ("points", "last step", "last", "min", "mean", "max"):
        table.add_column(heading, justify="right")
    for row in series[:_MAX_ROWS]:
        table.add_row(
            Text(_title(row["metric_name"], row["labels"])),
            row["env_id"] or "",
            f"{row['point_count']:,}",
            f"{row['last_step']:,}",
            *(_number(row[f"{name}_value"]) for name in ("last", "min", "mean", "max")),
        )
    console.print(table)
    if len(series) > _MAX_ROWS:
        console.print(f"… and {len(series) - _MAX_ROWS:,} more series")


def _title(name: str, labels: Any) -> str:
    inside = ", ".join(f"{key}={value}" for key, value in labels)
    return f"{name}{{{inside}}}" if inside else name


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _plot(name: str, curves: Any, width: int) -> str:
    """Draws a metric's curves; the mean of each bucket, over the scale's own axis."""
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plotsize(width, _PLOT_HEIGHT)
    plotext.title(name)
    keys = ["scale", "env_id", "logger_id"]
    text = curves.assign(
        labels=curves["labels"].map(lambda labels: _title("", sorted(labels.items()))),
        **{key: curves[key].astype(object).where(curves[key].notna(), "") for key in keys},
    )
    groups = list(text.groupby([*keys, "labels"], sort=False))
    for _, curve in groups[:_MAX_CURVES]:
        drawn = [
            ((low + high) / 2, mean)
            for low, high, mean in zip(curve["x_min"], curve["x_max"], curve["mean"], strict=True)
            if mean is not None and math.isfinite(mean)
        ]
        if drawn:
            plotext.plot([x for x, _ in drawn], [y for _, y in drawn], marker="braille")
    if len(groups) > _MAX_CURVES:
        plotext.title(f"{name} ({_MAX_CURVES} of {len(groups)} series)")
    return str(plotext.build())
