"""Writers that are killed at any instant: what was accepted is there once, in order, unchanged."""

from __future__ import annotations

import shutil
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.killed import numbered
from tests.e2e.killed.instants import INSTANTS, ROUNDS, chance_of, kill_one, pause, told
from tests.e2e.killed.nursery import Child, Nursery, Phase
from tests.reading import read_all, read_columns, run_folders

# Percent of the rounds.
SHARES = {"init": 12, "first call": 13, "calls": 25, "flush": 12, "close": 13}
RECOVERY_SHARE, CHAIN_SHARE, SEGMENT_SHARE = 14, 10, 1
CHAIN_LENGTH = 5
# What the engine lets one file of a spool hold.
SEGMENT_BYTES = 32 << 20
# Numbers that no writer of a chain reaches.
FAR = 6_000_000
TIMEOUT_S = 60 + ROUNDS


def rounds(percent: int) -> int:
    """How many rounds that many percent are."""
    return max(1, ROUNDS * percent // 100)


def check_one(folder: Path, child: Child) -> int:
    """Checks what the only writer in a folder left; returns how many calls that is."""
    writers = read_all(folder / "data")
    rings = [Path(logged.info["ring"]) for logged in writers if logged.info.get("ring")]
    assert not any(ring.exists() for ring in rings), "a ring was sealed and kept"
    points = [point for logged in writers for point in logged.points]
    return numbered.call_count(points, child.report.calls)


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
    assert total or instant in {"init", "first call"}, "no writer logged anything before it died"


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
            by_pid = {logged.info["pid"]: logged for logged in read_all(folder / "data")}
            before: Counter[str] = Counter()
            for index, child in enumerate(children):
                logged = by_pid.pop(child.pid, None)
                points = [] if logged is None else logged.points
                numbered.call_count(points, child.report.calls, index * FAR, before)
                before.update(point.metric for point in points)
            assert not by_pid


@pytest.mark.timeout(TIMEOUT_S)
def test_a_writer_killed_at_the_change_of_its_spools_file_leaves_all(
    nursery: Nursery, tmp_path: Path
) -> None:
    for index in range(rounds(SEGMENT_SHARE)):
        folder, chance = tmp_path / f"{index}", chance_of("segment", index)
        data_dir = folder / "data"
        init = {"data_dir": str(data_dir), "compression": "none", "max_msg_size": 1 << 20}
        child = nursery.start(folder, "write", init=init, first=0, noise=True)
        wanted = SEGMENT_BYTES + chance.randrange(-(1 << 20), 1 << 20)
        child.spin_until(partial(has_spooled, data_dir, wanted), "the spool grew")
        child.kill()
        with told(folder):
            values, steps = read_columns(data_dir, "value", "step")
            # A call of this size goes through in parts, so the last one may be there in part.
            calls, part = divmod(len(values), numbered.NOISE_POINTS)
            assert child.report.calls in {calls, calls - 1 if part == 0 else calls}
            noise = np.concatenate([numbered.noise(number) for number in range(calls + 1)])
            np.testing.assert_array_equal(values, noise[: len(values)])
            np.testing.assert_array_equal(steps, np.arange(len(values)))
        shutil.rmtree(data_dir)


def has_spooled(data_dir: Path, wanted_bytes: int) -> bool:
    """Whether all files of all spools hold that much."""
    files = data_dir.glob("spool/*/*/*.spool")
    return sum(file.stat().st_size for file in files) >= wanted_bytes
