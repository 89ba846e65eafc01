"""Connections to SQLite and PostgreSQL, and the one way in which transactions run on them."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

_Result = TypeVar("_Result")
_Item = TypeVar("_Item")

_ATTEMPTS = 8
# PostgreSQL takes 65,535 parameters a statement, SQLite 32,766; the text of it grows with them.
_IN_SIZE = 5_000
_BUSY_TIMEOUT_MS = 30_000
# Serialisation failure and deadlock: PostgreSQL undid the transaction, and asks to try it again.
_RETRIED_SQLSTATES = frozenset({"40001", "40P01"})
_WRITES = "metrana_writes"


def now_ms() -> int:
    """The wall clock in Unix milliseconds."""
    return time.time_ns() // 1_000_000


class Database:
    """An engine, and transactions on it. Thread-safe; everything blocks.

    Args:
        engine: Made by `connect`.
        clock: Gives the server's time in Unix milliseconds.
    """

    def __init__(self, engine: sa.Engine, clock: Callable[[], int] = now_ms) -> None:
        self.engine = engine
        self.clock = clock
        # SQLite has one writer at a time. Threads queue here, where they are woken in turn; other
        # processes meet in its busy handler, which polls.
        self._one_writer = threading.Lock() if is_sqlite(engine) else nullcontext()

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A read transaction; on SQLite, of one snapshot."""
        with self.engine.connect() as connection, connection.begin():
            yield connection

    def write(self, work: Callable[[sa.Connection], _Result]) -> _Result:
        """Run `work` in a transaction of its own and commit it durably.

        It runs again from the start if another process got in between: a unique key taken
        meanwhile, a deadlock. So it decides by what it reads and changes nothing but the database.
        """
        for attempt in range(_ATTEMPTS):
            try:
                with self._one_writer, self.engine.connect() as plain:
                    connection = plain.execution_options(**{_WRITES: True})
                    with connection.begin():
                        return work(connection)
            except (IntegrityError, OperationalError) as error:
                if attempt == _ATTEMPTS - 1 or not _lost_a_race(error):
                    raise
                time.sleep(random.uniform(0, 0.005 * 2**attempt))
        raise AssertionError("the last attempt returns or raises")

    def close(self) -> None:
        """Close every connection that is not in use."""
        self.engine.dispose()


def connect(url: str | sa.URL) -> sa.Engine:
    """An engine for a catalog's URL: `sqlite:///PATH` or `postgresql://USER@HOST/DATABASE`.

    Raises:
        ValueError: For any other kind of URL, or for SQLite without a file.
        ModuleNotFoundError: If PostgreSQL's driver is not installed.
    """
    parsed = sa.make_url(url)
    match parsed.get_backend_name():
        case "sqlite":
            return _connect_sqlite(parsed)
        case "postgresql":
            try:
                return sa.create_engine(
                    parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True
                )
            except ModuleNotFoundError as error:
                raise ModuleNotFoundError(
                    "a catalog on PostgreSQL needs psycopg: pip install 'psycopg[binary]'"
                ) from error
    raise ValueError(
        f"catalog: must be a sqlite:/// or postgresql:// URL, not {parsed.render_as_string()!r}"
    )


def is_sqlite(engine: sa.Engine) -> bool:
    """Whether the engine is SQLite's."""
    return engine.dialect.name == "sqlite"


def insert(connection: sa.Connection, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that has `on_conflict_do_update` and `on_conflict_do_nothing`."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table)
    return postgresql.insert(table)


def chunks(values: Collection[_Item]) -> Iterator[list[_Item]]:
    """Lists short enough for one `IN (…)` on every engine."""
    ordered = list(values)
    for start in range(0, len(ordered), _IN_SIZE):
        yield ordered[start : start + _IN_SIZE]


def _connect_sqlite(url: sa.URL) -> sa.Engine:
    if not url.database or url.database == ":memory:":
        raise ValueError("catalog: SQLite needs a file, sqlite:///PATH")
    path = Path(url.database)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # SQLite gives its -wal and -shm files the mode of the database.
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    engine = sa.create_engine(url, pool_size=4, max_overflow=12)
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # Transactions begin where we say so; the driver would begin them late, and not for DDL.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA journal_mode = WAL")
    # WAL's usual NORMAL may forget the last commits at a power cut, and an ack means durable.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    # IMMEDIATE takes the write lock at once: a reader that turns writer may be refused at any time.
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _lost_a_race(error: DBAPIError) -> bool:
    if isinstance(error, IntegrityError):
        return True
    return getattr(error.orig, "sqlstate", None) in _RETRIED_SQLSTATES
