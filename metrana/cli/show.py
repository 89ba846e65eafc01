"""`metrana show RUN`: config, tags, a summary of every metric, and a plot of each.

With `--env`, the same metrics of one environment, and its last episodes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from metrana.cli.episodes import episode_table, ordered
from metrana.cli.output import DONE, console, print_json, visible, written
from metrana.cli.plots import axis_of, draw, weighted_mean
from metrana.cli.reading import find_run, reading
from metrana.query import Client, RunInfo

_MAX_PLOT_WIDTH: Final = 100
_MAX_METRICS: Final = 200
_MAX_PLOTS: Final = 50
_MAX_EPISODES: Final = 10
# More environments of one metric than this are one row.
_MAX_LISTED: Final = 4

Series: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Metric:
    """The series of one metric.

    Attributes:
        name: Its name.
        scale: Its scale.
        labels: Its labels.
        series: One row an environment, at least one.
    """

    name: str
    scale: str
    labels: dict[str, str]
    series: list[Series]

    @property
    def title(self) -> str:
        """Name and labels as one text."""
        inside = ", ".join(f"{key}={value}" for key, value in sorted(self.labels.items()))
        return visible(f"{self.name}{{{inside}}}" if inside else self.name)


def run(arguments: argparse.Namespace) -> int:
    """Shows one run."""
    out = console()
    width = min(out.width, _MAX_PLOT_WIDTH)
    with reading(arguments) as client:
        info = find_run(client, arguments)
        # Asked for first: it says what is like an environment that there is not.
        episodes = _episodes(client, info, arguments.env)
        series = _series(client, info, arguments.env)
        metrics = _metrics(series)
        drawn = () if arguments.json else metrics[:_MAX_PLOTS]
        plots = [_plot(client, info.run_id, metric, width, arguments.env) for metric in drawn]
    # Nothing is printed before the store is let go: a pager may keep its reader for hours.
    if arguments.json:
        of_env = (
            {} if episodes is None else {"env_id": arguments.env, "episodes": episodes.to_pylist()}
        )
        print_json({**_fields(info), **of_env, "series": series})
        return DONE
    _print_head(out, info, arguments.env)
    if metrics:
        _print_metrics(out, metrics[:_MAX_METRICS])
    if episodes is not None and episodes.num_rows:
        out.print()
        out.print(episode_table(ordered(episodes, None).slice(0, _MAX_EPISODES), out.width))
    for plot in filter(None, plots):
        out.print()
        out.print(Text(plot), no_wrap=True, crop=False)
    left_out = len(metrics) - _MAX_PLOTS
    if left_out > 0:
        out.print(f"… and {left_out:,} more metrics; --json has all of them")
    return DONE


def _episodes(client: Client, info: RunInfo, env_id: str | None) -> Any:
    """Gives the episodes of the environment that is asked for; None if none is."""
    if env_id is None:
        return None
    return client.episodes(run_id=info.run_id, env_id=env_id, as_="arrow")


def _series(client: Client, info: RunInfo, env_id: str | None) -> list[Series]:
    series = client.series(run_id=info.run_id, as_="arrow")
    if env_id is not None:
        series = series.filter(pc.equal(series["env_id"].cast(pa.string()), env_id))
    rows: list[Series] = series.to_pylist()
    for row in rows:
        row["labels"] = dict(row["labels"])
    return rows


def _fields(info: RunInfo) -> dict[str, Any]:
    names = (name for name in info.__dataclass_fields__ if not name.startswith("_"))
    return {name: getattr(info, name) for name in names}


def _metrics(series: Iterable[Series]) -> list[_Metric]:
    """Groups series by metric, by name, those without labels first."""
    groups: dict[tuple[Any, ...], list[Series]] = {}
    for row in series:
        key = (row["metric_name"], tuple(sorted(row["labels"].items())), row["scale"])
        groups.setdefault(key, []).append(row)
    return [
        _Metric(name, scale, dict(labels), rows)
        for (name, labels, scale), rows in sorted(groups.items())
    ]


def _print_head(out: Console, info: RunInfo, env_id: str | None) -> None:
    name = visible(f"{info.project_name}/{info.run_name}")
    out.print(Text(name, style="bold"), Text(info.status))
    if env_id is not None:
        out.print(Text(f"{'environment':<12} {visible(env_id)}"))
        return
    for label, value in (
        ("run id", info.run_id),
        ("created", f"{info.created_at:%Y-%m-%d %H:%M:%S} UTC"),
        ("finished", info.finished_at and f"{info.finished_at:%Y-%m-%d %H:%M:%S} UTC"),
        ("workspace", info.workspace_name if info.workspace_name != "default" else None),
        ("experiment", info.experiment_name),
        ("tags", ", ".join(info.tags)),
        ("description", info.description),
        ("git", info.git_sha),
        ("points", f"{info.point_count:,}"),
    ):
        if value:
            out.print(Text(visible(f"{label:<12} {value}")))
    if info.config:
        tree = Tree("config")
        _grow(tree, info.config)
        out.print(tree, highlight=False)


def _grow(tree: Tree, config: dict[str, Any]) -> None:
    for key, value in config.items():
        if isinstance(value, dict) and value:
            _grow(tree.add(Text(visible(key))), value)
        else:
            tree.add(Text(visible(f"{key} = {written(value)}")))


def _print_metrics(out: Console, metrics: list[_Metric]) -> None:
    with_envs = any(row["env_id"] is not None for metric in metrics for row in metric.series)
    table = Table(box=None, pad_edge=False)
    table.add_column("metric", overflow="fold")
    if with_envs:
        table.add_column("env", overflow="fold")
    for heading in ("points", "to", "last", "min", "mean", "max"):
        table.add_column(heading, justify="right", no_wrap=True)
    for metric in metrics:
        listed = metric.series if len(metric.series) <= _MAX_LISTED else [_merged(metric.series)]
        for row in listed:
            cells = [Text(metric.title), Text(visible(row["env_id"] or ""))]
            table.add_row(
                *(cells if with_envs else cells[:1]),
                f"{row['point_count']:,}",
                f"{row['last_step']:,}",
                *(_number(row[f"{name}_value"]) for name in ("last", "min", "mean", "max")),
            )
    out.print()
    out.print(table)


def _merged(series: list[Series]) -> Series:
    """Gives one row for the environments of a metric; `last` is the mean of theirs."""
    finite = [row["point_count"] - row["nonfinite_count"] for row in series]
    means = [(row["mean_value"], count) for row, count in zip(series, finite, strict=True) if count]
    return {
        "env_id": f"{len(series):,} envs",
        "point_count": sum(row["point_count"] for row in series),
        "last_step": max(row["last_step"] for row in series),
        "last_value": weighted_mean([(row["last_value"], 1) for row in series]),
        "min_value": min(_known(series, "min_value"), default=None),
        "mean_value": weighted_mean(means) if means else None,
        "max_value": max(_known(series, "max_value"), default=None),
    }


def _known(series: list[Series], name: str) -> list[float]:
    return [row[name] for row in series if row[name] is not None]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"


def _plot(
    client: Client, run_id: str, metric: _Metric, width: int, env_id: str | None
) -> str | None:
    curves = client.buckets(
        run_id=run_id,
        metric_name=metric.name,
        scale=metric.scale,
        labels=metric.labels,
        env_id=env_id,
        x=axis_of(metric.scale) if metric.scale == "ENVIRONMENT_STEP" else None,
        bucket_count=width,
        as_="arrow",
    ).to_pylist()
    # A filter by labels means at least these.
    own = [row for row in curves if dict(row["labels"]) == metric.labels]
    count = len(metric.series)
    title = metric.title if count == 1 else f"{metric.title} (mean of {count:,} environments)"
    return draw(title, metric.scale, own, width)
