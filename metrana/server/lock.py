"""One owner of a data directory's store: the embedded engine allows one process a path."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from pathlib import Path
from typing import Final, Self

_WAIT_S: Final = 5.0
_POLL_S: Final = 0.05


class StoreInUseError(RuntimeError):
    """Another process has the store of this data directory open; the message names it."""


class StoreLock:
    """Holds `server/lock` of a data directory until closed, or until the process is gone.

    Args:
        server_dir: The data directory's `server` folder, made if missing.
        wait_s: How long to wait for another holder, in seconds.

    Raises:
        StoreInUseError: The holder kept it.
    """

    def __init__(self, server_dir: Path, *, wait_s: float = _WAIT_S) -> None:
        server_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = server_dir / "lock"
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._acquire(time.monotonic() + wait_s)
        except BaseException:  # an interrupted wait too: the descriptor goes first
            os.close(self._fd)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go; twice is once. The file stays: to remove it would let two in."""
        if self._fd >= 0:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = -1

    def _acquire(self, deadline: float) -> None:
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise StoreInUseError(self._holder()) from None
                time.sleep(_POLL_S)
            else:
                holder = {"pid": os.getpid(), "command": _command()}
                os.ftruncate(self._fd, 0)
                os.pwrite(self._fd, json.dumps(holder).encode(), 0)
                return

    def _holder(self) -> str:
        try:
            holder = json.loads(os.pread(self._fd, 65536, 0))
            who = f"process {holder['pid']} ({holder['command']})"
        except (ValueError, KeyError, TypeError):
            # It is just being written, or was left by a version that writes something else.
            who = "another process"
        return f"the store in {self._path.parent} is in use by {who}"


def _command() -> str:
    """Names this program and what it does, but no option: a token may be among them."""
    return " ".join(argument for argument in sys.argv[:2] if not argument.startswith("-"))
