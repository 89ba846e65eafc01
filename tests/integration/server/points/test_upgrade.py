"""Stores of older versions are brought to today's, however often that is cut short."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from metrana.server.points import PointsQuery, PointsStore, open_points
from metrana.server.points.schema import PROJECTION, SCHEMA, upgrade_from
from metrana.server.points.summary import profile
from tests.integration.server.points.plans import explained, versions
from tests.integration.server.points.reference import Point, columns

CREATE_POINTS_1 = (
    "CREATE TABLE IF NOT EXISTS points ("
    "run_no UInt32, metric_no UInt32, env_no UInt32, "
    "rl_step Int64 CODEC(DoubleDelta, LZ4), episode Int64 CODEC(DoubleDelta, LZ4), "
    "step Int64 CODEC(DoubleDelta, LZ4), timestamp_ms Int64 CODEC(DoubleDelta, LZ4), "
    "value Float64 CODEC(Gorilla, ZSTD(1)), logger_no UInt32, writer_no UInt32, "
    "seq UInt64 CODEC(DoubleDelta, LZ4), ordinal UInt16, rewound UInt8, "
    "PROJECTION summary (SELECT run_no, metric_no, env_no, logger_no, writer_no, count(), "
    "countIf(isFinite(value)), sumIf(value, isFinite(value)), minIf(value, isFinite(value)), "
    "maxIf(value, isFinite(value)), max(rewound), max(seq), "
    "min(bitShiftLeft(toUInt256(rl_step + 1), 128) + bitShiftLeft(toUInt256(episode + 1), 64)"
    " + toUInt256(step + 1)), "
    "max(bitShiftLeft(toUInt256(rl_step + 1), 128) + bitShiftLeft(toUInt256(episode + 1), 64)"
    " + toUInt256(step + 1)), "
    "argMax(value, bitShiftLeft(toUInt256(rl_step + 1), 128)"
    " + bitShiftLeft(toUInt256(episode + 1), 64) + toUInt256(step + 1)), "
    "max(bitShiftLeft(toUInt128(episode + 1), 64) + toUInt128(step + 1)) "
    "GROUP BY run_no, metric_no, env_no, logger_no, writer_no)) "
    "ENGINE = MergeTree ORDER BY (run_no, metric_no, env_no, rl_step, episode, step) "
    "SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, "
    "min_compressed_bytes_to_fsync_after_merge = 1"
)


def make_version_1(
    store: PointsStore, note: Sequence[str] = ("INSERT INTO meta VALUES (1)",)
) -> None:
    """Turns an empty store into one of version 1."""
    for statement in ("TRUNCATE TABLE meta", "DROP TABLE points", CREATE_POINTS_1, *note):
        store._engine.command(statement)


def test_a_store_of_version_1_is_upgraded(tmp_path: Path) -> None:
    url = f"chdb://{tmp_path}/points"
    points = [Point(1, 1, 0, -1, -1, step, value=float(step)) for step in range(100)]
    points += [Point(1, 2, 3, 7, 2, step, value=-float(step)) for step in range(100)]
    with open_points(url) as store:
        make_version_1(store)
        store.insert(columns(points[:150]))
        before = store.points(PointsQuery(1)).read_all()
    for rest in (points[150:], []):
        with open_points(url) as store:
            assert store.points(PointsQuery(1)).read_all() == before
            assert versions(store) == ["1", "3"]
            store.insert(columns(rest))
            before = store.points(PointsQuery(1)).read_all()
            plan = explained(store, lambda store=store: profile(store._engine, [1]))
            assert f"ReadFromMergeTree ({PROJECTION})" in plan
            summary = profile(store._engine, [1]).columns
            assert summary["row_count"].tolist() == [100, 100]
            assert summary["last_value"].tolist() == [99.0, -99.0]
            assert summary["last_rl_step"].tolist() == [-1, 7]
            assert "LZ4" not in _created(store)


def test_a_store_of_version_2_gets_the_codecs_of_today(tmp_path: Path) -> None:
    url = f"chdb://{tmp_path}/points"
    points = [Point(1, 1, 0, -1, -1, step, value=float(step)) for step in range(100)]
    version_2 = (
        "ALTER TABLE points MODIFY COLUMN run_no UInt32 CODEC(Default), "
        "MODIFY COLUMN metric_no UInt32 CODEC(Default)",
        "TRUNCATE TABLE meta",
        "INSERT INTO meta VALUES (2)",
    )
    with open_points(url) as store:
        today = _created(store)
        for statement in version_2:
            store._engine.command(statement)
        assert _created(store) != today
        store.insert(columns(points))
    with open_points(url) as store:
        assert versions(store) == ["2", "3"]
        assert _created(store) == today
        _check_summary(store, 100)


def _created(store: PointsStore) -> str:
    return store._engine._keeper.query("SHOW CREATE TABLE points", "TSVRaw").bytes().decode()


@pytest.mark.parametrize("done", range(len(upgrade_from(1)) + 1))
def test_an_upgrade_that_ended_after_any_statement_is_finished_by_the_next(
    tmp_path: Path, done: int
) -> None:
    url = f"chdb://{tmp_path}/points"
    with open_points(url) as store:
        make_version_1(store)
        store.insert(columns([Point(step=step, value=float(step)) for step in range(10)]))
        for statement in upgrade_from(1)[:done]:
            store._engine.command(statement)
    with open_points(url) as store:
        assert versions(store) == ["1", "3"]
        _check_summary(store, 10)


def test_a_store_that_died_before_it_noted_its_version_is_upgraded(tmp_path: Path) -> None:
    url = f"chdb://{tmp_path}/points"
    with open_points(url) as store:
        make_version_1(store, note=())
    with open_points(url) as store:
        assert versions(store) == ["3"]
        store.insert(columns([Point(step=step, value=float(step)) for step in range(10)]))
        _check_summary(store, 10)


def test_an_upgrade_that_is_killed_again_and_again_is_finished_in_the_end(tmp_path: Path) -> None:
    url, count = f"chdb://{tmp_path}/points", 1_000_000
    with open_points(url) as store:
        make_version_1(store)
        many = {name: np.zeros(count, dtype) for name, dtype in SCHEMA.items()}
        many["run_no"][:] = many["metric_no"][:] = many["writer_no"][:] = 1
        many["rl_step"][:] = many["episode"][:] = -1
        many["step"] = np.arange(count)
        many["value"] = np.arange(count, dtype=np.float64)
        store.insert(many)
    met: set[Path] = set()
    assert [_open_until_a_change_begins(url, tmp_path / "points", met) for _ in range(4)] == [
        -signal.SIGKILL
    ] * 4
    with open_points(url) as store:
        assert versions(store) == ["1", "3"]
        _check_summary(store, count)


def _open_until_a_change_begins(url: str, folder: Path, met: set[Path]) -> int:
    """Opens a store in a process and kills it at a change not met before; returns how it ended.

    A change of parts is a file from its beginning on. Each new attempt begins one of its own.
    """
    script = f"from metrana.server.points import open_points; open_points({url!r}).close()"
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        deadline = time.monotonic() + 50
        while process.poll() is None:
            assert time.monotonic() < deadline
            new = {*folder.glob("store/*/*/mutation_*.txt")} - met
            if new:
                met |= new
                process.kill()
                break
            os.sched_yield()
        return process.wait()


def _check_summary(store: PointsStore, count: int) -> None:
    assert f"ReadFromMergeTree ({PROJECTION})" in explained(
        store, lambda: profile(store._engine, [1])
    )
    summary = profile(store._engine, [1]).columns
    assert summary["row_count"].tolist() == [count]
    assert summary["last_value"].tolist() == [count - 1.0]
    assert summary["last_step"].tolist() == [count - 1]
