"""Environments whose episodes are known beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import gymnasium as gym
import numpy as np
import numpy.typing as npt

SHADE: Final = 10
"""By so much the frames of two steps differ."""


class Scripted(gym.Env[npt.NDArray[np.float32], np.int64]):
    """Episodes of known lengths; the reward of a step is its number in the episode, from 1.

    Args:
        lengths: Of the episodes; from the last on the first again.
        truncates: Whether they are cut off, or end.
        success: Whether their last info says `is_success`: every other time.
        render_mode: `rgb_array`, or None.
    """

    metadata: Final = {"render_modes": ["rgb_array"], "render_fps": 7}
    observation_space = gym.spaces.Box(-1.0, 1000.0, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(
        self,
        lengths: Sequence[int] = (3, 5),
        *,
        truncates: bool = False,
        success: bool = False,
        render_mode: str | None = None,
    ) -> None:
        self.lengths = lengths
        self.truncates = truncates
        self.success = success
        self.render_mode = render_mode
        self.episode = -1
        self.steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed, options=options)
        # Left before its first step, an episode has not been.
        self.episode += self.steps > 0 or self.episode < 0
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(
        self, action: np.int64
    ) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        del action
        self.steps += 1
        ends = self.steps == self.lengths[self.episode % len(self.lengths)]
        info = {"is_success": self.episode % 2 == 0} if self.success and ends else {}
        observation = np.full(1, self.steps, np.float32)
        over = (ends and not self.truncates, ends and self.truncates)
        return observation, float(self.steps), *over, info

    def render(self) -> npt.NDArray[np.uint8]:
        return np.full((16, 16, 3), SHADE * self.steps, np.uint8)


class Skipping(gym.Wrapper[Any, Any, Any, Any]):
    """Steps a game twice at each step, as wrappers of Atari games do several times."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        first = self.env.step(action)
        if first[2] or first[3]:
            return first
        observation, reward, *rest = self.env.step(action)
        return observation, float(first[1]) + float(reward), *rest


class LifeLoss(gym.Wrapper[Any, Any, Any, Any]):
    """Says that an episode has ended whenever a life is lost, as wrappers of Atari games do.

    Args:
        env: The game; it is reset only when it is over.
        every: Steps that a life lasts.
    """

    def __init__(self, env: gym.Env[Any, Any], every: int) -> None:
        super().__init__(env)
        self.every = every
        self.is_over = True
        self.steps = 0
        self.observation: Any = None

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        if not self.is_over:
            return self.observation, {}
        self.is_over, self.steps = False, 0
        return self.env.reset(**kwargs)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.observation, reward, terminated, truncated, info = self.env.step(action)
        self.is_over = terminated or truncated
        self.steps += 1
        return (
            *(self.observation, reward),
            *(terminated or self.steps % self.every == 0, truncated, info),
        )
