"""Questions to the points store and its small answers; the large ones are Arrow."""

from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal


class XAxis(Enum):
    """What buckets divide. The contract's `x=None` is OWN, the axis of the metric's scale."""

    OWN = None
    STEP = "step"
    RL_STEP = "rl_step"
    EPISODE = "episode"
    TIMESTAMP = "timestamp"


class LoggerRule(Enum):
    """How points that several loggers gave for one position become a curve."""

    MEAN = "mean"
    MIN = "min"
    MAX = "max"
    EACH = "each"


@dataclass(frozen=True, slots=True)
class PointsQuery:
    """Which points to read.

    Attributes:
        run_no: The run.
        metric_nos: Only these metrics; None for all.
        env_nos: Only these environments, 0 being none; None for all.
        episode: Only this episode.
        start: Least position on the scale's own axis (step, or episode of EPISODE metrics).
        end: First position after the range, on the same axis.
        limit: At most so many points in all.
        duplicates: `last` shows the newest point of a position, `all` every point, oldest first.
    """

    run_no: int
    metric_nos: tuple[int, ...] | None = None
    env_nos: tuple[int, ...] | None = None
    episode: int | None = None
    start: int | None = None
    end: int | None = None
    limit: int | None = None
    duplicates: Literal["last", "all"] = "last"


@dataclass(frozen=True, slots=True)
class BucketsQuery:
    """A curve of every series, reduced to at most `bucket_count` buckets over one common x range.

    Attributes:
        run_no: The run.
        metric_nos: The metrics; None for all.
        env_nos: Only these environments, 0 being none; None for all.
        x: What is divided. Points that have no such coordinate are left out.
        bucket_count: The most buckets, at least 1. All are equally wide, a whole number of x.
        loggers: How loggers are merged at a position; EACH keeps a curve a logger.
        episode: Only this episode.
        start: Least x; None for the least there is.
        end: First x after the range; None to include the greatest there is.
    """

    run_no: int
    metric_nos: tuple[int, ...] | None = None
    env_nos: tuple[int, ...] | None = None
    x: XAxis = XAxis.OWN
    bucket_count: int = 1000
    loggers: LoggerRule = LoggerRule.MEAN
    episode: int | None = None
    start: int | None = None
    end: int | None = None

    def __post_init__(self) -> None:
        """Refuses a count that makes no bucket."""
        if self.bucket_count < 1:
            raise ValueError(f"bucket_count must be at least 1, not {self.bucket_count}")


@dataclass(frozen=True, slots=True)
class AggregateQuery:
    """Statistics of one metric over its environments.

    Attributes:
        run_no: The run.
        metric_no: The metric.
        by: Column that rows are by: `rl_step`, `episode` or `step`. Points without are left out.
        statistics: Of `aggregate.STATISTICS`, in the order of the columns.
        quantiles: From 0 to 1, in the order of their columns.
        start: Least value of `by`.
        end: First value after the range.
    """

    run_no: int
    metric_no: int
    by: Literal["rl_step", "episode", "step"]
    statistics: tuple[str, ...] = ("mean", "std", "min", "max")
    quantiles: tuple[float, ...] = ()
    start: int | None = None
    end: int | None = None


@dataclass(frozen=True, slots=True)
class Cursors:
    """The greatest positions of a run, from which automatic steps go on; -1 is none.

    Attributes:
        series: Arrow table `metric_no, env_no, rl_step, episode, step`: the greatest rl_step, the
            greatest episode, and the greatest step (within that episode, where the series has one).
        environments: Arrow table `env_no, rl_step, episode, ended_episode`, the last being the
            greatest episode that has a point of an EPISODE metric.
    """

    series: Any
    environments: Any


@dataclass(frozen=True, slots=True)
class StoreStats:
    """How large the store is.

    Attributes:
        row_count: Stored points; those of a run being deleted count until their part is rewritten.
        bytes_on_disk: Of all active parts.
        part_count: Active parts.
        version: The engine's own version.
    """

    row_count: int
    bytes_on_disk: int
    part_count: int
    version: str
