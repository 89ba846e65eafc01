"""Connections and transactions."""

from __future__ import annotations

import sqlite3
import stat
import sys
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from metrana.server.catalog import Catalog
from metrana.server.catalog.engine import Database, connect
from metrana.server.catalog.tables import workspaces
from tests.integration.server.catalog.requests import opened


def test_sqlite_commits_durably_and_checks_references(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path}/x.db")
    with engine.connect() as connection:

        def pragma(name: str) -> object:
            return connection.exec_driver_sql(f"PRAGMA {name}").scalar()

        assert pragma("journal_mode") == "wal"
        assert pragma("synchronous") == 2  # FULL
        assert pragma("foreign_keys") == 1
        assert pragma("busy_timeout") == 30_000
    engine.dispose()


def test_postgresql_commits_durably(catalog: Catalog) -> None:
    with catalog._database.read() as connection:
        if connection.dialect.name == "postgresql":
            assert connection.scalar(sa.text("SHOW synchronous_commit")) == "on"


def test_sqlite_file_is_the_users_own(tmp_path: Path) -> None:
    Catalog.open(f"sqlite:///{tmp_path}/new/catalog.db").close()

    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "new/catalog.db").stat().st_mode) == 0o600


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://host/database"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="catalog: "):
        connect(url)


def test_password_is_not_in_a_refusal() -> None:
    with pytest.raises(ValueError, match="mysql") as caught:
        connect("mysql://user:secret@host/database")
    assert "secret" not in str(caught.value)


def test_missing_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ModuleNotFoundError, match="psycopg"):
        connect("postgresql://host/database")


def test_transaction_that_loses_a_race_runs_again(catalog: Catalog) -> None:
    database: Database = catalog._database
    insert = workspaces.insert().values(name="w", created_at=0)
    attempts: list[int | None] = []

    def work(connection: sa.Connection) -> None:
        known = connection.scalar(sa.select(workspaces.c.workspace_id))
        attempts.append(known)
        if known is None:
            # What a process that got in between would do, once it has committed.
            connection.execute(insert)
            if len(attempts) == 1:
                connection.execute(insert)

    database.write(work)
    assert len(attempts) == 2


def test_error_that_no_retry_cures_comes_out(catalog: Catalog) -> None:
    attempts: list[None] = []

    def work(connection: sa.Connection) -> None:
        attempts.append(None)
        connection.execute(sa.text("SELECT nonsense FROM nowhere"))

    with pytest.raises(sa.exc.DBAPIError, match="nowhere"):
        catalog._database.write(work)
    assert len(attempts) == 1


def test_reader_does_not_wait_for_a_writer(catalog: Catalog) -> None:
    opened(catalog, "a", "w")

    def work(connection: sa.Connection) -> None:
        connection.execute(workspaces.insert().values(name="half done", created_at=0))
        reader = threading.Thread(target=lambda: seen.append(len(catalog.runs())))
        seen: list[int] = []
        reader.start()
        reader.join(20)
        assert seen == [1]

    catalog._database.write(work)


def test_commit_survives_a_copy_of_the_files(tmp_path: Path) -> None:
    """What a crash right after the commit would find: the file and its log, nothing in memory."""
    with Catalog.open(f"sqlite:///{tmp_path}/catalog.db") as catalog:
        opened(catalog, "a", "w")
        for suffix in ("", "-wal"):
            content = (tmp_path / f"catalog.db{suffix}").read_bytes()
            (tmp_path / f"copy.db{suffix}").write_bytes(content)
        copy = sqlite3.connect(tmp_path / "copy.db")
        assert copy.execute("SELECT name FROM runs").fetchall() == [("a",)]
        copy.close()
