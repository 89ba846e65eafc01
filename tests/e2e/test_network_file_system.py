"""A data directory on a file system that other machines see too, where locks prove nothing.

FUSE stands for all of them: what is behind it is as unknown to a process as what is behind NFS.
"""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from metrana.query import Client
from tests.local_server import LocalServer, wait_until
from tests.mounts import MountedMachine

pytestmark = pytest.mark.needs_program("bindfs", package="bindfs")

_KEY = "the-key"


class NetworkMachine(MountedMachine):
    """A machine whose data directory lies on FUSE, mounted at `disk`.

    Attributes:
        file_server: The process that answers for the file system.
    """

    file_server: subprocess.Popen[bytes]

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, METRANA_MODE="offline")
        self._behind = folder / "behind"
        self._behind.mkdir()

    def __enter__(self) -> Self:
        super().__enter__()
        self.connect()
        return self

    def __exit__(self, *error: object) -> None:
        self.file_server.kill()
        self.file_server.wait()
        super().__exit__(*error)

    def connect(self) -> None:
        """Mounts the file system."""
        command = ["bindfs", "-f", str(self._behind), str(self.disk)]
        self.file_server = subprocess.Popen(self.inside(command))
        marker = self._behind / "marker"
        marker.touch()
        wait_until(lambda: self._sees(marker.name), what="the file system")

    def _sees(self, name: str) -> bool:
        look = self.inside(["test", "-e", str(self.disk / name)])
        return subprocess.run(look, check=False).returncode == 0


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[NetworkMachine]:
    """A machine that logs into the spool, on FUSE."""
    with NetworkMachine(tmp_path / "machine") as machine:
        yield machine


def test_a_killed_process_loses_nothing_and_the_next_goes_on(machine: NetworkMachine) -> None:
    machine.python(
        """
        import os

        run = metrana.init(run_name="r")
        metrana.log("x", list(range(1000)))
        run.flush()
        metrana.log("x", list(range(1000, 1500)))
        os.kill(os.getpid(), 9)
        """,
        code=-signal.SIGKILL,
    )
    machine.python("""
    with metrana.init(run_name="r", resume_strategy="allow"):
        metrana.log("x", 1500)
    """)
    assert [values for values, _ in machine.logged()] == [list(range(1500)), [1500]]


def test_everything_is_delivered_from_it_once(machine: NetworkMachine, tmp_path: Path) -> None:
    machine.python("""
    with metrana.init(run_name="r"):
        metrana.log("x", [1, 2, 3])
    """)
    machine.python(
        """
        import os

        metrana.init(run_name="r", resume_strategy="allow")
        metrana.log("x", [4, 5])
        os.kill(os.getpid(), 9)
        """,
        code=-signal.SIGKILL,
    )
    elsewhere = tmp_path / "elsewhere"
    with LocalServer(elsewhere, "--token", _KEY) as server:
        for _ in range(2):
            machine.command("sync", "--url", server.grpc_url, "--api-key", _KEY)
        with Client(server.http_url, data_dir=elsewhere) as client:
            wait_until(lambda: list(client.runs()["point_count"]) == [5], what="the points")
            assert list(client.points("r", "x", duplicates="all")["value"]) == [1, 2, 3, 4, 5]
            assert list(client.points("r", "x", duplicates="all")["step"]) == [0, 1, 2, 3, 4]


def test_training_goes_on_and_ends_in_time_while_nobody_answers(machine: NetworkMachine) -> None:
    # Who waits for a file system that stands still cannot even be killed.
    watchdog = threading.Timer(machine.timeout_s / 2, machine.file_server.kill)
    watchdog.start()
    try:
        done = machine.python(f"""
        import os, signal, time

        run = metrana.init(run_name="r", error_strategy="raise_on_close")
        metrana.log("x", 0)
        run.flush()
        os.kill({machine.file_server.pid}, signal.SIGSTOP)
        times = [time.monotonic()]
        for value in range(1, 1000):
            metrana.log("x", value)
        times.append(time.monotonic())
        try:
            run.close(1.0)
        except metrana.MetranaClosingError as error:
            times.append(time.monotonic())
            print(json.dumps([times, str(error)]))
        os.kill({machine.file_server.pid}, signal.SIGCONT)
        """)
    finally:
        watchdog.cancel()
    (stopped, logged, closed), told = json.loads(done.stdout)
    assert (logged - stopped < 1, closed - logged < 2) == (True, True)
    assert "1000 points" in told
    assert [values for values, _ in machine.logged()] == [list(range(1000))]


def test_what_was_logged_after_it_broke_is_recovered_from_memory(machine: NetworkMachine) -> None:
    done = machine.python(f"""
    import os

    run = metrana.init(run_name="r")
    metrana.log("x", 0)
    run.flush()
    os.kill({machine.file_server.pid}, 9)
    for value in range(1, 1000):
        metrana.log("x", value)
    try:
        run.flush(0.5)
    except metrana.MetranaClosingError:
        print(json.dumps([run.status().problems, run.get_metrics().float_points_dropped]))
    """)
    problems, dropped = json.loads(done.stdout)
    assert "nothing can be written to the spool" in problems[0]
    assert dropped == 0
    machine.file_server.wait()
    machine.unmount(machine.disk)
    machine.connect()
    assert [values for values, _ in machine.logged()] == [list(range(1000))]


def test_the_embedded_store_is_refused_there_by_name(machine: NetworkMachine) -> None:
    machine.python("with metrana.init(run_name='r'): metrana.log('x', 1)")
    for command in (["server", "--port=0", "--grpc-port=0"], ["sync"], ["runs"]):
        refused = machine.command(*command, code=1).stderr
        assert "is on a network file system" in refused
        assert "--data-dir" in refused
        assert "Traceback" not in refused
