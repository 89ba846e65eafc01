"""Delivery from spools: what a process left behind, and runs that are still going on."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import metrana
from metrana.query import Client
from metrana.server.embedded import deliver_spools, open_stores
from tests.local_server import LocalServer, wait_until
from tests.reading import run_folders
from tests.spool_damage import damage_batch

KILLED = """
import os, signal
import metrana

run = metrana.init(mode="offline", run_name="killed")
for step in range(1000):
    run.log("loss", float(step))
os.kill(os.getpid(), signal.SIGKILL)
"""


def log_offline(data_dir: Path, run_name: str, point_count: int) -> None:
    with metrana.init(mode="offline", data_dir=data_dir, run_name=run_name) as run:
        for step in range(point_count):
            run.log("loss", float(step))


SEALED_BEFORE = """
import os, signal
import metrana

run = metrana.init(mode="offline", run_name="killed")
for step in range(1000):
    run.log("loss", float(step))
    if step == 599:
        run.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_a_writer(data_dir: Path, script: str = KILLED) -> None:
    environment = {**os.environ, "METRANA_DIR": str(data_dir)}
    killed = subprocess.run([sys.executable, "-c", script], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL


def delete_first_segment(data_dir: Path) -> tuple[Path, int]:
    """Leaves a killed writer its second one; returns its folder and that one's first batch."""
    kill_a_writer(data_dir, SEALED_BEFORE)
    (folder,) = run_folders(data_dir)
    with folder.recover(1):
        pass  # the rest of the ring goes into a segment of its own
    (writer,) = folder.writers()
    first, second = sorted(Path(writer.path).glob("*.spool"))
    # Its place is drawn in docs/decisions/001-frame-and-batch.md.
    begins = int.from_bytes(second.read_bytes()[40:48], "little")
    first.unlink()
    return Path(writer.path), begins


def test_a_finished_run_is_delivered_once_and_its_writer_folder_removed(tmp_path: Path) -> None:
    log_offline(tmp_path, "done", 100)
    with open_stores(tmp_path) as stores:
        first = deliver_spools(tmp_path, stores)
        second = deliver_spools(tmp_path, stores)
        (run,) = stores.catalog.runs()
        assert stores.points.point_counts([run.run_no]) == {run.run_no: 100}
    assert first.delivered == [("default/done", 1)]
    assert (second.delivered, second.batch_count) == ([], 0)
    assert run.status == "finished"
    (folder,) = (tmp_path / "spool").iterdir()
    assert not (folder / "000001").exists()
    assert (folder / "run.json").exists()


def test_a_writer_that_somebody_else_looks_after_is_no_problem(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    log_offline(tmp_path, "done", 10)
    (lock,) = (tmp_path / "spool").rglob("lock")
    with open_stores(tmp_path) as stores:
        with lock.open() as file:
            # As whoever asks whether it lives has it for an instant.
            fcntl.flock(file, fcntl.LOCK_SH)
            meanwhile = deliver_spools(tmp_path, stores)
        after = deliver_spools(tmp_path, stores)
    assert (meanwhile.delivered, meanwhile.problems) == ([], [])
    assert caplog.records == []
    assert after.delivered == [("default/done", 1)]


def test_every_accepted_point_of_a_killed_process_is_delivered(tmp_path: Path) -> None:
    kill_a_writer(tmp_path)
    with open_stores(tmp_path) as stores:
        report = deliver_spools(tmp_path, stores)
        (run,) = stores.catalog.runs()
        assert stores.points.point_counts([run.run_no]) == {run.run_no: 1000}
    assert report.problems == []
    # It left no close record.
    assert run.status == "lost"


def test_a_spool_without_its_beginning_is_delivered_and_the_loss_said_once(tmp_path: Path) -> None:
    _, begins = delete_first_segment(tmp_path)
    lost = f"batches 1 to {begins - 1} are lost" if begins > 2 else "batch 1 is lost"
    with (
        (tmp_path / "told").open("w") as told_file,
        LocalServer(tmp_path, stderr=told_file.fileno()),
        Client(data_dir=tmp_path) as client,
    ):
        wait_until(lambda: client.runs(as_="arrow").num_rows == 1, what="the run")
        wait_until(lambda: client.run("killed").status == "lost", what="its end")
        assert 0 < _count(client) <= 400
    told = (tmp_path / "told").read_text()
    assert told.count(f"writer 1 of run default/killed: {lost}") == 1
    assert told.count("lost") == 1, told


def test_a_spool_whose_acknowledged_beginning_this_store_lacks_is_told_and_kept(
    tmp_path: Path,
) -> None:
    writer, begins = delete_first_segment(tmp_path)
    # As of one that sent, and deleted what was acknowledged before it died.
    info = json.loads((writer / "writer.json").read_text())
    del info["acked"]
    (writer / "writer.json").write_text(json.dumps({**info, "sender": "grpc"}))
    with open_stores(tmp_path) as stores:
        report = deliver_spools(tmp_path, stores)
        (run,) = stores.catalog.runs()
        assert 0 < stores.points.point_counts([run.run_no])[run.run_no] <= 400
    (problem,) = report.problems
    which = f"batches 1 to {begins - 1} are" if begins > 2 else "batch 1 is"
    assert f"writer 1 of run default/killed: {which} missing" in problem
    assert report.delivered == []
    assert writer.exists()


def test_a_lost_ring_is_said_though_the_rest_cannot_be_delivered_yet(tmp_path: Path) -> None:
    kill_a_writer(tmp_path, SEALED_BEFORE)
    (path,) = (tmp_path / "spool").rglob("writer.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "boot_id": "0" * 32}))
    with open_stores(tmp_path) as stores:
        (catalog_file,) = tmp_path.rglob("catalog.sqlite")
        with closing(sqlite3.connect(catalog_file)) as catalog:
            catalog.execute(
                "CREATE TRIGGER rule BEFORE INSERT ON metrics BEGIN SELECT RAISE(ABORT, 'no'); END"
            )
        report = deliver_spools(tmp_path, stores)
    lost, failed = report.problems
    assert "is lost: the machine was restarted" in lost
    assert "was not delivered" in failed


def test_a_live_run_without_a_sender_is_seen_while_it_trains(tmp_path: Path) -> None:
    run = metrana.init(mode="offline", data_dir=tmp_path, run_name="live", batch_max_age_secs=0.05)
    with run, LocalServer(tmp_path), Client(data_dir=tmp_path) as client:
        run.log("loss", [1.0, 2.0, 3.0])
        wait_until(lambda: _count(client) == 3, what="the first points")
        assert client.run("live").status == "running"
        run.log("loss", [4.0])
        wait_until(lambda: _count(client) == 4, what="the next point")
        run.close()
        wait_until(lambda: client.run("live").status == "finished", what="the end")


def _count(client: Client) -> int:
    runs = client.runs(as_="arrow").to_pylist()
    return runs[0]["point_count"] if runs else 0


def test_a_damaged_folder_does_not_stop_the_others(tmp_path: Path) -> None:
    log_offline(tmp_path, "first", 10)
    log_offline(tmp_path, "second", 20)
    broken = next(iter(sorted((tmp_path / "spool").iterdir())))
    (broken / "run.json").write_text("{")
    with open_stores(tmp_path) as stores:
        deliver_spools(tmp_path, stores)
        assert len(stores.catalog.runs()) == 1


# The first window seals points as batch 1 and what init() was given as 2; the last is the close.
@pytest.mark.parametrize(("seq", "point_count"), [(2, 3), (3, 2), (5, 3)])
def test_a_damaged_batch_is_said_once_and_the_rest_delivered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, seq: int, point_count: int
) -> None:
    caplog.set_level(logging.WARNING)
    with metrana.init(mode="offline", data_dir=tmp_path, run_name="hurt") as run:
        for step in range(3):
            run.log("loss", float(step))
            run.flush()
    damage_batch(tmp_path, seq)
    with open_stores(tmp_path) as stores:
        report = deliver_spools(tmp_path, stores)
        again = deliver_spools(tmp_path, stores)
        (record,) = stores.catalog.runs()
        assert stores.points.point_counts([record.run_no]) == {record.run_no: point_count}
    (problem,) = report.problems
    assert problem.startswith(f"writer 1 of run default/hurt: batch {seq} is lost")
    assert [record.message for record in caplog.records] == [problem]
    assert report.delivered == [("default/hurt", 1)]
    assert again.problems == []
