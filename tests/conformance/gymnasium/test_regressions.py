"""What users of other loggers complain of, one test a complaint."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

import metrana
from metrana.integrations.gymnasium import MetranaEnvWrapper, MetranaVectorEnvWrapper
from metrana.query import Client
from tests.conformance.gymnasium.environments import Drawn, makers, shade
from tests.conformance.gymnasium.logs import logged, records, values
from tests.local_server import wait_until
from tests.reading import read_all
from tests.recording import delivered


def test_positions_go_on_in_a_wrapper_that_was_closed(data_dir: Path, run: metrana.Run) -> None:
    """A logger that is used again begins again at 0, and overwrites what it logged."""
    env = MetranaEnvWrapper(Drawn(fixed_length=3), env_id="e")
    evaluation = MetranaEnvWrapper(Drawn(fixed_length=2), env_id="v", evaluation=True)
    for _ in range(2):
        env.reset(seed=0)
        for _ in range(3):
            env.step(0)
        env.close()
        evaluation.reset(seed=0)
        for _ in range(2):
            evaluation.step(0)
        evaluation.close()
    run.close()
    found = logged(data_dir)
    assert set(records(found)) == {("e", 0), ("e", 1), ("v", 0), ("v", 1)}
    training = [point for point in found.of("reward") if point.env_id == "e"]
    assert [point.rl_step for point in training] == [1, 2, 3, 4, 5, 6]
    evaluated = [point for point in found.of("reward") if point.env_id == "v"]
    assert [point.rl_step for point in evaluated] == [3, 3, 6, 6]
    assert {point.labels["evaluation"] for point in evaluated} == {"true"}
    assert not any(point.labels for point in training)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_the_reset_is_no_step_whatever_reward_it_has(
    mode: AutoresetMode, data_dir: Path, run: metrana.Run
) -> None:
    """Off by one: the step of a reset is counted as the first of the next episode."""

    class Paid(SyncVectorEnv):
        def step(self, actions: Any) -> Any:
            resets = self._autoreset_envs & (self.autoreset_mode is AutoresetMode.NEXT_STEP)
            observations, rewards, *rest = super().step(actions)
            return observations, np.where(resets, 1000.0, rewards), *rest

    envs = MetranaVectorEnvWrapper(Paid(makers(3, fixed_length=3), autoreset_mode=mode), env_id="e")
    envs.reset(seed=0)
    for _ in range(20):
        _, _, terminated, truncated, _ = envs.step(np.zeros(3, np.int64))
        if mode is AutoresetMode.DISABLED and (terminated | truncated).any():
            envs.reset(options={"reset_mask": terminated | truncated})
    run.close()
    rows = records(logged(data_dir))
    assert {row["episode_length"] for row in rows.values()} == {3.0}
    assert max(row["episode_return"] for row in rows.values()) < 100


def test_an_episode_goes_on_where_others_are_reset(data_dir: Path, run: metrana.Run) -> None:
    """Miscounts: resetting some environments restarts the counters of all."""
    envs = MetranaVectorEnvWrapper(
        SyncVectorEnv(makers(4), autoreset_mode=AutoresetMode.DISABLED), env_id="e"
    )
    envs.reset(seed=0)
    mask = np.zeros(4, bool)
    for _ in range(60):
        _, _, terminated, truncated, _ = envs.step(np.zeros(4, np.int64))
        np.logical_or(terminated, truncated, out=mask)
        if mask.any():
            options = {"reset_mask": mask}
            envs.reset(options=options)
            mask[:] = True  # the caller's array, which is not kept
    run.close()
    found = logged(data_dir)
    for key, row in records(found).items():
        assert row["episode_length"] == len(values(found)[key])


def test_a_lost_life_is_no_end_where_the_wrapper_is_inside(
    data_dir: Path, run: metrana.Run
) -> None:
    """Lost lives that look like ends of episodes."""

    class Lives(gym.Wrapper[Any, Any, Any, Any]):
        def step(self, action: Any) -> Any:
            observation, reward, terminated, truncated, info = self.env.step(action)
            lost = self.unwrapped.step_number % 2 == 0
            return observation, reward, terminated or lost, truncated, info

    env = Lives(MetranaEnvWrapper(Drawn(fixed_length=6), env_id="e"))
    env.reset(seed=0)
    for _ in range(6):
        env.step(0)
    run.close()
    assert [row["episode_length"] for row in records(logged(data_dir)).values()] == [6.0]


@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
def test_a_video_shows_the_end_and_not_the_reset(
    kind: Any, data_dir: Path, run: metrana.Run
) -> None:
    """Videos whose last frame is of the next episode, or that lack the first one."""
    envs = MetranaVectorEnvWrapper(
        kind(
            makers(2, MetranaEnvWrapper, render_mode="rgb_array", fixed_length=4),
            autoreset_mode=AutoresetMode.SAME_STEP,
        ),
        env_id="e",
        episode_trigger=lambda _: True,
    )
    envs.reset(seed=0)
    for _ in range(8):
        envs.step(np.zeros(2, np.int64))
    envs.close()
    run.close()
    for video in delivered(data_dir).values():
        assert video.shades[0] == pytest.approx(shade(4, 0), abs=2)
        assert video.shades[-1] == pytest.approx(shade(4, 4), abs=2)
        assert len(video.shades) == 5


def test_the_last_video_is_there_without_a_close(data_dir: Path) -> None:
    """Videos that exist only after the next reset or a close."""
    program = """
        import os, signal
        import metrana
        from metrana.integrations.gymnasium import MetranaEnvWrapper
        from tests.conformance.gymnasium.environments import Drawn
        from tests.local_server import wait_until
        run = metrana.init(run_name="killed", backpressure_strategy="block")
        env = MetranaEnvWrapper(
            Drawn(render_mode="rgb_array", fixed_length=5), episode_trigger=lambda _: True
        )
        env.reset(seed=0)
        for _ in range(5):
            env.step(0)
        folder = run._rendering_folder()
        wait_until(lambda: run.get_metrics().rendering_frames_encoded == 6)
        wait_until(lambda: not run._renderings._recorder._open)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == -9, done.stderr
    with Client(data_dir=data_dir) as client:
        wait_until(lambda: len(client.renderings("killed")) == 1)
        assert client.renderings("killed")["frame_count"].tolist() == [6]


def test_memory_does_not_grow_with_a_video(run: metrana.Run) -> None:
    """All frames of an episode in memory until it ends."""
    env = MetranaEnvWrapper(
        Drawn(render_mode="rgb_array", fixed_length=10_000), episode_trigger=lambda _: True
    )
    env.reset(seed=0)
    for _ in range(300):
        env.step(0)
    assert run._renderings._recorder is not None
    assert not env._rendered
    wait_until(lambda: run.get_metrics().rendering_frames_encoded == 301)
    env.close()


def test_workers_need_no_run_and_make_none(data_dir: Path, run: metrana.Run) -> None:
    """Logging in worker processes fails, or makes a run in each."""
    envs = MetranaVectorEnvWrapper(
        AsyncVectorEnv(makers(2, MetranaEnvWrapper)), env_id="e", run=run
    )
    envs.reset(seed=0)
    for _ in range(30):
        envs.step(np.zeros(2, np.int64))
    envs.close()
    run.close()
    found = logged(data_dir)  # there is one writer
    assert {env_id for env_id, _ in records(found)} == {"e-0", "e-1"}


def test_a_worker_that_has_a_run_of_its_own_logs_to_it(data_dir: Path) -> None:
    """Workers that are told to log do not."""
    program = """
        import multiprocessing
        import metrana
        from metrana.integrations.gymnasium import MetranaEnvWrapper
        from tests.conformance.gymnasium.environments import Drawn

        def work():
            with metrana.init(run_name="own"):
                env = MetranaEnvWrapper(Drawn(fixed_length=3), env_id="e")
                env.reset(seed=0)
                for _ in range(3):
                    env.step(0)

        with metrana.init(run_name="parent"):
            process = multiprocessing.get_context("fork").Process(target=work, daemon=True)
            process.start()
            process.join()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, timeout=60)
    (own,) = [found for found in read_all(data_dir) if found.points]
    assert set(records(own)) == {("e", 0)}


def test_an_end_that_is_both_is_told_as_both(data_dir: Path, run: metrana.Run) -> None:
    """Terminated and truncated at once counts twice, or as one of them."""
    envs = MetranaVectorEnvWrapper(SyncVectorEnv(makers(3)), env_id="e")
    envs.reset(seed=1)
    for _ in range(60):
        envs.step(np.zeros(3, np.int64))
    run.close()
    rows = records(logged(data_dir))
    both = sum(row["terminated"] and row["truncated"] for row in rows.values())
    assert both > 3
    with Client(data_dir=data_dir) as client:
        assert (client.episodes("training")["end"] == "both").sum() == both
