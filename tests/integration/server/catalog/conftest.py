"""One catalog a test, on every engine.

PostgreSQL is the server that METRANA_TEST_POSTGRESQL names by its URL; each test gets a schema
of its own.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from metrana.server.catalog import Catalog
from metrana.server.catalog.engine import connect

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
def catalog_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.URL]:
    """The URL of an empty database."""
    if request.param == "sqlite":
        yield sa.make_url(f"sqlite:///{tmp_path}/catalog.db")
        return
    schema = f"test_{secrets.token_hex(8)}"
    engine = connect(POSTGRESQL)
    with engine.begin() as connection:
        connection.execute(sa.schema.CreateSchema(schema))
    yield sa.make_url(POSTGRESQL).update_query_dict({"options": f"-csearch_path={schema}"})
    with engine.begin() as connection:
        connection.execute(sa.schema.DropSchema(schema, cascade=True))
    engine.dispose()


@pytest.fixture
def clock() -> Clock:
    """The time that `catalog` goes by."""
    return Clock()


@pytest.fixture
def catalog(catalog_url: sa.URL, clock: Clock) -> Iterator[Catalog]:
    """A catalog with the newest schema."""
    with Catalog.open(catalog_url, clock=clock) as opened:
        yield opened
