"""A server on another machine, and machines that know it or know none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from metrana.query import Client
from tests.e2e.families import Stored
from tests.e2e.killed.nursery import Nursery
from tests.local_server import LocalServer
from tests.processes import Machine

KEY = "the-key-of-the-team"


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A server with a data directory of its own, which asks for `KEY`."""
    with LocalServer(tmp_path_factory.mktemp("elsewhere"), "--token", KEY) as server:
        yield server


@pytest.fixture(scope="session")
def reader(elsewhere: LocalServer) -> Iterator[Client]:
    """Reads from that server."""
    with Client(elsewhere.http_url, api_key=KEY) as client:
        yield client


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Where processes that are to die come from."""
    with Nursery(Machine(tmp_path_factory.mktemp("nursery")).environ) as nursery:
        yield nursery


@pytest.fixture(params=["online", "offline"])
def mode(request: pytest.FixtureRequest) -> str:
    """Where runs go: to the server elsewhere, or into the spool."""
    chosen: str = request.param
    return chosen


@pytest.fixture
def project(request: pytest.FixtureRequest) -> str:
    """A project of the test's own, for tests share the server."""
    name: str = request.node.name
    return name


@pytest.fixture
def machine(
    mode: str, project: str, elsewhere: LocalServer, tmp_path: Path
) -> Callable[[str], Machine]:
    """Machines by name; online they share the server only, offline it is one and the same."""

    def machine(name: str) -> Machine:
        if mode == "offline":
            return Machine(tmp_path / "only", METRANA_MODE=mode, METRANA_PROJECT=project)
        return Machine(
            tmp_path / name,
            METRANA_MODE=mode,
            METRANA_PROJECT=project,
            METRANA_INGESTION_URL=elsewhere.grpc_url,
            METRANA_API_KEY=KEY,
        )

    return machine


@pytest.fixture
def client(mode: str, machine: Callable[[str], Machine], reader: Client) -> Client:
    """Reads what the machines logged."""
    return reader if mode == "online" else machine("any").client()


@pytest.fixture
def family(machine: Callable[[str], Machine]) -> Machine:
    """Where the processes live; none of their points may be dropped."""
    machine_of_all = machine("family")
    machine_of_all.environ["METRANA_BACKPRESSURE_STRATEGY"] = "block"
    return machine_of_all


@pytest.fixture
def stored(
    mode: str, family: Machine, elsewhere: LocalServer, client: Client, project: str
) -> Stored:
    """Delivers what dead processes left; then every stored value by metric, repeats too."""

    def stored() -> dict[str, list[float]]:
        if mode == "online":
            family.command("sync", "--url", elsewhere.grpc_url, "--api-key", KEY)
        points = client.points("r", project_name=project, duplicates="all")
        by_metric: dict[str, list[float]] = {}
        for metric, value in zip(points["metric_name"], points["value"], strict=True):
            by_metric.setdefault(metric, []).append(value)
        return {metric: sorted(values) for metric, values in by_metric.items()}

    return stored
