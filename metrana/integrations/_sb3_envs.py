"""Environments of Stable-Baselines3: what steps and episodes of training and evaluation log."""

from __future__ import annotations

import copy
import re
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import gymnasium as gym
import numpy as np
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecEnv,
    VecEnvWrapper,
    VecMonitor,
    VecNormalize,
    is_vecenv_wrapped,
    unwrap_vec_normalize,
)

from metrana.integrations._common import Faults, number
from metrana.integrations._env_runs import HAND_OVER
from metrana.integrations._episode_settings import EpisodeSettings
from metrana.integrations._episodes import EnvEpisodes
from metrana.integrations._infos import Bools, success_of, successes_of_dicts
from metrana.integrations._vector_episodes import VectorEpisodes
from metrana.integrations._videos import FRAMES_KEY, FrameReader
from metrana.integrations.gymnasium import MetranaEnvWrapper

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from metrana.run import Run

# The innermost of what an environment writes of itself and its wrappers.
_INNERMOST: Final = re.compile(r"<([^<>]+)>+$")
_WITHOUT_SPEC: Final = " instance"


class LoggedEnv:
    """An environment that a callback logs. A later callback takes its env ids over.

    Callbacks that are made anew for each training are rarely closed, and it may be long until they
    are collected. The environment is not held here: see `_of_models`.

    Args:
        run: The run.
        env: The environment.
        faults: Counts what could not be logged.
    """

    def __init__(self, run: Run, env: VecEnv, faults: Faults) -> None:
        self.run = run
        self._env = weakref.ref(env)
        self._faults = faults
        normalization = unwrap_vec_normalize(env)
        self._normalization: VecNormalize | None = (
            None if normalization is None else weakref.proxy(normalization)
        )
        self._has_monitor = has_monitor(env)
        self._has_raw_records = self._has_monitor and records_are_raw(env)
        self._key = _key_of(run, env)
        before = _logged.get(self._key)
        if before is not None:
            before.release()
        _logged[self._key] = self

    def is_of(self, run: Run, env: VecEnv) -> bool:
        """Whether it logs an environment to a run, and no other callback has taken that over."""
        return self.run is run and self._env() is env and self._is_current()

    def release(self) -> None:
        """Let others have the env ids; nothing if another callback has taken them over."""
        if self._is_current():
            del _logged[self._key]
            self._release()

    def _is_current(self) -> bool:
        return _logged.get(self._key) is self

    def _release(self) -> None:
        raise NotImplementedError


_logged: weakref.WeakValueDictionary[tuple[str, int], LoggedEnv] = weakref.WeakValueDictionary()


def _key_of(run: Run, env: VecEnv) -> tuple[str, int]:
    return run.run_id, id(innermost(env)[0])


class TrainingEnv(LoggedEnv):
    """Logs the steps and episodes of the environment that a model learns from.

    Args:
        run: The run.
        env: The environment.
        settings: What of it is logged.
        faults: Counts what could not be logged.

    Attributes:
        last_obs: What the model stepped from at the last step, if it was noted.
        new_obs: What it came to.
    """

    def __init__(self, run: Run, env: VecEnv, settings: EpisodeSettings, faults: Faults) -> None:
        super().__init__(run, env, faults)
        self.last_obs: Any = None
        self.new_obs: Any = None
        # How far the environments were in the run when their env ids were let go; None: they are
        # held, or another callback has them.
        self._left_at: list[tuple[int | None, int | None]] | None = None
        self.log = VectorEpisodes(run, settings, faults, env.num_envs)
        self.log.claim(None, name_of(env))
        self._frames = Frames.of(env, run, self.log.env_ids, faults)
        if self._frames is not None:
            self._frames.begin(self.log.episodes.tolist())

    @classmethod
    def begun(
        cls,
        model: BaseAlgorithm,
        run: Run,
        env: VecEnv,
        settings: EpisodeSettings,
        faults: Faults,
    ) -> TrainingEnv:
        """That of a training that begins: the one before goes on, if there is one, else a new one.

        Args:
            model: The model. It keeps what is returned.
            run: See above.
            env: Its environment.
            settings: See above. If others than before, an episode that goes on may lack steps.
            faults: See above.
        """
        obs = model._last_obs  # noqa: SLF001 - SB3 says it nowhere else
        kept = _of_models.get(model, [])
        before = _logged.get(_key_of(run, env))
        if not (isinstance(before, TrainingEnv) and before.is_of(run, env)):
            before = next((each for each in kept if each.comes_back(run, env, obs)), None)
        if before is None:
            training = cls(run, env, settings, faults)
        else:
            training = before.passed_on(settings, faults)
            if not training.stands_at(obs):
                training.begin()
        others = [each for each in kept if each.run is not run and each.run.is_initialized()]
        _of_models[model] = [*others, training]
        return training

    def step(
        self,
        rewards: Any,
        dones: Bools,
        infos: Sequence[dict[str, Any]],
        rl_step: int,
    ) -> None:
        """Log a step of all environments; nothing that was given is kept.

        Args:
            rewards: As the model gets them. Shape: `(num_envs,)`.
            dones: Where SB3 has reset the environment. Shape: `(num_envs,)`.
            infos: One each. Frames for us are taken out, for they would lie in replay buffers.
            rl_step: Transitions until after it.
        """
        if self._normalization is not None:
            rewards = self._normalization.get_original_reward()
        try:
            self.log.step(rewards, rl_step=rl_step)
        except Exception as error:  # noqa: BLE001 - the end of an episode is not lost by it
            self._faults.note(error)
        if self._frames is not None:
            for index, info in enumerate(infos):
                self._frames.take(info, rl_step, int(self.log.episodes[index]), index)
        # Where a monitor tells of the end of an episode, dones may be lives that were lost.
        if self._has_monitor:
            ended = [index for index, info in enumerate(infos) if "episode" in info]
        else:
            ended = np.flatnonzero(dones).tolist()
        if ended:
            with self._faults:
                self._finish(ended, infos)

    def begin(self) -> None:
        """All environments are reset, episodes that have not ended are given up."""
        self.log.begin()
        if self._frames is not None:
            self._frames.begin(self.log.episodes.tolist())

    def passed_on(self, settings: EpisodeSettings, faults: Faults) -> TrainingEnv:
        """The same for a later callback, in the midst of episodes; this one logs no more."""
        later = copy.copy(self)
        later._faults = later.log._faults = faults  # noqa: SLF001 - its log has no other user
        later.log.settings = settings
        self._left_at = later._left_at = None  # noqa: SLF001
        if self._frames is not None:
            self._frames.count_in(faults)
        _logged[self._key] = later
        return later

    def stands_at(self, obs: Any) -> bool:
        """Whether a model that goes on from an observation has not reset the environment.

        It is what the last step came to; or what that was made from, if the training was stopped at
        it, by a callback or an exception in one.
        """
        return obs is not None and (obs is self.new_obs or obs is self.last_obs)

    def comes_back(self, run: Run, env: VecEnv, obs: Any) -> bool:
        """Take the env ids again that were let go in the midst of episodes, by a close say.

        False, and nothing is taken: others have had them, or the environment does not go on.
        """
        is_left = self._left_at is not None and self.run is run and self._env() is env
        if not is_left or not self.stands_at(obs) or self._key in _logged:
            return False
        return self._cursors() == self._left_at and self.log.retake()

    def _release(self) -> None:
        if self.run.is_initialized():
            self._left_at = self._cursors()
        self.log.release()

    def _cursors(self) -> list[tuple[int | None, int | None]]:
        return [self.run.get_env_last_rl_step_and_episode(each) for each in self.log.env_ids]

    def _finish(self, ended: list[int], infos: Sequence[dict[str, Any]]) -> None:
        if self._frames is not None:
            for index in ended:
                self._frames.end(index)
        lengths = None
        if self._has_raw_records:
            records = [infos[index]["episode"] for index in ended]
            self.log.episode_returns[ended] = [number(record["r"]) for record in records]
            lengths = [int(record["l"]) for record in records]
        if len(ended) == 1:  # the most frequent case, without arrays
            (index,) = ended
            truncated = is_truncated(infos[index])
            self.log.finish_one(
                index,
                terminated=not truncated,
                truncated=truncated,
                success=success_of(infos[index]),
                length=None if lengths is None else float(lengths[0]),
            )
            return
        are_truncated = np.array([is_truncated(info) for info in infos])
        indices = np.array(ended)
        self.log.finish(
            indices,
            ~are_truncated,
            are_truncated,
            successes_of_dicts(infos, indices),
            lengths=None if lengths is None else np.array(lengths),
        )


# Those of each model, for as long as it lives: the callback of one training is soon collected, and
# that of the next one goes on with the episode. None holds its environment, which may hold the
# model: an opponent that it plays against.
_of_models: weakref.WeakKeyDictionary[BaseAlgorithm, list[TrainingEnv]] = (
    weakref.WeakKeyDictionary()
)


class EvaluationEnv(LoggedEnv):
    """Evaluates a model, and logs the steps and episodes of that.

    Args:
        run: The run.
        env: The environment.
        settings: What of it is logged.
        faults: Counts what could not be logged.
    """

    def __init__(self, run: Run, env: VecEnv, settings: EpisodeSettings, faults: Faults) -> None:
        super().__init__(run, env, faults)
        self.env = env
        self.logs = [EnvEpisodes(run, settings, faults) for _ in range(env.num_envs)]
        name = name_of(env)
        for log in self.logs:
            log.claim(None, name)
        self._frames = Frames.of(env, run, [log.env_id for log in self.logs], faults)
        self._successes: list[float] = []

    def evaluate(
        self, model: BaseAlgorithm, n_eval_episodes: int, rl_step: int
    ) -> dict[str, float]:
        """Play some episodes by what the model holds best, and log them. Blocks until that is done.

        Args:
            model: The model.
            n_eval_episodes: How many, of all environments together.
            rl_step: Transitions of the training so far.

        Returns:
            Statistics of them, under the keys of SB3's own EvalCallback.

        Raises:
            Exception: What the environment or the policy raises.
        """
        self._normalize_as(model.get_vec_normalize_env())
        for log in self.logs:
            log.begin()  # the last evaluation may have left it within an episode
        if self._frames is not None:
            self._frames.begin([log.episode for log in self.logs])
        self._successes = []

        def log_step(locals_: Mapping[str, Any], _globals: Mapping[str, Any]) -> None:
            with self._faults:
                self._log_step(locals_, rl_step)

        returns, lengths = evaluate_policy(
            model,
            self.env,
            n_eval_episodes=n_eval_episodes,
            return_episode_rewards=True,
            warn=False,
            callback=log_step,
        )
        found = {
            "eval/mean_reward": float(np.mean(returns)),
            "eval/mean_ep_length": float(np.mean(lengths)),
        }
        if self._successes:
            found["eval/success_rate"] = float(np.mean(self._successes))
        return found

    def _release(self) -> None:
        for log in self.logs:
            log.release()

    def _normalize_as(self, training: VecNormalize | None) -> None:
        """Let observations and returns be normalized as those of the training are by now."""
        if training is not None and self._normalization is not None:
            for name in ("obs_rms", "ret_rms"):
                if hasattr(training, name):
                    setattr(self._normalization, name, copy.deepcopy(getattr(training, name)))

    def _log_step(self, locals_: Mapping[str, Any], rl_step: int) -> None:
        """Log a step of one environment that is still to be evaluated, with SB3's variables."""
        index, info = locals_["i"], locals_["info"]
        log, reward = self.logs[index], locals_["reward"]
        if self._normalization is not None:
            reward = self._normalization.get_original_reward()[index]
        with self._faults:
            log.step(reward, info, rl_step=rl_step)
        if self._frames is not None:
            self._frames.take(info, rl_step, log.episode, index)
        if not locals_["done"] or (self._has_monitor and "episode" not in info):
            return
        if self._has_raw_records:
            log.episode_return = float(info["episode"]["r"])
            log.episode_length = int(info["episode"]["l"])
        success = success_of(info)
        if success is not None:
            self._successes.append(success)
        if self._frames is not None:
            self._frames.end(index)
        truncated = is_truncated(info)
        log.finish(terminated=not truncated, truncated=truncated, info=info)


class Frames:
    """Logs the frames that wrappers of ours in an environment give through its infos.

    Args:
        env: The environment; not held.
        inside: Where in it there are such wrappers.
        env_ids: Of all of its environments.
        reader: Logs the frames.
    """

    def __init__(
        self, env: VecEnv, inside: list[int], env_ids: list[str], reader: FrameReader
    ) -> None:
        self._env: VecEnv = weakref.proxy(env)
        self._inside = inside
        self._env_ids = env_ids
        self._reader = reader

    @classmethod
    def of(cls, env: VecEnv, run: Run, env_ids: list[str], faults: Faults) -> Frames | None:
        """Those of an environment; None: it has no wrappers of ours."""
        try:
            inside = np.flatnonzero(env.env_is_wrapped(MetranaEnvWrapper)).tolist()
        except Exception:  # noqa: BLE001 - one that is vectorized by itself need not have the method
            return None
        return cls(env, inside, env_ids, FrameReader(run, faults)) if inside else None

    def begin(self, episodes: Sequence[int]) -> None:
        """Let the wrappers only render, from the present episodes on, which have these numbers."""
        for index in self._inside:
            self.end(index)
            self._env.env_method(HAND_OVER, episodes[index], indices=[index])

    def take(self, info: dict[str, Any], rl_step: int, episode: int, index: int) -> None:
        """Take the frames out of an environment's info and log them."""
        frames = info.pop(FRAMES_KEY, None)
        if frames is not None:
            env_id = self._env_ids[index]
            self._reader.log(frames, rl_step=rl_step, episode=episode, env_id=env_id)

    def end(self, index: int) -> None:
        """An environment's episode is over, or given up."""
        self._reader.end(self._env_ids[index])

    def count_in(self, faults: Faults) -> None:
        """Let what goes wrong from now on be counted elsewhere."""
        self._reader._faults = faults  # noqa: SLF001 - it has no other user


def as_vec_env(env: gym.Env[Any, Any] | VecEnv) -> VecEnv:
    """An environment as SB3 evaluates it, with a monitor, as those have that it learns from."""
    if isinstance(env, VecEnv):
        return env
    monitored = env if is_wrapped(env, Monitor) else Monitor(env)
    return DummyVecEnv([lambda: monitored])


def share_environments(env: VecEnv, other: VecEnv) -> bool:
    """Whether a step of one is a step of the other too, as far as this process can see."""
    mine, others = ({id(each) for each in innermost(venv)} for venv in (env, other))
    return bool(mine & others)


def innermost(env: VecEnv) -> list[object]:
    """The environments themselves, or what steps them where they are in other processes."""
    inner = env.unwrapped
    if not isinstance(inner, DummyVecEnv):
        return [inner]
    return [each.unwrapped for each in inner.envs]


def name_of(env: VecEnv) -> str | None:
    """The id by which an environment was made, if it has one."""
    try:
        # Not its `spec`: one that cannot be pickled would end the process of the environment.
        (text,) = env.env_method("__str__", indices=[0])
        found = _INNERMOST.search(text)
    except Exception:  # noqa: BLE001 - one that is vectorized by itself need not have the method
        return None
    return None if found is None or found[1].endswith(_WITHOUT_SPEC) else found[1]


def has_monitor(env: VecEnv) -> bool:
    """Whether infos tell of the true end of episodes."""
    if is_vecenv_wrapped(env, VecMonitor):
        return True
    try:
        return bool(env.env_is_wrapped(Monitor)[0])
    except Exception:  # noqa: BLE001 - one that is vectorized by itself need not have the method
        return False


def records_are_raw(env: VecEnv) -> bool:
    """Whether monitors add rewards up before they are normalized."""
    is_normalized = False
    while isinstance(env, VecEnvWrapper):
        is_normalized |= isinstance(env, VecMonitor) and unwrap_vec_normalize(env) is not None
        env = env.venv
    return not is_normalized


def is_truncated(info: Mapping[str, Any]) -> bool:
    """Whether an episode was cut off and did not end by itself, as SB3 says it."""
    return bool(info.get("TimeLimit.truncated", False))
