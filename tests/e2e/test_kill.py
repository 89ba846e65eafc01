"""Writers that are killed at any instant: what was accepted is there once, in order, unchanged.

`KILL_ROUNDS` is how many writers die (200), `KILL_SEED` repeats the instants of a run that failed.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.killed import numbered
from tests.e2e.killed.nursery import Child, Nursery, Phase
from tests.processes import Machine
from tests.reading import Logged, read_all, run_folders

ROUNDS = int(os.environ.get("KILL_ROUNDS", "200"))
SEED = int(os.environ.get("KILL_SEED", str(random.SystemRandom().randrange(1 << 32))))
# Percent of the rounds.
SHARES = {"init": 12, "first call": 13, "calls": 25, "flush": 12, "close": 13}
RECOVERY_SHARE, CHAIN_SHARE = 15, 10
CHAIN_LENGTH = 5
# Numbers that no writer of a chain reaches.
FAR = 6_000_000
TIMEOUT_S = 60 + ROUNDS


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Where the processes come from."""
    with Nursery(Machine(tmp_path_factory.mktemp("nursery")).environ) as nursery:
        yield nursery


def rounds(percent: int) -> int:
    """How many rounds that many percent are."""
    return max(1, ROUNDS * percent // 100)


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
    nursery: Nursery, chance: random.Random, folder: Path, instant: str, first: int = 0
) -> Child:
    """Starts a writer in a folder and kills it at an instant."""
    order: dict[str, Any] = {"init": settings(chance, folder / "data"), "first": first}
    if instant == "flush":
        order["flush_every"] = chance.randrange(1, 60)
    if instant == "close":
        order["close_after"] = chance.randrange(0, 600)
    child = nursery.start(folder, "write", **order)
    INSTANTS[instant](child, chance)
    child.kill()
    return child


def read_writers(folder: Path) -> list[Logged]:
    """What the writers in a folder left; none if they died before there was anything."""
    return read_all(folder / "data")


def check_one(folder: Path, child: Child) -> int:
    """Checks what the only writer in a folder left; returns how many calls that is."""
    points = [point for logged in read_writers(folder) for point in logged.points]
    return numbered.call_count(points, child.report.calls)


@contextmanager
def told(folder: Path) -> Iterator[None]:
    """Says with a failure how it is repeated, and what the processes said."""
    try:
        yield
    except BaseException as error:
        said = "".join(file.read_text() for file in sorted(folder.glob("*.errors")))
        error.add_note(f"KILL_ROUNDS={ROUNDS} KILL_SEED={SEED}, in {folder}\n{said}")
        raise


def chance_of(what: str, index: int) -> random.Random:
    """The same choices for the same seed, whatever ran before."""
    return random.Random(f"{SEED} {what} {index}")


@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize("instant", INSTANTS)
def test_what_was_accepted_is_there_once_after_a_kill(
    nursery: Nursery, tmp_path: Path, instant: str
) -> None:
    total = 0
    for index in range(rounds(SHARES[instant])):
        folder = tmp_path / f"{index}"
        child = kill_one(nursery, chance_of(instant, index), folder, instant)
        with told(folder):
            total += check_one(folder, child)
    assert total or instant == "init", "no writer logged anything before it died"


@pytest.mark.timeout(TIMEOUT_S)
def test_a_killed_recovery_is_done_again_by_two_at_once(nursery: Nursery, tmp_path: Path) -> None:
    for index in range(rounds(RECOVERY_SHARE)):
        folder, chance = tmp_path / f"{index}", chance_of("recovery", index)
        writer = kill_one(nursery, chance, folder, "calls")
        runs = [run.path for run in run_folders(folder / "data")]
        for _ in range(chance.randrange(1, 4)):
            recoverer = nursery.start(folder, "recover", runs=runs)
            recoverer.reach(Phase.OPEN)
            pause(chance, 0.004)
            recoverer.kill()
        both = [nursery.start(folder, "recover", runs=runs) for _ in range(2)]
        with told(folder):
            assert [recoverer.end() for recoverer in both] == [0, 0]
            check_one(folder, writer)


@pytest.mark.timeout(TIMEOUT_S)
def test_steps_go_on_behind_writers_that_died_one_after_another(
    nursery: Nursery, tmp_path: Path
) -> None:
    # Each next writer finds what the last one left, and dies while it sees to that or later.
    for chain in range(max(1, rounds(CHAIN_SHARE) // CHAIN_LENGTH)):
        folder, chance = tmp_path / f"{chain}", chance_of("chain", chain)
        children = [
            kill_one(nursery, chance, folder, chance.choice([*INSTANTS]), first=index * FAR)
            for index in range(CHAIN_LENGTH)
        ]
        with told(folder):
            by_pid = {logged.info["pid"]: logged for logged in read_writers(folder)}
            before: Counter[str] = Counter()
            for index, child in enumerate(children):
                logged = by_pid.pop(child.pid, None)
                points = [] if logged is None else logged.points
                numbered.call_count(points, child.report.calls, index * FAR, before)
                before.update(point.metric for point in points)
            assert not by_pid
