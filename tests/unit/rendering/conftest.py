"""A data directory of its own for each test."""

from __future__ import annotations

import gc
import signal
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


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Lets signals interrupt the test wherever it is."""
    # Hypothesis takes the time of each collection, where Python swallows what a handler raises.
    callbacks = gc.callbacks.copy()
    gc.callbacks.clear()
    # A shell starts what runs in its background with the signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
    gc.callbacks.extend(callbacks)
