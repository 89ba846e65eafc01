"""What adapters of environments share: env ids, counters, and what steps and episodes log.

No framework is imported here. `EnvEpisodes` is one environment, whose numbers are Python's;
`VectorEpisodes` of `_vector_episodes` is M of them, whose numbers are arrays. An adapter

1. checks its arguments in its constructor: `EpisodeSettings.of(...)` and `checked_env_id(...)` of
   `_episode_settings`;
2. opens at its first event that may raise: `log = VectorEpisodes(run, settings, faults, count)`,
   then `log.claim(env_id, name)`. False: another adapter that lives logs those environments, and
   this one has to be passive. The counters go on from the run's cursors;
3. calls for each step `log.step(rewards, columns=..., resets=..., rl_step=...)`, `columns` being
   `columns_of_dicts` or `columns_of_arrays` (`_infos`) of the infos for `settings.info_metrics`.
   Without `rl_step` the clock is the log's own: transitions so far, `rl_step_fn`, or for
   evaluation the run's training clock. SB3 gives `rl_step=num_timesteps + offset`, which then is
   the run's training clock; it must not fall within one process;
4. calls for the environments whose episode ended at that step `log.finish(ended, ...)`, with
   `successes_of_dicts` or `successes_of_arrays`, or `log.finish_one(index, ...)`, which is cheaper
   for one; they stand at the beginning of the next episode from then on;
5. calls `log.begin(mask)` where the caller resets environments by itself: an episode that has steps
   is given up, it logs no record, and its number is used; one without is no episode at all;
6. calls `log.release()` when it is closed, for its env ids to be free.

Arrays are copied by the calls that log them and are never kept or changed. Counters change before
anything is logged, so a call that raises (`Faults` keeps that from the training) leaves them right;
so put `step` and `finish` in blocks of their own. Nothing here is thread-safe: an environment is
stepped by one thread at a time. What is logged survives the process, as with `Run` itself.

Videos of episodes: `metrana.integrations._videos`.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

from metrana import checks
from metrana.integrations import _env_ids
from metrana.integrations._common import Faults, claim, number, release
from metrana.integrations._episode_settings import EpisodeSettings, env_id_base
from metrana.integrations._infos import reward_of, success_of, warn_of
from metrana.run import Run

# ── The clock ────────────────────────────────────────────────────────────────────────────────────


class Clock:
    """How far the training of a run is.

    Attributes:
        rl_step: The last one; None before any.
    """

    __slots__ = ("rl_step",)

    def __init__(self) -> None:
        self.rl_step: int | None = None


# By the run's id: one that is closed and resumed goes on.
_clocks: dict[str, Clock] = {}


def training_clock(run: Run) -> Clock:
    """The clock of a run, which its training sets and its evaluation reads."""
    return _clocks.setdefault(run.run_id, Clock())


# ── Logs ─────────────────────────────────────────────────────────────────────────────────────────


class EpisodeLog:
    """What the logs of one and of many environments have in common.

    Args:
        run: Gets what is logged.
        settings: What of it.
        faults: Counts faults of `rl_step_fn`, and says what is left out.
        num_envs: How many environments there are.

    Attributes:
        run: The run.
        env_ids: Those of the environments, once they are claimed.
        rl_step: Of the last step.
    """

    def __init__(
        self, run: Run, settings: EpisodeSettings, faults: Faults, num_envs: int = 1
    ) -> None:
        self.run = run
        self.settings = settings
        self.num_envs = num_envs
        self.env_ids: list[str] = []
        self.rl_step = 0
        self._faults = faults
        self._evaluation = settings.evaluation
        self._clock = training_clock(run)
        self._has_own_clock = settings.rl_step_fn is None and not settings.evaluation
        self._log_step = run.log_rl_environment_step
        self._log_episode = run.log_rl_episode
        self._claimed: list[str] = []
        # Of default ids: what other processes see taken, or saw until they were let go.
        self._locked: list[tuple[str, int]] = []

    def claim(self, env_id: str | list[str] | None, name: str | None) -> bool:
        """Take env ids and go on from their cursors.

        Args:
            env_id: As `checked_env_id` gives it. Default: made of the name, with the lowest index
                that no log holds, in this process or another one on the data directory.
            name: The environment's name.

        Returns:
            False: another log that lives has one of those that were given; none is taken, and it
            is said once.
        """
        if env_id is None:
            base = env_id_base(name, evaluation=self._evaluation)
            self.env_ids = list(itertools.islice(self._free_ids(base), self.num_envs))
        else:
            given = self._given_ids(env_id)
            if not all(self._take(each) for each in given):
                self.release()
                self._faults.warn_once(
                    "claimed",
                    f"{self._faults.adapter} logs nothing: another one that was not closed logs "
                    f"env_id={env_id!r} to this run",
                )
                return False
            self.env_ids = given
        cursors = [self.run.get_env_last_rl_step_and_episode(each) for each in self.env_ids]
        self.rl_step = max(rl_step or 0 for rl_step, _ in cursors)
        self._go_on([0 if episode is None else episode + 1 for _, episode in cursors])
        return True

    def release(self) -> None:
        """Let others have the env ids. A second call does nothing."""
        if self._claimed:
            self._unlock()
            self._unclaim()

    def retake(self) -> bool:
        """Take the env ids that were let go again, to go on as if they had not been.

        Returns:
            False: somebody has one of them; none is taken.
        """
        if all(self._take(env_id) for env_id in self.env_ids):
            if all(_env_ids.take(self.run, *each) for each in self._locked):
                return True
            self._unlock()  # nobody else in this process has one, whose lock this would be, too
        self._unclaim()
        return False

    def _unlock(self) -> None:
        for base, index in self._locked:
            _env_ids.free(self.run, base, index)

    def _unclaim(self) -> None:
        for env_id in self._claimed:
            release(self.run, _source(env_id), self)
        self._claimed = []

    def _go_on(self, episodes: list[int]) -> None:
        raise NotImplementedError

    def _given_ids(self, env_id: str | list[str]) -> list[str]:
        if isinstance(env_id, list):
            return list(env_id)
        return [f"{env_id}-{index}" for index in range(self.num_envs)]

    def _free_ids(self, base: str) -> Iterator[str]:
        for index in itertools.count():
            env_id = f"{base}-{index}"
            # Of this process first: the lock cannot tell its own.
            if self._take(env_id):
                if _env_ids.take(self.run, base, index):
                    self._locked.append((base, index))
                    yield env_id
                else:
                    release(self.run, _source(self._claimed.pop()), self)

    def _take(self, env_id: str) -> bool:
        if not claim(self.run, _source(env_id), self):
            return False
        self._claimed.append(env_id)
        return True

    def _tick(self, given: int | None) -> int:
        """Move the clock for a step of all environments."""
        if given is None:
            given = self.rl_step + self.num_envs if self._has_own_clock else self._read_clock()
        self.rl_step = given
        if not self._evaluation:
            self._clock.rl_step = given
        return given

    def _read_clock(self) -> int:
        """The rl_step that others say, never below the last one."""
        read: int | None = None
        if self.settings.rl_step_fn is None:
            read = self._clock.rl_step
        else:
            with self._faults:
                read = checks.whole_number("rl_step_fn()", self.settings.rl_step_fn())
        return self.rl_step + self.num_envs if read is None else max(read, self.rl_step)


def _source(env_id: str) -> str:
    return f"environment/{env_id}"


class EnvEpisodes(EpisodeLog):
    """The episodes of one environment.

    Attributes:
        episode: The present one's number.
        episode_return: Its rewards so far.
        episode_length: Its steps so far; 0: it has not begun.
    """

    def __init__(self, run: Run, settings: EpisodeSettings, faults: Faults) -> None:
        super().__init__(run, settings, faults)
        self.env_id = ""
        self._keys = tuple(zip(settings.info_metrics, settings.names, strict=True))
        self._start(0)

    def step(self, reward: Any, info: Mapping[str, Any], *, rl_step: int | None = None) -> None:
        """Count a step and log it.

        Args:
            reward: Its reward; NaN is logged for what is no number.
            info: Its info; may be empty if there are no info metrics.
            rl_step: Default: by the log's own clock.

        Raises:
            MetranaError: As `Run.log_rl_environment_step`.
        """
        self.episode_length += 1
        if rl_step is None and self._has_own_clock:
            # `_tick` without its call: this is the step of a training, which has no time.
            self.rl_step = self._clock.rl_step = rl_step = self.rl_step + 1
        else:
            rl_step = self._tick(rl_step)
        value = reward if type(reward) is float else reward_of(reward, self._faults)
        self.episode_return += value
        if self._logs_steps:
            self._log_step(
                "reward", value, rl_step, self.env_id, self.episode, None, self._evaluation
            )
        if self._keys:
            self._take_info(info)

    def finish(self, *, terminated: bool, truncated: bool, info: Mapping[str, Any]) -> None:
        """Log the record of the episode, which ended at the last step, and go on to the next.

        Args:
            terminated: Whether it ended by itself.
            truncated: Whether it was cut off; both may be.
            info: That of the last step.

        Raises:
            MetranaError: As `Run.log_rl_episode`.
        """
        record = {
            "episode_return": self.episode_return,
            "episode_length": float(self.episode_length),
            "episode_duration": time.perf_counter() - self._began,
            "terminated": float(bool(terminated)),
            "truncated": float(bool(truncated)),
        }
        success = success_of(info)
        if success is not None:
            record["success"] = success
        for name, value in self._last.items():
            record.setdefault(name, value)
        position = (self.rl_step, self.episode, self.env_id, None, self._evaluation)
        self._start(self.episode + 1)
        for name, value in record.items():
            self._log_episode(name, value, *position)

    def begin(self) -> None:
        """The caller resets the environment."""
        self._start(self.episode + 1 if self.episode_length else self.episode)

    def _go_on(self, episodes: list[int]) -> None:
        (self.env_id,) = self.env_ids
        self._start(episodes[0])

    def _given_ids(self, env_id: str | list[str]) -> list[str]:
        return [env_id] if isinstance(env_id, str) else list(env_id)

    def _start(self, episode: int) -> None:
        self.episode = episode
        self.episode_return = 0.0
        self.episode_length = 0
        self._began = time.perf_counter()
        self._last: dict[str, float] = {}
        every = self.settings.every
        self._logs_steps = every != 0 and episode % every == 0

    def _take_info(self, info: Mapping[str, Any]) -> None:
        for key, name in self._keys:
            given = info.get(key)
            value = given if type(given) is float else number(given)
            if value is None:
                if given is not None:
                    warn_of(self._faults, key, given)
                value = math.nan
            else:
                self._last[name] = value
            if self._logs_steps:
                self._log_step(
                    name, value, self.rl_step, self.env_id, self.episode, None, self._evaluation
                )
