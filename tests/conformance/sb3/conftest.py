"""What the tests of the SB3 adapter share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import metrana

torch.set_num_threads(1)


@pytest.fixture
def offline(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Arguments of `init`; what is open at the end is closed."""
    yield {
        "mode": "offline",
        "data_dir": tmp_path / "data",
        "backpressure_strategy": "block",
    }
    while metrana.is_initialized():
        metrana.close()
