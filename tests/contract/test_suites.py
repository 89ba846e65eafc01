"""What suites owe whoever runs them: an end, nothing left running, a word of what was left out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.local_server import wait_until

ROOT = Path(__file__).parents[2]


def run_pytest(folder: Path, *arguments: str, code: int) -> str:
    """Runs tests in a process of its own, in workers; returns what it said.

    Args:
        folder: For its temporary files.
        arguments: Of the command.
        code: Its exit code.
    """
    environ = {name: value for name, value in os.environ.items() if "_TEST_" not in name}
    command = [sys.executable, "-m", "pytest"]
    done = subprocess.run(
        [*command, "-n1", "-p", "no:cacheprovider", f"--basetemp={folder}/temporary", *arguments],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_what_workers_left_out_is_named_in_the_last_line(tmp_path: Path) -> None:
    suite = "tests/integration/server/catalog/test_runs.py"
    nothing_else = 5
    said = run_pytest(tmp_path, suite, "-k", "postgresql", code=nothing_else)
    assert said.splitlines()[-1] == (
        f"left out, METRANA_TEST_ALL=1 runs them: {suite} (needs postgresql)"
    )


HANGING = """
import ctypes
import pytest

LOCK = ctypes.create_string_buffer(64)

# With and without the interpreter's lock.
@pytest.mark.parametrize("library", [ctypes.CDLL, ctypes.PyDLL])
def test_hangs(library):
    for _ in range(2):
        library(None).pthread_mutex_lock(LOCK)

def test_goes_on():
    pass
"""


def test_tests_that_hang_in_native_code_fail_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "test_hanging.py").write_text(HANGING)
    config = ["-c", str(ROOT / "pyproject.toml"), f"--rootdir={tmp_path}"]
    limits = ["-o", "timeout=1", "-o", "faulthandler_timeout=3"]
    said = run_pytest(tmp_path, *config, *limits, str(tmp_path), code=1)
    assert "2 failed, 1 passed" in said
    for library in ("CDLL", "PyDLL"):
        assert f"crashed while running 'test_hanging.py::test_hangs[{library}]'" in said


KILLED = """
import os, pathlib, signal, sys
from tests.local_server import LocalServer
from tests.mounts import MountedMachine

folder = pathlib.Path(sys.argv[1])
server = LocalServer(folder / "server").process.pid
os.kill(server, signal.SIGSTOP)
machine = MountedMachine(folder / "machine").__enter__()
print(server, machine._keeper.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_tests_have_started_ends_with_them_whatever_ends_them(tmp_path: Path) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    pids = [int(pid) for pid in killed.stdout.split()]
    try:
        wait_until(lambda: not any(is_running(pid) for pid in pids), what="their end")
    finally:
        for pid in filter(is_running, pids):
            os.kill(pid, signal.SIGKILL)


def is_running(pid: int) -> bool:
    """Whether a process is there, and more than its exit code."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rsplit(")", 1)[1].split()[0] != "Z"
