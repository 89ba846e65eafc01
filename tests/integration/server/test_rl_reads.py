"""Episodes and statistics over environments equal a naive model, on random histories."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from metrana.server.catalog import OpenedRun
from metrana.server.embedded import Stores, open_stores
from metrana.server.reads import InvalidRequestError, Reads
from metrana.server.reads.routes import answer_frame
from tests.integration.query import rl_model
from tests.integration.query.rl_model import Labels, Logged, assert_rows
from tests.integration.server.catalog.requests import opened
from tests.integration.server.points.reference import NONE, Point, columns, flagged

EVALUATION: Labels = (("evaluation", "true"),)
METRICS: list[tuple[str, str, Labels]] = [
    ("ENVIRONMENT_STEP", "reward", ()),
    ("ENVIRONMENT_STEP", "reward", EVALUATION),
    ("ENVIRONMENT_STEP", "reward", (("agent", "a"),)),
    ("ENVIRONMENT_STEP", "speed", ()),
    ("ENVIRONMENT_STEP", "speed", EVALUATION),
    ("EPISODE", "episode_return", ()),
    ("EPISODE", "episode_return", EVALUATION),
    ("EPISODE", "episode_return", (("agent", "a"), *EVALUATION)),
    ("EPISODE", "episode_length", ()),
    ("EPISODE", "terminated", ()),
    ("EPISODE", "truncated", ()),
    ("EPISODE", "terminated", EVALUATION),
    ("EPISODE", "success", (("b", "2"), ("evaluation", "false"))),
    ("EPISODE", "end", ()),
    ("EPISODE", "labels", ()),
    ("ML_STEP", "loss", ()),
]
ENV_IDS = ["env-a", "env-c", "env-b"]
QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.987, 1.0)
STATISTICS = ("mean", "std", "min", "max", "median", "sum", "count")

VALUES = st.one_of(
    st.floats(-1e6, 1e6, width=32), st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 1.0, 1.0])
)


@st.composite
def histories(draw: st.DrawFn) -> list[Point]:
    """What a few writers logged of the metrics above, numbered by their places from 1."""
    points = []
    chosen = draw(st.lists(st.integers(1, len(METRICS)), min_size=1, max_size=6, unique=True))
    for writer_no in range(1, draw(st.integers(1, 3)) + 1):
        for _ in range(draw(st.integers(0, 20))):
            metric_no = draw(st.sampled_from(chosen))
            scale, _, _ = METRICS[metric_no - 1]
            small = st.integers(0, 3)
            is_rl = scale != "ML_STEP"
            points.append(
                Point(
                    metric_no=metric_no,
                    env_no=draw(st.integers(1, len(ENV_IDS))) if is_rl else 0,
                    rl_step=draw(small) if is_rl else NONE,
                    episode=draw(small) if is_rl else NONE,
                    step=draw(small) if scale != "EPISODE" else NONE,
                    value=draw(VALUES),
                    writer_no=writer_no,
                    seq=draw(st.integers(1, 2)),
                )
            )
    points.sort(key=lambda point: (point.writer_no, point.seq))
    return flagged(points)


@dataclass(frozen=True)
class Story:
    """A run in the stores, and what the model takes."""

    reads: Reads
    run: OpenedRun
    points: list[Logged]

    def ask(self, route: str, **arguments: Any) -> list[dict[str, Any]]:
        table = answer_frame(self.reads, route, {"run_id": self.run.run_id, **arguments})
        rows: list[dict[str, Any]] = table.to_pylist()
        return rows

    def of(self, metric: str, scale: str, labels: Labels) -> list[Logged]:
        wanted = (metric, scale, labels)
        return [p for p in self.points if (p.metric, p.scale, p.labels) == wanted]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    with open_stores(tmp_path_factory.mktemp("reads")) as stores:
        yield stores


_NUMBERS = iter(range(1, 1_000_000))


def tell(stores: Stores, points: Sequence[Point], inserts: int, *, ends: bool = False) -> Story:
    """Stores a history as a run of its own."""
    name = f"run-{next(_NUMBERS)}"
    run = opened(stores.catalog, name, name, project_name="p")
    metrics = [("metric", 0, scale, name, dict(labels)) for scale, name, labels in METRICS]
    metric_nos = stores.catalog.declare(run.project_id, metrics)
    envs = [("environment", 0, env_id) for env_id in ENV_IDS]
    env_nos = [0, *stores.catalog.declare(run.project_id, envs)]
    numbered = [
        Point(
            **{
                **{name: getattr(point, name) for name in Point.__dataclass_fields__},
                "run_no": run.run_no,
                "metric_no": metric_nos[point.metric_no - 1],
                "env_no": env_nos[point.env_no],
            }
        )
        for point in points
    ]
    for part in range(inserts):
        if numbered[part::inserts]:
            stores.points.insert(columns(numbered[part::inserts][::-1]))
    if ends:
        stores.catalog.end_writer(run.writer_no, died=False)
    return Story(
        Reads(stores.catalog, stores.points, stores.media), run, [_named(point) for point in points]
    )


def _named(point: Point) -> Logged:
    scale, name, labels = METRICS[point.metric_no - 1]
    rl_step, episode, step = (None if at == NONE else at for at in point.position)
    env_id = ENV_IDS[point.env_no - 1] if point.env_no else None
    # Ordinals tell points of one position apart; rl_steps do not go back in a batch.
    version = (point.writer_no, point.seq, point.rl_step, point.ordinal)
    return Logged(name, scale, labels, env_id, rl_step, episode, step, point.value, version)


def repeated_steps(steps: Sequence[int], *, writer_no: int = 1) -> list[Point]:
    """Rewards of one episode whose steps are numbered anew at a later rl_step."""
    return [
        Point(1, 1, 1, rl_step, 0, step, value=10.0**rl_step, seq=1, writer_no=writer_no)
        for rl_step, visit in enumerate(steps)
        for step in range(visit)
    ]


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(points=histories(), inserts=st.integers(1, 3), is_running=st.booleans())
@example(points=repeated_steps([2, 2]), inserts=1, is_running=True)
@example(
    points=[Point(1, 1, 1, at // 2, 0, 3 * (at % 2), value=1.0) for at in range(4)],
    inserts=1,
    is_running=True,
)
@example(
    points=[*repeated_steps([4]), *repeated_steps([3], writer_no=2)], inserts=2, is_running=False
)
def test_episodes_equal_the_model(
    stores: Stores, points: list[Point], inserts: int, is_running: bool
) -> None:
    story = tell(stores, points, inserts, ends=not is_running)
    expected = rl_model.episodes(story.points, ENV_IDS, is_running=is_running)
    rows = story.ask("episodes")
    assert_rows(rows, expected)
    for env_id in {row["env_id"] for row in expected}:
        of_env = [p for p in story.points if p.env_id == env_id]
        rows = story.ask("episodes", env_id=env_id)
        assert_rows(rows, rl_model.episodes(of_env, ENV_IDS, is_running=is_running))


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    points=histories(),
    inserts=st.integers(1, 3),
    by=st.sampled_from(["rl_step", "episode", "step"]),
    start=st.none() | st.integers(0, 3),
    end=st.none() | st.integers(0, 4),
)
def test_statistics_over_environments_equal_the_model(
    stores: Stores,
    points: list[Point],
    inserts: int,
    by: str,
    start: int | None,
    end: int | None,
) -> None:
    story = tell(stores, points, inserts)
    for number in {point.metric_no for point in points}:
        scale, metric, labels = METRICS[number - 1]
        question = {
            "metric_name": metric,
            "scale": scale,
            "labels": dict(labels),
            "by": by,
            "stats": ",".join(STATISTICS),
            "quantiles": ",".join(map(str, QUANTILES)),
            "start": start,
            "end": end,
        }
        if (by != "step" and scale == "ML_STEP") or (by == "step" and scale == "EPISODE"):
            with pytest.raises(InvalidRequestError, match=f"^by: .* no {by}"):
                story.ask("aggregate", **question)
            continue
        of_metric = story.of(metric, scale, labels)
        expected = rl_model.aggregate(of_metric, by, QUANTILES, start, end)
        assert_rows(story.ask("aggregate", **question), expected)


def test_statistics_do_not_overflow(stores: Stores) -> None:
    greatest = 1.7976931348623157e308
    values = [(greatest, -greatest, greatest), (1.6e308, 1.7e308, 1.7e308), (1.0, 2.0, 4.0)]
    points = [
        Point(1, 1, env_no, rl_step, 0, rl_step, value=value)
        for rl_step, row in enumerate(values)
        for env_no, value in enumerate(row, 1)
    ]
    # Twice at a position of an environment: its mean is no longer its only value.
    points += [Point(1, 1, 1, 3, 0, 3, value=greatest), Point(1, 1, 1, 3, 0, 4, value=greatest)]
    story = tell(stores, points, 1)
    rows = story.ask(
        "aggregate", metric_name="reward", labels={}, stats="mean,std,median", quantiles="0.25"
    )
    assert [row["mean"] for row in rows] == pytest.approx(
        [greatest / 3, 1.6666666666666666e308, 7 / 3, greatest]
    )
    assert [row["median"] for row in rows] == pytest.approx([greatest, 1.7e308, 2.0, greatest])
    assert [row["q0.25"] for row in rows] == pytest.approx([0.0, 1.65e308, 1.5, greatest])
    deviation = math.sqrt(8 / 9)
    assert [row["std"] for row in rows] == pytest.approx(
        [deviation * greatest, 4.714045207910317e306, 1.247219128924647, 0.0]
    )


def test_columns_of_metrics_that_would_have_one_name_are_told_apart(stores: Stores) -> None:
    run = opened(stores.catalog, "names", "names", project_name="names")
    metrics: list[tuple[str, dict[str, str]]] = [
        ("x", {"k": "1,l=2"}),
        ("x", {"k": "1", "l": "2"}),
        ("x{k=1,l=2}", {}),
        ("evaluation", {}),
    ]
    entries = [("metric", 0, "EPISODE", name, labels) for name, labels in metrics]
    numbers = stores.catalog.declare(run.project_id, entries)
    (env_no,) = stores.catalog.declare(run.project_id, [("environment", 0, "e")])
    stores.points.insert(
        columns([Point(run.run_no, n, env_no, 0, 0, value=float(i)) for i, n in enumerate(numbers)])
    )
    reads = Reads(stores.catalog, stores.points, stores.media)
    (row,) = answer_frame(reads, "episodes", {"run_id": run.run_id}).to_pylist()
    further = {name: value for name, value in row.items() if name not in rl_model.FIXED}
    assert sorted(further.values()) == [0.0, 1.0, 2.0, 3.0]
    assert further["evaluation{}"] == 3.0
    assert sorted(further) == ["evaluation{}", "x{k=1,l=2}", "x{k=1,l=2}#2", "x{k=1,l=2}{}"]
    assert row["evaluation"] is False
