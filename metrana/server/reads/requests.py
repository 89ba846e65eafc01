"""Questions as they travel: plain values with the contract's names, checked by who makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from metrana.server.points import STATISTICS


class InvalidRequestError(ValueError):
    """A question that has no answer as it is put; the message names the argument."""


LoggerChoice = Literal["mean", "min", "max", "each"]
AxisChoice = Literal["step", "rl_step", "episode", "timestamp"]
ByChoice = Literal["rl_step", "episode", "step"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunName:
    """Names a run: by its id alone, or by name within project and workspace.

    Attributes:
        run_name: Its name; None with `run_id`.
        project_name: The project.
        workspace_name: The workspace.
        run_id: 32 hex digits; then the names are not looked at.
    """

    run_name: str | None = None
    project_name: str = "default"
    workspace_name: str = "default"
    run_id: str | None = None

    def __post_init__(self) -> None:
        """Refuses to name nothing."""
        if self.run_name is None and self.run_id is None:
            raise InvalidRequestError("run_name: must be the name of a run, or give run_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesFilter:
    """Chooses series of a run; None does not restrict.

    Attributes:
        metric_name: Exact name.
        scale: `ML_STEP`, `EPISODE` or `ENVIRONMENT_STEP`.
        labels: At least these; an empty mapping: none at all.
        env_id: Exact id.
    """

    metric_name: str | None = None
    scale: str | None = None
    labels: Mapping[str, str] | None = None
    env_id: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether every series passes."""
        return self == SeriesFilter()

    def described(self) -> str:
        """What is asked for, as messages say it."""
        name = "" if self.metric_name is None else f" {self.metric_name!r}"
        parts = [f"metric{name}"]
        if self.scale is not None:
            parts.append(f"of scale {self.scale}")
        if self.labels is not None:
            parts.append(f"with labels {dict(self.labels)}" if self.labels else "without labels")
        if self.env_id is not None:
            parts.append(f"in environment {self.env_id!r}")
        return " ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class PointsRequest:
    """Which points of which series.

    Attributes:
        series: The series.
        episode: Only this episode.
        start: Least position on the scale's own axis.
        end: First position after the range.
        limit: At most so many points.
        duplicates: `last`: the newest of a position; `all`: each.
    """

    series: SeriesFilter = field(default_factory=SeriesFilter)
    episode: int | None = None
    start: int | None = None
    end: int | None = None
    limit: int | None = None
    duplicates: Literal["last", "all"] = "last"


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketsRequest:
    """Curves of series, reduced to buckets.

    Attributes:
        series: The series; `metric_name` is given.
        x: The axis divided; None: the scale's own.
        bucket_count: The most buckets.
        loggers: How loggers are merged at a position.
        episode: Only this episode.
        start: Least x.
        end: First x after the range.
    """

    series: SeriesFilter
    x: AxisChoice | None = None
    bucket_count: int = 1000
    loggers: LoggerChoice = "mean"
    episode: int | None = None
    start: int | None = None
    end: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregateRequest:
    """Statistics of one metric over its environments.

    Attributes:
        series: The metric; `metric_name` is given, `env_id` is not.
        by: What rows are by.
        stats: Names of statistics, of `STATISTICS`.
        quantiles: From 0 to 1.
        start: Least value of `by`.
        end: First value after the range.
    """

    series: SeriesFilter
    by: ByChoice = "rl_step"
    stats: tuple[str, ...] = ("mean", "std", "min", "max")
    quantiles: tuple[float, ...] = ()
    start: int | None = None
    end: int | None = None

    def __post_init__(self) -> None:
        """Refuses statistics that there are not."""
        for name in self.stats:
            if name not in STATISTICS:
                raise InvalidRequestError(
                    f"stats: must be of {', '.join(STATISTICS)}, not {name[:100]!r}"
                )
        for level in self.quantiles:
            if not 0 <= level <= 1:
                raise InvalidRequestError(f"quantiles: must be from 0 to 1, not {level!r}")


def listed(text: str) -> tuple[str, ...]:
    """Reads a list as it travels: its items with commas between."""
    return tuple(item for item in text.split(",") if item)


def listed_numbers(name: str, text: str) -> tuple[float, ...]:
    """Reads a list of numbers as it travels.

    Raises:
        InvalidRequestError: One is no number.
    """
    try:
        return tuple(float(item) for item in listed(text))
    except ValueError:
        raise InvalidRequestError(
            f"{name}: must be numbers with commas between, not {text[:100]!r}"
        ) from None
