"""The rows of the table, and every goal: nowhere else is one written down."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """A figure that a row shows, and what it should be.

    Attributes:
        figure: Its name among what the work measured.
        label: What the table calls it.
        limit: What it should not be above, or below if `at_least`. None: shown only.
        unit: Of both.
        at_least: Whether more is better.
        is_quiet: Whether it is only shown if it is missed.
    """

    figure: str
    label: str
    limit: float | None
    unit: str
    at_least: bool = False
    is_quiet: bool = False

    def is_met(self, value: float) -> bool:
        """Whether a measured value is good enough."""
        if self.limit is None:
            return True
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: For `--only`.
        title: What is done, for readers.
        work: Its name in `works`; rows of one work and logger share one measurement.
        goals: What is shown of it.
        logger: Which way metrana is used.
        has_peers: Whether the peers do the same.
    """

    name: str
    title: str
    work: str
    goals: tuple[Goal, ...]
    logger: str = "metrana-server"
    has_peers: bool = False


def _latency(p50: float | None, p99: float | None = None, p999: float | None = None) -> tuple:
    limits = (("p50_us", "p50", p50), ("p99_us", "p99", p99), ("p999_us", "p99.9", p999))
    return tuple(Goal(figure, label, limit, "µs") for figure, label, limit in limits)


_SCALAR = _latency(0.2, 1.0, 10.0)
_NO_DROPS = Goal("dropped", "dropped", 0, "points", is_quiet=True)
_SLOW_DOWN = (Goal("slower_percent", "", 0.5, "%"),)

ROWS = (
    Row("scalar", '`log("loss", x)`, bursts of 1,000', "scalar", _SCALAR, has_peers=True),
    Row(
        "scalar-step",
        "the same, 20 calls after each 3 ms of work",
        "scalar-step",
        (*_SCALAR, _NO_DROPS),
    ),
    Row(
        "scalar-dd",
        "the same while `dd` writes the disk",
        "scalar-dd",
        (*_latency(None), Goal("p9999_us", "p99.99", 200, "µs")),
    ),
    Row("mapping", "mapping of 10 metrics", "mapping", _latency(0.8), has_peers=True),
    Row(
        "block-8",
        "environment steps, block of 8 x 128 float32",
        "block-8",
        (*_latency(1.5), _NO_DROPS),
    ),
    Row(
        "block-64",
        "environment steps, block of 64 x 128 float32",
        "block-64",
        (*_latency(6), _NO_DROPS),
    ),
    Row(
        "envs-same",
        "4,096 environments x 1, the same list of ids",
        "envs-same",
        (*_latency(80), _NO_DROPS),
    ),
    Row(
        "envs-fresh",
        "4,096 environments x 1, fresh strings",
        "envs-fresh",
        (*_latency(500), _NO_DROPS),
    ),
    Row("torch", "PyTorch CPU scalar with grad", "torch", (*_latency(3), _NO_DROPS)),
    Row(
        "threads",
        "4 threads at once, of one thread's rate; order kept within each",
        "threads",
        (
            Goal("ratio_percent", "", 60, "%", at_least=True),
            Goal("out_of_order", "out of order", 0, "points", is_quiet=True),
        ),
        logger="metrana",
    ),
    Row(
        "ingest-blocks",
        "logged to durable in the server, 200 series, arrays and blocks",
        "ingest-blocks",
        (Goal("mega_points_per_s", "", 5, "M points/s", at_least=True),),
    ),
    Row(
        "ingest-series",
        "logged to durable in the server, 10,000 series, one point a call",
        "ingest-series",
        (Goal("mega_points_per_s", "", 1, "M points/s", at_least=True),),
    ),
    Row(
        "wire",
        "sealed batches as they travel: random-walk float32, 5,000 points a series",
        "space",
        (Goal("wire_bytes", "", 3.1, "bytes/point"),),
        logger="metrana",
    ),
    Row(
        "disk",
        "the same points in the store, after `OPTIMIZE … FINAL`",
        "space",
        (Goal("disk_bytes", "", 4.0, "bytes/point"),),
        logger="metrana",
    ),
    Row(
        "memory",
        "engine memory above the ring, idle and at 1 M points/s",
        "memory",
        (Goal("idle_mb", "idle", 20, "MB"), Goal("busy_mb", "busy", 20, "MB")),
    ),
    Row(
        "cpu",
        "CPU of a process that logs 1,000 points/s",
        "cpu",
        (Goal("core_percent", "", 1, "% of a core"),),
    ),
    Row(
        "import",
        "`import metrana` over `import numpy`",
        "import",
        (Goal("median_ms", "median", 30, "ms"), Goal("min_ms", "min", None, "ms")),
    ),
    Row(
        "startup",
        "open and close a run, offline",
        "startup",
        (Goal("median_ms", "median", 60, "ms"), Goal("min_ms", "min", None, "ms")),
        logger="metrana",
        has_peers=True,
    ),
    Row(
        "startup-server",
        "open and close a run, local server",
        "startup",
        (Goal("median_ms", "median", 150, "ms"), Goal("min_ms", "min", None, "ms")),
    ),
    Row(
        "training",
        "slow-down of a 3 ms training step that logs 20 scalars as one mapping",
        "training",
        _SLOW_DOWN,
        has_peers=True,
    ),
    Row(
        "training-calls",
        "the same with a call for each of the 20 scalars",
        "training-calls",
        _SLOW_DOWN,
    ),
    Row(
        "kill",
        "points lost by SIGKILL of those that `log` had taken",
        "kill",
        (Goal("lost", "lost", 0, "points"), Goal("taken", "of", None, "")),
        logger="metrana",
        has_peers=True,
    ),
)
