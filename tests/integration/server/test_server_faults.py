"""A server whose disk, spools or files fail: it says so, goes on afterwards, and can be ended."""

from __future__ import annotations

import json
import os
import resource
import sqlite3
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

import metrana
from metrana.query import Client
from metrana.server.embedded import open_stores
from metrana.server.ingest import Ingestor
from metrana.server.leases import LeaseKeeper
from metrana.server.spools import SpoolDelivery
from metrana.server.state import remove_state, state_path
from tests.local_server import LocalServer, wait_until

# No file of the server can grow past this, as on a disk that is full.
_FULL_BYTES = 64


def health(server: LocalServer) -> dict[str, Any]:
    """What the server says of itself."""
    try:
        with urllib.request.urlopen(f"{server.http_url}/healthz", timeout=10) as answer:
            body: dict[str, Any] = json.load(answer)
    except urllib.error.HTTPError as refusal:
        with refusal:
            body = json.load(refusal)
    return body


def log_offline(data_dir: Path, run_name: str) -> None:
    """Leaves a finished run in the spool."""
    with metrana.init(mode="offline", data_dir=data_dir, run_name=run_name) as run:
        for step in range(10):
            run.log("loss", float(step))


def test_sigterm_ends_a_server_whose_disk_is_full_for_good(tmp_path: Path) -> None:
    with LocalServer(tmp_path) as server:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        run = metrana.init(data_dir=tmp_path, run_name="online")
        run.log("loss", 1.0)
        run.flush()
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (_FULL_BYTES, hard))
        run.log("loss", 2.0)
        # Its spool is delivered by a thread of the server's own, which has to end as well.
        log_offline(tmp_path, "offline")
        wait_until(lambda: health(server)["status"] == "failing", what="the fault")
        assert server.stop() == 0
    with pytest.warns(metrana.MetranaWarning, match="kept in"):
        run.close(0.1)
    # Nothing was lost.
    with Client(data_dir=tmp_path) as client:
        rows = client.runs(as_="arrow").to_pylist()
    assert {row["run_name"]: row["point_count"] for row in rows} == {"online": 2, "offline": 10}


def test_batches_handed_back_because_the_server_ends_are_no_news(tmp_path: Path) -> None:
    run = metrana.init(mode="offline", data_dir=tmp_path, run_name="live")
    with run, LocalServer(tmp_path, stderr=subprocess.PIPE) as server:
        run.log("loss", 1.0)
        run.flush()
        with Client(data_dir=tmp_path) as client:
            wait_until(lambda: _count(client) == 1, what="the delivery")
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (_FULL_BYTES, hard))
        run.log("loss", 2.0)
        run.flush()
        wait_until(lambda: health(server)["status"] == "failing", what="the fault")
        assert server.stop() == 0
        assert server.process.stderr is not None
        with server.process.stderr as log:
            said = log.read()
    assert "trying again until it works" in said
    assert "was not delivered" not in said


def test_a_server_that_cannot_read_its_spools_says_so_and_goes_on_when_it_can(
    tmp_path: Path,
) -> None:
    log_offline(tmp_path, "late")
    spools, aside = tmp_path / "spool", tmp_path / "aside"
    spools.rename(aside)
    spools.write_text("no directory")
    with LocalServer(tmp_path) as server:
        wait_until(lambda: health(server)["status"] == "degraded", what="the fault")
        (problem,) = health(server)["problems"]
        assert problem.startswith("spools cannot be delivered: ")
        spools.unlink()
        aside.rename(spools)
        wait_until(lambda: health(server) == {"status": "ok"}, what="the end of the fault")
        with Client(data_dir=tmp_path) as client:
            wait_until(lambda: _count(client) == 10, what="the delivery")


def _count(client: Client) -> int:
    rows = client.runs(as_="arrow").to_pylist()
    return rows[0]["point_count"] if rows else 0


@contextmanager
def running(worker: Any) -> Iterator[None]:
    """Runs a worker's thread for as long as the block."""
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield
    finally:
        worker.stop()
        thread.join()


def test_leases_that_cannot_be_kept_are_said(tmp_path: Path) -> None:
    with open_stores(tmp_path) as stores:
        ingestor = Ingestor(stores.catalog, stores.points, stores.media)
        with closing(sqlite3.connect(tmp_path / "server" / "catalog.sqlite")) as catalog:
            catalog.execute("ALTER TABLE writers RENAME TO elsewhere")
        leases = LeaseKeeper(stores.catalog, ingestor)
        with running(leases):
            wait_until(lambda: leases.fault, what="the fault")
        assert "no such table: writers" in (leases.fault or "")
        assert "UPDATE" not in (leases.fault or "")
        ingestor.close()


def test_a_folder_is_not_idle_while_it_is_young_and_not_read_before_its_run_is_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log_offline(tmp_path, "made")
    (folder,) = (tmp_path / "spool").iterdir()
    run_json = folder / "run.json"
    written = run_json.read_text()
    writer = folder / "000001"
    # What a process that is just beginning has made so far.
    aside = writer.rename(tmp_path / "aside")
    run_json.unlink()
    with open_stores(tmp_path) as stores:
        ingestor = Ingestor(stores.catalog, stores.points, stores.media)
        delivery = SpoolDelivery(tmp_path, ingestor)
        delivery.make_pass()
        run_json.write_text(written)
        changed = folder.stat()
        delivery.make_pass()
        aside.rename(writer)
        # Within one tick of the clock: nobody can tell the two changes apart.
        os.utime(folder, ns=(changed.st_atime_ns, changed.st_mtime_ns))
        assert delivery.deliver_all().delivered == [("default/made", 1)]
        ingestor.close()
    assert caplog.records == []


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"pid": "x"}'])
def test_a_damaged_state_file_is_left_alone(tmp_path: Path, text: str) -> None:
    path = state_path(tmp_path)
    path.parent.mkdir()
    path.write_text(text)
    remove_state(tmp_path)
    assert path.read_text() == text
