"""A data directory of its own for each test, and an environment without a job."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from metrana import lifecycle

_LAUNCHER_PREFIXES = (
    "METRANA_",
    "SLURM_",
    "OMPI_",
    "TORCHELASTIC_",
    "RAY_",
    "GROUP_WORLD",
    "MASTER_",
)
_LAUNCHER_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """The data directory that runs of this test log to; all of them are closed afterwards."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(_LAUNCHER_PREFIXES) or name in _LAUNCHER_VARIABLES:
            del os.environ[name]
    folder = tmp_path / "metrana"
    os.environ["METRANA_DIR"] = str(folder)
    yield folder
    for run in lifecycle.open_runs():
        run._close(0.0, False)
        lifecycle.untrack(run)
    # init() publishes to the environment.
    os.environ.clear()
    os.environ.update(before)
