"""Stores that fail: what passes is waited for, what one writer caused is refused to it alone."""

from __future__ import annotations

import logging
import resource
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

import metrana
from metrana import _native
from metrana.server.catalog import Catalog
from metrana.server.embedded import Stores
from metrana.server.ingest import Ingestor
from metrana.server.media import MediaFolder
from metrana.server.points import PointsError, PointsStore
from metrana.server.points.engine import ChdbEngine
from tests.integration.server.writing import (
    OTHER_ID,
    WRITER_ID,
    Heard,
    open_writer,
    stored_steps,
    submit_all,
)
from tests.local_server import wait_until

FORBIDDING = (
    "CREATE TRIGGER rule BEFORE INSERT ON attributes WHEN NEW.path = 'config/forbidden' "
    "BEGIN SELECT RAISE(ABORT, 'forbidden by a rule'); END"
)

# Any file that a store would grow past this cannot be written, as on a disk that is full.
_FULL_BYTES = 64


class UncertainStore(PointsStore):
    """Its first inserts happen and fail all the same, as when only the last sync failed."""

    failure_count = 0

    def insert(self, columns: Mapping[str, np.ndarray]) -> None:
        """Inserts, then says that it did not."""
        super().insert(columns)
        if self.failure_count:
            self.failure_count -= 1
            raise PointsError("Code: 88. cannot fsync the directory")


@contextmanager
def open_own(data_dir: Path) -> Iterator[tuple[Stores, ChdbEngine]]:
    """Opens stores whose engine the test can speak to."""
    engine = ChdbEngine(data_dir / "points")
    with (
        closing(UncertainStore(engine)) as points,
        closing(Catalog.open(f"sqlite:///{data_dir / 'catalog.sqlite'}")) as catalog,
    ):
        yield Stores(catalog, points, MediaFolder(data_dir / "media")), engine


@contextmanager
def ingesting(stores: Stores) -> Iterator[Ingestor]:
    """An ingestor that is closed before its stores are."""
    ingestor = Ingestor(stores.catalog, stores.points, stores.media)
    try:
        yield ingestor
    finally:
        ingestor.close()


@contextmanager
def full_disk() -> Iterator[None]:
    """Lets no file of this process grow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FULL_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def sealed_by(data_dir: Path, value: float, **config: object) -> list[object]:
    """What an engine seals that logs one value and a config."""
    with metrana.init(mode="offline", data_dir=data_dir, run_name="r", config=config) as run:
        run.log("loss", value)
    (folder,) = (data_dir / "spool").iterdir()
    return list(_native.SpoolFollower(folder / "000001").read(1 << 20))


def test_attributes_that_the_catalog_refuses_end_only_their_writer(
    tmp_path: Path, sealed: list[object]
) -> None:
    refused = sealed_by(tmp_path / "refused", 1.0, forbidden=1)
    with open_own(tmp_path) as (stores, _), ingesting(stores) as ingestor:
        with closing(sqlite3.connect(tmp_path / "catalog.sqlite")) as catalog:
            catalog.execute(FORBIDDING)
        bad, good = Heard(), Heard()
        submit_all(ingestor, ingestor.open_session(open_writer(stores, OTHER_ID), bad, 1), refused)
        last = submit_all(ingestor, ingestor.open_session(open_writer(stores), good, 1), sealed)
        wait_until(lambda: bad.refusal and good.acked == last, what="both answers")
    assert bad.refusal is not None
    assert (bad.refusal.code, bad.refusal.retryable) == ("MALFORMED", False)
    assert "forbidden by a rule" in bad.refusal.message
    assert "INSERT" not in bad.refusal.message
    # The points before them are stored, and so acknowledged.
    assert bad.acked == 1


def test_points_that_the_store_refuses_end_only_their_writer(
    tmp_path: Path, sealed: list[object]
) -> None:
    refused = sealed_by(tmp_path / "refused", 1e9)
    with open_own(tmp_path) as (stores, engine), ingesting(stores) as ingestor:
        engine.command("ALTER TABLE points ADD CONSTRAINT small CHECK value < 1000")
        bad, good = Heard(), Heard()
        other, writer = open_writer(stores, OTHER_ID), open_writer(stores)
        submit_all(ingestor, ingestor.open_session(other, bad, 1), refused)
        last = submit_all(ingestor, ingestor.open_session(writer, good, 1), sealed)
        wait_until(lambda: bad.refusal and good.acked == last, what="both answers")
        assert stored_steps(stores, writer) == list(range(30))
        assert stored_steps(stores, other) == []
        assert ingestor.fault is None
    assert bad.refusal is not None
    assert (bad.refusal.code, bad.refusal.retryable) == ("MALFORMED", False)


def test_a_full_disk_is_waited_for_and_said_once(
    tmp_path: Path, sealed: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with open_own(tmp_path) as (stores, _), ingesting(stores) as ingestor:
        writer, heard = open_writer(stores), Heard()
        session = ingestor.open_session(writer, heard, 1)
        last = submit_all(ingestor, session, [m for m in sealed if m.kind == "declarations"])  # type: ignore[attr-defined]
        with full_disk():
            last = submit_all(ingestor, session, [m for m in sealed if m.kind != "declarations"])  # type: ignore[attr-defined]
            wait_until(lambda: ingestor.fault, what="the fault")
        wait_until(lambda: heard.acked == last, what="the acknowledgement")
        assert ingestor.fault is None
        assert stored_steps(stores, writer) == list(range(30))
    assert heard.refusal is None
    said = [r.message for r in caplog.records if "trying again until it works" in r.message]
    assert len(said) == 1


def test_a_catalog_that_cannot_be_written_is_waited_for(
    tmp_path: Path, sealed: list[object]
) -> None:
    attributes = [m for m in sealed if m.kind == "attributes"]  # type: ignore[attr-defined]
    with open_own(tmp_path) as (stores, _), ingesting(stores) as ingestor:
        writer, heard = open_writer(stores), Heard()
        # As if all points had been lost: only the catalog has anything to do.
        session = ingestor.open_session(writer, heard, 1, lost=[(1, 1 << 40)])
        with full_disk():
            last = submit_all(ingestor, session, attributes)
            wait_until(lambda: ingestor.fault, what="the fault")
            assert "apply attributes" in (ingestor.fault or "")
        wait_until(lambda: heard.acked == last, what="the acknowledgement")
        assert stores.catalog.config(writer.run_no) == {"lr": 0.1}


@pytest.mark.parametrize("failure_count", [1, 3])
def test_an_insert_that_failed_after_it_happened_is_not_repeated(
    tmp_path: Path, sealed: list[object], failure_count: int
) -> None:
    with open_own(tmp_path) as (stores, _), ingesting(stores) as ingestor:
        assert isinstance(stores.points, UncertainStore)
        stores.points.failure_count = failure_count
        heard = {WRITER_ID: Heard(), OTHER_ID: Heard()}
        writers = {writer_id: open_writer(stores, writer_id) for writer_id in heard}
        for writer_id, one in heard.items():
            last = submit_all(ingestor, ingestor.open_session(writers[writer_id], one, 1), sealed)
        wait_until(lambda: all(one.acked == last for one in heard.values()), what="both answers")
        for writer in writers.values():
            assert stored_steps(stores, writer) == list(range(30))
        assert ingestor.committed_rows == 60


def test_attributes_before_those_that_are_refused_are_applied_and_acknowledged(
    tmp_path: Path,
) -> None:
    data_dir = tmp_path / "own"
    with metrana.init(mode="offline", data_dir=data_dir, run_name="r", config={"lr": 0.1}) as run:
        run.flush()
        run.log_config({"forbidden": 1})
        run.flush()
        run.log_config({"later": 1})
    (folder,) = (data_dir / "spool").iterdir()
    messages = list(_native.SpoolFollower(folder / "000001").read(1 << 20))
    with open_own(tmp_path) as (stores, _), ingesting(stores) as ingestor:
        with closing(sqlite3.connect(tmp_path / "catalog.sqlite")) as catalog:
            catalog.execute(FORBIDDING)
        writer, heard = open_writer(stores), Heard()
        session = ingestor.open_session(writer, heard, 1)
        assert submit_all(ingestor, session, messages) == 3
        wait_until(lambda: heard.refusal, what="the refusal")
        assert stores.catalog.config(writer.run_no) == {"lr": 0.1}
    assert heard.acked == 1
    assert heard.refusal is not None
    assert (heard.refusal.code, heard.refusal.retryable) == ("MALFORMED", False)
