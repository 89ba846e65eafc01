"""A real `metrana server` in a process of its own, for suites that need one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from tests.leash import LEASH

_START_S = 60.0


class LocalServer:
    """Serves a data directory on free ports until stopped or killed, or until the tests end.

    Args:
        data_dir: The data directory.
        arguments: Further ones of the command.
        stderr: Where its log goes, as for `Popen`; None: where that of the tests goes.
    """

    def __init__(self, data_dir: Path, *arguments: str, stderr: int | None = None) -> None:
        self.data_dir = data_dir
        command = [*LEASH, sys.executable, "-m", "metrana.cli", "server"]
        self.process = subprocess.Popen(
            [*command, "--port=0", "--grpc-port=0", "--data-dir", str(data_dir), *arguments],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, "METRANA_DIR": str(data_dir)},
        )
        try:
            urls = self._read_urls()
        except BaseException:
            self.kill()
            raise
        self.http_url, self.grpc_url = urls["http"], urls["grpc"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop()

    def stop(self) -> int:
        """Ends it in order; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self._wait()

    def kill(self) -> None:
        """Ends it as a crash would."""
        self.process.kill()
        self._wait()

    def _wait(self) -> int:
        code = self.process.wait(timeout=30)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code

    def _read_urls(self) -> dict[str, str]:
        assert self.process.stdout is not None
        # Killed, it closes its output, which ends a read that would wait for ever.
        watchdog = threading.Timer(_START_S, self.process.kill)
        watchdog.start()
        try:
            lines = [self.process.stdout.readline() for _ in range(2)]
        finally:
            watchdog.cancel()
        if not all(lines):
            raise RuntimeError(f"the server did not start: {lines}, exit {self.process.poll()}")
        return dict(line.split() for line in lines)


def wait_until(
    condition: Callable[[], object],
    timeout_s: float = 30.0,
    what: str = "it",
    pause_s: float = 0.02,
) -> None:
    """Polls a callable until it is true; fails the test if that takes too long."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout_s:g} s"
        time.sleep(pause_s)
