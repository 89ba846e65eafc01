"""Videos: wrappers inside of what the callback logs render, under its names and numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from metrana.integrations.gymnasium import MetranaEnvWrapper
from metrana.integrations.sb3 import MetranaCallback
from metrana.query import Client
from tests.conformance.sb3.environments import SHADE, LifeLoss, Scripted
from tests.conformance.sb3.models import dqn, ppo
from tests.recording import decode


def filmed(*lengths: int, every: int = 2, **arguments: Any) -> gym.Env[Any, Any]:
    """An environment with videos of some episodes."""
    env = Scripted(lengths, render_mode="rgb_array")
    return MetranaEnvWrapper(env, episode_trigger=lambda k: k % every == 0, **arguments)


def renderings(client: Client) -> list[tuple[str, int, int, int]]:
    """Environment, episode, `rl_step` and number of frames of each video."""
    frame = client.renderings("run").sort_values(["env_id", "episode"])
    assert set(frame["fps"]) <= {7.0}
    names = ["env_id", "episode", "rl_step", "frame_count"]
    return list(frame[names].itertuples(index=False, name=None))


@pytest.mark.parametrize("kind", [DummyVecEnv, SubprocVecEnv])
def test_videos_have_the_first_and_the_last_state_of_their_episode(
    offline: dict[str, Any], tmp_path: Path, kind: Callable[..., VecEnv]
) -> None:
    env = kind([lambda: Monitor(filmed(3, 5)), lambda: Monitor(filmed(4, every=3))])
    callback = MetranaCallback(run_name="run", init_args=offline)
    ppo(env).learn(32, callback=callback)
    env.close()
    assert callback.faults.count == 0
    callback.close()
    with Client(data_dir=offline["data_dir"]) as client, client.hold():
        # The wrappers log nothing of their own.
        assert sorted(client.series("run", metric_name="reward")["env_id"]) == ["env-0", "env-1"]
        found = renderings(client)
        assert [(env_id, episode, count) for env_id, episode, _, count in found] == [
            ("env-0", 0, 4),
            ("env-0", 2, 4),
            ("env-1", 0, 5),
            ("env-1", 3, 5),
        ]
        for number, rendering_id in enumerate(client.renderings("run")["rendering_id"]):
            path = client.download_rendering(rendering_id, tmp_path / f"{number}.mp4")
            shades = decode(path).shades
            assert shades == pytest.approx([SHADE * k for k in range(len(shades))], abs=2)


def test_videos_of_evaluations_are_at_the_step_of_the_training(offline: dict[str, Any]) -> None:
    callback = MetranaCallback(
        run_name="run",
        eval_env=filmed(3, 5, evaluation=True),
        eval_freq=8,
        n_eval_episodes=3,
        init_args=offline,
    )
    ppo().learn(16, callback=callback)
    assert callback.faults.count == 0
    callback.close()
    with Client(data_dir=offline["data_dir"]) as client:
        assert renderings(client) == [
            ("env-eval-0", 0, 8, 4),
            ("env-eval-0", 2, 8, 4),
            ("env-eval-0", 4, 16, 4),
        ]
        episodes = client.episodes("run", env_id="env-eval-0").sort_values("episode")
    assert episodes["rendering_id"].notna().tolist() == [True, False] * 3


def test_triggers_are_asked_with_the_numbers_of_the_run(offline: dict[str, Any]) -> None:
    for _ in range(2):
        callback = MetranaCallback(
            run_name="run",
            eval_env=filmed(3, every=4),
            eval_freq=16,
            n_eval_episodes=3,
            init_args={**offline, "resume_strategy": "allow"},
        )
        ppo(filmed(3, every=4)).learn(16, callback=callback)
        callback.close()
    with Client(data_dir=offline["data_dir"]) as client:
        found = [(env_id, episode) for env_id, episode, *_ in renderings(client)]
    # Of the training 6 episodes each time, the last of which is not over.
    assert found == [("env-0", 0), ("env-0", 4), ("env-0", 8), ("env-eval-0", 0), ("env-eval-0", 4)]


def test_steps_of_evaluations_are_counted_over_all_of_them(offline: dict[str, Any]) -> None:
    env = MetranaEnvWrapper(
        Scripted([4], render_mode="rgb_array"), step_trigger=lambda k: k == 9, video_length=2
    )
    callback = MetranaCallback(
        run_name="run", eval_env=env, eval_freq=8, n_eval_episodes=2, init_args=offline
    )
    ppo().learn(16, callback=callback)
    callback.close()
    with Client(data_dir=offline["data_dir"]) as client:
        assert renderings(client) == [("env-eval-0", 2, 16, 2)]


@pytest.mark.parametrize("length", [1, 2])
def test_videos_may_be_as_short_as_a_frame(offline: dict[str, Any], length: int) -> None:
    callback = MetranaCallback(run_name="run", init_args=offline)
    ppo(filmed(3, 5, video_length=length)).learn(16, callback=callback)
    assert callback.faults.count == 0
    callback.close()
    with Client(data_dir=offline["data_dir"]) as client:
        found = [(episode, count) for _, episode, _, count in renderings(client)]
    assert found == [(0, length), (2, length)]


def test_a_lost_life_ends_no_video(offline: dict[str, Any]) -> None:
    env = Monitor(Scripted([6], render_mode="rgb_array"))
    lives = DummyVecEnv(
        [lambda: MetranaEnvWrapper(LifeLoss(env, every=2), episode_trigger=lambda _: True)]
    )
    callback = MetranaCallback(run_name="run", init_args=offline)
    ppo(lives).learn(16, callback=callback)
    callback.close()
    with Client(data_dir=offline["data_dir"]) as client:
        # Each life begins with the state in which the last one was lost.
        assert [(episode, count) for _, episode, _, count in renderings(client)] == [
            (0, 6 + 3),
            (1, 6 + 3),
            (2, 4 + 2),
        ]


def test_frames_are_not_kept_in_infos(offline: dict[str, Any]) -> None:
    class Looking(BaseCallback):
        def _on_step(self) -> bool:
            return not any(str(key).startswith("metrana") for key in self.locals["infos"][0])

    callback = MetranaCallback(init_args=offline)
    model = dqn(filmed(3, every=1))
    model.learn(16, callback=[callback, Looking()])
    assert model.num_timesteps == 16


def test_an_environment_that_cannot_render_does_not_stop_the_training(
    offline: dict[str, Any], recwarn: pytest.WarningsRecorder
) -> None:
    class Broken(Scripted):
        def render(self) -> Any:
            raise RuntimeError("no display")

    env = MetranaEnvWrapper(Broken(render_mode="rgb_array"), episode_trigger=lambda _: True)
    callback = MetranaCallback(run_name="run", init_args=offline)
    model = ppo(env)
    model.learn(16, callback=callback)
    callback.close()
    assert model.num_timesteps == 16
    assert any("no display" in str(warning.message) for warning in recwarn)
    with Client(data_dir=offline["data_dir"]) as client:
        assert len(client.points("run", "reward")) == 16
