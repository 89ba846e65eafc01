"""A data directory of its own for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from metrana import lifecycle


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The data directory that runs of this test log to; all of them are closed afterwards."""
    folder = tmp_path / "metrana"
    monkeypatch.setenv("METRANA_DIR", str(folder))
    # Set, so that what init() publishes to the environment is undone.
    monkeypatch.setenv("METRANA_ORCHESTRATION_ID", "")
    yield folder
    for run in lifecycle.open_runs():
        run.close(0)
