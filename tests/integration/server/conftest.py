"""What a real engine sealed, for suites that bring it to stores themselves."""

from __future__ import annotations

import pytest

import metrana
from metrana import _native


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
