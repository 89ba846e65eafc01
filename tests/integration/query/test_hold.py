"""The embedded store held for a block."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import metrana
from metrana.query import Client, embedded
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


def test_another_client_of_the_process_is_told_why_it_waited_in_vain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrana.init(mode="offline", data_dir=tmp_path, run_name="only").close()
    holder, other = Client(data_dir=tmp_path), Client(data_dir=tmp_path)
    monkeypatch.setattr(embedded, "_WAIT_S", 0.1)
    with ThreadPoolExecutor(1) as elsewhere:
        with holder.hold():
            refused = elsewhere.submit(other.runs).exception()
            assert len(holder.runs()) == 1
        assert len(elsewhere.submit(other.runs).result()) == 1
    assert isinstance(refused, metrana.MetranaQueryError)
    assert "`with client.hold():`" in str(refused)


def test_calls_that_open_the_store_each_leave_no_threads_behind(tmp_path: Path) -> None:
    metrana.init(mode="offline", data_dir=tmp_path, run_name="only").close()
    client, call_count = Client(data_dir=tmp_path), 10

    def call() -> None:
        for _ in range(call_count):
            assert len(client.runs()) == 1

    call()  # what the engine keeps for the next opening is there after that
    before = len(list(Path("/proc/self/task").iterdir()))
    call()
    assert len(list(Path("/proc/self/task").iterdir())) < before + call_count
