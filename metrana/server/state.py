"""The small file by which others on this machine find a local server: `server/state.json`."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class ServerState:
    """Where a local server listens.

    Attributes:
        http_url: For reading.
        grpc_url: For writers.
        token: What it asks of everyone; None if it asks for none. Its repr hides it.
        pid: Its process.
        started_at_ms: Unix milliseconds.
    """

    http_url: str
    grpc_url: str
    token: str | None
    pid: int
    started_at_ms: int

    def __repr__(self) -> str:
        return f"ServerState({self.http_url}, {self.grpc_url}, pid={self.pid})"


def state_path(data_dir: Path) -> Path:
    """Gives the state file of a data directory."""
    return data_dir / "server" / "state.json"


def write_state(data_dir: Path, http_url: str, grpc_url: str, token: str | None) -> ServerState:
    """Says that this process serves the data directory; replaces what another left behind."""
    state = ServerState(http_url, grpc_url, token, os.getpid(), time.time_ns() // 1_000_000)
    path = state_path(data_dir)
    temporary = path.with_name(f".state-{os.getpid()}.json")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        json.dump({"version": _VERSION, **asdict(state)}, file)
    temporary.replace(path)
    return state


def remove_state(data_dir: Path) -> None:
    """Removes the state file if it is this process's."""
    path = state_path(data_dir)
    try:
        if json.loads(path.read_text())["pid"] == os.getpid():
            path.unlink()
    except (OSError, ValueError, KeyError, TypeError):
        # Gone, damaged or somebody else's: nothing of ours is left, and to stop comes first.
        return
