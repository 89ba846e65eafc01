"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.disk import file_system


def describe(folder: Path) -> list[str]:
    """Returns what a reader needs to judge figures measured in a folder, a line each."""
    return [
        f"{_cpu_model()}, {len(os.sched_getaffinity(0))} cores, {_memory_gib():.0f} GiB of memory",
        f"{platform.system()} {platform.release()}, {_system()}, "
        f"Python {platform.python_version()}; the measured folder is on {file_system(folder)}",
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; load average at the start "
        f"{os.getloadavg()[0]:.1f}",
    ]


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return "unknown system"
