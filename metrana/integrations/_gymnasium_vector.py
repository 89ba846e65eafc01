"""The wrapper of vector environments; `metrana.integrations.gymnasium` is where users find it."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv, VectorWrapper

from metrana.errors import MetranaValidationError
from metrana.integrations._common import Faults
from metrana.integrations._env_runs import (
    HAND_OVER,
    EnvRun,
    check_class,
    hand_over,
    is_passive_process,
    wrapped,
)
from metrana.integrations._episode_settings import EpisodeSettings, checked_env_id
from metrana.integrations._infos import (
    Bools,
    Column,
    Integers,
    columns_of_arrays,
    flags_of,
    successes_of_arrays,
)
from metrana.integrations._vector_episodes import VectorEpisodes
from metrana.integrations._videos import (
    FRAMES_KEY,
    FrameReader,
    Frames,
    Recording,
    VideoSettings,
    step_triggered,
    video_indices,
)
from metrana.run import Run

# Older versions of Gymnasium take no parameters of its type.
if TYPE_CHECKING:
    _VectorWrapper: TypeAlias = VectorWrapper[Any, Any, Any, Any, Any]
else:
    _VectorWrapper = VectorWrapper

_BOOL: Final = np.dtype(bool)
_VectorStep: TypeAlias = tuple[Any, Any, Any, Any, dict[str, Any]]

_LAST_FRAME: Final = (
    "videos lack the last frame of each episode: the environments reset themselves within the step "
    "and show only what comes after it; put each of them in a MetranaEnvWrapper where it is made"
)
_INFOS: Final = (
    "MetranaVectorEnvWrapper takes nothing of infos that are no mapping; put what makes them so, "
    "DictInfoToList say, around it"
)
_IN_WORKER: Final = (
    "MetranaVectorEnvWrapper logs nothing in a worker process, where there is no run: wrap "
    "environments in the process that trains"
)


class MetranaVectorEnvWrapper(_VectorWrapper):
    """Logs the episodes of a vector environment, whatever its autoreset mode.

    What is logged of each of its environments, and the arguments, are those of `MetranaEnvWrapper`
    but for the following. The step that resets an environment, in the mode `NEXT_STEP`, is none of
    an episode. Metrics of info are arrays under their keys. Arrays are copied.

    For videos it calls `render`: of `SyncVectorEnv` only the environments that have one, of others
    all. In the mode `SAME_STEP` the last state of an episode is seen only inside an environment: in
    a `SyncVectorEnv` this wraps those of `video_envs`; for an `AsyncVectorEnv`, put each
    environment in a `MetranaEnvWrapper` where it is made.

    Args:
        env: The vector environment.
        run: See `MetranaEnvWrapper`.
        env_id: What ids begin with, followed by `-<index>`, or a list of num_envs ids.
        evaluation: See `MetranaEnvWrapper`.
        info_metrics: See `MetranaEnvWrapper`.
        log_env_steps: See `MetranaEnvWrapper`.
        episode_trigger: Asked with the episode's number for each of `video_envs`.
        step_trigger: Asked with the number of calls of `step` before it, for all of them.
        video_length: See `MetranaEnvWrapper`.
        video_envs: Indices of the environments of which there may be videos.
        fps: See `MetranaEnvWrapper`.
        rl_step_fn: Default: num_envs more after each step.
        init_args: See `MetranaEnvWrapper`.

    Raises:
        MetranaValidationError: For an argument that is not allowed; a `ValueError`.
        TypeError: For what is no vector environment of Gymnasium.
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        *,
        run: Run | None = None,
        env_id: str | int | Sequence[str | int] | None = None,
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
        check_class(env, VectorEnv)
        self.faults = Faults(type(self).__name__)
        self._env_run = EnvRun(run, init_args, self.faults)
        self._is_handed_over = False
        self._forget()
        # Behind what `close` needs: older ones close themselves where a check below raises.
        super().__init__(env)
        self._settings = EpisodeSettings.of(
            evaluation=evaluation,
            info_metrics=info_metrics,
            log_env_steps=log_env_steps,
            rl_step_fn=rl_step_fn,
        )
        self._videos = VideoSettings.of(
            episode_trigger=episode_trigger,
            step_trigger=step_trigger,
            video_length=video_length,
            fps=fps,
            render_mode=env.render_mode,
            metadata=env.metadata,
        )
        self._video_envs = video_indices(video_envs, env.num_envs)
        self._env_id = checked_env_id(env_id, env.num_envs)
        self._mode = _autoreset_mode(env.metadata)
        self._shape = (self.num_envs,)

    def step(self, actions: Any) -> _VectorStep:
        """Step the environments and log them.

        Raises:
            MetranaError: At the first step, if the run cannot be made; no environment was stepped.
        """
        log = self._log
        if log is None:
            log = self._open()
            if log is None:
                return self.env.step(actions)
        if self._recordings:
            self._begin_videos(log)
        result = self.env.step(actions)
        try:
            self._log_step(log, result)
        except Exception as error:  # noqa: BLE001 - training goes on
            self.faults.note(error)
        return result

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset the environments, or those of `options["reset_mask"]`.

        Episodes of theirs that have not ended are given up.
        """
        mask: Bools | None = None
        with self.faults:
            given = None if options is None else options.get("reset_mask")
            # A copy, and before the call: it is taken out of the options there.
            mask = None if given is None else flags_of("reset_mask", given, self.num_envs).copy()
        result = self.env.reset(seed=seed, options=options)
        with self.faults:
            self._begin(mask)
        return result

    def close(self, **kwargs: Any) -> None:
        """Close the environments. Frees the env ids, and closes the run if it was made here.

        A second call does nothing. Blocks until what was logged is delivered, a few seconds at
        most.
        """
        if self._log is not None or self._env_run.made:
            self._give_up()
            self._env_run.close()
        super().close(**kwargs)

    def metrana_hand_over(self) -> bool:
        """Called by a wrapper around this one: from now on this one logs nothing."""
        self._is_handed_over = True
        self._give_up()
        return True

    def __getstate__(self) -> dict[str, Any]:
        # A copy is another environment, and gets env ids of its own.
        unopened: dict[str, Any] = {
            "_log": None,
            "_recordings": {},
            "_reader": None,
            "_resets": None,
        }
        return {**self.__dict__, **unopened}

    def _forget(self) -> None:
        self._log: VectorEpisodes | None = None
        self._recordings: dict[int, Recording] = {}
        self._reader: FrameReader | None = None
        # Whose next step is the reset after the end of an episode.
        self._resets: Bools | None = None
        # Whether it logs nothing until the next reset, because somebody else does or nobody can.
        self._is_idle = False
        self._step_count = 0
        self._pid = os.getpid()

    def _give_up(self) -> None:
        if self._log is not None:
            for index in range(self.num_envs):
                self._end_video(self._log, index)
            self._log.release()
        self._forget()

    # ── Opening ──────────────────────────────────────────────────────────────────────────────────

    def _open(self) -> VectorEpisodes | None:
        """Open the run before the first step; None: this wrapper is passive."""
        if self._is_idle or self._is_handed_over:
            return None
        if is_passive_process():
            self._is_idle = True
            self.faults.warn_once("worker", _IN_WORKER)
            return None
        run = self._env_run.open()
        if run is None:
            self._is_idle = True
            return None
        log = VectorEpisodes(run, self._settings, self.faults, self.num_envs)
        if not log.claim(self._env_id, self._name()):
            self._is_idle = True
            return None
        with self.faults:
            if self._videos is not None:
                self._recordings = {
                    index: Recording.of_run(self._videos, log.run, log.env_ids[index], self.faults)
                    for index in self._video_envs
                }
            if self._take_over():
                self._reader = FrameReader(log.run, self.faults)
        self._log = log
        return log

    def _name(self) -> str | None:
        spec = self.env.spec
        if spec is None:
            envs = getattr(self.env.unwrapped, "envs", None)
            spec = getattr(envs[0], "spec", None) if isinstance(envs, list) and envs else None
        return None if spec is None else str(spec.id)

    def _take_over(self) -> bool:
        """Make wrappers inside passive; whether there are any, which give frames through infos."""
        for each in wrapped(self.env):
            if isinstance(each, MetranaVectorEnvWrapper):
                each.metrana_hand_over()
        base = self.env.unwrapped
        envs = getattr(base, "envs", None)
        if isinstance(envs, list):
            if self._mode is AutoresetMode.SAME_STEP:
                self._wrap_last_frames(envs)
            return any([hand_over(env) for env in envs])  # noqa: C419 - of each
        if isinstance(base, AsyncVectorEnv) and all(base.call("has_wrapper_attr", HAND_OVER)):
            base.call(HAND_OVER)
            return True
        return False

    def _wrap_last_frames(self, envs: list[Any]) -> None:
        from metrana.integrations.gymnasium import MetranaEnvWrapper  # it imports this module

        for index in self._recordings:
            if not envs[index].has_wrapper_attr(HAND_OVER):
                envs[index] = MetranaEnvWrapper(envs[index])

    # ── Steps ────────────────────────────────────────────────────────────────────────────────────

    def _log_step(self, log: VectorEpisodes, result: _VectorStep) -> None:
        _, rewards, terminated, truncated, infos = result
        # As environments usually give them; asked here, for a call would take longer.
        if not (
            type(terminated) is type(truncated) is np.ndarray
            and terminated.dtype is truncated.dtype is _BOOL
            and terminated.shape == truncated.shape == self._shape
        ):
            terminated = flags_of("terminations", terminated, self.num_envs)
            truncated = flags_of("truncations", truncated, self.num_envs)
        if type(infos) is not dict and not _is_mapping(infos):
            self.faults.warn_once("infos", _INFOS)
            infos = {}
        is_over = np.logical_or(terminated, truncated)
        ended = is_over.nonzero()[0]
        resets, self._resets = self._resets, None
        is_same_step = self._mode is AutoresetMode.SAME_STEP
        ending: Mapping[str, Any] = infos
        if is_same_step and len(ended):
            final = infos.get("final_info")
            ending = final if isinstance(final, Mapping) else infos
        columns: Sequence[Column] = ()
        if self._settings.info_metrics:
            with self.faults:  # the step is not lost by it
                columns = self._columns(infos, ending, ended)
        try:
            log.step(rewards, columns=columns, resets=resets)
        except Exception as error:  # noqa: BLE001 - the end of an episode is not lost by it
            self.faults.note(error)
        if self._recordings or self._reader is not None:
            self._record(log, infos, is_over)
        if len(ended):
            if self._mode is AutoresetMode.NEXT_STEP:
                self._resets = is_over
            successes: Column | None = None
            with self.faults:
                successes = successes_of_arrays(ending, self.num_envs, self.faults)
            log.finish(ended, terminated, truncated, successes)

    def _columns(
        self, infos: Mapping[str, Any], ending: Mapping[str, Any], ended: Integers
    ) -> list[Column]:
        """The info metrics of a step; `ending`: the infos of environments whose episode ended."""
        keys, num_envs = self._settings.info_metrics, self.num_envs
        columns = columns_of_arrays(keys, infos, num_envs, self.faults)
        if ending is infos:
            return columns
        # What the infos say of them is of the reset.
        finals = columns_of_arrays(keys, ending, num_envs, self.faults)
        return [
            column.with_others(final, ended) for column, final in zip(columns, finals, strict=True)
        ]

    def _begin(self, mask: Bools | None) -> None:
        if self._pid != os.getpid():  # a forked child: the env ids are its parent's
            self._forget()
        self._is_idle = False
        log = self._log
        if log is None:
            return
        if self._env_run.is_outdated(log):
            self._give_up()
            return
        for index in range(self.num_envs) if mask is None else mask.nonzero()[0].tolist():
            self._end_video(log, index)
        if mask is None or self._resets is None:
            self._resets = None
        else:
            self._resets = self._resets & ~mask
        log.begin(mask)

    # ── Videos ───────────────────────────────────────────────────────────────────────────────────

    def _begin_videos(self, log: VectorEpisodes) -> None:
        with self.faults:
            videos, resets = self._videos, self._resets
            step, self._step_count = self._step_count, self._step_count + 1
            triggered = videos is not None and step_triggered(videos, step, self.faults)
            picture = self._pictures()
            for index, recording in self._recordings.items():
                if resets is not None and resets[index]:
                    continue  # this step is none of an episode
                episode = int(log.episodes[index])
                is_first = log.is_first_step(index)
                if recording.begins(episode=episode if is_first else None, triggered=triggered):
                    recording.add(functools.partial(picture, index), log.rl_step, episode)

    def _record(self, log: VectorEpisodes, infos: dict[str, Any], is_over: Bools) -> None:
        given = {} if self._reader is None else _take_frames(infos)
        recordings = [(i, each) for i, each in self._recordings.items() if each.is_on]
        if recordings:
            picture = self._pictures()
            for index, recording in recordings:
                render: Callable[[], Any] | None = functools.partial(picture, index)
                frames = given.pop(index, None)
                if is_over[index] and self._mode is AutoresetMode.SAME_STEP:
                    render = None if frames is None else functools.partial(_last_of, frames)
                if render is None:
                    self.faults.warn_once("last frame", _LAST_FRAME)
                else:
                    recording.add(render, log.rl_step, int(log.episodes[index]))
        if self._reader is not None:
            for index, frames in given.items():
                self._reader.log(
                    frames,
                    rl_step=log.rl_step,
                    episode=int(log.episodes[index]),
                    env_id=log.env_ids[index],
                )
        for index in is_over.nonzero()[0].tolist():
            self._end_video(log, index)

    def _end_video(self, log: VectorEpisodes, index: int) -> None:
        """An environment's episode is over, or given up."""
        recording = self._recordings.get(index)
        if recording is not None:
            recording.end()
        if self._reader is not None:
            self._reader.end(log.env_ids[index])

    def _pictures(self) -> Callable[[int], Any]:
        """What renders one environment, of all of them at the same state."""
        envs = getattr(self.env.unwrapped, "envs", None)
        if isinstance(envs, list):
            return lambda index: envs[index].render()
        pictures: list[Any] = []

        def picture(index: int) -> Any:
            if not pictures:
                pictures.append(self._all_pictures())
            return pictures[0][index]

        return picture

    def _all_pictures(self) -> Any:
        found = self.env.render()
        if found is None or len(found) != self.num_envs:
            raise MetranaValidationError(
                "render(): must give a frame of each environment for a video of one of them"
            )
        return found


def _is_mapping(infos: object) -> bool:
    return isinstance(infos, Mapping)


def _autoreset_mode(metadata: Mapping[str, Any]) -> AutoresetMode:
    mode = metadata.get("autoreset_mode")
    # As Gymnasium itself takes it where nothing is said.
    return AutoresetMode.NEXT_STEP if mode is None else AutoresetMode(mode)


def _take_frames(infos: dict[str, Any]) -> dict[int, Frames]:
    """Take the frames out of an info of vector environments, by the environment's index."""
    found: dict[int, Frames] = {}
    for each in (infos, infos.get("final_info")):
        if not isinstance(each, dict):
            continue
        frames = each.pop(FRAMES_KEY, None)
        each.pop(f"_{FRAMES_KEY}", None)
        items = enumerate(() if frames is None else frames)
        found.update({index: item for index, item in items if isinstance(item, Frames)})
    return found


def _last_of(frames: Frames) -> Any:
    return frames.frames[-1]
