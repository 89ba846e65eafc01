"""Environments whose episodes are known beforehand, and what they should log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import numpy.typing as npt

HEIGHT, WIDTH = 33, 47


def shade(length: int, step: int) -> int:
    """The shade of an episode's state: of its length, and of how far it is."""
    return (20 * length + 2 * step) % 256


class Drawn(gym.Env[Any, Any]):
    """Draws length, rewards and end of each episode from its random numbers; odd frames.

    Args:
        render_mode: As usual.
        longest: Steps of the longest episode.
        fixed_length: Steps of each episode, if they are not drawn.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 12}
    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float64)
    action_space = gym.spaces.Discrete(2)

    def __init__(
        self,
        render_mode: str | None = None,
        longest: int = 9,
        fixed_length: int | None = None,
    ) -> None:
        self.render_mode = render_mode
        self.longest = longest
        self.fixed_length = fixed_length
        self.length = self.step_number = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        drawn = int(self.np_random.integers(1, self.longest + 1))
        self.length = drawn if self.fixed_length is None else self.fixed_length
        self.step_number = 0
        # That of a reset: it must not be taken for that of a step.
        return self._observation(), {"height": -1.0}

    def step(
        self,
        action: Any,  # noqa: ARG002 - the method of an environment
    ) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.step_number += 1
        reward = float(self.np_random.normal())
        is_over = self.step_number >= self.length
        how = int(self.np_random.integers(3))  # terminated, truncated, both
        info: dict[str, Any] = {"word": "up"}
        if self.step_number % 2:
            info["height"] = 10 * reward
        if is_over:
            info["is_success"] = how != 1
        return self._observation(), reward, is_over and how != 1, is_over and how != 0, info

    def render(self) -> npt.NDArray[np.uint8]:
        level = shade(self.length, self.step_number)
        return np.full((HEIGHT, WIDTH, 3), level, np.uint8)

    def _observation(self) -> npt.NDArray[np.float64]:
        return np.array([self.step_number / 100, 0.0])


@dataclass
class Episode:
    """What an episode should log."""

    rewards: list[float] = field(default_factory=list)
    heights: list[float] = field(default_factory=list)
    terminated: bool = False
    truncated: bool = False
    success: bool | None = None

    @property
    def record(self) -> dict[str, float]:
        """Its EPISODE points, but for its duration."""
        total = 0.0
        for reward in self.rewards:  # in the order in which they came
            total += reward
        return {
            "episode_return": total,
            "episode_length": len(self.rewards),
            "terminated": self.terminated,
            "truncated": self.truncated,
            "success": bool(self.success),
            "height": [height for height in self.heights if not np.isnan(height)][-1],
        }


def replay(seed: int, count: int) -> list[Episode]:
    """The first episodes of an environment, played alone."""
    env = Drawn()
    env.reset(seed=seed)
    episodes = []
    for number in range(count):
        if number:
            env.reset()
        episode = Episode()
        while not (episode.terminated or episode.truncated):
            _, reward, episode.terminated, episode.truncated, info = env.step(0)
            episode.rewards.append(reward)
            episode.heights.append(info.get("height", np.nan))
            episode.success = info.get("is_success")
        episodes.append(episode)
    return episodes


def makers(count: int, wrap: Callable[[Any], Any] = lambda env: env, **options: Any) -> list[Any]:
    """What makes each environment of a vector environment."""
    return [lambda: wrap(Drawn(**options))] * count


gym.register("metrana-tests/Drawn-v0", entry_point=f"{__name__}:Drawn")
