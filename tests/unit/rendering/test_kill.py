"""Writers of videos that are killed at any instant: a frame counted as encoded is there, once."""

from __future__ import annotations

import os
import random
from itertools import groupby
from pathlib import Path

import pytest

from tests.processes import Machine
from tests.reading import Rendering, read_one
from tests.recording import boxes, decode, leftovers
from tests.unit.rendering.killed import ENVS, RL_STEPS_A_FRAME, Round, level

ROOT = str(Path(__file__).parents[3])
ROUNDS = int(os.environ.get("RENDERING_KILL_ROUNDS", "15"))
SEED = int(os.environ.get("KILL_SEED", str(random.SystemRandom().randrange(1 << 32))))


def _frame_count(renderings: list[Rendering], length: int) -> int:
    """How many frames an environment has: from the first one on without a gap, as they were."""
    number = 0
    for rendering in sorted(renderings, key=lambda each: each.info.episode):
        info = rendering.info
        place = (info.episode, info.part, info.rl_step)
        assert place == (number // length, 1, number * RL_STEPS_A_FRAME)
        shades = decode(rendering.data).shades
        assert len(shades) == info.frame_count <= length
        expected = [level(number + index) for index in range(len(shades))]
        assert shades == pytest.approx(expected, abs=4)
        number += len(shades)
    return number


def _check(job: Round) -> list[Rendering]:
    told = job.told()
    by_id = read_one(job.data_dir).renderings
    assert leftovers(job.data_dir) == []
    assert read_one(job.data_dir).renderings.keys() == by_id.keys()
    renderings = sorted(by_id.values(), key=lambda each: each.info.env_id)
    counts = {
        env_id: _frame_count(list(group), told["length"])
        for env_id, group in groupby(renderings, lambda each: each.info.env_id)
    }
    assert set(counts) <= set(ENVS)
    # A frame that was encoded may not have been counted yet, nor one that was taken.
    assert told["encoded"] <= sum(counts.values()) <= told["logged"] + 1
    return renderings


@pytest.mark.timeout(60 + 4 * ROUNDS)
def test_what_was_encoded_is_there_once_after_a_kill(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine", PYTHONPATH=ROOT)
    machine.timeout_s = 60 + 2 * ROUNDS
    arguments = f"{str(tmp_path)!r}, {str(SEED)!r}, {str(ROUNDS)!r}"
    machine.python(
        f"""
        import sys
        from tests.unit.rendering import killed
        sys.argv[1:] = [{arguments}]
        killed.main()
        """
    )
    found: list[Rendering] = []
    for number in range(ROUNDS):
        job = Round.of(tmp_path, SEED, number)
        try:
            found += _check(job)
        except BaseException as error:
            error.add_note(f"RENDERING_KILL_ROUNDS={ROUNDS} KILL_SEED={SEED}, in {job.folder}")
            raise
    # Some had ended, and some were being recorded.
    assert {"moof" in dict(boxes(rendering.data)) for rendering in found} == {True, False}
