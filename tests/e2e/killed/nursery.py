"""Processes that are born warm: a process that has everything imported forks one for each order.

A round of a test then costs the round, and not an interpreter's start. What a child is told was
accepted it writes into a file that it shares with the test, and that outlives it.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import metrana
from metrana import _native
from tests.e2e.killed import numbered

_ROOT = Path(__file__).parents[3]
_REPORT_BYTES = 16
_TIMEOUT_S = 30


class Phase(IntEnum):
    """How far a child is."""

    BORN = 0
    OPEN = 1
    FLUSHING = 2
    CLOSING = 3
    CLOSED = 4


class Report:
    """Two numbers in a file: how far a child is, and how many calls it was told are accepted."""

    def __init__(self, path: Path) -> None:
        with path.open("a+b") as file:
            file.truncate(_REPORT_BYTES)
            self._memory = mmap.mmap(file.fileno(), _REPORT_BYTES)

    @property
    def phase(self) -> Phase:
        return Phase(self._read(0))

    @phase.setter
    def phase(self, phase: Phase) -> None:
        self._write(0, phase)

    @property
    def calls(self) -> int:
        return self._read(1)

    @calls.setter
    def calls(self, calls: int) -> None:
        self._write(1, calls)

    def _read(self, place: int) -> int:
        number: int = struct.unpack_from("=q", self._memory, place * 8)[0]
        return number

    def _write(self, place: int, number: int) -> None:
        # Of one word, which a process that dies has stored or not.
        memoryview(self._memory).cast("q")[place] = number


class Child:
    """A process of the nursery."""

    def __init__(self, nursery: Nursery, pid: int, report: Report, errors: Path) -> None:
        self._nursery = nursery
        self.pid = pid
        self.report = report
        self._errors = errors

    def reach(self, phase: Phase) -> None:
        """Waits, without a pause, until the child is that far."""
        self.spin_until(lambda: self.report.phase >= phase, phase.name)

    def spin_until(self, condition: Callable[[], bool], what: str) -> None:
        """Waits, without a pause that would miss the instant; fails if the child dies before."""
        spins = 0
        deadline = time.monotonic() + _TIMEOUT_S
        while not condition():
            os.sched_yield()
            spins += 1
            # Asked seldom, for it takes longer than what is waited for.
            if spins % 1000 == 0:
                assert self._is_alive(), f"a child died before {what}: {self.errors()}"
                assert time.monotonic() < deadline, f"{what} took more than {_TIMEOUT_S} s"

    def kill(self) -> None:
        """Kills it and waits for its death, whatever it has come to."""
        os.kill(self.pid, signal.SIGKILL)
        self.end()

    def end(self) -> int:
        """Waits for its end; returns its exit code, negative for a signal."""
        return int(self._nursery.ask(reap=self.pid))

    def errors(self) -> str:
        """What it wrote to standard error."""
        return self._errors.read_text()

    def _is_alive(self) -> bool:
        stat = Path(f"/proc/{self.pid}/stat").read_text()
        return stat.rsplit(")", 1)[1].split()[0] != "Z"


class Nursery:
    """Starts children, each of which works on an order.

    Args:
        environ: What their environment is.
    """

    def __init__(self, environ: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.killed.nursery"],
            cwd=_ROOT,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Children that a failed test left are killed by it when its input ends.
        self._process.communicate(timeout=30)

    def start(self, folder: Path, work: str, **order: Any) -> Child:
        """Starts a child that works in a folder.

        Args:
            folder: Gets its report and its errors, in files named by a number.
            work: A name in `WORK`.
            **order: For the work.
        """
        folder.mkdir(parents=True, exist_ok=True)
        place = folder / f"child-{len(list(folder.glob('child-*.report')))}"
        errors, report = place.with_suffix(".errors"), place.with_suffix(".report")
        shared = Report(report)
        pid = self.ask(work=work, report=str(report), errors=str(errors), order=order)
        return Child(self, int(pid), shared, errors)

    def ask(self, **order: Any) -> int | str:
        """Gives an order and returns the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps(order)}\n")
        self._process.stdin.flush()
        answer: int | str = json.loads(self._process.stdout.readline())
        return answer


def write(report: Report, order: dict[str, Any]) -> None:
    """Logs numbers until it is killed, or until it has closed the run.

    The order has `init` (arguments of it) and `first` (number); `flush_every` so many calls,
    `close_after` so many; `noise` for large arrays instead of the usual calls.
    """
    run = metrana.init(
        resume_strategy="allow",
        # What is accepted must be: a machine that is busy may not drop it.
        backpressure_strategy="block",
        enqueue_timeout_secs=60,
        **{"mode": "offline", "run_name": "r", "max_msg_size": 16 * 1024, **order["init"]},
    )
    report.phase = Phase.OPEN
    log = numbered.log_noise if order.get("noise") else numbered.log
    calls = 0
    while calls != order.get("close_after"):
        log(run, order["first"] + calls)
        calls += 1
        report.calls = calls
        if calls % order.get("flush_every", 1 << 62) == 0:
            report.phase = Phase.FLUSHING
            run.flush()
            report.phase = Phase.OPEN
    report.phase = Phase.CLOSING
    run.close()
    report.phase = Phase.CLOSED
    signal.pause()


def recover(report: Report, order: dict[str, Any]) -> None:
    """Seals what dead writers left."""
    report.phase = Phase.OPEN
    for path in order["runs"]:
        folder = _native.RunFolder(path)
        for writer in folder.writers():
            if writer.state == "dead":
                try:
                    with folder.recover(writer.number):
                        pass
                except BlockingIOError:
                    pass  # who comes second finds it in the hands of the first
    report.phase = Phase.CLOSED


WORK: dict[str, Callable[[Report, dict[str, Any]], None]] = {"write": write, "recover": recover}


def _give_birth(message: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        errors = os.open(message["errors"], os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        os.dup2(errors, 2)
        # The pipes are the nursery's: a child that holds them would outlive it unseen.
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        WORK[message["work"]](Report(Path(message["report"])), message["order"])
        code = 0
    except BaseException:  # noqa: BLE001  # whatever it is, the child ends here and its test reads of it
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def main() -> None:
    """Takes orders from standard input until it ends."""
    children: set[int] = set()
    try:
        for line in sys.stdin:
            message = json.loads(line)
            if "reap" in message:
                pid = message["reap"]
                answer = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                children.discard(pid)
            else:
                answer = _give_birth(message)
                children.add(answer)
            print(json.dumps(answer), flush=True)  # noqa: T201
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
