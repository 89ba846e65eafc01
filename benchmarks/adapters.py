"""What the wrappers of environments cost a step: `python -m benchmarks.adapters [--seconds 30]`.

Beside the bare environment and Gymnasium's own RecordEpisodeStatistics, which keeps sums in memory
and writes nothing; metrana logs each reward and each episode so that they survive a kill. The
environments do nothing, so that it is the wrappers that are measured. All are stepped in turns of
some milliseconds, in one process, and between them what was logged is written out, as it is while
real environments work: the figures are medians of the turns, and costs are differences within a
turn, with the 95 % interval of their median. Ratios matter, absolutes drift.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers import RecordEpisodeStatistics
from gymnasium.wrappers.vector import RecordEpisodeStatistics as VectorRecordEpisodeStatistics

import metrana
from metrana.integrations.gymnasium import MetranaEnvWrapper

_EPISODE_STEPS = 200
_WORK_COUNT = 6
_KINDS = ("bare", "statistics", "metrana")


class Idle(gym.Env[Any, Any]):
    """Does nothing, in episodes of 200 steps.

    Args:
        info: Given at each step.
    """

    observation_space = gym.spaces.Box(-1.0, 1.0, (4,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self, info: dict[str, Any] | None = None) -> None:
        self._observation = np.zeros(4, np.float32)
        self._info = info or {}
        self._step_count = 0

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:  # noqa: ARG002 - the method of an environment
        """Begin an episode."""
        self._step_count = 0
        return self._observation, {}

    def step(self, action: Any) -> Any:  # noqa: ARG002 - the method of an environment
        """Count."""
        self._step_count += 1
        return self._observation, 0.5, self._step_count >= _EPISODE_STEPS, False, {**self._info}


class IdleVector(VectorEnv[Any, Any, Any]):
    """The same side by side, their episodes staggered.

    Args:
        num_envs: How many.
        mode: How they reset themselves.
        info: Given at each step.
    """

    single_observation_space = gym.spaces.Box(-1.0, 1.0, (4,))
    single_action_space = gym.spaces.Discrete(2)

    def __init__(
        self, num_envs: int, mode: AutoresetMode, info: dict[str, Any] | None = None
    ) -> None:
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": mode}
        self._info = {} if info is None else {k: np.full(num_envs, v) for k, v in info.items()}
        self._observations = np.zeros((num_envs, 4), np.float32)
        self._rewards = np.full(num_envs, 0.5)
        self._falses = np.zeros(num_envs, bool)
        # One that resets itself in a step of its own needs that step too.
        length = _EPISODE_STEPS + (mode is AutoresetMode.NEXT_STEP)
        ends = (np.arange(length)[:, None] - np.arange(num_envs)) % length == length - 1
        self._ends = list(ends)
        self._step_count = 0

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:  # noqa: ARG002 - the method of an environment
        """Begin all episodes."""
        return self._observations, {}

    def step(self, actions: Any) -> Any:  # noqa: ARG002 - the method of an environment
        """Count."""
        self._step_count += 1
        ended = self._ends[self._step_count % len(self._ends)]
        return self._observations, self._rewards.copy(), ended.copy(), self._falses, {**self._info}


def step_alone(env: Any) -> Callable[[int], None]:
    """What steps one environment so many times, and resets it behind each episode."""
    step, reset = env.step, env.reset
    reset()

    def turn(step_count: int) -> None:
        for _ in range(step_count):
            _, _, terminated, truncated, _ = step(0)
            if terminated or truncated:
                reset()

    return turn


def step_vector(envs: Any) -> Callable[[int], None]:
    """What steps a vector environment so many times."""
    step, actions = envs.step, np.zeros(envs.num_envs, np.int64)
    envs.reset()

    def turn(step_count: int) -> None:
        for _ in range(step_count):
            step(actions)

    return turn


class Work(NamedTuple):
    """What is measured."""

    name: str
    turns: list[Callable[[int], None]]
    """One of each kind."""
    step_count: int
    """Of a turn: what it logs has room in the queue."""
    goal_us: float | None
    """What a step of ours may cost."""


def works() -> Iterator[Work]:
    """What is measured, one after the other."""
    for name, info, goal in (("one environment", {}, 1.5), ("one, 3 info metrics", _INFO, None)):
        kinds = [Idle(info), RecordEpisodeStatistics(Idle(info)), _ours(Idle(info), info)]
        yield Work(name, [step_alone(env) for env in kinds], 1000, goal)
    for num_envs, mode, info, goal in (
        (64, AutoresetMode.SAME_STEP, {}, 8.0),
        (64, AutoresetMode.NEXT_STEP, {}, 8.0),
        (64, AutoresetMode.SAME_STEP, _INFO, None),
        (4096, AutoresetMode.SAME_STEP, {}, None),
    ):
        bare = [IdleVector(num_envs, mode, info) for _ in range(3)]
        kinds = [bare[0], VectorRecordEpisodeStatistics(bare[1]), _ours(bare[2], info)]
        more = f", {len(info)} info metrics" if info else ""
        yield Work(
            f"{num_envs:,} in {mode.name}{more}",
            [step_vector(envs) for envs in kinds],
            max(10, 12_800 // (num_envs * (1 + len(info)))),
            goal,
        )


_INFO = {"x": 1.0, "y": 2.0, "speed": 3.0}


def _ours(env: Any, info: dict[str, Any]) -> Any:
    return MetranaEnvWrapper(env, info_metrics=list(info))


def measure(work: Work, seconds: float, rest: Callable[[], None]) -> np.ndarray:
    """Microseconds a step. Shape: (turn_count, kind_count).

    Args:
        work: What is measured.
        seconds: How long to go on.
        rest: Called between turns.
    """
    rng = np.random.default_rng(0)
    rows: list[list[float]] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(rows) < 20:
        row = [0.0] * len(work.turns)
        for kind in rng.permutation(len(work.turns)):
            start = time.perf_counter()
            work.turns[kind](work.step_count)
            row[kind] = (time.perf_counter() - start) / work.step_count * 1e6
            rest()
        rows.append(row)
    return np.array(rows[len(rows) // 10 :])


def median_interval(samples: np.ndarray) -> tuple[float, float, float]:
    """The median, and the ends of its 95 % interval by order statistics."""
    ordered = np.sort(samples)
    half = 0.98 * np.sqrt(len(ordered))
    low = max(0, int(len(ordered) / 2 - half))
    high = min(len(ordered) - 1, int(np.ceil(len(ordered) / 2 + half)))
    return float(np.median(ordered)), float(ordered[low]), float(ordered[high])


def main() -> None:
    """Measure all, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="in all")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = metrana.init(mode="offline", data_dir=folder, backpressure_strategy="block")
        print("| work | bare | RecordEpisodeStatistics costs | metrana costs | ratio | goal |")
        print("| --- | --- | --- | --- | --- | --- |")
        for work in works():
            taken = measure(work, arguments.seconds / _WORK_COUNT, run.flush)
            costs = [median_interval(taken[:, kind] - taken[:, 0]) for kind in range(len(_KINDS))]
            shown = [f"{mid:.2f} ({low:.2f} to {high:.2f}) µs" for mid, low, high in costs[1:]]
            ratio = costs[2][0] / costs[1][0]
            limit = "" if work.goal_us is None else f"≤ {work.goal_us:g} µs"
            print(
                f"| {work.name} | {np.median(taken[:, 0]):.2f} µs | {shown[0]} | {shown[1]} | "
                f"{ratio:.2f} | {limit} |",
                flush=True,
            )
        counts = run.get_metrics()
        run.close()
    if counts.rl_float_points_dropped:
        raise SystemExit(f"{counts.rl_float_points_dropped:,} points were dropped")
    print(f"{counts.rl_float_points_added:,} points logged, none dropped")
    print("load average {:.2f} {:.2f} {:.2f}".format(*os.getloadavg()))


if __name__ == "__main__":
    main()
