"""A store that fails, and servers that are none of ours: one kind of error, with a sentence."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pyarrow as pa
import pytest
import sqlalchemy as sa

import metrana
from metrana.query import Client
from tests.local_server import LocalServer


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data directory whose run is delivered."""
    with metrana.init(run_name="only", data_dir=tmp_path, mode="offline") as run:
        run.log("loss", 1.0)
    Client(data_dir=tmp_path).runs()
    return tmp_path


def _without_runs(data_dir: Path) -> None:
    with closing(sqlite3.connect(data_dir / "server" / "catalog.sqlite")) as catalog:
        catalog.execute("PRAGMA foreign_keys = OFF")
        catalog.execute("ALTER TABLE runs RENAME TO gone")
        catalog.commit()


def _unreadable(data_dir: Path) -> None:
    (data_dir / "server" / "catalog.sqlite").write_bytes(b"no database" * 1000)


def _points_are_a_file(data_dir: Path) -> None:
    (data_dir / "server" / "points").rename(data_dir / "server" / "away")
    (data_dir / "server" / "points").touch()


@pytest.mark.parametrize("spoil", [_without_runs, _unreadable, _points_are_a_file])
def test_a_spoilt_store_is_a_query_error(data_dir: Path, spoil: Callable[[Path], None]) -> None:
    spoil(data_dir)
    with Client(data_dir=data_dir) as client, pytest.raises(metrana.MetranaQueryError):
        client.run("only")


def test_a_catalog_that_fails_a_server_is_a_query_error_that_says_why(data_dir: Path) -> None:
    with LocalServer(data_dir), Client(data_dir=data_dir) as client:
        assert client.run("only").point_count == 1
        _without_runs(data_dir)
        with pytest.raises(metrana.MetranaQueryError, match="catalog failed"):
            client.run("only")


def test_what_a_block_raises_while_it_holds_the_store_stays_what_it_is(data_dir: Path) -> None:
    client = Client(data_dir=data_dir)
    with pytest.raises(FileNotFoundError), client.hold():
        (data_dir / "missing").read_text()
    assert len(client.runs()) == 1


def test_a_database_error_of_a_block_that_holds_the_store_stays_what_it_is(data_dir: Path) -> None:
    client, own = Client(data_dir=data_dir), sa.create_engine("sqlite://")
    with own.connect() as database, pytest.raises(sa.exc.OperationalError), client.hold():
        database.execute(sa.text("SELECT * FROM missing"))
    own.dispose()
    assert len(client.runs()) == 1


@contextmanager
def _foreign_server(body: bytes) -> Iterator[str]:
    """Answers every question with the same bytes."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _cut_stream() -> bytes:
    table = pa.table({"run_id": ["a" * 32] * 1000})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    whole: bytes = sink.getvalue().to_pybytes()
    return whole[: len(whole) // 2]


@pytest.mark.parametrize("body", [b"", b"<html>", _cut_stream()], ids=["empty", "html", "cut"])
def test_an_answer_that_is_none_is_a_query_error(body: bytes, tmp_path: Path) -> None:
    with _foreign_server(body) as url, Client(url, data_dir=tmp_path) as client:
        with pytest.raises(metrana.MetranaQueryError):
            client.runs()
        with pytest.raises(metrana.MetranaQueryError):
            client.run("only")
