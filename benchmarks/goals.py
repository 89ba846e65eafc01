"""The rows of the table, and every goal: nowhere else is one written down."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """A figure that a row shows, and what it should be.

    Attributes:
        figure: Its name among what the work measured. With `_low` and `_high` after it are the ends
            of its interval, if it has one.
        label: What the table calls it.
        limit: What it should not be above, or below if `at_least`. None: shown only.
        unit: Of both.
        at_least: Whether more is better.
        fault: What is wrong with all figures of the row if it is missed. Such a goal is shown only
            then.
        reason: Why it is missed, where that is known; figures of the work stand in braces. Shown
            only if it is.
    """

    figure: str
    label: str
    limit: float | None
    unit: str
    at_least: bool = False
    fault: str = ""
    reason: str = ""

    @property
    def name(self) -> str:
        """What it is called where its label alone would not tell."""
        return self.fault or self.label or self.unit

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
        note: What a reader has to know beside the figures; figures of the work stand in braces.
    """

    name: str
    title: str
    work: str
    goals: tuple[Goal, ...]
    logger: str = "metrana-server"
    has_peers: bool = False
    note: str = ""


def _latency(
    p50: float | None, p99: float | None = None, p999: float | None = None, **reasons: str
) -> tuple[Goal, ...]:
    limits = (("p50_us", "p50", p50), ("p99_us", "p99", p99), ("p999_us", "p99.9", p999))
    return tuple(
        Goal(figure, label, limit, "µs", reason=reasons.get(figure, ""))
        for figure, label, limit in limits
    )


def _startup(limit_ms: float) -> tuple[Goal, ...]:
    return (
        Goal(
            "first_ms",
            "first",
            limit_ms,
            "ms",
            reason="it also imports what only an open run needs",
        ),
        Goal("median_ms", "later", limit_ms, "ms"),
        Goal("min_ms", "min", None, "ms"),
    )


_SCALAR = (0.2, 1.0, 10.0)
_NO_DROPS = Goal("dropped", "dropped", 0, "points", fault="dropped")
_TOO_SLOW = "pace not kept"
_THOUSAND = Goal("points_per_s", "at", 950, "points/s", at_least=True, fault=_TOO_SLOW)
_SLOW_DOWN = (
    Goal("slower_percent", "", 0.5, "%"),
    Goal("middle_percent", "middle step", None, "%"),
    Goal("close_ms", "closing", None, "ms"),
    _NO_DROPS,
)
_SLOW_DOWN_NOTE = (
    "sums of {steps:,.0f} steps of {step_ms:.2f} ms with a run and as many without, in {pairs:.0f} "
    "pairs of rounds; the step takes one of the cores; closing is not among the steps"
)
_INGEST_NOTE = (
    "30 s with at most 4 M points on their way, until the last is acknowledged, while the store "
    "merges; CPU a million points: server {server_cpu_s:.2f} s, client {client_cpu_s:.2f} s"
)
_STARTUP_NOTE = (
    "medians of the first run of a process, which is a training's only one, and of the three after "
    "it; {processes:.0f} processes"
)
_NEW_REWARDS = "other rewards each time, made right before the call"
_BLOCK_NOTE = (
    "three processes, p50 the middle, lowest and highest one; each block's values and episodes are "
    "other arrays, made right before the call; the ids are one list; of blocks made long before, "
    "in no cache: p50 {cold_p50_us:.3g} µs"
)

ROWS = (
    Row(
        "scalar",
        '`log("loss", x)`, bursts of 1,000',
        "scalar",
        (*_latency(*_SCALAR), _NO_DROPS),
        has_peers=True,
        note="a new value each time",
    ),
    Row(
        "scalar-step",
        "the same, 20 calls after each 3 ms of work",
        "scalar-step",
        (
            *_latency(
                *_SCALAR,
                p99_us="the first call of each step, a twentieth of all, finds its code and data "
                "out of the caches: p50 {first_p50_us:.3g} µs; the others: p99 "
                "{rest_p99_us:.3g} µs",
            ),
            _NO_DROPS,
        ),
    ),
    Row(
        "scalar-dd",
        "the same while `dd` writes the disk",
        "scalar-dd",
        (*_latency(None), Goal("p9999_us", "p99.99", 200, "µs"), _NO_DROPS),
    ),
    Row(
        "mapping",
        "mapping of 10 metrics",
        "mapping",
        (*_latency(0.8), _NO_DROPS),
        has_peers=True,
        note="new values in a new dict each time, the keys those of a literal",
    ),
    Row(
        "mapping-keys",
        "the same with keys built anew by f-strings",
        "mapping-keys",
        (*_latency(0.8), _NO_DROPS),
        note="building the mapping is not timed, here and above",
    ),
    Row(
        "block-8",
        "environment steps, block of 8 x 128 float32",
        "block-8",
        (
            *_latency(
                1.5,
                p50_us="4 KB of values go into the ring, and 8 KB of episodes are read to see "
                "where one ends",
            ),
            _NO_DROPS,
        ),
        note=_BLOCK_NOTE,
    ),
    Row(
        "block-64",
        "environment steps, block of 64 x 128 float32",
        "block-64",
        (
            *_latency(
                6,
                p50_us="32 KB of values go into the ring, whose place is memory that no cache has, "
                "and 64 KB of episodes are read to see where one ends",
            ),
            _NO_DROPS,
        ),
        note=_BLOCK_NOTE + "; a copy of the values alone by NumPy: p50 {copy_p50_us:.3g} µs",
    ),
    Row(
        "envs-same",
        "4,096 environments x 1, the same list of ids",
        "envs-same",
        (*_latency(80), _NO_DROPS),
        note=_NEW_REWARDS,
    ),
    Row(
        "envs-fresh",
        "4,096 environments x 1, strings built anew before each call",
        "envs-fresh",
        (*_latency(500), _NO_DROPS),
        note=_NEW_REWARDS,
    ),
    Row(
        "torch",
        "PyTorch CPU scalar with grad",
        "torch",
        (*_latency(3), _NO_DROPS),
        note="a new tensor each time",
    ),
    Row(
        "threads",
        "4 threads at once, of one thread's rate; order kept within each",
        "threads",
        (
            Goal("ratio_percent", "", 60, "%", at_least=True),
            Goal("out_of_order", "out of order", 0, "points", fault="out of order"),
            _NO_DROPS,
        ),
        logger="metrana",
    ),
    Row(
        "ingest-blocks",
        "logged to durable in the server, 200 series, arrays and blocks",
        "ingest-blocks",
        (
            Goal(
                "mega_points_per_s",
                "",
                5,
                "M points/s",
                at_least=True,
                reason="the two processes keep {busy_cores:.2f} cores busy, and most of that is "
                "the store, which inserts and merges",
            ),
            _NO_DROPS,
        ),
        note=_INGEST_NOTE,
    ),
    Row(
        "ingest-series",
        "logged to durable in the server, 10,000 series, one point a call",
        "ingest-series",
        (Goal("mega_points_per_s", "", 1, "M points/s", at_least=True), _NO_DROPS),
        note=_INGEST_NOTE,
    ),
    Row(
        "wire",
        "sealed batches as they travel: random-walk float32, 200 series of 5,000 points, a pause "
        "of 2 ms between steps",
        "space",
        (
            Goal("wire_bytes", "", 3.1, "bytes/point"),
            Goal("wire_10_bytes", "20 series at 10 steps/s", None, "bytes/point"),
            Goal("wire_1_bytes", "at 1 step/s", None, "bytes/point"),
            _NO_DROPS,
        ),
        logger="metrana",
        note="{steps_per_s:,.0f} steps/s; a batch is what a second brought; "
        "the slower ones have given times, uneven by half",
    ),
    Row(
        "disk",
        "the same points in the store, after `OPTIMIZE … FINAL`",
        "space",
        (
            Goal(
                "disk_bytes",
                "",
                4.0,
                "bytes/point",
                reason="the store's codecs cannot split the bytes of floats, which is how the "
                "values get smaller on the wire",
            ),
            Goal("uneven_bytes", "steps of 1.5 to 4.5 ms", None, "bytes/point"),
            _NO_DROPS,
        ),
        logger="metrana",
        note="of these values {disk_value_bytes:.3f}, times {disk_time_bytes:.3f}, which are those "
        "of steps that take about as long as each other; real ones are less even",
    ),
    Row(
        "disk-local",
        "such walks in the files of a run without a server, logged at full speed: 200 series of "
        "150 points",
        "files",
        (Goal("kept_bytes", "", None, "bytes/point"), _NO_DROPS),
        logger="metrana",
        has_peers=True,
        note="above a run of one step; metrana's is in the spool, where the points of a second "
        "share a batch: its best case (`wire` shows slower steps, `disk` what a server stores)",
    ),
    Row(
        "memory",
        "engine memory above the ring, idle and at 1 M points/s",
        "memory",
        (
            Goal("idle_mb", "idle", 20, "MB"),
            Goal("busy_mb", "busy", 20, "MB"),
            Goal("mega_points_per_s", "at", 0.95, "M points/s", at_least=True, fault=_TOO_SLOW),
            _NO_DROPS,
        ),
    ),
    Row(
        "memory-local",
        "memory above a process with NumPy alone, the import and metrana's ring included",
        "steady",
        (
            Goal("idle_mb", "run opened", None, "MB"),
            Goal("steady_mb", "at 1,000 points/s", None, "MB"),
            Goal("others_mb", "processes of its own", None, "MB"),
            _THOUSAND,
            _NO_DROPS,
        ),
        logger="metrana",
        has_peers=True,
        note="without a server",
    ),
    Row(
        "cpu",
        "CPU of logging 50 mappings of 20 a second: the calls and all other threads",
        "steady",
        (
            Goal("core_percent", "", 1, "% of a core"),
            Goal("others_percent", "processes of its own", None, "% of a core"),
            _THOUSAND,
            _NO_DROPS,
        ),
        has_peers=True,
        note="ten rounds of 1.5 s; metrana's process of its own is the local server, which stores",
    ),
    Row(
        "import",
        "`import metrana` over `import numpy`; the peers' likewise",
        "import",
        (Goal("median_ms", "median", 30, "ms"), Goal("min_ms", "min", None, "ms")),
        logger="metrana",
        has_peers=True,
        note="what each one's first example imports",
    ),
    Row(
        "startup",
        "open and close a run, offline",
        "startup",
        _startup(60),
        logger="metrana",
        has_peers=True,
        note=_STARTUP_NOTE + "; peers: 3",
    ),
    Row(
        "startup-server",
        "open and close a run, local server",
        "startup",
        _startup(150),
        note=_STARTUP_NOTE,
    ),
    Row(
        "training",
        "slow-down of a 3 ms training step that logs 20 scalars as one mapping",
        "training",
        _SLOW_DOWN,
        has_peers=True,
        note=_SLOW_DOWN_NOTE + "; peers: 4 pairs",
    ),
    Row(
        "training-calls",
        "the same with a call for each of the 20 scalars",
        "training-calls",
        _SLOW_DOWN,
        note=_SLOW_DOWN_NOTE,
    ),
    Row(
        "kill",
        "points lost by SIGKILL of those that `log` had taken",
        "kill",
        (
            Goal("lost", "lost", 0, "points"),
            Goal("most_lost", "most in a round", None, ""),
            Goal("taken", "of", None, ""),
            Goal("wrong", "wrong or repeated", 0, "points"),
        ),
        logger="metrana",
        has_peers=True,
        note="rounds of 1 to 3 s with half a millisecond between calls: {rounds:.0f}; the values, "
        "which count the calls, are compared; a power cut would take more (see above)",
    ),
)
