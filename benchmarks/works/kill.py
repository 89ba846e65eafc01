"""What is missing after SIGKILL of what `log` had taken."""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.loggers import logger_of
from benchmarks.place import Figures, Place

_ROUNDS = 5
_LIVES_S = (1.0, 3.0)
_PAUSE_S = 0.0005
_SETTLE_S = 5.0
_CLOSED_POINTS = 50
_START_S = 120.0
# `i` is written down when the call has returned: a file's pages outlive the process.
_LOOP = """
def log_on(note):
    i = 0
    while True:
        {statement}
        i += 1
        note(i)
"""


def measure_kill(place: Place) -> Figures:
    """Kills a process that logs up to two thousand points a second, and counts, a few times."""
    _check_count(place)
    seed = random.Random(0)
    folders = [place.folder / f"round-{number}" for number in range(place.count(_ROUNDS))]
    taken = []
    for folder in folders:
        folder.mkdir()
        life_s = place.seconds(seed.uniform(*_LIVES_S))
        taken.append(_kill_one(place.logger, folder, folder.with_suffix(".taken"), life_s))
    # A logger's process of its own lives on, and may write what it has.
    time.sleep(place.seconds(_SETTLE_S))
    stored = [_counted(place.logger, folder) for folder in folders]
    # More than was noted can be stored: the last call may not have come to its note. That makes up
    # for no loss of another round.
    lost = [max(0, had - has) for had, has in zip(taken, stored, strict=True)]
    return {
        "taken": float(sum(taken)),
        "stored": float(sum(stored)),
        "lost": float(sum(lost)),
        "most_lost": float(max(lost)),
        "rounds": float(len(folders)),
    }


def _check_count(place: Place) -> None:
    # A count that finds nothing would look like a loss: it has to find all of a run that closed.
    folder = place.folder / "closed"
    folder.mkdir()
    _process("close", place.logger, folder).communicate()
    found = _counted(place.logger, folder)
    if found != _CLOSED_POINTS:
        raise RuntimeError(f"{found} of {_CLOSED_POINTS} points of a closed run are found")


def _counted(logger: str, folder: Path) -> int:
    return int(json.loads(_process("count", logger, folder).communicate()[0].split("\n")[-2]))


def _kill_one(logger: str, folder: Path, note: Path, life_s: float) -> int:
    child = _process("log", logger, folder, str(note))
    try:
        deadline = time.monotonic() + _START_S
        while not _noted(note) and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(life_s)
    finally:
        child.kill()
        child.communicate()
    if not _noted(note):
        raise RuntimeError(f"{logger} logged nothing within {_START_S:g} s")
    return _noted(note)


def _noted(note: Path) -> int:
    data = note.read_bytes() if note.exists() else b""
    return int(struct.unpack("<Q", data)[0]) if len(data) == 8 else 0


def _process(task: str, logger: str, folder: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", __name__, task, logger, str(folder), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _close(logger_name: str, folder: Path) -> None:
    logger = logger_of(logger_name)
    scope = {"x": 0.5, **logger.open(folder)}
    loop = f"for i in range({_CLOSED_POINTS}): {logger.scalar}"
    exec(loop, scope)
    logger.close()


def _log(logger_name: str, folder: Path, note: Path) -> None:
    logger = logger_of(logger_name)
    scope = {"x": 0.5, **logger.open(folder)}
    file = os.open(note, os.O_CREAT | os.O_WRONLY)

    def write_down(count: int) -> None:
        os.pwrite(file, struct.pack("<Q", count), 0)
        time.sleep(_PAUSE_S)

    exec(_LOOP.format(statement=logger.scalar), scope)
    scope["log_on"](write_down)


if __name__ == "__main__":
    _task, _logger, _folder, *_more = sys.argv[1:]
    if _task == "log":
        _log(_logger, Path(_folder), Path(_more[0]))
    elif _task == "close":
        _close(_logger, Path(_folder))
    else:
        _count = logger_of(_logger).count(Path(_folder))
        print(f"\n{_count}")
