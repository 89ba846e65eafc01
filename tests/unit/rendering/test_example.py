"""The example with videos shows what it says that it shows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.processes import Machine
from tests.reading import read_one
from tests.recording import delivered, leftovers

ROOT = Path(__file__).parents[3]


def test_every_20th_episode_of_each_environment_has_a_frame_a_step(tmp_path: Path) -> None:
    machine = Machine(
        tmp_path / "machine",
        PYTHONPATH=f"{ROOT}:{ROOT / 'examples'}",
        SDL_VIDEODRIVER="dummy",
        # On a machine that is busy, too, no frame is dropped.
        METRANA_BACKPRESSURE_STRATEGY="block",
    )
    done = machine.python(
        """
        import vector_envs, sys
        sys.argv[1:] = ["--updates", "4", "--seed", "1"]
        vector_envs.main()
        """
    )
    steps = Counter(
        (point.env_id, point.episode) for point in read_one(machine.data_dir).of("reward")
    )
    videos = {key: len(seen.frames) for key, seen in delivered(machine.data_dir).items()}
    wanted = {place: count for place, count in steps.items() if place[1] in {0, 20}}
    assert len(wanted) > 16
    # An episode that the last step began has no frame yet, nor a reward.
    assert videos == {(env_id, episode, 1): count for (env_id, episode), count in wanted.items()}
    assert leftovers(machine.data_dir) == []
    assert f"{sum(videos.values()):,} frames" in done.stdout
