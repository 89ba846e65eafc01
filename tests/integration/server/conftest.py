"""What a real engine sealed, and stores, for suites that bring it there themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import metrana
from metrana import _native
from metrana.server.embedded import Stores, open_stores
from metrana.server.ingest import Ingestor


@pytest.fixture(scope="session")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Everything a real engine sealed: declarations, three points batches, attributes."""
    data_dir = tmp_path_factory.mktemp("sealed")
    with metrana.init(mode="offline", data_dir=data_dir, run_name="r", config={"lr": 0.1}) as run:
        for part in range(3):
            for step in range(10):
                run.log("loss", float(part), step=part * 10 + step)
            run.flush()
    (folder,) = (data_dir / "spool").iterdir()
    return list(_native.SpoolFollower(folder / "000001").read(1 << 20))


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    """The embedded stores of a new data directory."""
    with open_stores(tmp_path) as opened:
        yield opened


@pytest.fixture
def ingestor(stores: Stores) -> Iterator[Ingestor]:
    """Commits to them; closed afterwards."""
    ingestor = Ingestor(stores.catalog, stores.points, stores.media)
    yield ingestor
    ingestor.close()
