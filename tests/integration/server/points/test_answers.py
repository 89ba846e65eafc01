"""What the store answers equals the naive reference, on hand-made and on random points."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metrana.server.points import (
    BucketsQuery,
    LoggerRule,
    PointsQuery,
    PointsStore,
    XAxis,
    open_points,
)
from tests.integration.server.points import reference
from tests.integration.server.points.reference import NONE, Point, columns, flagged

ML, EPISODE, ENV_STEP, RL_EPISODE = 1, 2, 3, 4

_X = {
    XAxis.OWN: reference.own_axis,
    XAxis.STEP: lambda point: point.step,
    XAxis.RL_STEP: lambda point: point.rl_step,
    XAxis.EPISODE: lambda point: point.episode,
    XAxis.TIMESTAMP: lambda point: point.timestamp_ms,
}


def same(actual: object, expected: object) -> bool:
    """Whether two answers agree, floats to rounding, NaN with NaN."""
    if isinstance(actual, float) and isinstance(expected, float):
        if math.isnan(expected):
            return math.isnan(actual)
        return math.isclose(actual, expected, rel_tol=1e-9, abs_tol=1e-9)
    return actual == expected


def assert_rows(actual: dict, expected: dict) -> None:
    assert actual.keys() == expected.keys()
    for key, row in expected.items():
        different = {
            name: (actual[key][name], value)
            for name, value in row.items()
            if not same(actual[key][name], value)
        }
        assert not different, (key, different)


def insert(store: PointsStore, points: list[Point], *, inserts: int = 1) -> None:
    """Inserts in several parts, in an order that no read may depend on."""
    for part in range(inserts):
        chosen = points[part::inserts]
        if chosen:
            store.insert(columns(chosen[::-1]))


def check_everything(store: PointsStore, points: list[Point]) -> None:
    run_no = points[0].run_no
    check_summaries(store, points)
    check_points(store, points)
    check_cursors(store, points)
    for rule in LoggerRule:
        for x in XAxis:
            check_buckets(store, points, BucketsQuery(run_no, x=x, bucket_count=7, loggers=rule))


def check_summaries(store: PointsStore, points: list[Point]) -> None:
    rows = store.summaries([points[0].run_no]).to_pylist()
    actual = {(row["run_no"], row["metric_no"], row["env_no"]): row for row in rows}
    assert list(actual) == sorted(actual)
    assert_rows(actual, reference.summary(points))


def check_points(store: PointsStore, points: list[Point]) -> None:
    run_no = points[0].run_no
    last = store.points(PointsQuery(run_no)).read_all().to_pylist()
    assert_points(last, reference.shown(points))
    every = store.points(PointsQuery(run_no, duplicates="all")).read_all().to_pylist()
    in_order = sorted(
        points, key=lambda point: (point.series, point.position, point.logger_no, point.version)
    )
    assert_points(every, in_order)


def assert_points(rows: list[dict], points: list[Point]) -> None:
    assert len(rows) == len(points)
    for row, point in zip(rows, points, strict=True):
        for name, value in row.items():
            expected = getattr(point, name)
            if name in ("rl_step", "episode", "step") and expected == NONE:
                expected = None
            assert same(value, expected), (name, row, point)


def check_cursors(store: PointsStore, points: list[Point]) -> None:
    found = store.cursors(points[0].run_no, [EPISODE, RL_EPISODE])
    expected = reference.cursors(points)
    actual = {
        (row["metric_no"], row["env_no"]): (row["rl_step"], row["episode"], row["step"])
        for row in found.series.to_pylist()
    }
    assert actual == expected
    environments = {}
    for env_no in sorted({env_no for _, env_no in expected} - {0}):
        of_env = {metric: cursor for (metric, env), cursor in expected.items() if env == env_no}
        ended = [of_env[metric][1] for metric in (EPISODE, RL_EPISODE) if metric in of_env]
        environments[env_no] = {
            "env_no": env_no,
            "rl_step": max(cursor[0] for cursor in of_env.values()),
            "episode": max(cursor[1] for cursor in of_env.values()),
            "ended_episode": max(ended, default=NONE),
        }
    assert found.environments.to_pylist() == list(environments.values())


def check_buckets(store: PointsStore, points: list[Point], query: BucketsQuery) -> None:
    rows = store.buckets(query).to_pylist()
    actual = {
        (row["metric_no"], row["env_no"], row["logger_no"], row["bucket"]): row for row in rows
    }
    assert list(actual) == sorted(actual)
    expected = reference.buckets(
        points,
        _X[query.x],
        query.bucket_count,
        query.loggers.value,
        unused=query.x is not XAxis.TIMESTAMP,
    )
    assert_rows(actual, expected)
    assert all(row["bucket"] < query.bucket_count for row in rows)


def scalars(count: int, **fields: int) -> list[Point]:
    return [
        Point(metric_no=ML, step=step, value=step * 0.5, timestamp_ms=1000 + step, **fields)
        for step in range(count)
    ]


def test_plain_series_is_shown_as_it_is(store: PointsStore) -> None:
    points = flagged(scalars(50))
    insert(store, points, inserts=3)
    check_everything(store, points)


def test_rewound_points_replace_those_of_their_position(store: PointsStore) -> None:
    points = flagged(
        [*scalars(20), *(Point(metric_no=ML, step=step, value=-1.0, seq=2) for step in range(5, 9))]
    )
    assert any(point.rewound for point in points)
    insert(store, points, inserts=2)
    check_everything(store, points)
    (row,) = store.summaries([1]).to_pylist()
    assert row["point_count"] == 24
    assert row["min_value"] == -1.0


def test_repeats_within_a_batch_show_the_greatest_ordinal(store: PointsStore) -> None:
    points = flagged([Point(step=4, value=float(value)) for value in range(6)])
    assert [point.ordinal for point in points] == list(range(6))
    insert(store, points)
    check_everything(store, points)
    assert store.points(PointsQuery(1)).read_all()["value"].to_pylist() == [5.0]


def test_resumed_writer_replaces_what_it_overlaps(store: PointsStore) -> None:
    points = flagged(
        [
            *scalars(20, writer_no=1),
            *(Point(step=step, value=9.0, writer_no=2) for step in range(15, 30)),
        ]
    )
    assert not any(point.rewound for point in points)
    insert(store, points, inserts=2)
    check_everything(store, points)
    values = store.points(PointsQuery(1, start=14, end=16)).read_all()["value"].to_pylist()
    assert values == [7.0, 9.0]


def test_writers_that_touch_at_one_position_overlap(store: PointsStore) -> None:
    points = [Point(step=0), Point(step=1, value=1.0), Point(step=1, value=2.0, writer_no=2)]
    insert(store, points)
    check_everything(store, points)


def test_writer_inside_the_gap_of_another_changes_nothing(store: PointsStore) -> None:
    points = [Point(step=0), Point(step=9, value=1.0), Point(step=5, value=2.0, writer_no=2)]
    insert(store, points)
    check_everything(store, points)


def test_later_writer_wins_whatever_the_clock_and_seq_say(store: PointsStore) -> None:
    old = Point(step=1, value=1.0, writer_no=1, seq=900, timestamp_ms=9_000, ordinal=3)
    new = Point(step=1, value=2.0, writer_no=2, seq=1, timestamp_ms=1)
    insert(store, [old, new])
    check_everything(store, [old, new])
    assert store.points(PointsQuery(1)).read_all()["value"].to_pylist() == [2.0]


def test_distributed_loggers_stay_apart_and_merge_on_reading(store: PointsStore) -> None:
    points = [
        Point(step=step, value=float(10 * logger + step), logger_no=logger, writer_no=logger)
        for logger in (1, 2, 3)
        for step in range(10)
    ]
    insert(store, points, inserts=3)
    check_everything(store, points)
    (row,) = store.summaries([1]).to_pylist()
    assert (row["logger_count"], row["last_value"], row["min_value"]) == (3, 29.0, 10.0)
    for rule, expected in (("mean", 20.0), ("min", 10.0), ("max", 30.0)):
        curve = store.buckets(BucketsQuery(1, loggers=LoggerRule(rule))).to_pylist()
        assert [point["first"] for point in curve] == [expected + step for step in range(10)]


def test_restarted_logger_replaces_its_own_points(store: PointsStore) -> None:
    points = [
        Point(step=step, value=float(writer), logger_no=logger, writer_no=writer)
        for writer, logger, steps in ((1, 1, range(10)), (2, 2, range(10)), (3, 1, range(6, 12)))
        for step in steps
    ]
    insert(store, points)
    check_everything(store, points)
    shown = store.points(PointsQuery(1, start=6, end=7)).read_all().to_pylist()
    assert [(row["logger_no"], row["value"]) for row in shown] == [(1, 3.0), (2, 2.0)]


def test_nonfinite_values_are_counted_and_shown(store: PointsStore) -> None:
    values = [1.0, math.nan, 3.0, math.inf, -math.inf, math.nan]
    points = [Point(step=step, value=value) for step, value in enumerate(values)]
    insert(store, points)
    check_everything(store, points)
    (row,) = store.summaries([1]).to_pylist()
    assert (row["nonfinite_count"], row["mean_value"], row["max_value"]) == (4, 2.0, 3.0)
    assert math.isnan(row["last_value"])
    (bucket,) = store.buckets(BucketsQuery(1, bucket_count=1)).to_pylist()
    assert (bucket["point_count"], bucket["nonfinite_count"]) == (6, 4)


def test_series_of_nan_alone_has_no_statistics(store: PointsStore) -> None:
    points = [Point(step=step, value=math.nan) for step in range(3)]
    insert(store, points)
    check_everything(store, points)
    (row,) = store.summaries([1]).to_pylist()
    assert (row["min_value"], row["max_value"], row["mean_value"]) == (None, None, None)


def test_opposite_infinities_of_two_loggers_end_in_nan(store: PointsStore) -> None:
    points = [
        Point(step=1, value=math.inf, logger_no=1),
        Point(step=1, value=-math.inf, logger_no=2),
    ]
    insert(store, points)
    check_everything(store, points)


def test_all_scales_keep_their_positions(store: PointsStore) -> None:
    points = [
        *scalars(5),
        *(Point(metric_no=EPISODE, episode=episode, value=1.0) for episode in range(5)),
        *(
            Point(metric_no=ENV_STEP, env_no=env, rl_step=rl, episode=rl // 2, step=step, value=env)
            for env in (1, 2)
            for rl in range(4)
            for step in range(4 * (rl % 2), 4 * (rl % 2) + 4)
        ),
        *(
            Point(metric_no=RL_EPISODE, env_no=env, rl_step=2 * episode + 1, episode=episode)
            for env in (1, 2)
            for episode in range(2)
        ),
    ]
    insert(store, points, inserts=2)
    check_everything(store, points)


def test_cursor_is_the_greatest_of_each_axis_not_the_last_logged(store: PointsStore) -> None:
    points = [
        Point(metric_no=ENV_STEP, env_no=1, rl_step=1, episode=7, step=3),
        Point(metric_no=ENV_STEP, env_no=1, rl_step=2, episode=4, step=9),
        Point(metric_no=EPISODE, env_no=1, rl_step=2, episode=3),
        Point(metric_no=ENV_STEP, env_no=2, rl_step=0, episode=0, step=0),
    ]
    insert(store, points)
    found = store.cursors(1, [EPISODE])
    assert found.series.to_pylist()[1:2] == [
        {"metric_no": ENV_STEP, "env_no": 1, "rl_step": 2, "episode": 7, "step": 3}
    ]
    assert found.environments.to_pylist() == [
        {"env_no": 1, "rl_step": 2, "episode": 7, "ended_episode": 3},
        {"env_no": 2, "rl_step": 0, "episode": 0, "ended_episode": -1},
    ]


def test_unknown_run_answers_nothing(store: PointsStore) -> None:
    insert(store, scalars(3))
    assert store.summaries([9]).num_rows == 0
    assert store.summaries([]).num_rows == 0
    assert store.points(PointsQuery(9)).read_all().num_rows == 0
    assert store.buckets(BucketsQuery(9)).num_rows == 0
    assert store.cursors(9).series.num_rows == 0
    assert store.cursors(9).environments.num_rows == 0
    assert store.env_steps(9, 1, 0, 0).num_rows == 0
    assert store.episode_sums(9, [1]).num_rows == 0
    assert store.episode_values(9, []).num_rows == 0


def test_points_are_filtered_by_series_episode_range_and_limit(store: PointsStore) -> None:
    points = [
        Point(metric_no=metric, env_no=env, rl_step=0, episode=episode, step=step)
        for metric in (1, 2)
        for env in (1, 2)
        for episode in range(3)
        for step in range(5)
    ] + [Point(metric_no=3, episode=episode) for episode in range(5)]
    insert(store, points)

    def positions(**fields: object) -> list[tuple]:
        rows = store.points(PointsQuery(1, **fields)).read_all().to_pylist()
        return [(row["metric_no"], row["env_no"], row["episode"], row["step"]) for row in rows]

    assert positions(metric_nos=(2,), env_nos=(1,), episode=2, start=1, end=3) == [
        (2, 1, 2, 1),
        (2, 1, 2, 2),
    ]
    assert positions(metric_nos=(3,), start=3) == [(3, 0, 3, None), (3, 0, 4, None)]
    assert positions(end=0) == []
    assert positions(limit=2) == [(1, 1, 0, 0), (1, 1, 0, 1)]
    assert positions(metric_nos=()) == []


def test_buckets_share_one_range_and_zoom(store: PointsStore) -> None:
    points = [*scalars(100), *(Point(metric_no=2, step=step) for step in range(10))]
    insert(store, points)
    rows = store.buckets(BucketsQuery(1, bucket_count=10)).to_pylist()
    assert [row["bucket"] for row in rows if row["metric_no"] == 2] == [0]
    zoomed = store.buckets(BucketsQuery(1, metric_nos=(1,), bucket_count=5, start=20, end=30))
    assert zoomed["x_min"].to_pylist() == [20, 22, 24, 26, 28]
    assert store.buckets(BucketsQuery(1, start=30, end=30)).num_rows == 0


def test_buckets_at_the_greatest_range_do_not_overflow(store: PointsStore) -> None:
    points = [Point(step=step, value=float(step)) for step in (0, 2**52, 2**53 - 1)]
    insert(store, points)
    for count in (1, 3, 1000):
        check_buckets(store, points, BucketsQuery(1, bucket_count=count))


def test_buckets_of_old_timestamps_work(store: PointsStore) -> None:
    points = [Point(step=step, timestamp_ms=-5000 + step * 100) for step in range(20)]
    insert(store, points)
    check_buckets(store, points, BucketsQuery(1, x=XAxis.TIMESTAMP, bucket_count=6))


def test_zoom_by_timestamp_does_not_bring_back_replaced_points(store: PointsStore) -> None:
    points = flagged([Point(step=step, timestamp_ms=step) for step in range(20)])
    again = Point(step=5, value=7.0, timestamp_ms=90, seq=2, rewound=1)
    insert(store, [*points, again])
    rows = store.buckets(BucketsQuery(1, x=XAxis.TIMESTAMP, start=4, end=7)).to_pylist()
    assert [row["x_min"] for row in rows] == [4, 6]
    assert store.buckets(BucketsQuery(1, x=XAxis.TIMESTAMP, start=91)).num_rows == 0


def test_no_bucket_is_refused() -> None:
    with pytest.raises(ValueError, match="bucket_count"):
        BucketsQuery(1, bucket_count=0)


def test_episode_shows_the_newest_of_each_step(store: PointsStore) -> None:
    points = [
        Point(metric_no=ENV_STEP, env_no=1, rl_step=rl, episode=3, step=step, value=v, writer_no=w)
        for w, rl, steps, v in ((1, 10, range(6), 1.0), (2, 8, range(2, 4), 5.0))
        for step in steps
    ]
    insert(store, points)
    rows = store.env_steps(1, ENV_STEP, 1, 3).to_pylist()
    assert [row["step"] for row in rows] == list(range(6))
    assert [row["value"] for row in rows] == [1.0, 1.0, 5.0, 5.0, 1.0, 1.0]
    (row,) = store.episode_sums(1, [ENV_STEP]).to_pylist()
    assert (row["point_count"], row["value_sum"]) == (6, 14.0)
    assert (row["first_rl_step"], row["last_rl_step"]) == (8, 10)


def test_episode_value_is_the_newest_writers(store: PointsStore) -> None:
    points = [
        Point(metric_no=RL_EPISODE, env_no=1, rl_step=rl, episode=episode, value=v, writer_no=w)
        for w, rl, episode, v in ((1, 9, 0, 1.0), (1, 12, 1, 2.0), (2, 7, 1, 3.0))
    ]
    insert(store, points)
    rows = store.episode_values(1, [RL_EPISODE]).to_pylist()
    assert [(row["episode"], row["rl_step"], row["value"]) for row in rows] == [
        (0, 9, 1.0),
        (1, 7, 3.0),
    ]


def test_many_series_with_duplicates_equal_the_reference(store: PointsStore) -> None:
    # More than fit into one list of series in a statement.
    points = [
        Point(metric_no=metric, env_no=env, rl_step=0, episode=0, step=0, value=v, writer_no=w)
        for metric in range(1, 61)
        for env in range(1, 61)
        for w, v in ((1, 1.0), (2, 2.0))
        if w == 1 or (metric + env) % 3
    ]
    insert(store, points, inserts=2)
    check_summaries(store, points)


_VALUES = st.one_of(
    st.floats(-1e6, 1e6, width=32), st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0])
)


@st.composite
def histories(draw: st.DrawFn) -> list[Point]:
    """What a few writers of a run logged, in the order they did."""
    points = []
    for writer_no in range(1, draw(st.integers(1, 3)) + 1):
        for _ in range(draw(st.integers(0, 12))):
            scale = draw(st.sampled_from([ML, EPISODE, ENV_STEP, RL_EPISODE]))
            small = st.integers(0, 5)
            is_rl = scale in (ENV_STEP, RL_EPISODE)
            points.append(
                Point(
                    metric_no=scale,
                    env_no=draw(st.integers(1, 2)) if is_rl else 0,
                    rl_step=draw(small) if is_rl else NONE,
                    episode=draw(small) if scale != ML else NONE,
                    step=draw(small) if scale in (ML, ENV_STEP) else NONE,
                    timestamp_ms=draw(st.integers(0, 50)),
                    value=draw(_VALUES),
                    logger_no=draw(st.integers(0, 2)) if scale == ML else 0,
                    writer_no=writer_no,
                    seq=draw(st.integers(1, 3)),
                )
            )
    # A writer's batches are sealed one after the other.
    points.sort(key=lambda point: (point.writer_no, point.seq))
    return flagged(points)


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PointsStore]:
    path: Path = tmp_path_factory.mktemp("points")
    with open_points(f"chdb://{path}/store") as store:
        yield store


_runs = iter(range(1, 1_000_000))


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    history=histories(),
    inserts=st.integers(1, 3),
    x=st.sampled_from(XAxis),
    loggers=st.sampled_from(LoggerRule),
    bucket_count=st.integers(1, 9),
)
def test_random_histories_equal_the_reference(
    shared_store: PointsStore,
    history: list[Point],
    inserts: int,
    x: XAxis,
    loggers: LoggerRule,
    bucket_count: int,
) -> None:
    run_no = next(_runs)
    points = [Point(**{**_fields(point), "run_no": run_no}) for point in history]
    if not points:
        return
    insert(shared_store, points, inserts=inserts)
    check_summaries(shared_store, points)
    check_points(shared_store, points)
    check_cursors(shared_store, points)
    query = BucketsQuery(run_no, x=x, loggers=loggers, bucket_count=bucket_count)
    check_buckets(shared_store, points, query)


def _fields(point: Point) -> dict:
    return {name: getattr(point, name) for name in Point.__dataclass_fields__}
