"""The example trains, and its run has what it says."""

from __future__ import annotations

from pathlib import Path

from tests.conformance.gymnasium.logs import records
from tests.processes import Machine
from tests.reading import read_one
from tests.recording import delivered, leftovers

ROOT = Path(__file__).parents[3]


def test_random_search_is_logged_with_its_evaluation_and_videos(tmp_path: Path) -> None:
    machine = Machine(
        tmp_path / "machine",
        PYTHONPATH=f"{ROOT}:{ROOT / 'examples'}",
        SDL_VIDEODRIVER="dummy",
        # On a machine that is busy, too, no frame is dropped.
        METRANA_BACKPRESSURE_STRATEGY="block",
    )
    done = machine.python(
        """
        import gymnasium_vector, sys
        sys.argv[1:] = ["--generations", "3", "--seed", "1"]
        gymnasium_vector.main()
        """
    )
    found = read_one(machine.data_dir)
    rows = records(found)
    evaluated = {key: row for key, row in rows.items() if key[0] == "CartPole-v1-eval-0"}
    assert set(evaluated) == {("CartPole-v1-eval-0", number) for number in range(3)}
    assert {env_id for env_id, _ in rows if env_id != "CartPole-v1-eval-0"} == {
        f"CartPole-v1-{index}" for index in range(16)
    }
    labels = {str(p.labels) for p in found.points if p.env_id == "CartPole-v1-eval-0"}
    assert labels == {str({"evaluation": "true"})}
    clock = [point.rl_step for point in found.of("reward") if not point.labels]
    evaluations = {p.rl_step for p in found.of("episode_return") if p.labels}
    assert evaluations <= set(clock)
    assert max(evaluations) == max(step for step in clock if step is not None)
    videos = delivered(machine.data_dir)
    assert {key[0] for key in videos} == {"CartPole-v1-0", "CartPole-v1-1"}
    for (env_id, number, _), video in videos.items():
        if (env_id, number) in rows:
            assert len(video.frames) == rows[env_id, number]["episode_length"] + 1
    assert leftovers(machine.data_dir) == []
    assert f"{sum(len(video.frames) for video in videos.values()):,} frames" in done.stdout
