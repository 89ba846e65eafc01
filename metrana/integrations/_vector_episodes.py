"""The episodes of M environments, whose numbers are arrays; `_episodes` tells how to use it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from metrana.integrations._common import Faults
from metrana.integrations._episode_settings import EpisodeSettings
from metrana.integrations._episodes import EpisodeLog
from metrana.integrations._infos import Bools, Column, Floats, Integers, is_plain, rewards_of
from metrana.run import Run

_RECORD: Final = ("episode_return", "episode_length", "episode_duration", "terminated", "truncated")


class VectorEpisodes(EpisodeLog):
    """The episodes of M environments.

    Attributes:
        episodes: The number of each one's present episode. Shape: `(num_envs,)`.
        episode_returns: Rewards of these episodes so far. Shape: `(num_envs,)`.
    """

    def __init__(self, run: Run, settings: EpisodeSettings, faults: Faults, num_envs: int) -> None:
        super().__init__(run, settings, faults, num_envs)
        self.episodes: Integers = np.zeros(num_envs, np.int64)
        self.episode_returns: Floats = np.zeros(num_envs)
        self._step_count = 0
        # Step counts at which the present episodes began: lengths cost nothing at a step.
        self._starts: Integers = np.zeros(num_envs, np.int64)
        self._began: Floats = np.full(num_envs, time.perf_counter())
        self._last = [Column(np.zeros(num_envs), np.zeros(num_envs, bool)) for _ in settings.names]

    def step(
        self,
        rewards: Any,
        *,
        columns: Sequence[Column] = (),
        resets: Bools | None = None,
        rl_step: int | None = None,
    ) -> None:
        """Count a step of all environments and log it.

        Args:
            rewards: One each; NaN is logged for what is no number. Shape: `(num_envs,)`.
            columns: One for each info metric.
            resets: Where the step was a reset, no step of an episode: its reward is left out.
                Shape: `(num_envs,)`. Default: nowhere.
            rl_step: After the step. Default: by the log's own clock.

        Raises:
            MetranaError: As `Run.log_rl_environment_step`.
        """
        self._step_count += 1
        if self._has_own_clock:
            # `_tick` without its call.
            rl_step = self.rl_step + self.num_envs if rl_step is None else rl_step
            self.rl_step = self._clock.rl_step = rl_step
        else:
            rl_step = self._tick(rl_step)
        if type(rewards) is not np.ndarray or not is_plain(rewards, self.num_envs):
            rewards = rewards_of(rewards, self.num_envs, self._faults)
        self.episode_returns += rewards
        if resets is not None:
            self._restart(resets.nonzero()[0])
        if columns:
            self._keep_last(columns, resets)
        if resets is not None or self.settings.every != 1:
            self._log_some(rewards, columns, resets, rl_step)
            return
        log, env_ids, episodes = self._log_step, self.env_ids, self.episodes
        log("reward", rewards, rl_step, env_ids, episodes, None, self._evaluation)
        if columns:
            for name, column in zip(self.settings.names, columns, strict=True):
                log(name, column.values, rl_step, env_ids, episodes, None, self._evaluation)

    def finish(
        self,
        ended: Integers,
        terminated: npt.NDArray[Any],
        truncated: npt.NDArray[Any],
        successes: Column | None = None,
        *,
        lengths: Integers | None = None,
    ) -> None:
        """Log the records of episodes that ended at the last step, and go on to the next ones.

        Args:
            ended: Indices of their environments. Shape: `(ended_count,)`.
            terminated: Which environments' episodes ended by themselves. Shape: `(num_envs,)`.
            truncated: Which were cut off; both may be. Shape: `(num_envs,)`.
            successes: Whether they had success. Default: nobody says so.
            lengths: Their steps, where somebody else counts them. Shape: `(ended_count,)`.

        Raises:
            MetranaError: As `Run.log_rl_episode`.
        """
        if len(ended) == 1:  # numbers of Python cost less than arrays of one
            index = int(ended[0])
            self.finish_one(
                index,
                terminated=bool(terminated[index]),
                truncated=bool(truncated[index]),
                success=None if successes is None else successes.at(index),
                length=None if lengths is None else float(lengths[0]),
            )
            return
        record = np.empty((5, len(ended)))
        record[0] = self.episode_returns[ended]
        record[1] = self._step_count - self._starts[ended] if lengths is None else lengths
        record[2] = time.perf_counter() - self._began[ended]
        record[3] = terminated[ended]
        record[4] = truncated[ended]
        env_ids = [self.env_ids[index] for index in ended.tolist()]
        episodes = self.episodes[ended]
        others = {
            name: (column.values[ended], column.is_at(ended))
            for name, column in self._others(successes)
        }
        self.episodes[ended] += 1
        self._restart(ended)
        log, rest = self._log_episode, (self.rl_step, episodes, env_ids, None, self._evaluation)
        for name, row in zip(_RECORD, record, strict=True):
            log(name, row, *rest)
        for name, (values, present) in others.items():
            at = present.nonzero()[0]
            if len(at):
                ids = [env_ids[index] for index in at.tolist()]
                log(name, values[at], self.rl_step, episodes[at], ids, None, self._evaluation)

    def finish_one(
        self,
        index: int,
        *,
        terminated: bool,
        truncated: bool,
        success: float | None = None,
        length: float | None = None,
    ) -> None:
        """The same for the episode of one environment.

        Args:
            index: Of the environment.
            terminated: Whether it ended by itself.
            truncated: Whether it was cut off.
            success: Whether it had success. Default: nobody says so.
            length: Its steps, where somebody else counts them.

        Raises:
            MetranaError: As `Run.log_rl_episode`.
        """
        record = {
            "episode_return": float(self.episode_returns[index]),
            "episode_length": float(self._step_count - self._starts[index])
            if length is None
            else length,
            "episode_duration": time.perf_counter() - float(self._began[index]),
            "terminated": float(terminated),
            "truncated": float(truncated),
        }
        if success is not None:
            record["success"] = success
        for name, last in zip(self.settings.names, self._last, strict=True):
            value = last.at(index)
            if value is not None:
                record.setdefault(name, value)
        episode, env_id = int(self.episodes[index]), self.env_ids[index]
        self.episodes[index] = episode + 1
        self._restart(index)
        log, rl_step = self._log_episode, self.rl_step
        for name, value in record.items():
            log(name, value, rl_step, episode, env_id, None, self._evaluation)

    def begin(self, mask: Bools | None = None) -> None:
        """The caller resets environments.

        Args:
            mask: Which. Shape: `(num_envs,)`. Default: all.
        """
        indices = np.arange(self.num_envs) if mask is None else mask.nonzero()[0]
        self.episodes[indices] += self._step_count > self._starts[indices]
        self._restart(indices)

    def is_first_step(self, index: int) -> bool:
        """Whether an environment's next step is the first of its episode, as far as is known."""
        return bool(self._starts[index] == self._step_count)

    def _go_on(self, episodes: list[int]) -> None:
        self.episodes = np.array(episodes, np.int64)

    def _restart(self, indices: Integers | int) -> None:
        self.episode_returns[indices] = 0.0
        self._starts[indices] = self._step_count
        self._began[indices] = time.perf_counter()
        for last in self._last:
            last.mask[indices] = False

    def _keep_last(self, columns: Sequence[Column], resets: Bools | None) -> None:
        for last, column in zip(self._last, columns, strict=True):
            if column.present is None and resets is None:
                np.copyto(last.values, column.values)
                last.mask.fill(True)
            else:
                kept = column.mask if resets is None else column.mask & ~resets
                np.copyto(last.values, column.values, where=kept)
                np.logical_or(last.mask, kept, out=last.mask)

    def _log_some(
        self,
        rewards: npt.NDArray[np.floating[Any]],
        columns: Sequence[Column],
        resets: Bools | None,
        rl_step: int,
    ) -> None:
        """Log the step of those environments whose steps are logged."""
        every = self.settings.every
        if every == 0:
            return
        kept = np.ones(self.num_envs, bool) if resets is None else ~resets
        if every != 1:
            kept &= self.episodes % every == 0
        at = kept.nonzero()[0]
        if not len(at):
            return
        env_ids = list(itertools.compress(self.env_ids, kept.tolist()))
        log, rest = self._log_step, (env_ids, self.episodes[at], None, self._evaluation)
        log("reward", rewards[at], rl_step, *rest)
        for name, column in zip(self.settings.names, columns, strict=False):
            log(name, column.values[at], rl_step, *rest)

    def _others(self, successes: Column | None) -> Iterator[tuple[str, Column]]:
        """What only some episodes have in their records."""
        if successes is not None:
            yield "success", successes
        for name, last in zip(self.settings.names, self._last, strict=True):
            if successes is None or name != "success":
                yield name, last
