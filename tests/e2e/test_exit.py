"""Processes that end without `close()`, in every way there is, wherever their run goes.

Nothing is lost, nothing hangs, the exit code is what it is without metrana.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar, NamedTuple, Self

import pytest

from metrana.errors import MetranaNotFoundError
from metrana.query import Client
from tests.leash import LEASH
from tests.local_server import LocalServer, wait_until
from tests.processes import Machine
from tests.reading import read_one

POINT_COUNT = 1000
# Generous: what is asserted is that a process ends at all.
DEADLINE_S = 40
# Between SIGTERM and SIGKILL, as a job scheduler may be set.
GRACE_S = 2
NOWHERE = "http://127.0.0.1:1"
BEGINNING = f"""
import itertools, os, signal, sys, threading, time
import metrana

def log():
    metrana.log("x", list(range({POINT_COUNT})))
    print("ready", flush=True)

def leave(*_):
    sys.exit(143)

def in_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

run = metrana.init(run_name="r", backpressure_strategy="block", connect_timeout_secs=0.5)
"""


class Ending(NamedTuple):
    """How a process ends, and what is to be seen of it."""

    script: str
    code: int
    status: str
    signal: signal.Signals | None = None


ENDINGS = {
    "end": Ending("log()", 0, "finished"),
    "exception": Ending("log(); 1 / 0", 1, "failed"),
    "exit": Ending("log(); sys.exit(3)", 3, "finished"),
    "exit in a thread": Ending("log(); in_thread(lambda: sys.exit(3))", 0, "finished"),
    "exception in a thread": Ending("log(); in_thread(lambda: 1 / 0)", 0, "finished"),
    "at once": Ending("log(); os._exit(5)", 5, "lost"),
    "terminated": Ending("log(); signal.pause()", -signal.SIGTERM, "lost", signal.SIGTERM),
    "terminated, handled": Ending(
        "signal.signal(signal.SIGTERM, leave); log(); signal.pause()",
        143,
        "finished",
        signal.SIGTERM,
    ),
    "interrupted": Ending("log(); signal.pause()", -signal.SIGINT, "failed", signal.SIGINT),
}
CLOSE_RECORDS = {"finished": "finished", "failed": "failed", "lost": None}


class Process:
    """A process whose run `r` is in the project of its folder's name.

    Args:
        folder: Its home.
        script: What it does after `BEGINNING`.
        **environ: Where its run goes.
    """

    started: ClassVar[list[Self]] = []

    def __init__(self, folder: Path, script: str, **environ: str) -> None:
        machine = Machine(folder, METRANA_PROJECT=folder.name, **environ)
        self.project = folder.name
        self.data_dir = Path(machine.environ["METRANA_DIR"])
        self._popen = subprocess.Popen(
            [*LEASH, sys.executable, "-c", BEGINNING + textwrap.dedent(script)],
            env=machine.environ,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.errors = ""
        self.started.append(self)

    def read(self, word: str) -> None:
        """Waits until it writes a word."""
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        assert line == f"{word}\n", (line, self._popen.communicate(timeout=DEADLINE_S))

    def read_number(self) -> int:
        """Waits until it writes a number."""
        assert self._popen.stdout is not None
        return int(self._popen.stdout.readline())

    def read_error(self, part: str) -> None:
        """Waits until it writes an error."""
        assert self._popen.stderr is not None
        while part not in self.errors:
            line = self._popen.stderr.readline()
            assert line, self.errors
            self.errors += line

    def go_on(self) -> None:
        """Lets it read a line."""
        assert self._popen.stdin is not None
        self._popen.stdin.write("\n")
        self._popen.stdin.flush()

    def send(self, number: signal.Signals) -> None:
        """Sends a signal."""
        self._popen.send_signal(number)

    def kill(self) -> None:
        """Ends it, whatever it does."""
        self._popen.kill()
        self._popen.communicate()

    def end(self, grace_s: float | None = None) -> int:
        """Waits for its end; returns its exit code.

        Args:
            grace_s: It is killed if it takes longer. Default: the test fails.
        """
        try:
            _, errors = self._popen.communicate(timeout=grace_s or DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            _, errors = self._popen.communicate()
            assert grace_s is not None, f"it did not end: {self.errors}{errors}"
        self.errors += errors
        return self._popen.returncode


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Ends what a test that failed has left running."""
    yield
    while Process.started:
        Process.started.pop().kill()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A local server."""
    with LocalServer(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def destinations(server: LocalServer) -> dict[str, dict[str, str]]:
    """Variables by the name of what they lead to."""
    return {
        "offline": {"METRANA_MODE": "offline"},
        "served": {"METRANA_DIR": str(server.data_dir)},
        "refused": {"METRANA_INGESTION_URL": NOWHERE},
    }


def check_spooled(process: Process, *, status: str | None = None) -> int:
    """Checks what a process left in its own spool; returns how many points that is."""
    logged = read_one(process.data_dir)
    values = logged.values("x")
    assert values == logged.steps("x") == list(range(len(values)))
    if status is not None:
        assert logged.end == CLOSE_RECORDS[status]
    return len(values)


def check_served(process: Process, *statuses: str) -> int:
    """Checks what the local server has of a process; returns how many points that is."""
    with Client(data_dir=process.data_dir) as client:

        def has_ended() -> bool:
            # Until what is in its spool has arrived, a run may be unknown or count as lost.
            try:
                status = client.run("r", project_name=process.project).status
            except MetranaNotFoundError:
                return False
            return status in statuses and not is_spooled(process)

        wait_until(has_ended, what=f"the end of {process.project}: {process.errors}")
        points = client.points(
            "r", "x", project_name=process.project, duplicates="all", as_="arrow"
        )
    values = points["value"].to_pylist()
    assert values == points["step"].to_pylist() == list(range(len(values)))
    return len(values)


def is_spooled(process: Process) -> bool:
    """Whether a writer of the process's run is in the spool still."""
    runs = (path for path in process.data_dir.glob("spool/*/run.json"))
    mine = [path.parent for path in runs if f'"{process.project}"' in path.read_text()]
    return any(any(folder.glob("[0-9]*")) for folder in mine)


def check_codes(processes: dict[str, Process]) -> None:
    """Lets each process end in its way and checks the exit codes."""
    for name, process in processes.items():
        process.read("ready")
        number = ENDINGS[name].signal
        if number is not None:
            process.send(number)
    codes = {name: process.end() for name, process in processes.items()}
    assert codes == {name: ending.code for name, ending in ENDINGS.items()}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("destination", ["offline", "served", "refused"])
def test_an_end_without_close_loses_nothing_and_changes_no_code(
    destinations: dict[str, dict[str, str]], destination: str, tmp_path: Path
) -> None:
    # Side by side, because those that find no server wait for it.
    processes = {
        name: Process(
            tmp_path / f"{destination} {name}", ending.script, **destinations[destination]
        )
        for name, ending in ENDINGS.items()
    }
    check_codes(processes)
    for name, process in processes.items():
        status = ENDINGS[name].status
        if destination == "served":
            assert check_served(process, status) == POINT_COUNT, name
        else:
            assert check_spooled(process, status=status) == POINT_COUNT, name


def test_the_codes_are_those_without_metrana(tmp_path: Path) -> None:
    processes = {
        name: Process(tmp_path / name, ending.script, METRANA_DISABLED="1")
        for name, ending in ENDINGS.items()
    }
    check_codes(processes)


TRAINING = """
def leave(*_):
    print(accepted, flush=True)
    sys.exit(143)

signal.signal(signal.SIGTERM, leave)
accepted = 0
for number in itertools.count():
    metrana.log("x", number)
    accepted = number + 1
    if accepted == 1000:
        print("ready", flush=True)
    # Without a pause it would log millions on a machine that is busy with something else.
    if accepted % 100 == 0:
        time.sleep(0.001)
"""


@pytest.mark.timeout(120)
def test_a_job_that_is_terminated_and_soon_killed_loses_nothing(
    destinations: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    processes = {
        name: Process(tmp_path / f"job {name}", TRAINING, **environ)
        for name, environ in destinations.items()
    }
    for process in processes.values():
        process.read("ready")
    for process in processes.values():
        process.send(signal.SIGTERM)
    accepted = {}
    for name, process in processes.items():
        # The one that finds no server is killed while it still waits for it.
        accepted[name] = process.read_number()
        assert process.end(GRACE_S) in {143, -signal.SIGKILL}, process.errors
    for name, process in processes.items():
        count = (
            check_served(process, "finished", "lost")
            if name == "served"
            else check_spooled(process)
        )
        # One more may have been accepted than was counted.
        assert count in {accepted[name], accepted[name] + 1}


# Where the main thread is, said as soon as it is there: it is to be interrupted there.
TELLING = """
main = threading.get_ident()

def tell():
    for word, caller in [("waiting", "session.py"), ("leaving", "lifecycle.py")]:
        while not is_called_by(caller):
            time.sleep(0.001)
        print(word, flush=True)

def is_called_by(caller):
    frame = sys._current_frames()[main]
    if not frame.f_code.co_filename.endswith("metrana/run.py"):
        return False
    while frame is not None and not frame.f_code.co_filename.endswith(f"metrana/{caller}"):
        frame = frame.f_back
    return frame is not None

log()
metrana.flush()
print("delivered", flush=True)
sys.stdin.readline()
metrana.log("x", list(range(POINT_COUNT, 2 * POINT_COUNT)))
threading.Thread(target=tell, daemon=True).start()
"""


def wait_in(
    server: LocalServer, folder: Path, call: str, second: Callable[[Process], None] | None = None
) -> Process:
    """Lets a process wait in a call for a server that does not answer, and interrupts it.

    Args:
        server: The local server, which goes on when the process has ended.
        folder: The home of the process.
        call: What it waits in.
        second: Waits for the moment at which it is interrupted again.
    """
    script = f"POINT_COUNT = {POINT_COUNT}\n{TELLING}\n{call}\n"
    process = Process(folder, script, METRANA_DIR=str(server.data_dir))
    process.read("ready")
    process.read("delivered")
    server.process.send_signal(signal.SIGSTOP)
    try:
        process.go_on()
        process.read("waiting")
        process.send(signal.SIGINT)
        if second is not None:
            second(process)
            process.send(signal.SIGINT)
        assert process.end() == -signal.SIGINT, process.errors
    finally:
        server.process.send_signal(signal.SIGCONT)
    return process


FLUSH, CLOSE = "metrana.flush()", "metrana.close(close_timeout=60)"


def test_ctrl_c_ends_a_flush_that_the_server_does_not_answer(
    server: LocalServer, tmp_path: Path
) -> None:
    process = wait_in(server, tmp_path / "flush", FLUSH)
    assert "KeyboardInterrupt" in process.errors
    assert check_served(process, "failed") == 2 * POINT_COUNT


def test_ctrl_c_ends_a_close_that_the_server_does_not_answer(
    server: LocalServer, tmp_path: Path
) -> None:
    process = wait_in(server, tmp_path / "close", CLOSE)
    assert "KeyboardInterrupt" in process.errors
    # Its last record was written before it waited.
    assert check_served(process, "finished") == 2 * POINT_COUNT


def test_a_process_ends_though_the_server_does_not_answer(
    server: LocalServer, tmp_path: Path
) -> None:
    script = f"""
    log()
    metrana.flush()
    print("delivered", flush=True)
    sys.stdin.readline()
    metrana.log("x", list(range({POINT_COUNT}, {2 * POINT_COUNT})))
    """
    process = Process(tmp_path / "silence", script, METRANA_DIR=str(server.data_dir))
    process.read("ready")
    process.read("delivered")
    server.process.send_signal(signal.SIGSTOP)
    try:
        process.go_on()
        assert process.end() == 0
    finally:
        server.process.send_signal(signal.SIGCONT)
    assert "metrana sync" in process.errors
    assert check_served(process, "finished") == 2 * POINT_COUNT


def test_a_second_ctrl_c_ends_the_wait_at_the_exit(server: LocalServer, tmp_path: Path) -> None:
    process = wait_in(
        server, tmp_path / "exit", FLUSH, second=lambda process: process.read("leaving")
    )
    assert check_served(process, "failed") == 2 * POINT_COUNT


def test_a_second_ctrl_c_after_an_interrupted_close_loses_nothing(
    server: LocalServer, tmp_path: Path
) -> None:
    process = wait_in(
        server,
        tmp_path / "again",
        CLOSE,
        second=lambda process: process.read_error("KeyboardInterrupt"),
    )
    assert check_served(process, "finished") == 2 * POINT_COUNT
