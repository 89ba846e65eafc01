"""Which run wrappers log to, who closes it, and that nothing of it stops a training."""

from __future__ import annotations

import copy
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

import metrana
from metrana.integrations.gymnasium import MetranaEnvWrapper, MetranaVectorEnvWrapper
from tests.conformance.gymnasium.environments import Drawn, makers
from tests.conformance.gymnasium.logs import logged, records, steps, values
from tests.conformance.gymnasium.test_env import play, take_steps
from tests.reading import read_all


def test_a_run_is_made_at_the_first_step_and_closed_with_the_environment(data_dir: Path) -> None:
    env = MetranaEnvWrapper(
        Drawn(), init_args={"run_name": "made", "project_name": "p", "data_dir": data_dir}
    )
    play(env, 2)
    assert metrana.is_initialized()
    env.close()
    assert not metrana.is_initialized()
    found = logged(data_dir)
    assert found.end == "finished"
    assert len(records(found)) == 2


def test_a_run_that_cannot_be_made_raises_at_the_first_step_only() -> None:
    env = MetranaEnvWrapper(Drawn(), init_args={"project_name": "\n"})
    env.reset(seed=0)
    with pytest.raises(metrana.MetranaValidationError, match="project_name"):
        env.step(0)
    assert env.unwrapped.step_number == 0


def test_a_run_that_was_given_stays_open(data_dir: Path, run: metrana.Run) -> None:
    other = metrana.init(run_name="other", data_dir=data_dir)
    env = MetranaEnvWrapper(Drawn(), run=run)
    play(env, 1)
    env.close()
    assert run.is_initialized()
    assert run.get_metrics().rl_float_points_added > 0
    assert other.get_metrics().rl_float_points_added == 0


def test_training_goes_on_when_the_run_is_closed_and_then_in_the_next(
    data_dir: Path, run: metrana.Run
) -> None:
    env = MetranaEnvWrapper(Drawn(), env_id="e")
    envs = MetranaVectorEnvWrapper(SyncVectorEnv(makers(2, fixed_length=9)), env_id="v")
    play(env, 1)
    envs.reset()
    envs.step(np.zeros(2, np.int64))
    run.close()
    with pytest.warns(metrana.MetranaWarning, match="goes on without it"):
        play(env, 1)
    with pytest.warns(metrana.MetranaWarning, match="goes on without it"):
        envs.step(np.zeros(2, np.int64))
    assert min(env.faults.count, envs.faults.count) > 0
    with metrana.init(run_name="next", data_dir=data_dir):
        play(env, 1)
        envs.reset()
        envs.step(np.zeros(2, np.int64))
    before, after = read_all(data_dir)
    assert set(records(before)) == set(records(after)) == {("e", 0)}
    assert {("v-0", 0), ("v-1", 0)} <= set(steps(after))


def test_a_run_that_was_made_and_closed_is_left_for_the_current_one(data_dir: Path) -> None:
    env = MetranaEnvWrapper(Drawn(), env_id="e")
    play(env, 1)
    metrana.close()
    with metrana.init(run_name="next", data_dir=data_dir) as current:
        play(env, 1)
        env.close()
        assert current.is_initialized()  # it was not made there
    made, following = read_all(data_dir)
    assert set(records(made)) == set(records(following)) == {("e", 0)}


def test_training_goes_on_with_a_wrapper_that_was_closed_as_its_run_was(run: metrana.Run) -> None:
    env = MetranaEnvWrapper(Drawn(), run=run)
    take_steps(env, 1)
    env.close()
    another = copy.deepcopy(env)
    run.close()
    with pytest.warns(metrana.MetranaWarning, match="is closed"):
        take_steps(env, 3)
    assert env.faults.count == 1
    another.reset()
    with pytest.raises(metrana.MetranaLoggerClosedError):  # its first step of all
        another.step(0)


def test_a_forked_worker_leaves_the_run_to_the_process_that_made_it(data_dir: Path) -> None:
    program = """
        import multiprocessing
        from metrana.integrations.gymnasium import MetranaEnvWrapper
        from tests.conformance.gymnasium.environments import Drawn

        env = MetranaEnvWrapper(Drawn(fixed_length=2), env_id="e", init_args={"run_name": "made"})
        env.reset(seed=0)
        env.step(0)
        process = multiprocessing.get_context("fork").Process(target=env.close, daemon=True)
        process.start()
        process.join()
        env.step(0)
        env.close()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "Warning" not in done.stderr
    assert set(records(logged(data_dir))) == {("e", 0)}


def test_a_copy_leaves_the_run_to_what_it_is_a_copy_of(data_dir: Path) -> None:
    env = MetranaEnvWrapper(Drawn(), init_args={"run_name": "made"})
    play(env, 1)
    plan = copy.deepcopy(env)
    play(plan, 1)
    plan.close()
    assert metrana.is_initialized()
    play(env, 2)
    env.close()
    assert not metrana.is_initialized()
    assert env.faults.count == plan.faults.count == 0
    found = logged(data_dir)
    assert set(records(found)) == {("env-0", 0), ("env-0", 1), ("env-0", 2), ("env-1", 0)}


def test_an_evaluation_goes_on_in_the_run_that_the_training_made_and_closed(data_dir: Path) -> None:
    training = MetranaEnvWrapper(Drawn())
    evaluation = MetranaEnvWrapper(Drawn(), evaluation=True)
    play(training, 2)
    play(evaluation, 1)
    training.close()
    play(evaluation, 3)
    evaluation.close()
    assert not metrana.is_initialized()
    assert evaluation.faults.count == 0
    found = read_all(data_dir)
    assert len({each.info["run_id"] for each in found}) == 1
    keys = [key for each in found for key in records(each)]
    assert len(keys) == len(set(keys))
    assert set(keys) == {("env-0", 0), ("env-0", 1)} | {("env-eval-0", k) for k in range(4)}


def take_all_steps(env: Any) -> int:
    """Play 30 episodes of 3 steps until there are faults; returns how many episodes it took.

    How often a queue is full depends on who is faster.
    """
    count = 0
    while env.faults.count <= 10:
        for _ in range(30):
            take_steps(env, 3)
        count += 30
    return count


def test_nothing_raises_into_training(data_dir: Path) -> None:
    full = {"queue_capacity": 2, "backpressure_strategy": "raise", "enqueue_timeout_secs": 0.0}
    run = metrana.init(data_dir=data_dir, batch_max_age_secs=600.0, **full)
    env = MetranaEnvWrapper(Drawn(fixed_length=3), env_id="e", info_metrics=["height"])
    envs = MetranaVectorEnvWrapper(SyncVectorEnv(makers(2)), env_id="v", info_metrics=["height"])
    for each in (env, envs):
        with pytest.warns(metrana.MetranaWarning, match="goes on without it") as said:
            count = take_all_steps(each)
        assert len(said) == 1
        if each is env:
            assert env._log is not None
            assert env._log.episode == count  # counted all the same
    run.close()


@pytest.mark.usefixtures("run")
def test_an_error_of_the_environment_is_its_own() -> None:
    class Broken(Drawn):
        def step(self, action: Any) -> Any:  # noqa: ARG002 - the method of an environment
            raise KeyError("broken")

    for env in (MetranaEnvWrapper(Broken()), MetranaVectorEnvWrapper(SyncVectorEnv([Broken]))):
        env.reset()
        with pytest.raises(KeyError, match="broken"):
            env.step(np.zeros(1, np.int64))
        assert env.faults.count == 0


def test_a_disabled_run_takes_it_all(data_dir: Path) -> None:
    env = MetranaEnvWrapper(Drawn(), init_args={"mode": "disabled"}, info_metrics=["height"])
    play(env, 3)
    env.close()
    assert env.faults.count == 0
    assert not data_dir.exists()


def test_everything_survives_a_kill(data_dir: Path) -> None:
    program = """
        import os, signal
        from metrana.integrations.gymnasium import MetranaEnvWrapper
        from tests.conformance.gymnasium.environments import Drawn
        env = MetranaEnvWrapper(Drawn(fixed_length=50), env_id="e")
        env.reset(seed=0)
        for _ in range(120):
            _, _, terminated, truncated, _ = env.step(0)
            if terminated or truncated:
                env.reset()
        os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False, timeout=60)
    found = logged(data_dir)
    lengths = {number: len(series) for (_, number), series in values(found).items()}
    assert lengths == {0: 50, 1: 50, 2: 20}
    assert set(records(found)) == {("e", 0), ("e", 1)}
