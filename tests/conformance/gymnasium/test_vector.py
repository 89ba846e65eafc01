"""Vector environments: every step and episode counts once, in every autoreset mode."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper
from gymnasium.wrappers.vector import DictInfoToList

import metrana
from metrana.integrations.gymnasium import MetranaEnvWrapper, MetranaVectorEnvWrapper
from tests.conformance.gymnasium.environments import Drawn, Episode, makers, replay
from tests.conformance.gymnasium.logs import logged, records, steps, values

MODES = list(AutoresetMode)
KINDS = [SyncVectorEnv, AsyncVectorEnv]
NUM_ENVS = 5
STEP_COUNT = 120


def play(envs: Any, step_count: int = STEP_COUNT, seed: int = 7) -> None:
    """Step environments, and reset those that are over if they do not reset themselves."""
    envs.reset(seed=seed)
    for _ in range(step_count):
        _, _, terminated, truncated, _ = envs.step(envs.action_space.sample())
        is_over = terminated | truncated
        if envs.metadata["autoreset_mode"] is AutoresetMode.DISABLED and is_over.any():
            options = {"reset_mask": is_over}
            envs.reset(options=options)


def expected(seed: int = 7) -> dict[tuple[str, int], Episode]:
    """What each environment plays alone."""
    return {
        (f"drawn-{index}", number): episode
        for index in range(NUM_ENVS)
        for number, episode in enumerate(replay(seed + index, STEP_COUNT))
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
def test_episodes_of_staggered_random_lengths_are_those_of_environments_alone(
    kind: type[VectorEnv], mode: AutoresetMode, data_dir: Path, run: metrana.Run
) -> None:
    envs = MetranaVectorEnvWrapper(
        kind(makers(NUM_ENVS), autoreset_mode=mode), env_id="drawn", info_metrics=["height"]
    )
    play(envs)
    envs.close()
    run.close()
    found = logged(data_dir)
    alone = expected()
    rows = records(found)
    assert len(rows) > 80
    for key, row in rows.items():
        assert row.pop("episode_duration") >= 0
        assert row == alone[key].record, key
    rewards = values(found)
    for key, series in rewards.items():
        whole = alone[key].rewards
        assert series == (whole if key in rows else whole[: len(series)]), key
    # None is left out: the numbers of each environment's episodes have no gap.
    assert {env_id for env_id, _ in rows} == {f"drawn-{index}" for index in range(NUM_ENVS)}
    for env_id in {env_id for env_id, _ in rows}:
        numbers = sorted(number for each, number in rows if each == env_id)
        assert numbers == list(range(len(numbers)))
    for key, series in values(found, "height").items():
        np.testing.assert_equal(series, alone[key].heights[: len(series)])
    assert envs.faults.count == 0


@pytest.mark.parametrize("mode", MODES)
def test_the_clock_counts_transitions_of_all_environments(
    mode: AutoresetMode, data_dir: Path, run: metrana.Run
) -> None:
    envs = MetranaVectorEnvWrapper(SyncVectorEnv(makers(3), autoreset_mode=mode))
    play(envs, 20)
    run.close()
    found = logged(data_dir)
    assert {point.rl_step for point in found.of("reward")} == {3 * n for n in range(1, 21)}
    for (env_id, number), points in steps(found).items():
        ends = [p for p in found.of("episode_return") if (p.env_id, p.episode) == (env_id, number)]
        assert [end.rl_step for end in ends] in ([], [points[-1].rl_step])


def test_default_ids_are_of_the_spec_of_the_environments(data_dir: Path, run: metrana.Run) -> None:
    envs = gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync")
    wrapped = MetranaEnvWrapper(envs)
    assert type(wrapped) is MetranaVectorEnvWrapper
    play(wrapped, 3)
    run.close()
    assert {key[0] for key in steps(logged(data_dir))} == {"CartPole-v1-0", "CartPole-v1-1"}


def test_a_vector_environment_without_sub_environments_is_logged(
    data_dir: Path, run: metrana.Run
) -> None:
    envs = gym.make_vec("CartPole-v1", num_envs=4, vectorization_mode="vector_entry_point")
    assert not hasattr(envs.unwrapped, "envs")
    wrapped = MetranaVectorEnvWrapper(envs, env_id="pole")
    play(wrapped, 200)
    wrapped.close()
    run.close()
    found = logged(data_dir)
    rewards = values(found)
    rows = records(found)
    assert len(rows) > 10
    for key, row in rows.items():
        assert row["episode_return"] == sum(rewards[key]) == row["episode_length"]


def test_what_the_environment_gives_is_passed_on_as_it_is(run: metrana.Run) -> None:
    bare = SyncVectorEnv(makers(3), autoreset_mode=AutoresetMode.SAME_STEP)
    envs = MetranaVectorEnvWrapper(
        SyncVectorEnv(makers(3), autoreset_mode=AutoresetMode.SAME_STEP), run=run
    )
    assert data_equivalence(envs.reset(seed=3), bare.reset(seed=3))
    for _ in range(30):
        actions = np.zeros(3, np.int64)
        for given, own in zip(envs.step(actions), bare.step(actions), strict=True):
            assert data_equivalence(given, own)
    assert envs.num_envs == 3
    assert envs.unwrapped is envs.env
    assert envs.metadata == bare.metadata


def test_a_mask_is_left_to_the_environment_and_means_only_those(
    data_dir: Path, run: metrana.Run
) -> None:
    envs = MetranaVectorEnvWrapper(
        SyncVectorEnv(makers(3, fixed_length=4), autoreset_mode=AutoresetMode.DISABLED),
        env_id="e",
    )
    envs.reset(seed=0)
    for _ in range(2):
        envs.step(np.zeros(3, np.int64))
    envs.reset(options={"reset_mask": np.array([False, True, False])})
    for _ in range(2):
        envs.step(np.zeros(3, np.int64))
    run.close()
    found = logged(data_dir)
    lengths = {key: row["episode_length"] for key, row in records(found).items()}
    assert lengths == {("e-0", 0): 4, ("e-2", 0): 4}
    assert {key: len(series) for key, series in values(found).items()} == {
        ("e-0", 0): 4,
        ("e-1", 0): 2,
        ("e-1", 1): 2,
        ("e-2", 0): 4,
    }


@pytest.mark.parametrize("mode", MODES)
def test_a_reset_of_all_gives_episodes_up(
    mode: AutoresetMode, data_dir: Path, run: metrana.Run
) -> None:
    envs = MetranaVectorEnvWrapper(
        SyncVectorEnv(makers(2, fixed_length=3), autoreset_mode=mode), env_id="e"
    )
    for _ in range(3):
        envs.reset(seed=0)
    for step_count in (2, 3):
        for _ in range(step_count):
            envs.step(np.zeros(2, np.int64))
        envs.reset()
    run.close()
    found = logged(data_dir)
    assert {key: len(series) for key, series in values(found).items()} == {
        ("e-0", 0): 2,
        ("e-1", 0): 2,
        ("e-0", 1): 3,
        ("e-1", 1): 3,
    }
    assert set(records(found)) == {("e-0", 1), ("e-1", 1)}


def test_only_the_steps_of_some_episodes_are_logged(data_dir: Path, run: metrana.Run) -> None:
    envs = MetranaVectorEnvWrapper(
        SyncVectorEnv(makers(NUM_ENVS)), env_id="drawn", log_env_steps=3, info_metrics=("height",)
    )
    play(envs)
    run.close()
    found = logged(data_dir)
    alone = expected()
    assert {number % 3 for _, number in steps(found)} == {0}
    rows = records(found)
    assert {number % 3 for _, number in rows} == {0, 1, 2}
    for key, row in rows.items():
        del row["episode_duration"]
        assert row == alone[key].record
        if key[1] % 3 == 0:
            assert values(found)[key] == alone[key].rewards


def test_no_steps_are_logged_if_none_are_wanted(data_dir: Path, run: metrana.Run) -> None:
    envs = MetranaVectorEnvWrapper(SyncVectorEnv(makers(3)), log_env_steps=False)
    play(envs, 30)
    run.close()
    found = logged(data_dir)
    assert steps(found) == {}
    assert len(records(found)) > 5


def test_a_list_of_ids_names_the_environments(data_dir: Path, run: metrana.Run) -> None:
    envs = MetranaVectorEnvWrapper(SyncVectorEnv(makers(2)), env_id=["left", "right"])
    play(envs, 3)
    run.close()
    assert {key[0] for key in steps(logged(data_dir))} == {"left", "right"}
    for env_id in (["one"], ["same", "same"], "with space", "x" * 127):
        with pytest.raises(metrana.MetranaValidationError, match="env_id: must be"):
            MetranaVectorEnvWrapper(SyncVectorEnv(makers(2)), env_id=env_id)


class Torn(Drawn):
    """Gives an info that is no number, and rewards of other types."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super().step(action)
        info["parts"] = np.zeros(3)
        info["success"] = "yes"
        return observation, np.float32(reward), terminated, truncated, info  # type: ignore[return-value]


def test_what_is_no_number_is_left_out_and_said_once(data_dir: Path, run: metrana.Run) -> None:
    envs = MetranaVectorEnvWrapper(
        SyncVectorEnv([Torn, Torn]), env_id="e", info_metrics=["parts", "word", "nothing"]
    )
    with pytest.warns(metrana.MetranaWarning, match="leaves out info") as said:
        play(envs, 20)
    assert len(said) == 2
    run.close()
    found = logged(data_dir)
    assert np.isnan([series for each in values(found, "parts").values() for series in each]).all()
    assert {"parts", "word", "nothing"}.isdisjoint(
        name for row in records(found).values() for name in row
    )
    assert envs.faults.count == 0


class TensorInfos(VectorWrapper):  # type: ignore[type-arg]
    """Gives what it gives in tensors that NumPy does not take, as those on a device."""

    def step(self, actions: Any) -> Any:
        *rest, terminated, truncated, infos = self.env.step(actions)
        given = {
            key: torch.tensor(np.asarray(value, np.float64), requires_grad=True)
            for key, value in infos.items()
            if key in ("height", "_height", "is_success", "_is_success")
        }
        ends = [torch.tensor(each) for each in (terminated, truncated)]
        return *rest, *ends, given


def test_infos_that_only_their_own_library_reads_are_taken(
    data_dir: Path, run: metrana.Run
) -> None:
    envs = SyncVectorEnv(makers(3), autoreset_mode=AutoresetMode.NEXT_STEP)
    wrapped = MetranaVectorEnvWrapper(TensorInfos(envs), env_id="e", info_metrics=["height"])
    play(wrapped, 40)
    run.close()
    assert wrapped.faults.count == 0
    rows = records(logged(data_dir))
    for index in range(3):
        for number, episode in enumerate(replay(7 + index, 4)):
            row = rows[f"e-{index}", number]
            del row["episode_duration"]
            wanted = {name: float(value) for name, value in episode.record.items()}
            assert row == pytest.approx(wanted)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize("kind", [lambda ends: ends[:, None], lambda ends: ends.astype(object)])
def test_ends_of_another_shape_and_of_objects_are_taken(
    data_dir: Path, run: metrana.Run, mode: AutoresetMode, kind: Any
) -> None:
    class Ends(VectorWrapper):  # type: ignore[type-arg]
        def step(self, actions: Any) -> Any:
            observations, rewards, terminated, truncated, infos = self.env.step(actions)
            return observations, rewards, kind(terminated), kind(truncated), infos

    envs = SyncVectorEnv(makers(2, fixed_length=3), autoreset_mode=mode)
    wrapped = MetranaVectorEnvWrapper(Ends(envs), env_id="e")
    play(wrapped, 20)
    run.close()
    assert wrapped.faults.count == 0
    rows = records(logged(data_dir))
    assert len(rows) >= 10
    assert {row["episode_length"] for row in rows.values()} == {3}


def test_infos_that_a_wrapper_inside_has_changed_cost_neither_steps_nor_records(
    data_dir: Path, run: metrana.Run
) -> None:
    envs = DictInfoToList(SyncVectorEnv(makers(2, fixed_length=3)))
    wrapped = MetranaVectorEnvWrapper(envs, env_id="e", info_metrics=["height"])
    with pytest.warns(metrana.MetranaWarning, match="DictInfoToList"):
        play(wrapped, 20)
    run.close()
    assert wrapped.faults.count == 0
    rows = records(logged(data_dir))
    assert len(rows) == 10
    assert {row["episode_length"] for row in rows.values()} == {3}


def objects(rewards: Any) -> Any:
    """With one that is no number."""
    found = rewards.astype(object)
    found[1] = "much"
    return found


@pytest.mark.parametrize(
    ("kind", "is_left_out"),
    [
        (lambda rewards: rewards[:, None].astype(np.float16), [False, False]),
        (lambda rewards: torch.tensor(rewards, requires_grad=True), [False, False]),
        (objects, [False, True]),
        (lambda rewards: rewards.astype(complex), [True, True]),
        (lambda rewards: rewards[:1], [True, True]),
        (lambda rewards: [rewards[0], [1.0, 2.0]], [False, True]),
    ],
)
def test_an_episode_has_its_length_whatever_its_rewards_are(
    kind: Callable[[Any], Any], is_left_out: list[bool], data_dir: Path, run: metrana.Run
) -> None:
    class Kinds(SyncVectorEnv):
        def step(self, actions: Any) -> Any:
            observations, rewards, *rest = super().step(actions)
            return observations, kind(rewards), *rest

    envs = MetranaVectorEnvWrapper(Kinds(makers(2, fixed_length=3)), env_id="e")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        play(envs, 8)
    run.close()
    assert len(said) == any(is_left_out)
    rows = records(logged(data_dir))
    assert set(rows) == {("e-0", 0), ("e-1", 0), ("e-0", 1), ("e-1", 1)}
    for (env_id, _), row in rows.items():
        assert row["episode_length"] == 3
        assert np.isnan(row["episode_return"]) == is_left_out[env_id == "e-1"]
    assert envs.faults.count == 0


class Lists(VectorEnv[Any, Any, Any]):
    """Gives lists instead of arrays, and tells no autoreset mode."""

    num_envs = 2
    observation_space = action_space = gym.spaces.MultiDiscrete([2, 2])
    single_observation_space = single_action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed, options=options)
        self.calls = 0
        return [0, 0], {}

    def step(self, actions: Any) -> Any:  # noqa: ARG002 - the method of a vector environment
        self.calls += 1
        is_over = self.calls % 3 == 0
        return [0, 0], [1, 2], [is_over, False], [False, False], {}


def test_lists_are_taken_and_the_next_step_resets_where_nothing_is_said(
    data_dir: Path, run: metrana.Run
) -> None:
    envs = MetranaVectorEnvWrapper(Lists(), env_id="e")
    envs.reset()
    for _ in range(9):
        envs.step([0, 0])
    run.close()
    found = logged(data_dir)
    lengths = [len(values(found)["e-0", number]) for number in range(3)]
    assert lengths == [3, 2, 2]
    assert values(found)["e-1", 0] == [2.0] * 9
    assert envs.faults.count == 0


@pytest.mark.parametrize("mode", MODES)
def test_wrappers_inside_log_where_nothing_is_around_them(
    mode: AutoresetMode, data_dir: Path
) -> None:
    envs = SyncVectorEnv(makers(3, MetranaEnvWrapper), autoreset_mode=mode)
    play(envs, 40)
    assert metrana.is_initialized()
    envs.close()
    assert not metrana.is_initialized()
    rows = records(logged(data_dir))
    assert {env_id for env_id, _ in rows} == {"env-0", "env-1", "env-2"}
    for (env_id, number), row in rows.items():
        alone = replay(7 + int(env_id[-1]), number + 1)[number]
        assert row["episode_return"] == alone.record["episode_return"]


def test_the_outermost_of_wrappers_logs_and_what_others_made_is_closed(data_dir: Path) -> None:
    inner = MetranaVectorEnvWrapper(SyncVectorEnv(makers(2, MetranaEnvWrapper)), env_id="inner")
    play(inner, 5)
    outer = MetranaVectorEnvWrapper(inner, env_id="outer")
    play(outer, 20)
    assert metrana.is_initialized()
    outer.close()
    outer.close()
    assert not metrana.is_initialized()
    found = logged(data_dir)
    count = dict.fromkeys(("inner-0", "inner-1", "outer-0", "outer-1"), 0)
    for (env_id, _), points in steps(found).items():
        count[env_id] += len(points)
    assert count["inner-0"] <= 5
    assert count["outer-0"] > 10
    assert {point.env_id for point in found.points} == set(count)
