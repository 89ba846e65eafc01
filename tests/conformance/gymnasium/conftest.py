"""A run of its own for each test, offline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import metrana
from metrana import lifecycle


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The data directory that runs of this test log to; all of them are closed afterwards."""
    folder = tmp_path / "metrana"
    monkeypatch.setenv("METRANA_DIR", str(folder))
    monkeypatch.setenv("METRANA_MODE", "offline")
    monkeypatch.setenv("METRANA_ORCHESTRATION_ID", "")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    yield folder
    for run in lifecycle.open_runs():
        run.close(0)


@pytest.fixture
def run(data_dir: Path) -> metrana.Run:  # noqa: ARG001 - the directory that it is in
    """The current run."""
    return metrana.init(run_name="training", backpressure_strategy="block")
