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
# Each value tells which point it is. `i` is written down when the call has returned: a file's pages
# outlive the process.
_LOOP = """
def log_on(note):
    i = 0
    while True:
        x = float(i)
        {statement}
        i += 1
        note(i)
"""


def measure_kill(place: Place) -> Figures:
    """Kills a process that logs up to two thousand points a second, and reads back, a few times."""
    _check_reading(place)
    seed = random.Random(0)
    folders = [place.folder / f"round-{number}" for number in range(place.count(_ROUNDS))]
    taken = []
    for folder in folders:
        folder.mkdir()
        life_s = place.seconds(seed.uniform(*_LIVES_S))
        taken.append(_kill_one(place.logger, folder, folder.with_suffix(".taken"), life_s))
    # A logger's process of its own lives on, and may write what it has.
    time.sleep(place.seconds(_SETTLE_S))
    stored = [read_back(place.logger, folder) for folder in folders]
    lost, wrong = zip(*map(lost_and_wrong, taken, stored), strict=True)
    return {
        "taken": float(sum(taken)),
        "stored": float(sum(map(len, stored))),
        "lost": float(sum(lost)),
        "most_lost": float(max(lost)),
        "wrong": float(sum(wrong)),
        "rounds": float(len(folders)),
    }


def lost_and_wrong(taken: int, stored: list[float]) -> tuple[int, int]:
    """Compares what is stored with what was taken: the values 0, 1, … each once.

    One more can be stored: the last call may not have come to its note.

    Returns:
        How many are missing, and how many are there twice or are none of these.
    """
    lost = set(range(taken)) - set(stored)
    right = set(range(taken + 1)) & set(stored)
    return len(lost), len(stored) - len(right)


def _check_reading(place: Place) -> None:
    # A reader that finds nothing would look like a loss: it has to find all of a run that closed.
    folder = place.folder / "closed"
    folder.mkdir()
    _process("close", place.logger, folder).communicate()
    found = read_back(place.logger, folder)
    if sorted(found) != list(range(_CLOSED_POINTS)):
        raise RuntimeError(f"{len(found)} of {_CLOSED_POINTS} points of a closed run are found")


def read_back(logger: str, folder: Path) -> list[float]:
    """Returns the values of "loss" that a process finds which logged none of them."""
    out = _process("read", logger, folder).communicate()[0]
    values: list[float] = json.loads(out.split("\n")[-2])
    return values


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
    scope = logger.open(folder)
    loop = f"for i in range({_CLOSED_POINTS}): x = float(i); {logger.scalar}"
    exec(loop, scope)
    logger.close()


def _log(logger_name: str, folder: Path, note: Path) -> None:
    logger = logger_of(logger_name)
    scope = logger.open(folder)
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
        print("\n" + json.dumps(logger_of(_logger).values(Path(_folder))))
