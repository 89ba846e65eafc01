"""Trainers that log to a data directory of their own, on one thread."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from metrana import lifecycle

_LAUNCHERS = ("METRANA_", "SLURM_", "TORCHELASTIC_", "MASTER_", "PL_")


# What Lightning says to itself, and its advice on speed.
_IGNORED = (
    "ignore:.*LeafSpec.* is deprecated:FutureWarning",
    "ignore:.*does not have many workers",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let Lightning warn of what has nothing to do with loggers."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.filterwarnings(*_IGNORED))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Keep to one core: what is trained here is tiny."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The data directory that runs of this test log to, offline; all are closed afterwards."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(_LAUNCHERS):
            del os.environ[name]
    folder = tmp_path / "metrana"
    os.environ |= {"METRANA_DIR": str(folder), "METRANA_MODE": "offline"}
    monkeypatch.chdir(tmp_path)
    yield folder
    for run in lifecycle.open_runs():
        run._close(0.0, False)
        lifecycle.untrack(run)
    # init() publishes to the environment, and Lightning does.
    os.environ.clear()
    os.environ.update(before)
