"""Inserts, reads and streams side by side, and closing among them."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from metrana.server.points import BucketsQuery, PointsClosedError, PointsQuery, PointsStore
from tests.integration.server.points.reference import Point, columns

ROWS = 500
INSERTS = 20


def batch(seq: int) -> dict:
    first = seq * ROWS
    return columns([Point(step=first + row, value=1.0, seq=seq) for row in range(ROWS)])


def test_reads_beside_inserts_see_whole_inserts_only(store: PointsStore) -> None:
    done = threading.Event()

    def insert() -> None:
        for seq in range(INSERTS):
            store.insert(batch(seq))
        done.set()

    def read(question: Callable[[], int]) -> list[int]:
        counts = []
        while not done.is_set():
            counts.append(question())
        return [*counts, question()]

    questions: list[Callable[[], int]] = [
        lambda: store.point_counts([1])[1],
        lambda: sum(store.summaries([1])["point_count"].to_pylist()),
        lambda: store.points(PointsQuery(1)).read_all().num_rows,
        lambda: sum(store.buckets(BucketsQuery(1, start=0, end=10**6))["point_count"].to_pylist()),
    ]
    with ThreadPoolExecutor(len(questions) + 1) as pool:
        inserting = pool.submit(insert)
        answers = [pool.submit(read, question) for question in questions]
        inserting.result()
        for answer in answers:
            counts = answer.result()
            assert counts == sorted(counts)
            assert all(count % ROWS == 0 for count in counts)
            assert counts[-1] == INSERTS * ROWS


def test_open_stream_disturbs_nobody(store: PointsStore) -> None:
    for seq in range(4):
        store.insert(batch(seq))
    with store.points(PointsQuery(1)) as stream:
        first = next(stream)
        store.insert(batch(4))
        assert store.point_counts([1]) == {1: 5 * ROWS}
        rest = sum(batch.num_rows for batch in stream)
    assert first.num_rows + rest == 4 * ROWS


def test_stream_may_be_left_early(store: PointsStore) -> None:
    store.insert(batch(0))
    with store.points(PointsQuery(1)) as stream:
        next(stream)
    stream.close()
    assert store.point_counts([1]) == {1: ROWS}
    with pytest.raises(PointsClosedError):
        list(stream)


def test_closing_the_store_ends_its_streams(store: PointsStore) -> None:
    store.insert(batch(0))
    stream = store.points(PointsQuery(1))
    store.close()
    with pytest.raises(PointsClosedError):
        stream.read_all()


def test_answers_outlive_the_store(store: PointsStore) -> None:
    store.insert(batch(0))
    points = store.points(PointsQuery(1)).read_all()
    summaries = store.summaries([1])
    buckets = store.buckets(BucketsQuery(1, bucket_count=ROWS))
    store.close()
    assert points["step"].to_pylist() == list(range(ROWS))
    assert summaries["point_count"].to_pylist() == [ROWS]
    assert buckets["x_min"].to_pylist() == list(range(ROWS))
