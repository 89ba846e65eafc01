"""The instants at which writers are killed, chosen by a seed.

`KILL_ROUNDS` is how many writers die, `KILL_SEED` repeats the choices of a run that failed.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.killed.nursery import Child, Nursery, Phase

ROUNDS = int(os.environ.get("KILL_ROUNDS", "200"))
SEED = int(os.environ.get("KILL_SEED", str(random.SystemRandom().randrange(1 << 32))))


def pause(chance: random.Random, longest_s: float) -> None:
    """Lets a process go on for a while that nobody foresees."""
    # Spent on purpose: the instant of the kill is what varies.
    until = time.monotonic() + chance.uniform(0, longest_s)
    while time.monotonic() < until:
        os.sched_yield()


def settings(chance: random.Random, data_dir: Path) -> dict[str, Any]:
    """Arguments of `init()` that shape how the engine seals and writes."""
    return {
        "data_dir": str(data_dir),
        "batch_max_age_secs": chance.choice([0.002, 0.01, 5.0]),
        "compression": chance.choice(["zstd", "none"]),
    }


def let_init_begin(_: Child, chance: random.Random) -> None:
    pause(chance, 0.03)


def let_call_once(child: Child, chance: random.Random) -> None:
    child.reach(Phase.OPEN)
    pause(chance, 0.0003)


def let_call(child: Child, chance: random.Random) -> None:
    child.reach(Phase.OPEN)
    pause(chance, 0.02)


def let_flush(child: Child, chance: random.Random) -> None:
    for _ in range(chance.randrange(1, 4)):
        child.reach(Phase.FLUSHING)
        pause(chance, 0.002)


def let_close(child: Child, chance: random.Random) -> None:
    child.reach(Phase.CLOSING)
    pause(chance, 0.015)


INSTANTS: dict[str, Callable[[Child, random.Random], None]] = {
    "init": let_init_begin,
    "first call": let_call_once,
    "calls": let_call,
    "flush": let_flush,
    "close": let_close,
}


def kill_one(
    nursery: Nursery,
    chance: random.Random,
    folder: Path,
    instant: str,
    first: int = 0,
    **arguments: Any,
) -> Child:
    """Starts a writer, which logs to the data directory of a folder, and kills it at an instant.

    Args:
        nursery: Where it comes from.
        chance: Chooses.
        folder: Gets the directory `data` and what the writer reports.
        instant: A name in `INSTANTS`.
        first: The first number that it logs.
        **arguments: For `init()`.
    """
    init = {**settings(chance, folder / "data"), **arguments}
    order: dict[str, Any] = {"init": init, "first": first}
    if instant == "flush":
        order["flush_every"] = chance.randrange(1, 60)
    if instant == "close":
        order["close_after"] = chance.randrange(1, 600)
    child = nursery.start(folder, "write", **order)
    INSTANTS[instant](child, chance)
    child.kill()
    return child


def chance_of(what: str, index: int) -> random.Random:
    """The same choices for the same seed, whatever ran before."""
    return random.Random(f"{SEED} {what} {index}")


@contextmanager
def told(folder: Path) -> Iterator[None]:
    """Says with a failure how it is repeated, and what the processes said."""
    try:
        yield
    except BaseException as error:
        said = "".join(file.read_text() for file in sorted(folder.glob("*.errors")))
        error.add_note(f"KILL_ROUNDS={ROUNDS} KILL_SEED={SEED}, in {folder}\n{said}")
        raise
