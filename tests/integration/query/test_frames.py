"""Every frame, from a server and from the embedded store: columns, types, order, values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from metrana.query import Client
from tests.integration.query.recorded import CONFIG, PROJECT, RUN, T0_MS

UTC_TIME = "datetime64[ms, UTC]"
METRIC = {
    "metric_name": "category",
    "scale": "category",
    "labels": "object",
    "env_id": "category",
}
POINTS = {
    **METRIC,
    "rl_step": "Int64",
    "episode": "Int64",
    "step": "Int64",
    "timestamp": UTC_TIME,
    "value": "float64",
    "writer_id": "category",
    "logger_id": "category",
}
RUN_COLUMNS = [
    "run_id",
    "workspace_name",
    "project_name",
    "run_name",
    "experiment_name",
    "status",
    "created_at",
    "updated_at",
    "finished_at",
    "tags",
    "description",
    "git_sha",
    "point_count",
]

Ask = Callable[..., Any]
QUESTIONS: dict[str, Ask] = {
    "runs": lambda c, **k: c.runs(**k),
    "series": lambda c, **k: c.series(RUN, project_name=PROJECT, **k),
    "points": lambda c, **k: c.points(RUN, project_name=PROJECT, **k),
    "points_all": lambda c, **k: c.points(RUN, "loss", duplicates="all", project_name=PROJECT, **k),
    "buckets": lambda c, **k: c.buckets(RUN, "loss", bucket_count=3, project_name=PROJECT, **k),
    "aggregate": lambda c, **k: c.aggregate(
        RUN, "reward", quantiles=[0.5], project_name=PROJECT, **k
    ),
    "episodes": lambda c, **k: c.episodes(RUN, project_name=PROJECT, **k),
    "env_steps": lambda c, **k: c.env_steps(RUN, "reward", "e-0", 1, project_name=PROJECT, **k),
    "env_attributes": lambda c, **k: c.env_attributes(RUN, project_name=PROJECT, **k),
}


def points(client: Client, *arguments: Any, **named: Any) -> pd.DataFrame:
    frame = client.points(RUN, *arguments, project_name=PROJECT, **named)
    assert isinstance(frame, pd.DataFrame)
    return frame


def dtypes(frame: pd.DataFrame) -> dict[str, str]:
    return {name: str(dtype) for name, dtype in frame.dtypes.items()}


# ── Both backends ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("question", QUESTIONS)
def test_frames_are_equal_from_both_backends(
    embedded: Client, remote: Client, question: str
) -> None:
    ask = QUESTIONS[question]
    here, there = (
        ask(client).drop(columns="updated_at", errors="ignore") for client in (embedded, remote)
    )
    pd.testing.assert_frame_equal(here, there)
    assert ask(embedded, as_="arrow").schema == ask(remote, as_="arrow").schema


@pytest.mark.parametrize("question", QUESTIONS)
def test_polars_and_arrow_have_the_columns_of_pandas(client: Client, question: str) -> None:
    ask = QUESTIONS[question]
    names = list(ask(client).columns)
    arrow, polars = ask(client, as_="arrow"), ask(client, as_="polars")
    assert isinstance(arrow, pa.Table)
    assert isinstance(polars, pl.DataFrame)
    assert arrow.column_names == polars.columns == names


# ── Runs ─────────────────────────────────────────────────────────────────────────────────────────


def test_runs_have_the_contracts_columns_newest_first(client: Client) -> None:
    frame = client.runs()
    assert list(frame.columns) == RUN_COLUMNS
    assert list(frame["run_name"]) == ["empty", "<b>x</b>", RUN]
    assert {dtypes(frame)[name] for name in ("created_at", "updated_at", "finished_at")} == {
        UTC_TIME
    }
    assert list(frame["tags"]) == [[], [], ["a", "b"]]
    assert list(frame["point_count"]) == [0, 0, 61]
    assert list(frame["status"]) == ["finished"] * 3


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        ({"project_name": PROJECT}, [RUN]),
        ({"tags": ["a"]}, [RUN]),
        ({"tags": ["a", "b"]}, [RUN]),
        ({"tags": ["a", "c"]}, []),
        ({"tags": []}, ["empty", "<b>x</b>", RUN]),
        ({"status": "Finished"}, ["empty", "<b>x</b>", RUN]),
        ({"status": "running"}, []),
        ({"project_name": "nobody's"}, []),
    ],
)
def test_runs_are_chosen(client: Client, chosen: dict[str, Any], names: list[str]) -> None:
    frame = client.runs(**chosen)
    assert list(frame["run_name"]) == names
    assert list(frame.columns) == RUN_COLUMNS


def test_run_has_nested_config_attributes_and_summary(client: Client) -> None:
    info = client.run(RUN, project_name=PROJECT)
    assert info.config == CONFIG
    assert info.attributes["config/steps"] == 2**70
    assert info.attributes["config/net/sizes/1"] == 64
    assert (info.tags, info.experiment_name) == (["a", "b"], "sweep")
    assert info.description == "a <b>bold</b> try"
    assert info.created_at.utcoffset() == pd.Timedelta(0)
    assert info.point_count == 61
    pd.testing.assert_frame_equal(info.summary(), client.series(run_id=info.run_id))
    assert isinstance(info.summary(as_="arrow"), pa.Table)
    assert isinstance(info.summary(as_="polars"), pl.DataFrame)
    assert client.run(run_id=info.run_id) == info


def test_a_run_without_points_gives_empty_frames_of_the_same_types(client: Client) -> None:
    empty = client.points("empty", project_name="other")
    assert len(empty) == 0
    assert dtypes(empty) == POINTS
    assert len(client.series("empty", project_name="other")) == 0
    assert client.run("empty", project_name="other").config == {}


# ── Series ───────────────────────────────────────────────────────────────────────────────────────


def test_series_have_statistics(client: Client) -> None:
    frame = client.series(RUN, project_name=PROJECT)
    assert dtypes(frame) == {
        "series_id": dtypes(frame)["series_id"],
        **METRIC,
        "point_count": "int64",
        "first_step": "int64",
        "last_step": "int64",
        "last_value": "float64",
        "min_value": "float64",
        "max_value": "float64",
        "mean_value": "float64",
        "nonfinite_count": "int64",
    }
    assert frame["series_id"].is_unique
    odd = frame[frame["metric_name"] == "odd"].iloc[0]
    assert (odd["point_count"], odd["nonfinite_count"]) == (5, 3)
    assert (odd["min_value"], odd["max_value"], odd["mean_value"]) == (0.0, 1.5, 0.75)
    assert math.copysign(1, odd["last_value"]) == -1
    loss = client.series(RUN, metric_name="loss", project_name=PROJECT).iloc[0]
    assert (loss["first_step"], loss["last_step"], loss["point_count"]) == (0, 9, 11)
    assert (loss["last_value"], loss["max_value"]) == (0.1, 100.0)
    returns = client.series(RUN, metric_name="episode_return", project_name=PROJECT)
    assert list(returns["env_id"]) == ["e-0", "e-1"]
    assert list(returns["last_step"]) == [2, 2]


def test_statistics_of_nothing_finite_are_null(client: Client) -> None:
    (row,) = client.series(RUN, metric_name="nan", project_name=PROJECT, as_="arrow").to_pylist()
    assert [row[f"{name}_value"] for name in ("min", "max", "mean")] == [None, None, None]
    assert math.isnan(row["last_value"])


# ── Points ───────────────────────────────────────────────────────────────────────────────────────


def test_points_have_the_contracts_columns_and_types(client: Client) -> None:
    frame = points(client)
    assert list(frame.columns) == list(POINTS)
    assert dtypes(frame) == POINTS
    # The types are the column's: they are the same where no value is missing.
    assert dtypes(points(client, "reward")) == POINTS


def test_points_are_ordered_by_series_then_position(client: Client) -> None:
    table = client.points(RUN, project_name=PROJECT, as_="arrow").to_pylist()
    series = [(r["metric_name"], tuple(sorted(r["labels"])), r["env_id"]) for r in table]
    changes = [key for key, before in zip(series, [None, *series], strict=False) if key != before]
    assert len(changes) == len(set(series))
    for key in changes:
        places = [
            tuple(-1 if r[name] is None else r[name] for name in ("rl_step", "episode", "step"))
            for r, each in zip(table, series, strict=True)
            if each == key
        ]
        assert places == sorted(places)


def test_positions_that_a_scale_does_not_use_are_null(client: Client) -> None:
    positions = ["rl_step", "episode", "step"]
    assert list(points(client, "loss")[positions].notna().all()) == [False, False, True]
    assert points(client, "loss")[["rl_step", "episode"]].isna().all(axis=None)
    assert points(client, "episode_return")["step"].isna().all()
    assert points(client, "episode_return")[["rl_step", "episode"]].notna().all(axis=None)
    assert points(client, "reward")[positions].notna().all(axis=None)
    assert points(client, "loss")[["env_id", "logger_id"]].isna().all(axis=None)


def test_points_keep_nonfinite_values_and_the_sign_of_zero(client: Client) -> None:
    nan, inf, minus_inf, plain, zero = points(client, "odd")["value"]
    assert math.isnan(nan)
    assert (inf, minus_inf, plain) == (math.inf, -math.inf, 1.5)
    assert math.copysign(1, zero) == -1


def test_points_keep_the_time_they_were_logged_at(client: Client) -> None:
    first = points(client, "loss")["timestamp"].iloc[0]
    assert first == pd.Timestamp(T0_MS, unit="ms", tz="UTC")


def test_labels_are_dicts(client: Client) -> None:
    labels = list(points(client, "accuracy")["labels"])
    assert all(type(each) is dict for each in labels)
    assert {"split": "train", "fold": "1"} in labels
    assert {} in labels
    polars = client.points(
        RUN, "accuracy", labels={"fold": "1"}, project_name=PROJECT, as_="polars"
    )
    assert polars["labels"].dtype.base_type() in {pl.List, getattr(pl, "Map", pl.List)}
    assert polars["metric_name"].dtype == pl.Categorical


@pytest.mark.parametrize(
    ("labels", "values"),
    [
        (None, [0.25, 0.5, 0.75, 0.9]),
        ({}, [0.25]),
        ({"split": "test"}, [0.75]),
        ({"fold": "1"}, [0.5]),
        ({"fold": "1", "split": "train"}, [0.5]),
        ({"evaluation": "true"}, [0.9]),
    ],
)
def test_points_are_chosen_by_labels(
    client: Client, labels: dict[str, str] | None, values: list[float]
) -> None:
    assert sorted(points(client, "accuracy", labels=labels)["value"]) == values


@pytest.mark.parametrize("scale", ["EPISODE", "episode"])
def test_points_are_chosen_by_scale(client: Client, scale: str) -> None:
    frame = points(client, scale=scale)
    assert set(frame["metric_name"]) == {"episode_return"}
    assert len(frame) == 6


def test_points_are_chosen_by_environment_and_episode(client: Client) -> None:
    frame = points(client, "reward", env_id="e-1", episode=2, labels={})
    assert list(frame["value"]) == [24.0, 25.0, 26.0, 27.0]
    assert set(frame["env_id"]) == {"e-1"}


@pytest.mark.parametrize(
    ("metric", "start", "end", "seen"),
    [
        ("loss", 2, 5, [2, 3, 4]),
        ("loss", 8, None, [8, 9]),
        ("loss", None, 1, [0]),
        ("loss", 4.0, 5.0, [4]),
        ("loss", 100, None, []),
    ],
)
def test_a_range_is_on_the_scales_own_axis_without_its_end(
    client: Client, metric: str, start: Any, end: Any, seen: list[int]
) -> None:
    assert list(points(client, metric, start=start, end=end)["step"]) == seen
    if seen:
        assert list(points(client, "episode_return", env_id="e-0", start=1, end=2)["episode"]) == [
            1
        ]
        assert list(
            points(client, "reward", env_id="e-0", episode=0, labels={}, start=3)["step"]
        ) == [3]


def test_limit_cuts_the_points(client: Client) -> None:
    assert len(points(client, "loss", limit=4)) == 4
    assert len(points(client, limit=0)) == 0


def test_of_duplicates_the_last_is_shown(client: Client) -> None:
    shown = points(client, "loss", start=3, end=4)
    assert list(shown["value"]) == [100.0]
    each = points(client, "loss", start=3, end=4, duplicates="all")
    assert list(each["value"]) == [0.25, 100.0]


def test_distributed_points_have_a_row_a_logger(client: Client) -> None:
    frame = points(client, "throughput", start=0, end=2)
    assert list(frame["logger_id"]) == ["rank-0", "rank-1"] * 2
    assert list(frame["value"]) == [10.0, 20.0, 11.0, 21.0]
    assert frame["writer_id"].nunique() == 2


def test_a_run_is_found_by_its_id_alone(client: Client) -> None:
    info = client.run(RUN, project_name=PROJECT)
    by_id = client.points(run_id=info.run_id.upper(), metric_name="loss")
    pd.testing.assert_frame_equal(by_id, points(client, "loss"))


# ── Buckets ──────────────────────────────────────────────────────────────────────────────────────


def test_buckets_have_the_contracts_columns_and_hide_no_spike(client: Client) -> None:
    frame = client.buckets(RUN, "loss", bucket_count=2, project_name=PROJECT)
    assert dtypes(frame) == {
        **METRIC,
        "logger_id": "category",
        "bucket": "int64",
        "x_min": "int64",
        "x_max": "int64",
        "count": "int64",
        "min": "float64",
        "max": "float64",
        "mean": "float64",
        "first": "float64",
        "last": "float64",
        "nonfinite_count": "int64",
    }
    assert frame[["bucket", "x_min", "x_max", "count"]].to_numpy().tolist() == [
        [0, 0, 4, 5],
        [1, 5, 9, 5],
    ]
    assert list(frame["max"]) == [100.0, 1 / 6]
    assert list(frame["first"]) == [1.0, 1 / 6]
    assert list(frame["last"]) == [0.2, 0.1]


@pytest.mark.parametrize(
    ("loggers", "first"),
    [("mean", [15.0]), ("min", [10.0]), ("max", [20.0]), ("each", [10.0, 20.0])],
)
def test_buckets_merge_loggers_as_asked(client: Client, loggers: str, first: list[float]) -> None:
    frame = client.buckets(RUN, "throughput", loggers=loggers, bucket_count=1, project_name=PROJECT)
    assert list(frame["first"]) == first
    assert frame["logger_id"].notna().all() == (loggers == "each")


@pytest.mark.parametrize(("x", "x_max"), [(None, 3), ("step", 3), ("rl_step", 200), ("episode", 2)])
def test_buckets_divide_the_axis_asked_for(client: Client, x: str | None, x_max: int) -> None:
    frame = client.buckets(
        RUN, "reward", x=x, labels={}, env_id="e-0", bucket_count=1, project_name=PROJECT
    )
    assert (frame["x_max"].item(), frame["count"].item()) == (x_max, 12)


def test_buckets_over_time_are_in_unix_milliseconds(client: Client) -> None:
    frame = client.buckets(
        RUN, "loss", x="timestamp", bucket_count=1, start=T0_MS, project_name=PROJECT
    )
    assert (frame["x_min"].item(), frame["x_max"].item()) == (T0_MS, T0_MS + 50)


def test_buckets_count_what_is_not_finite(client: Client) -> None:
    frame = client.buckets(RUN, "odd", bucket_count=1, project_name=PROJECT)
    assert (frame["count"].item(), frame["nonfinite_count"].item()) == (5, 3)
    assert (frame["min"].item(), frame["max"].item()) == (0.0, 1.5)
    assert math.isnan(frame["first"].item())


# ── Environments ─────────────────────────────────────────────────────────────────────────────────


def test_env_steps_give_one_episode_by_step(client: Client) -> None:
    frame = client.env_steps(RUN, "reward", "e-1", 1, project_name=PROJECT)
    assert dtypes(frame) == {
        "step": "int64",
        "rl_step": "Int64",
        "timestamp": UTC_TIME,
        "value": "float64",
    }
    assert list(frame["step"]) == [0, 1, 2, 3]
    assert set(frame["rl_step"]) == {100}
    assert list(frame["value"]) == [14.0, 15.0, 16.0, 17.0]


def test_env_steps_mean_the_metric_without_labels_unless_told(client: Client) -> None:
    def values(**named: Any) -> list[float]:
        return list(
            client.env_steps(RUN, "reward", "e-0", 0, project_name=PROJECT, **named)["value"]
        )

    assert values() == [0.0, 1.0, 2.0, 3.0]
    assert values(labels={"evaluation": "true"}) == [1.0, 1.0]


def test_env_attributes_keep_their_types(client: Client) -> None:
    frame = client.env_attributes(RUN, project_name=PROJECT)
    assert list(frame.columns) == ["env_id", "episode", "path", "value"]
    assert str(frame["episode"].dtype) == "Int64"
    assert dict(zip(frame["path"], frame["value"], strict=True)) == {
        "note": None,
        "seed": 7,
        "wrappers": ["a", "b"],
        "map": "forest",
        "noise": math.inf,
    }
    assert list(frame["episode"].isna()) == [True, True, True, False, False]


def test_env_attributes_are_text_where_columns_have_one_type(client: Client) -> None:
    rows = client.env_attributes(RUN, project_name=PROJECT, as_="polars").to_dicts()
    assert {row["path"]: row["value"] for row in rows} == {
        "note": None,
        "seed": "7",
        "wrappers": '["a", "b"]',
        "map": "forest",
        "noise": "Infinity",
    }


def test_env_attributes_of_one_episode(client: Client) -> None:
    frame = client.env_attributes(RUN, env_id="e-0", episode=1, project_name=PROJECT)
    assert list(frame["path"]) == ["map", "noise"]
