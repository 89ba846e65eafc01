"""One recorded run, read through both backends."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from metrana.query import Client
from tests.integration.query.recorded import record
from tests.local_server import LocalServer, wait_until


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory whose spools have the recorded run."""
    directory = tmp_path_factory.mktemp("recorded") / "data"
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("METRANA_API_KEY", raising=False)
        record(directory)
    return directory


@pytest.fixture(scope="session")
def server(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A server that delivers the same spools to a store of its own."""
    own = tmp_path_factory.mktemp("served") / "data"
    shutil.copytree(data_dir / "spool", own / "spool")
    with LocalServer(own) as running:
        with Client(data_dir=own) as client:
            wait_until(lambda: list(client.runs()["status"]) == ["finished"] * 3, what="delivery")
        yield running


@pytest.fixture(scope="session")
def embedded(data_dir: Path, server: LocalServer) -> Client:  # noqa: ARG001 - copies spools first
    """A store that this process opens, after delivering the spools to it."""
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
