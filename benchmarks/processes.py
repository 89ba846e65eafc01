"""What processes take, by what the kernel says of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_PROC = Path("/proc")


def cpu_s(pid: int) -> float:
    """Returns the CPU seconds of all threads of a process, in steps of 10 ms."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pids: Iterable[int], kinds: Iterable[str]) -> float:
    """Returns what processes have in memory.

    Args:
        pids: The processes.
        kinds: What counts, of "RssAnon", "RssFile" and "RssShmem".
    """
    statuses = [(_PROC / str(pid) / "status").read_text().splitlines() for pid in pids]
    sizes = [dict(line.split(":", 1) for line in status) for status in statuses]
    return sum(int(size[kind].split()[0]) for size in sizes for kind in kinds) / 1024


def started_by(pid: int) -> list[int]:
    """Returns the processes that a process has started, and those that these have."""
    children = [child for child, parent in _parents() if parent == pid]
    return children + [later for child in children for later in started_by(child)]


def _parents() -> list[tuple[int, int]]:
    found = []
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            try:
                found.append((int(folder.name), int(_stat(int(folder.name))[1])))
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended since
    return found


def _stat(pid: int) -> list[str]:
    # From the field after the command in parentheses, which may hold anything: the state.
    return (_PROC / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()
