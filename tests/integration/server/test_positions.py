"""Where a killed process's steps stood, once its data was delivered and its folder is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import metrana
from metrana import _native
from metrana.query import Client
from tests.local_server import LocalServer, wait_until

_KILLED = """
import os, signal
import metrana

run = metrana.init(mode="offline", run_name="killed", orchestration_id="first job")
for step in range(100):
    run.log("loss", float(step))
run.log("accuracy", 0.5, step=700)
run.flush()
for rl_step in range(5):
    run.log_rl_environment_step("reward", [1.0] * 10, rl_step=rl_step, env_id="a")
    run.log_rl_episode("episode_return", 10.0, rl_step=rl_step, env_id="a")
run.log_rl_environment_step("reward", [1.0] * 10, rl_step=6, env_id="a")
os.kill(os.getpid(), signal.SIGKILL)
"""


def _kill_a_writer(data_dir: Path, **environment: str) -> None:
    environment = {**os.environ, "METRANA_DIR": str(data_dir), **environment}
    killed = subprocess.run([sys.executable, "-c", _KILLED], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL


def _writer_folders(data_dir: Path) -> list[Path]:
    return list((data_dir / "spool").glob("*/0*"))


def _check_resume(data_dir: Path, **arguments: str) -> None:
    """An offline resume goes on behind everything that was logged."""
    assert _writer_folders(data_dir) == []
    run = metrana.init(
        mode="offline",
        data_dir=data_dir,
        run_name="killed",
        orchestration_id="second job",
        resume_strategy="allow",
        **arguments,
    )
    with run:
        assert run.get_last_step("loss") == 99
        assert run.get_last_step("accuracy") == 700
        assert run.get_last_step("reward", scale="ENVIRONMENT_STEP") == 9
        assert run.get_env_last_rl_step_and_episode("a") == (6, 5)
        run.log("loss", 1.0)
        assert run.get_last_step("loss") == 100


def _by_client(data_dir: Path) -> None:
    with Client(data_dir=data_dir) as client:
        assert client.run("killed").status == "lost"


def _by_server(data_dir: Path) -> None:
    with LocalServer(data_dir):
        wait_until(lambda: not _writer_folders(data_dir), what="the delivery")


def _by_sync(data_dir: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "metrana.cli", "sync"],
        env={**os.environ, "METRANA_DIR": str(data_dir)},
        check=True,
    )


@pytest.mark.parametrize("deliver", [_by_client, _by_server, _by_sync])
def test_steps_go_on_after_a_local_delivery(
    tmp_path: Path, deliver: Callable[[Path], None]
) -> None:
    _kill_a_writer(tmp_path)
    deliver(tmp_path)
    _check_resume(tmp_path)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[LocalServer]:
    """A server that runs for another data directory, to be reached by its URL."""
    with LocalServer(tmp_path / "elsewhere") as server:
        yield server


def _token(server: LocalServer) -> str:
    found = _native.find_local_server(server.data_dir)
    assert found is not None
    token = found["token"]
    assert isinstance(token, str)
    return token


def _sync_to(server: LocalServer, data_dir: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "metrana.cli", "sync", "--url", server.grpc_url],
        env={**os.environ, "METRANA_DIR": str(data_dir), "METRANA_API_KEY": _token(server)},
        check=False,
        capture_output=True,
        text=True,
    )


def test_steps_go_on_after_a_sync_to_a_server_elsewhere(
    tmp_path: Path, elsewhere: LocalServer
) -> None:
    _kill_a_writer(tmp_path)
    assert _sync_to(elsewhere, tmp_path).returncode == 0
    _check_resume(tmp_path)


def test_steps_go_on_after_a_delivery_beside_the_next_run(
    tmp_path: Path, elsewhere: LocalServer
) -> None:
    url, token = elsewhere.grpc_url, _token(elsewhere)
    _kill_a_writer(tmp_path, METRANA_INGESTION_URL=url, METRANA_API_KEY=token)
    with metrana.init(
        mode="online", data_dir=tmp_path, run_name="next", ingestion_url=url, api_key=token
    ) as run:
        run.log("loss", 1.0)
        wait_until(lambda: len(_writer_folders(tmp_path)) == 1, what="the delivery")
        assert run.status().server_url == url
    _check_resume(tmp_path, ingestion_url=url, api_key=token)


def test_a_writer_that_is_known_dead_does_not_make_its_run_running(
    tmp_path: Path, elsewhere: LocalServer
) -> None:
    _kill_a_writer(tmp_path)
    # Its ring is in another container's memory, say: it is delivered and left open.
    (folder,) = _writer_folders(tmp_path)
    text = (folder / "writer.json").read_text()
    ring = json.loads(text)["ring"]
    Path(ring).unlink()
    (folder / "writer.json").write_text(text.replace(ring, f"/nowhere{ring}"))
    with metrana.init(
        mode="online",
        data_dir=tmp_path / "other",
        run_name="killed",
        orchestration_id="first job",
        ingestion_url=elsewhere.grpc_url,
        api_key=_token(elsewhere),
    ) as run:
        run.log("loss", 1.0)
    assert "cannot be reached" in _sync_to(elsewhere, tmp_path).stderr
    with Client(data_dir=elsewhere.data_dir) as client:
        found = client.run("killed")
        assert found.point_count > 1
        assert found.status != "running"
