"""One recorded run, read through both backends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from metrana.query import Client
from tests.integration.query.recorded import copy_of, record
from tests.local_server import LocalServer


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory whose store has the recorded run."""
    directory = tmp_path_factory.mktemp("recorded") / "data"
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("METRANA_API_KEY", raising=False)
        record(directory)
    return directory


@pytest.fixture(scope="session")
def server(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A server over a copy of it: a store has one owner."""
    with LocalServer(copy_of(data_dir, tmp_path_factory.mktemp("served") / "data")) as running:
        yield running


@pytest.fixture(scope="session")
def embedded(data_dir: Path) -> Client:
    """The store, opened in this process."""
    return Client(data_dir=data_dir)


@pytest.fixture(scope="session")
def remote(server: LocalServer) -> Iterator[Client]:
    """The same over HTTP."""
    with Client(data_dir=server.data_dir) as client:
        yield client


@pytest.fixture(scope="session", params=["embedded", "remote"])
def client(request: pytest.FixtureRequest) -> Client:
    """Each of the two."""
    chosen: Client = request.getfixturevalue(request.param)
    return chosen
