"""What the tests of the Transformers adapter share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import metrana

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where runs are kept, offline; what is open at the end is closed."""
    before = dict(os.environ)
    monkeypatch.setenv("METRANA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("METRANA_MODE", "offline")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    yield tmp_path / "data"
    while metrana.is_initialized():
        metrana.close()
    # `init()` publishes the job's id.
    os.environ.clear()
    os.environ.update(before)
