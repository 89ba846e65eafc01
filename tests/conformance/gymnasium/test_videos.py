"""Videos: every state of an episode from its first to its last, in every autoreset mode."""

from __future__ import annotations

import functools
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

import metrana
from metrana.integrations.gymnasium import MetranaEnvWrapper, MetranaVectorEnvWrapper
from metrana.query import Client
from tests.conformance.gymnasium.environments import HEIGHT, WIDTH, Drawn, makers, replay, shade
from tests.conformance.gymnasium.logs import logged, records
from tests.conformance.gymnasium.test_vector import play as play_vector
from tests.local_server import wait_until
from tests.reading import read_all
from tests.recording import delivered

RGB = {"render_mode": "rgb_array"}
# Of videos.
EVEN = (HEIGHT + 1, WIDTH + 1)


def play(env: Any, episode_count: int, seed: int = 0) -> None:
    """Play whole episodes, and reset behind each but the last."""
    for number in range(episode_count):
        env.reset(seed=seed if number == 0 else None)
        is_over = False
        while not is_over:
            _, _, terminated, truncated, _ = env.step(0)
            is_over = bool(terminated or truncated)


def whole(length: int) -> list[int]:
    """The shades of an episode's states, the first one included."""
    return [shade(length, step) for step in range(length + 1)]


def check(data_dir: Path, env_id: str, lengths: list[int], numbers: list[int]) -> None:
    """Check that the videos of an environment are those, and whole."""
    seen = {key: video for key, video in delivered(data_dir).items() if key[0] == env_id}
    assert set(seen) == {(env_id, number, 1) for number in numbers}
    for number in numbers:
        shades = seen[env_id, number, 1].shades
        assert shades == pytest.approx(whole(lengths[number]), abs=2), number


def test_videos_of_chosen_episodes_have_all_their_states(data_dir: Path, run: metrana.Run) -> None:
    env = MetranaEnvWrapper(
        Drawn(**RGB), env_id="e", episode_trigger=lambda episode: episode % 3 == 1
    )
    play(env, 8)
    env.close()
    run.close()
    check(data_dir, "e", [len(each.rewards) for each in replay(0, 8)], [1, 4, 7])
    with Client(data_dir=data_dir) as client:
        rows = client.renderings("training")
    assert set(rows["fps"]) == {12.0}
    assert {(rows["height"][0], rows["width"][0])} == {EVEN}


def test_a_video_ends_with_its_episode_not_with_the_next(data_dir: Path, run: metrana.Run) -> None:
    env = MetranaEnvWrapper(Drawn(fixed_length=3, **RGB), episode_trigger=lambda _: True)
    play(env, 1)
    wait_until(lambda: run.get_metrics().rendering_frames_encoded == 4)
    with Client(data_dir=data_dir) as client:

        def frame_counts() -> list[int]:
            run.flush(30)
            return client.renderings("training")["frame_count"].tolist()

        wait_until(lambda: frame_counts() == [4])


@pytest.mark.parametrize("inside", [True, False], ids=["wrapped", "bare"])
@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_videos_of_vector_environments_are_whole(
    mode: AutoresetMode,
    kind: type[VectorEnv],
    inside: bool,
    data_dir: Path,
    run: metrana.Run,
    recwarn: pytest.WarningsRecorder,
) -> None:
    wrap = MetranaEnvWrapper if inside else lambda env: env
    envs = MetranaVectorEnvWrapper(
        kind(makers(3, wrap, **RGB), autoreset_mode=mode),
        env_id="e",
        episode_trigger=lambda episode: episode % 2 == 0,
        video_envs=[0, 2],
    )
    play_vector(envs, 40)
    envs.close()
    run.close()
    rows = records(logged(data_dir))
    is_blind = mode is AutoresetMode.SAME_STEP and kind is AsyncVectorEnv and not inside
    assert len([w for w in recwarn if "lack the last frame" in str(w.message)]) == is_blind
    seen = delivered(data_dir)
    assert {key[0] for key in seen} == {"e-0", "e-2"}
    for index in (0, 2):
        lengths = [len(each.rewards) for each in replay(7 + index, 40)]
        ended = [number for env_id, number in rows if env_id == f"e-{index}"]
        for number in ended:
            if number % 2:
                assert (f"e-{index}", number, 1) not in seen
                continue
            shades = seen[f"e-{index}", number, 1].shades
            expected = whole(lengths[number])
            assert shades == pytest.approx(expected[:-1] if is_blind else expected, abs=2)
    assert envs.faults.count == 0
    assert all(part == 1 for _, _, part in seen)


def test_the_video_of_a_first_episode_of_one_step_is_whole(
    data_dir: Path, run: metrana.Run
) -> None:
    envs = SyncVectorEnv(makers(1, fixed_length=1, **RGB), autoreset_mode=AutoresetMode.SAME_STEP)
    wrapped = MetranaVectorEnvWrapper(envs, env_id="e", episode_trigger=lambda _: True)
    play_vector(wrapped, 3)
    run.close()
    check(data_dir, "e-0", [1, 1, 1], [0, 1, 2])


@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
def test_wrappers_inside_have_videos_of_their_own_choice(
    kind: type[VectorEnv], data_dir: Path, run: metrana.Run
) -> None:
    wrap = functools.partial(MetranaEnvWrapper, episode_trigger=lambda number: number == 1)
    envs = MetranaVectorEnvWrapper(
        kind(makers(2, wrap, **RGB), autoreset_mode=AutoresetMode.SAME_STEP), env_id="e"
    )
    play_vector(envs, 40)
    envs.close()
    run.close()
    for index in range(2):
        check(data_dir, f"e-{index}", [len(each.rewards) for each in replay(7 + index, 9)], [1])


def test_a_worker_says_once_that_it_logs_nothing_unless_somebody_does(data_dir: Path) -> None:
    program = """
        import sys
        import metrana
        from gymnasium.vector import AsyncVectorEnv
        from metrana.integrations.gymnasium import MetranaEnvWrapper
        from tests.conformance.gymnasium.environments import makers
        from tests.conformance.gymnasium.test_vector import play
        with metrana.init():
            envs = AsyncVectorEnv(makers(1, MetranaEnvWrapper))
            play(envs if sys.argv[1] == "alone" else MetranaEnvWrapper(envs), 20)
            envs.close()
    """
    for how, word_count in (("alone", 1), ("wrapped", 0)):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program), how],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert done.stderr.count("logs nothing in a worker process") == word_count
    alone, wrapped = read_all(data_dir)
    if alone.points:
        alone, wrapped = wrapped, alone
    assert not alone.points
    assert wrapped.points


def test_a_video_of_steps_begins_before_the_step_and_has_a_length(
    data_dir: Path, run: metrana.Run
) -> None:
    env = MetranaEnvWrapper(
        Drawn(fixed_length=9, **RGB),
        env_id="e",
        step_trigger=lambda step: step in (2, 7, 20),
        video_length=4,
    )
    play(env, 3)
    env.close()
    run.close()
    seen = {key: [round(s) for s in video.shades] for key, video in delivered(data_dir).items()}
    expected = {
        ("e", 0, 1): whole(9)[2:6],
        ("e", 0, 2): whole(9)[7:10],  # it ends with the episode
        ("e", 2, 1): whole(9)[2:6],
    }
    assert seen.keys() == expected.keys()
    for key, shades in expected.items():
        assert seen[key] == pytest.approx(shades, abs=2)


def test_a_video_of_an_episode_that_is_given_up_ends_there(
    data_dir: Path, run: metrana.Run
) -> None:
    env = MetranaEnvWrapper(
        Drawn(fixed_length=6, **RGB), env_id="e", episode_trigger=lambda _: True, video_length=50
    )
    for step_count in (0, 2, 0, 3):
        env.reset()
        for _ in range(step_count):
            env.step(0)
    env.close()
    run.close()
    seen = delivered(data_dir)
    assert {key: len(video.shades) for key, video in seen.items()} == {
        ("e", 0, 1): 3,
        ("e", 1, 1): 4,
    }


def test_lists_of_frames_are_taken_and_given_on(data_dir: Path, run: metrana.Run) -> None:
    inner = gym.wrappers.RenderCollection(Drawn(fixed_length=4, **RGB))
    env = MetranaEnvWrapper(inner, env_id="e", episode_trigger=lambda _: True)
    play(env, 1)
    assert len(env.render()) == 5
    assert env.render() == []
    env.close()
    run.close()
    check(data_dir, "e", [4], [0])


def test_a_renderer_that_fails_costs_its_video_only(data_dir: Path, run: metrana.Run) -> None:
    class Blind(Drawn):
        def render(self) -> Any:
            if self.step_number == 2:
                raise RuntimeError("no display")
            return super().render()

    env = MetranaEnvWrapper(Blind(fixed_length=3, **RGB), env_id="e", episode_trigger=lambda _: 1)
    with pytest.warns(metrana.MetranaWarning, match="no display") as said:
        play(env, 2)
    assert len(said) == 1
    env.close()
    run.close()
    assert env.faults.count == 2
    assert [len(video.shades) for video in delivered(data_dir).values()] == [2, 2]
    assert len(records(logged(data_dir))) == 2


def test_a_trigger_that_fails_is_a_fault(data_dir: Path, run: metrana.Run) -> None:
    env = MetranaEnvWrapper(Drawn(**RGB), episode_trigger=lambda episode: 1 // episode)
    with pytest.warns(metrana.MetranaWarning, match="ZeroDivisionError"):
        play(env, 2)
    env.close()
    run.close()
    assert {key[1] for key in delivered(data_dir)} == {1}


def test_alpha_and_gray_are_taken(data_dir: Path, run: metrana.Run) -> None:
    class Kinds(Drawn):
        def render(self) -> Any:
            frame = super().render()
            alpha = np.zeros((HEIGHT, WIDTH, 1), np.uint8)
            return frame[:, :, 0] if self.length % 2 else np.concatenate([frame, alpha], axis=2)

    for length in (4, 5):
        env = MetranaEnvWrapper(
            Kinds(fixed_length=length, **RGB), env_id=f"e{length}", episode_trigger=lambda _: True
        )
        play(env, 1)
        env.close()
    run.close()
    check(data_dir, "e4", [4], [0])
    check(data_dir, "e5", [5], [0])


def test_a_vector_environment_without_sub_environments_has_videos(
    data_dir: Path, run: metrana.Run
) -> None:
    envs = gym.make_vec(
        "CartPole-v1", 3, vectorization_mode="vector_entry_point", render_mode="rgb_array"
    )
    wrapped = MetranaVectorEnvWrapper(
        envs, env_id="e", episode_trigger=lambda number: number == 1, video_envs=[2]
    )
    play_vector(wrapped, 100)
    wrapped.close()
    run.close()
    assert wrapped.faults.count == 0
    length = records(logged(data_dir))["e-2", 1]["episode_length"]
    ((key, video),) = delivered(data_dir).items()
    assert key == ("e-2", 1, 1)
    assert len(video.shades) == length + 1


def test_videos_of_others_than_the_first_environment_only(data_dir: Path, run: metrana.Run) -> None:
    env = MetranaEnvWrapper(Drawn(**RGB), episode_trigger=lambda _: True, video_envs=[1])
    play(env, 1)
    env.close()
    run.close()
    assert delivered(data_dir) == {}
