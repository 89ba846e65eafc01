"""A server behind a network that fails, and runs that log to it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import metrana
from metrana import lifecycle
from metrana.query import Client
from tests.e2e.conftest import KEY
from tests.local_server import LocalServer
from tests.processes import Machine
from tests.proxy import Proxy

OpenRun = Callable[..., metrana.Run]


@pytest.fixture
def proxy(elsewhere: LocalServer) -> Iterator[Proxy]:
    """The way to the server elsewhere."""
    with Proxy(elsewhere.grpc_url) as proxy:
        yield proxy


@pytest.fixture
def here(tmp_path: Path) -> Machine:
    """The machine that logs."""
    return Machine(tmp_path / "here")


@pytest.fixture
def open_run(proxy: Proxy, here: Machine, project: str) -> Iterator[OpenRun]:
    """Opens runs through the proxy, `r` if not told otherwise; none of them outlives the test."""
    usual = {
        "run_name": "r",
        "project_name": project,
        "ingestion_url": proxy.url,
        "api_key": KEY,
        "data_dir": here.data_dir,
        "batch_max_age_secs": 0.05,
        "send_retry_initial_backoff_secs": 0.01,
        "send_retry_max_backoff_secs": 0.05,
    }

    def open_run(**arguments: Any) -> metrana.Run:
        return metrana.init(**{**usual, **arguments})

    # init() publishes to the environment.
    before = dict(os.environ)
    yield open_run
    for run in lifecycle.open_runs():
        with contextlib.suppress(metrana.MetranaError, metrana.MetranaWarning):
            run._close(0.0, True)
        lifecycle.untrack(run)
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def sync(proxy: Proxy, here: Machine) -> Callable[[], str]:
    """Delivers what the machine still has; what the command said."""
    return lambda: here.command("sync", "--url", proxy.url, "--api-key", KEY).stderr


@pytest.fixture
def stored(reader: Client, project: str) -> Callable[..., list[float]]:
    """Gives the values of every row that the server has of a run, repeats too, in their order."""

    def stored(run_name: str = "r") -> list[float]:
        if run_name not in list(reader.runs(project)["run_name"]):
            return []
        rows = reader.points(run_name, "value", project_name=project, duplicates="all", as_="arrow")
        return sorted(rows["value"].to_pylist())

    return stored
