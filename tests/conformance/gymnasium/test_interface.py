"""The wrappers among Gymnasium's: signatures, specs, copies, and its checker of environments."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import SyncVectorEnv
from stable_baselines3.common.vec_env import DummyVecEnv

import metrana
from metrana.integrations.gymnasium import MetranaEnvWrapper, MetranaVectorEnvWrapper
from tests.conformance.gymnasium.environments import Drawn, makers
from tests.conformance.gymnasium.logs import logged, records, steps


def drawn(**options: Any) -> gym.Env[Any, Any]:
    """The registered environment."""
    return gym.make("metrana-tests/Drawn-v0", disable_env_checker=True, **options)


ARGUMENTS = [
    *("env", "run", "env_id", "evaluation", "info_metrics", "log_env_steps", "episode_trigger"),
    *("step_trigger", "video_length", "video_envs", "fps", "rl_step_fn", "init_args"),
]


def test_both_wrappers_show_their_arguments() -> None:
    assert list(inspect.signature(MetranaEnvWrapper).parameters) == ARGUMENTS
    assert list(inspect.signature(MetranaVectorEnvWrapper).parameters) == ARGUMENTS
    for wrapper in (MetranaEnvWrapper, MetranaVectorEnvWrapper):
        parameters = inspect.signature(wrapper.reset).parameters
        assert list(parameters) == ["self", "seed", "options"]
        assert parameters["seed"].kind is inspect.Parameter.KEYWORD_ONLY


def test_a_vector_environment_gets_its_own_wrapper() -> None:
    envs = MetranaEnvWrapper(SyncVectorEnv(makers(2)), env_id="prefix", video_envs=[1])
    assert type(envs) is MetranaVectorEnvWrapper
    assert type(MetranaEnvWrapper(drawn())) is MetranaEnvWrapper


def test_a_vector_environment_of_another_library_is_refused() -> None:
    vec_env = DummyVecEnv([Drawn])
    for wrapper, kind in ((MetranaEnvWrapper, "Env"), (MetranaVectorEnvWrapper, "VectorEnv")):
        with pytest.raises(TypeError, match=r"sb3\.MetranaCallback"):
            wrapper(vec_env)
        with pytest.raises(TypeError, match=f"env: must be of Gymnasium's class {kind}, not"):
            wrapper(object())
    with pytest.raises(TypeError, match="env: must be of Gymnasium's class VectorEnv, not"):
        MetranaVectorEnvWrapper(drawn())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"env_id": "a b"}, "env_id: must be"),
        ({"env_id": ["a"]}, "env_id: must be one id"),
        ({"info_metrics": "height"}, "info_metrics: must be a list"),
        ({"info_metrics": [1]}, "info_metrics: must be strings"),
        ({"info_metrics": ["reward"]}, "info_metrics: must be names given once"),
        ({"info_metrics": ["x", "x"]}, "info_metrics: must be names given once"),
        ({"log_env_steps": -1}, "log_env_steps: must be"),
        ({"log_env_steps": "all"}, "log_env_steps: must be"),
        ({"episode_trigger": 3}, "episode_trigger: must be"),
        ({"step_trigger": bool}, "step_trigger: videos need an environment"),
        ({"video_length": -1}, "video_length: must be"),
        ({"video_envs": 0}, "video_envs: must be"),
        ({"video_envs": [-1]}, "video_envs: must be"),
        ({"fps": 0}, "fps: must be"),
        ({"rl_step_fn": 3}, "rl_step_fn: must be"),
        ({"run": "name"}, "run: must be"),
        ({"init_args": {"modus": 1}}, "init_args: must be"),
    ],
)
def test_arguments_are_checked_at_once(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(metrana.MetranaValidationError, match=message):
        MetranaEnvWrapper(drawn(), **arguments)


def test_indices_of_videos_are_those_of_environments() -> None:
    with pytest.raises(metrana.MetranaValidationError, match="video_envs"):
        MetranaVectorEnvWrapper(SyncVectorEnv(makers(2)), video_envs=[2])


def test_a_trigger_needs_an_rgb_render_mode() -> None:
    for mode in (None, "human", "ansi"):
        env = Drawn(render_mode=mode)
        with pytest.raises(ValueError, match="rgb_array"):
            MetranaEnvWrapper(env, episode_trigger=bool)
        with pytest.raises(ValueError, match="rgb_array"):
            MetranaEnvWrapper(SyncVectorEnv([lambda env=env: env]), episode_trigger=bool)


# ── Specs and copies ─────────────────────────────────────────────────────────────────────────────


def test_a_spec_makes_the_wrapper_again(run: metrana.Run) -> None:
    arguments: dict[str, Any] = {
        "env_id": "mine",
        "evaluation": True,
        "info_metrics": ["height"],
        "log_env_steps": 5,
        "video_length": 9,
        "video_envs": [0, 2],
        "fps": 12.5,
        "init_args": {"run_name": "a"},
    }
    secret = {**arguments, "init_args": {"run_name": "a", "api_key": "secret"}}
    env = MetranaEnvWrapper(drawn(), run=run, **{**secret, "init_args": None})
    assert env.spec is not None
    assert env.spec.additional_wrappers[-1].kwargs["run"] is None
    env = MetranaEnvWrapper(drawn(), **secret)
    assert env.spec is not None
    recorded = env.spec.additional_wrappers[-1]
    assert recorded.entry_point == "metrana.integrations.gymnasium:MetranaEnvWrapper"
    assert set(recorded.kwargs or {}) == set(ARGUMENTS) - {"env"}
    assert {**(recorded.kwargs or {}), **arguments} == recorded.kwargs
    again = EnvSpec.from_json(env.spec.to_json())
    assert again == env.spec
    made = gym.make(again)
    assert isinstance(made, MetranaEnvWrapper)
    assert made.spec == env.spec
    assert "secret" not in env.spec.to_json()
    outer = gym.wrappers.RecordEpisodeStatistics(env)
    assert outer.spec is not None
    assert len(outer.spec.additional_wrappers) == 2


class Agent:
    """Owns a trigger, and cannot be copied."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def wants_video(self, episode: int) -> bool:
        return episode % 2 == 0


def test_what_owns_a_function_is_not_copied_for_the_spec() -> None:
    agent = Agent()
    env = MetranaEnvWrapper(
        drawn(render_mode="rgb_array"), episode_trigger=agent.wants_video, rl_step_fn=lambda: 3
    )
    outer = gym.wrappers.RecordEpisodeStatistics(env)
    assert outer.spec is not None
    made = gym.make(outer.spec)
    assert made.spec == outer.spec


def test_a_copy_is_another_environment(data_dir: Path, run: metrana.Run) -> None:
    env = MetranaEnvWrapper(drawn(), info_metrics=["height"])
    envs = MetranaVectorEnvWrapper(SyncVectorEnv(makers(2)))
    for each in (env, envs):
        each.reset(seed=1)
        each.step(np.zeros(2, np.int64))
        each.step(np.zeros(2, np.int64))
    copies = [
        pickle.loads(pickle.dumps(env)),
        copy.deepcopy(env),
        copy.deepcopy(envs),
    ]
    for each in copies:
        each.reset(seed=1)
        each.step(np.zeros(2, np.int64))
    run.close()
    lengths = {key: len(points) for key, points in steps(logged(data_dir)).items()}
    assert lengths["metrana-tests-Drawn-v0-1", 0] == 1
    assert lengths["metrana-tests-Drawn-v0-2", 0] == 1
    assert lengths["env-2", 0] == 1


def test_a_pickle_goes_on_in_another_process(data_dir: Path, run: metrana.Run) -> None:
    env = MetranaEnvWrapper(Drawn(fixed_length=3), env_id="there", run=run)
    program = (
        "import pickle, sys\n"
        "env = pickle.load(sys.stdin.buffer)\n"
        "env.reset(seed=0)\n"
        "for _ in range(3): env.step(0)\n"
        "env.close()\n"
    )
    subprocess.run([sys.executable, "-c", program], input=pickle.dumps(env), check=True, timeout=60)
    run.close()
    from tests.reading import read_all

    (there,) = [found for found in read_all(data_dir) if found.points]
    assert set(records(there)) == {("there", 0)}


@pytest.mark.usefixtures("run")
def test_the_wrappers_keep_no_environment_alive() -> None:
    import gc
    import weakref

    env = MetranaEnvWrapper(drawn())
    env.reset()
    env.step(0)
    gone = weakref.ref(env.unwrapped)
    del env
    gc.collect()
    assert gone() is None


# ── Gymnasium's checker ──────────────────────────────────────────────────────────────────────────


def warnings_of_checker(env: gym.Env[Any, Any]) -> set[str]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        check_env(env)
    return {str(each.message) for each in said}


def test_the_checker_has_nothing_more_to_say(data_dir: Path, run: metrana.Run) -> None:
    for name, options in (("CartPole-v1", {}), ("metrana-tests/Drawn-v0", {"fixed_length": 9})):
        bare, inner = (gym.make(name, render_mode="rgb_array", **options) for _ in range(2))
        allowed = warnings_of_checker(bare.unwrapped)
        wrapped = MetranaEnvWrapper(inner.unwrapped, info_metrics=["height"])
        more = warnings_of_checker(wrapped) - allowed
        assert all("is different from the unwrapped version" in each for each in more)
        assert wrapped.faults.count == 0
    run.close()
    assert records(logged(data_dir)).keys() <= steps(logged(data_dir)).keys()


@pytest.mark.usefixtures("run")
def test_infos_are_not_touched() -> None:
    env, bare = MetranaEnvWrapper(Drawn(), info_metrics=["height"]), Drawn()
    np.testing.assert_equal(env.reset(seed=2), bare.reset(seed=2))
    for _ in range(5):
        np.testing.assert_equal(env.step(0), bare.step(0))
    assert env.np_random_seed == bare.np_random_seed
    assert env.np_random.bit_generator.state == bare.np_random.bit_generator.state


def test_importing_the_package_imports_no_framework() -> None:
    program = (
        "import sys, metrana, metrana.integrations._episodes, metrana.integrations._videos\n"
        "print([name for name in ('gymnasium', 'av', 'torch') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True, timeout=60
    )
    assert done.stdout == "[]\n"


def test_without_gymnasium_the_extra_is_named() -> None:
    program = (
        "import sys\n"
        "sys.modules['gymnasium'] = None\n"
        "try:\n    import metrana.integrations.gymnasium\n"
        "except ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True, timeout=60
    )
    assert "pip install 'metrana[gymnasium]'" in done.stdout


def test_a_spec_is_json_without_surprises() -> None:
    spec = MetranaEnvWrapper(drawn()).spec
    assert spec is not None
    (recorded,) = [w for w in json.loads(spec.to_json())["additional_wrappers"] if w]
    assert recorded["kwargs"]["info_metrics"] == []
