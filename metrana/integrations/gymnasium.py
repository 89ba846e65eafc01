"""Gymnasium: wrappers that log each step and episode of environments, and videos of some.

```python
env = MetranaEnvWrapper(gymnasium.make("CartPole-v1"))
envs = MetranaVectorEnvWrapper(gymnasium.make_vec("CartPole-v1", num_envs=8))
```

They give what the environment gives, unchanged. The run is found or made at the first `step`, which
may raise; nothing of theirs raises afterwards.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from metrana.integrations._common import Faults, missing

try:
    import gymnasium as gym
    from gymnasium.utils import RecordConstructorArgs
    from gymnasium.vector import VectorEnv
except ImportError as error:
    raise missing("gymnasium", "gymnasium") from error

from metrana.integrations._env_runs import (
    EnvRun,
    check_class,
    hand_over,
    is_passive_process,
    shared,
    without_key,
    wrapped,
)
from metrana.integrations._episode_settings import EpisodeSettings, checked_env_id
from metrana.integrations._episodes import EnvEpisodes
from metrana.integrations._gymnasium_vector import MetranaVectorEnvWrapper
from metrana.integrations._videos import (
    FRAMES_KEY,
    FrameReader,
    Frames,
    FrameSource,
    Recording,
    VideoSettings,
    step_triggered,
    video_indices,
)
from metrana.run import Run

__all__ = ["MetranaEnvWrapper", "MetranaVectorEnvWrapper"]

_Step: TypeAlias = tuple[Any, Any, Any, Any, dict[str, Any]]

_IN_WORKER: Final = (
    "MetranaEnvWrapper logs nothing in a worker process, where there is no run: wrap the vector "
    "environment itself, or give Stable-Baselines3 a MetranaCallback; its videos go there"
)


class MetranaEnvWrapper(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Logs the episodes of an environment.

    Each step: ENVIRONMENT_STEP `reward` and `info_metrics`. Each finished episode: EPISODE
    `episode_return`, `episode_length`, `episode_duration` (s), `terminated`, `truncated`, `success`
    if the info of its last step has `is_success` or `success`, and the last value of each of
    `info_metrics`. An episode that is reset before its end logs no record.

    Given a vector environment, this makes a `MetranaVectorEnvWrapper`. In a daemonic worker process
    (`AsyncVectorEnv`), and inside another wrapper of this kind, it logs nothing itself: frames of
    its videos go out through info, and the outer wrapper logs them.

    The run is found or made at the first `step`, which may block as `metrana.init` does; no step
    waits for a server after that. Not thread-safe, as environments are.

    Args:
        env: The environment.
        run: The run. Default: that of `init_args`, else the current one, else a new one.
        env_id: The environment's id: 1 to 128 of `A-Z a-z 0-9 . _ ~ : -`. Default:
            `<spec.id>-<k>`, with `-eval` for evaluation and `-r<RANK>` where there are several
            ranks, k being the lowest index that no open wrapper of the run has, in this process or
            in another one that logs to the same data directory.
        evaluation: Whether the environment is for evaluation: a series of its own, at the rl_step
            of the training in this process.
        info_metrics: Keys of info whose numbers are logged; NaN for a step without one.
        log_env_steps: False: no steps are logged, only episodes; an int N: those of the episodes
            0, N, 2N, ….
        episode_trigger: Says by an episode's number whether it has a video. Default: no videos.
        step_trigger: Says by the number of steps before it whether a video begins at a step; while
            one goes on, none does.
        video_length: Most frames of a video. Default: 0, which is to the end of the episode.
        video_envs: Indices of the environments of which there may be videos.
        fps: Frames per second. Default: `render_fps` of the metadata, else 30.
        rl_step_fn: Gives the rl_step, which never falls. Default: steps so far, after the step.
        init_args: Arguments of `metrana.init` for a new run.

    Raises:
        MetranaValidationError: For an argument that is not allowed; a `ValueError`. Videos need an
            rgb render mode.
        TypeError: For what is no environment of Gymnasium.
    """

    _log: EnvEpisodes | None
    _recording: Recording | None
    _reader: FrameReader | None
    _source: FrameSource | None
    _rendered: list[Any]
    _resets_next: bool

    def __new__(cls, env: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Make the wrapper that fits the environment."""
        if cls is MetranaEnvWrapper and isinstance(env, VectorEnv):
            return MetranaVectorEnvWrapper(env, *args, **kwargs)
        return super().__new__(cls)

    def __init__(
        self,
        env: gym.Env[Any, Any],
        *,
        run: Run | None = None,
        env_id: str | int | None = None,
        evaluation: bool = False,
        info_metrics: Sequence[str] = (),
        log_env_steps: bool | int = True,
        episode_trigger: Callable[[int], bool] | None = None,
        step_trigger: Callable[[int], bool] | None = None,
        video_length: int = 0,
        video_envs: Sequence[int] = (0,),
        fps: float | None = None,
        rl_step_fn: Callable[[], int] | None = None,
        init_args: Mapping[str, Any] | None = None,
    ) -> None:
        # A run is of this process alone, and no JSON: what is made of a spec finds its own.
        RecordConstructorArgs.__init__(
            self,
            run=None,
            env_id=env_id,
            evaluation=evaluation,
            info_metrics=info_metrics,
            log_env_steps=log_env_steps,
            episode_trigger=shared(episode_trigger),
            step_trigger=shared(step_trigger),
            video_length=video_length,
            video_envs=video_envs,
            fps=fps,
            rl_step_fn=shared(rl_step_fn),
            init_args=without_key(init_args),
        )
        check_class(env, gym.Env)
        super().__init__(env)
        self.faults = Faults(type(self).__name__)
        self._settings = EpisodeSettings.of(
            evaluation=evaluation,
            info_metrics=info_metrics,
            log_env_steps=log_env_steps,
            rl_step_fn=rl_step_fn,
        )
        videos = VideoSettings.of(
            episode_trigger=episode_trigger,
            step_trigger=step_trigger,
            video_length=video_length,
            fps=fps,
            render_mode=env.render_mode,
            metadata=env.metadata,
        )
        self._videos = videos if 0 in video_indices(video_envs) else None
        self._env_id = checked_env_id(env_id)
        self._env_run = EnvRun(run, init_args, self.faults)
        self._is_handed_over = False
        self._resets_itself = any(isinstance(each, gym.wrappers.Autoreset) for each in wrapped(env))
        self._forget()

    def step(self, action: Any) -> _Step:
        """Step the environment and log it.

        Raises:
            MetranaError: At the first step, if the run cannot be made; the environment was not
                stepped.
        """
        log = self._log
        if log is None:
            log = self._open()
            if log is None:
                return self._step_passively(action)
        recording = self._recording
        if recording is not None:
            self._begin_video(log, recording)
        result = self.env.step(action)
        if self._resets_next:  # by a wrapper inside: this was no step of an episode
            self._resets_next = False
            return result
        try:
            _, reward, terminated, truncated, info = result
            try:
                log.step(reward, info)
            except Exception as error:  # noqa: BLE001 - training goes on
                self.faults.note(error)
            frames = None if self._reader is None else info.pop(FRAMES_KEY, None)
            if recording is not None and recording.is_on:
                recording.add(self._picture, log.rl_step, log.episode)
            elif frames is not None:
                self._log_frames(log, frames)
            if terminated or truncated:
                self._end(log)
                log.finish(terminated=terminated, truncated=truncated, info=info)
        except Exception as error:  # noqa: BLE001 - training goes on
            self.faults.note(error)
        return result

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset the environment; an episode that has not ended is given up."""
        result = self.env.reset(seed=seed, options=options)
        with self.faults:
            self._begin()
        return result

    def render(self) -> Any:
        """Render the environment, as it does."""
        if self._source is not None:
            self._source.was_rendered = True
        picture = self.env.render()
        if self._rendered and isinstance(picture, list):
            picture = [*self._rendered, *picture]
            self._rendered.clear()
        return picture

    def close(self) -> None:
        """Close the environment. Frees the env id, and closes the run if it was made here.

        A second call does nothing. Blocks until what was logged is delivered, a few seconds at
        most.
        """
        if self._log is not None or self._env_run.made:
            self._give_up()
            self._env_run.close()
        super().close()

    def metrana_hand_over(self, episode: int | None = None) -> bool:
        """Called by what logs this environment from outside: from now on this wrapper does not.

        Args:
            episode: The number that the present episode has there, for the triggers; also that of
                the one which a reset begins before another step. Default: they count from 0 here.
        """
        self._is_handed_over = True
        source = None if episode is None else self._source
        self._give_up()
        # Now, for it sees what is rendered before the first step.
        self._source = source or FrameSource(self._videos, self.faults)
        if episode is not None:
            self._source.number(episode)
        hand_over(self.env)
        return True

    def __getstate__(self) -> dict[str, Any]:
        # A copy is another environment, and gets an env id of its own.
        unopened = {"_log": None, "_recording": None, "_reader": None, "_source": None}
        return {**self.__dict__, **unopened, "_rendered": []}

    def _forget(self) -> None:
        self._log = self._recording = self._reader = self._source = None
        # What was taken from a list of frames that the caller of `render` is to get.
        self._rendered = []
        # Whether the next step only resets.
        self._resets_next = False
        # Whether it logs nothing until the next reset, because somebody else does or nobody can.
        self._is_idle = False
        self._step_count = 0
        self._pid = os.getpid()

    def _give_up(self) -> None:
        if self._log is not None:
            self._end(self._log)
            self._log.release()
        self._forget()

    def _open(self) -> EnvEpisodes | None:
        """Open the run before the first step; None: this wrapper is passive."""
        if self._is_idle or self._source is not None:
            return None
        if self._is_handed_over:
            self._source = FrameSource(self._videos, self.faults)
            return None
        if is_passive_process():
            self._is_idle = True
            self.faults.warn_once("worker", _IN_WORKER)
            return None
        run = self._env_run.open()
        if run is None:
            self._is_idle = True
            return None
        log = EnvEpisodes(run, self._settings, self.faults)
        spec = self.env.spec
        if not log.claim(self._env_id, None if spec is None else spec.id):
            self._is_idle = True
            return None
        with self.faults:
            if self._videos is not None:
                self._recording = Recording.of_run(self._videos, log.run, log.env_id, self.faults)
            if hand_over(self.env):
                self._reader = FrameReader(log.run, self.faults)
        self._log = log
        return log

    def _step_passively(self, action: Any) -> _Step:
        source = self._source
        if source is None:
            return self.env.step(action)
        source.before_step(self._picture)
        result = self.env.step(action)
        with self.faults:
            frames = source.after_step(self._picture, is_over=bool(result[2] or result[3]))
            if frames is not None:
                result[4][FRAMES_KEY] = frames
        return result

    def _begin(self) -> None:
        if self._pid != os.getpid():  # a forked child: the env id is its parent's
            self._forget()
        self._is_idle = False
        self._rendered.clear()
        if self._source is not None:
            self._source.begin()
        log = self._log
        if log is None:
            return
        self._end(log)
        if self._env_run.is_outdated(log):
            self._give_up()
            return
        self._resets_next = False
        log.begin()

    def _begin_video(self, log: EnvEpisodes, recording: Recording) -> None:
        with self.faults:
            triggered = self._videos is not None and step_triggered(
                self._videos, self._step_count, self.faults
            )
            self._step_count += 1
            episode = None if log.episode_length or self._resets_next else log.episode
            if recording.begins(episode=episode, triggered=triggered and not self._resets_next):
                recording.add(self._picture, log.rl_step, log.episode)

    def _end(self, log: EnvEpisodes) -> None:
        """The episode ends, or is given up."""
        if self._recording is not None:
            self._recording.end()
        if self._reader is not None:
            self._reader.end(log.env_id)
        self._resets_next = self._resets_itself

    def _picture(self) -> Any:
        picture = self.env.render()
        if isinstance(picture, list):  # gone once it is given: the caller of `render` gets it too
            self._rendered += picture
        return picture

    def _log_frames(self, log: EnvEpisodes, frames: Frames) -> None:
        if self._reader is not None:
            self._reader.log(frames, rl_step=log.rl_step, episode=log.episode, env_id=log.env_id)


# What `__new__` takes is anything.
MetranaEnvWrapper.__signature__ = inspect.signature(  # type: ignore[attr-defined]
    MetranaEnvWrapper.__init__
).replace(parameters=list(inspect.signature(MetranaEnvWrapper.__init__).parameters.values())[1:])
