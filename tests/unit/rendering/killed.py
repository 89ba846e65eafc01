"""Processes that record videos until they are killed, and what they were told until then.

`python -m tests.unit.rendering.killed FOLDER SEED ROUNDS` forks one for each round, so that a round
costs the round and not an interpreter's start.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import metrana
from metrana.rendering import recorder  # noqa: F401  # imported before the forks: it takes long

ENVS = ("left", "middle", "right")
RL_STEPS_A_FRAME = 10
# Of a run that lives to close itself, for each environment.
LAST_NUMBER = 40
_TIMEOUT_S = 30


class Round(NamedTuple):
    """What a process is to do."""

    folder: Path
    chance: random.Random
    """The same again for the same seed."""

    @classmethod
    def of(cls, folder: Path, seed: int, number: int) -> Round:
        """One of the rounds of a seed."""
        return cls(folder / str(number), random.Random(f"{seed} {number}"))

    @property
    def data_dir(self) -> Path:
        """Where it logs to."""
        return self.folder / "data"

    def told(self) -> Told:
        """What the process was told, which outlives it."""
        return Told(np.memmap(self.folder / "told", np.int64, "r+", shape=(5,)))


class Told:
    """Numbers in a file that two processes share."""

    def __init__(self, numbers: npt.NDArray[np.int64]) -> None:
        self._numbers = numbers

    def __getitem__(self, name: str) -> int:
        return int(self._numbers[_NAMES.index(name)])

    def __setitem__(self, name: str, number: int) -> None:
        self._numbers[_NAMES.index(name)] = number


_NAMES = ("length", "logged", "encoded", "is_open", "is_closing")


def level(number: int) -> int:
    """The shade of a frame, far from that of the next."""
    return 60 + number * 37 % 127


def picture(number: int) -> npt.NDArray[np.uint8]:
    """A frame of that mean shade, with so much in it that videos have several pieces."""
    noise = np.random.default_rng(number).integers(-40, 41, (64, 96, 1))
    frame: npt.NDArray[np.uint8] = np.repeat(level(number) + noise, 3, axis=2).astype(np.uint8)
    return frame


def record(job: Round) -> None:
    """Record interleaved videos, as many as the time allows."""
    told, chance = job.told(), job.chance
    told["length"] = length = chance.randrange(1, 12)
    closes_itself = chance.random() < 0.4
    settings: dict[str, Any] = {
        "max_msg_size": chance.choice([16 * 1024, 1 << 20]),
        "batch_max_age_secs": chance.choice([0.002, 1.0]),
        "rendering_max_concurrent_encoders": chance.choice([1, 3]),
        "rendering_queue_max_size": chance.choice([1, 1000]),
    }
    run = metrana.init(
        mode="offline",
        data_dir=job.data_dir,
        backpressure_strategy="block",
        enqueue_timeout_secs=60,
        **settings,
    )
    told["is_open"] = 1
    for number in range(LAST_NUMBER if closes_itself else 1 << 30):
        for env_id in ENVS:
            run.log_rendering(
                picture(number),
                rl_step=number * RL_STEPS_A_FRAME,
                episode=number // length,
                env_id=env_id,
            )
            told["logged"] += 1
            told["encoded"] = run.get_metrics().rendering_frames_encoded
        run.log("x", number)
    told["is_closing"] = 1
    run.close()
    told["encoded"] = told["logged"]
    signal.pause()


def _await(told: Told, names: list[str]) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while not any(told[name] for name in names):
        assert time.monotonic() < deadline, f"none of {names} came to be"
        os.sched_yield()


def kill(pid: int, job: Round) -> None:
    """Let a process go on for a while that nobody foresees, and kill it."""
    told = job.told()
    _await(told, ["is_open"])
    # Others than the child's, which has the same seed.
    chance = random.Random(f"kill {job.chance.random()}")
    if chance.random() < 0.4:
        deadline = time.monotonic() + 1
        while not told["is_closing"] and time.monotonic() < deadline:
            os.sched_yield()
    # Spent on purpose: the instant of the kill is what varies.
    until = time.monotonic() + chance.uniform(0, 0.4)
    while time.monotonic() < until:
        os.sched_yield()
    os.kill(pid, signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL


def _give_birth(work: Callable[[Round], None], job: Round) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work(job)
        except BaseException:  # noqa: BLE001  # whatever it is, the child ends here
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(1)
    return pid


def main() -> None:
    """Let a process for each round record, and kill it."""
    folder, seed, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    for number in range(count):
        job = Round.of(folder, seed, number)
        job.folder.mkdir(parents=True)
        (job.folder / "told").write_bytes(bytes(8 * len(_NAMES)))
        kill(_give_birth(record, job), job)


if __name__ == "__main__":
    main()
