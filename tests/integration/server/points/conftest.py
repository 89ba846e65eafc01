"""A store for each test; chDB serves one at a time in a process."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from metrana.server.points import PointsStore, open_points


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PointsStore]:
    with open_points(f"chdb://{tmp_path}/points") as store:
        yield store
