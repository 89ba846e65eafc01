"""What a data directory may be called, and what becomes of one whose stores were damaged."""

from __future__ import annotations

import json
import shutil
import sqlite3
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest

import metrana
from metrana.cli.main import main
from metrana.errors import MetranaQueryError
from metrana.query import Client
from metrana.server.embedded import deliver_spools, open_stores
from metrana.server.pairing import StoresDisagreeError
from metrana.server.points import PointsError
from tests.local_server import LocalServer


def deliver(data_dir: Path, run_name: str = "r", metric: str = "loss") -> None:
    """Logs ten points and brings them to the stores of the same directory."""
    with metrana.init(mode="offline", data_dir=data_dir, run_name=run_name) as run:
        for step in range(10):
            run.log(metric, float(step))
    with open_stores(data_dir) as stores:
        deliver_spools(data_dir, stores)


def stored_count(data_dir: Path) -> int:
    """How many points all runs have."""
    with open_stores(data_dir) as stores:
        counts = stores.points.point_counts([run.run_no for run in stores.catalog.runs()])
    return sum(counts.values())


@pytest.mark.parametrize(
    "name", ["50%", "a%20b", "a#b", "a b", "it's", 'a"b', "dü日", "a&b=1", "a;b"]
)
def test_everything_is_inside_a_directory_with_an_odd_name(tmp_path: Path, name: str) -> None:
    data_dir = tmp_path / name
    deliver(data_dir)
    assert stored_count(data_dir) == 10
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (data_dir / "server" / "catalog.sqlite").stat().st_size > 0
    assert (data_dir / "server" / "points" / "store").is_dir()


def test_a_directory_that_the_engine_cannot_name_is_refused(tmp_path: Path) -> None:
    data_dir = tmp_path / "why?"
    with pytest.raises(PointsError, match="question mark"), open_stores(data_dir):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["why?"]


def test_a_lost_catalog_does_not_give_its_numbers_again(tmp_path: Path) -> None:
    deliver(tmp_path)
    kept = tmp_path / "kept.sqlite"
    catalog = (tmp_path / "server" / "catalog.sqlite").rename(kept)
    for _ in range(2):
        with (
            pytest.raises(StoresDisagreeError, match="do not belong together"),
            open_stores(tmp_path),
        ):
            pass
    shutil.move(catalog, tmp_path / "server" / "catalog.sqlite")
    assert stored_count(tmp_path) == 10


def test_a_catalog_out_of_an_older_copy_is_refused(tmp_path: Path) -> None:
    deliver(tmp_path)
    copy = tmp_path / "copy.sqlite"
    shutil.copy(tmp_path / "server" / "catalog.sqlite", copy)
    # The run is in the copy; the metric and the writer are not.
    with metrana.init(
        mode="offline", data_dir=tmp_path, run_name="r", resume_strategy="allow"
    ) as run:
        run.log("accuracy", 1.0)
    with open_stores(tmp_path) as stores:
        deliver_spools(tmp_path, stores)
    shutil.copy(copy, tmp_path / "server" / "catalog.sqlite")
    with (
        pytest.raises(StoresDisagreeError, match="is older than the points"),
        open_stores(tmp_path),
    ):
        pass


def test_points_that_are_gone_are_missed(tmp_path: Path) -> None:
    deliver(tmp_path)
    shutil.move(tmp_path / "server" / "points", tmp_path / "aside")
    with pytest.raises(StoresDisagreeError, match="are gone"), open_stores(tmp_path):
        pass
    shutil.rmtree(tmp_path / "server" / "points")
    shutil.move(tmp_path / "aside", tmp_path / "server" / "points")
    assert stored_count(tmp_path) == 10


def test_a_damaged_catalog_is_said_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deliver(tmp_path)
    (tmp_path / "server" / "catalog.sqlite").write_bytes(b"no database" * 1000)
    for wal in (tmp_path / "server").glob("catalog.sqlite-*"):
        wal.unlink()
    with (
        Client(data_dir=tmp_path) as client,
        pytest.raises(MetranaQueryError, match="put back a copy"),
    ):
        client.runs()
    metrana.init(mode="offline", data_dir=tmp_path, run_name="undelivered").close()
    for command in ("runs", "sync"):
        assert main([command, "--data-dir", str(tmp_path)]) == 1
        said = capsys.readouterr().err
        assert "the catalog failed: file is not a database" in said
        assert "Traceback" not in said


def test_a_catalog_that_fails_under_a_server_is_answered_with_503(tmp_path: Path) -> None:
    with LocalServer(tmp_path) as server:
        token = json.loads((tmp_path / "server" / "state.json").read_text())["token"]
        with closing(sqlite3.connect(tmp_path / "server" / "catalog.sqlite")) as catalog:
            catalog.execute("ALTER TABLE runs RENAME TO elsewhere")
        request = urllib.request.Request(
            f"{server.http_url}/api/v1/runs", headers={"Authorization": f"Bearer {token}"}
        )
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(request, timeout=30)
        with refusal.value as answer:
            assert answer.code == 503
            error = json.load(answer)["error"]
        assert error["code"] == "unavailable"
        assert error["message"] == "the catalog failed: no such table: runs"
