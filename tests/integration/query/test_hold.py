"""The embedded store held for a block."""

from __future__ import annotations

from pathlib import Path

import pytest

import metrana
from metrana.query import Client
from metrana.server.lock import StoreInUseError, StoreLock


def test_a_held_store_is_open_for_every_call_of_the_block_and_let_go_after(tmp_path: Path) -> None:
    with metrana.init(mode="offline", data_dir=tmp_path, run_name="first") as run:
        run.log("loss", 1.0)
    client = Client(data_dir=tmp_path)
    with client.hold(), client.hold():
        assert client.run("first").point_count == 1
        with pytest.raises(StoreInUseError):
            StoreLock(tmp_path / "server", wait_s=0.0)
        with pytest.raises(metrana.MetranaNotFoundError):
            client.run("second")
        metrana.init(mode="offline", data_dir=tmp_path, run_name="second").close()
        assert list(client.runs()["run_name"]) == ["first"]
    StoreLock(tmp_path / "server", wait_s=0.0).close()
    assert len(client.runs()) == 2
