"""One catalog a test, on every engine.

PostgreSQL is the server that METRANA_TEST_POSTGRESQL names by its URL; tests make their own
schemas there.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from metrana.server.catalog import Catalog
from metrana.server.catalog.engine import connect
from metrana.server.catalog.tables import meta, metadata

POSTGRESQL = os.environ.get("METRANA_TEST_POSTGRESQL", "postgresql://127.0.0.1:5432/test")


class Clock:
    """The server's time, moved by hand."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000

    def __call__(self) -> int:
        return self.now_ms

    def advance(self, ms: int) -> None:
        self.now_ms += ms


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("postgresql", marks=pytest.mark.needs_program("psql", package="postgresql")),
    ]
)
def engine_name(request: pytest.FixtureRequest) -> str:
    """Each engine in turn."""
    name: str = request.param
    return name


@contextmanager
def own_schema() -> Iterator[sa.URL]:
    """An empty schema on PostgreSQL."""
    name = f"test_{secrets.token_hex(8)}"
    engine = connect(POSTGRESQL)
    with engine.begin() as connection:
        connection.execute(sa.schema.CreateSchema(name))
    yield sa.make_url(POSTGRESQL).update_query_dict({"options": f"-csearch_path={name}"})
    with engine.begin() as connection:
        connection.execute(sa.schema.DropSchema(name, cascade=True))
    engine.dispose()


@pytest.fixture
def empty_url(engine_name: str, tmp_path: Path) -> Iterator[sa.URL]:
    """The URL of a database without a catalog."""
    if engine_name == "sqlite":
        yield sa.make_url(f"sqlite:///{tmp_path}/empty.db")
    else:
        with own_schema() as url:
            yield url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog's file to copy: upgrading one for every test would take most of their time."""
    path = tmp_path_factory.mktemp("catalog") / "template.db"
    Catalog.open(f"sqlite:///{path}").close()
    return path


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[sa.URL]:
    """A catalog that tests share, and empty when they are done."""
    with own_schema() as url:
        Catalog.open(url).close()
        yield url


@pytest.fixture
def catalog_url(
    engine_name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[sa.URL]:
    """The URL of a catalog without any run."""
    if engine_name == "sqlite":
        path = tmp_path / "catalog.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield sa.make_url(f"sqlite:///{path}")
        return
    url: sa.URL = request.getfixturevalue("postgresql_url")
    yield url
    engine = connect(url)
    with engine.begin() as connection:
        for table in reversed(metadata.sorted_tables):
            if table is not meta:
                connection.execute(sa.delete(table))
    engine.dispose()


@pytest.fixture
def clock() -> Clock:
    """The time that `catalog` goes by."""
    return Clock()


@pytest.fixture
def catalog(catalog_url: sa.URL, clock: Clock) -> Iterator[Catalog]:
    """A catalog without any run."""
    with Catalog.open(catalog_url, clock=clock) as opened:
        yield opened
