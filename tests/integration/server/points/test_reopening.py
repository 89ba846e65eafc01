"""Stores that are opened for a moment: nothing stays behind, and what has to be done is done."""

from pathlib import Path

import pytest

from metrana.server.points import ChdbLimits, PointsClosedError, PointsQuery, open_points
from metrana.server.points.store import _MANY_PARTS
from tests.integration.server.points.plans import versions
from tests.integration.server.points.reference import Point, columns
from tests.integration.server.points.test_upgrade import make_version_1
from tests.local_server import wait_until

BRIEF = ChdbLimits(merging=False)
OPENINGS = 10


def thread_names() -> list[str]:
    names = []
    for task in Path("/proc/self/task").iterdir():
        try:
            names.append((task / "comm").read_text().strip())
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
    return names


def test_opening_for_a_moment_again_and_again_leaves_no_threads(tmp_path: Path) -> None:
    url = f"chdb://{tmp_path}/points"

    def open_often() -> None:
        for step in range(OPENINGS):
            with open_points(url, BRIEF) as store:
                store.insert(columns([Point(step=step)]))
                assert len(store.summaries([1])) == 1

    open_often()  # what the engine keeps for the next opening is there after that
    before = len(thread_names())
    open_often()
    wait_until(lambda: len(thread_names()) < before + OPENINGS, 10.0, "the end of threads")


def test_no_opening_has_threads_for_replicas_or_moves_between_disks(tmp_path: Path) -> None:
    with open_points(f"chdb://{tmp_path}/points") as store:
        store.insert(columns([Point(step=1)]))
        names = thread_names()
    assert {"MergeMutate", "Common"} <= set(names)
    assert not {"Fetch", "Move"} & set(names)


def test_many_parts_are_merged_though_the_store_is_opened_for_a_moment(tmp_path: Path) -> None:
    url = f"chdb://{tmp_path}/points"
    with open_points(url, BRIEF) as store:
        for step in range(_MANY_PARTS):
            store.insert(columns([Point(step=step)]))
        assert store.stats().part_count == _MANY_PARTS
        store.insert(columns([Point(step=_MANY_PARTS)]))
        wait_until(lambda: store.stats().part_count < _MANY_PARTS, what="merging")
        steps = store.points(PointsQuery(1)).read_all()["step"].to_pylist()
        assert steps == list(range(_MANY_PARTS + 1))


def test_many_parts_of_earlier_openings_are_merged(tmp_path: Path) -> None:
    url = f"chdb://{tmp_path}/points"
    with open_points(url, BRIEF) as store:
        for step in range(_MANY_PARTS):
            store.insert(columns([Point(step=step)]))
    with open_points(url, BRIEF) as store:
        wait_until(lambda: store.stats().part_count < _MANY_PARTS, what="merging")
        assert store.point_counts([1]) == {1: _MANY_PARTS}


def test_a_run_is_deleted_in_a_store_that_does_not_merge(tmp_path: Path) -> None:
    with open_points(f"chdb://{tmp_path}/points", BRIEF) as store:
        store.insert(columns([Point(run_no=run_no, step=1) for run_no in (1, 2)]))
        store.delete_run(1)
        assert store.point_counts([1, 2]) == {1: 0, 2: 1}


def test_a_deletion_that_was_cut_short_is_finished(tmp_path: Path) -> None:
    url = f"chdb://{tmp_path}/points"
    with open_points(url, BRIEF) as store:
        store.insert(columns([Point(run_no=run_no, step=1) for run_no in (1, 2)]))
        # As `delete_run` does but without waiting; nothing merges here, so nothing is deleted.
        store._engine.command(
            "ALTER TABLE points DELETE WHERE run_no = 1 SETTINGS mutations_sync = 0"
        )
    with open_points(url, BRIEF) as store:
        wait_until(lambda: store.point_counts([1]) == {1: 0}, what="the deletion")
        assert store.point_counts([2]) == {2: 1}


def test_a_store_of_version_1_is_upgraded_though_it_is_opened_for_a_moment(tmp_path: Path) -> None:
    url = f"chdb://{tmp_path}/points"
    with open_points(url) as store:
        make_version_1(store)
        store.insert(columns([Point(step=step, value=float(step)) for step in range(10)]))
    with open_points(url, BRIEF) as store:
        assert versions(store) == ["1", "3"]
        assert store.summaries([1])["point_count"].to_pylist() == [10]


def test_starting_to_merge_ends_open_streams_and_keeps_the_rest(tmp_path: Path) -> None:
    with open_points(f"chdb://{tmp_path}/points", BRIEF) as store:
        store.insert(columns([Point(step=step) for step in range(10)]))
        stream = store.points(PointsQuery(1))
        store._engine.start_merging()
        store._engine.start_merging()
        with pytest.raises(PointsClosedError):
            stream.read_all()
        assert store.point_counts([1]) == {1: 10}
    with pytest.raises(PointsClosedError):
        store._engine.start_merging()
