"""Videos of episodes: which of them have one, and how frames get to the run. No framework is here.

An adapter that renders by itself has a `Recording` for each environment with videos: it asks
`begins` before each step, which is when the state is still that of the first frame, and then calls
`add` after each step for as long as `is_on`, and `end` when the episode is over.

One that cannot, because environments reset themselves within the step or live in other processes,
gets frames through infos: a wrapper that was handed over, by its method `_env_runs.HAND_OVER`, puts
`Frames` under `FRAMES_KEY`, all of them of the episode whose step the info is of; it has a
`FrameSource`. Whoever has it handed over has a `FrameReader`: it takes frames out of infos, gives
them to `log` before it logs the end of their episode, and calls `end` for environments whose
episode is over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from metrana import checks
from metrana.errors import MetranaValidationError
from metrana.integrations._common import Faults
from metrana.run import Run
from metrana.settings import MAX_FPS, MIN_FPS

Pixels = npt.NDArray[np.uint8]

FRAMES_KEY: Final = "metrana/frames"
"""Of infos. The value is a `Frames`."""

_DEFAULT_FPS: Final = 30.0
_MAX_LENGTH: Final = 2**40


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSettings:
    """Which episodes have videos, checked.

    Attributes:
        episode_trigger: Whether an episode has one, by its number.
        step_trigger: Whether one begins before a step, by the number of steps before it.
        length: Most frames of a video; 0: the whole episode.
        fps: Frames per second.
    """

    episode_trigger: Callable[[int], bool] | None
    step_trigger: Callable[[int], bool] | None
    length: int
    fps: float

    @classmethod
    def of(
        cls,
        *,
        episode_trigger: Callable[[int], bool] | None,
        step_trigger: Callable[[int], bool] | None,
        video_length: int,
        fps: float | None,
        render_mode: str | None,
        metadata: Mapping[str, Any],
    ) -> VideoSettings | None:
        """Check an adapter's arguments, named as here; None: no videos, for there is no trigger.

        Args:
            episode_trigger: See above.
            step_trigger: See above.
            video_length: `length`.
            fps: Default: `render_fps` of the metadata, else 30.
            render_mode: The environment's.
            metadata: The environment's.

        Raises:
            MetranaValidationError: For what is not allowed, a trigger without an rgb render mode
                included.
        """
        for name, trigger in (("episode_trigger", episode_trigger), ("step_trigger", step_trigger)):
            if trigger is not None and not callable(trigger):
                raise checks.refusal(name, trigger, "a function of an int that returns a bool")
        length = checks.whole_number("video_length", video_length, maximum=_MAX_LENGTH)
        if fps is not None:
            fps = checks.number("fps", fps, minimum=MIN_FPS, maximum=MAX_FPS)
        if episode_trigger is None and step_trigger is None:
            return None
        if render_mode is None or not render_mode.startswith("rgb"):
            name = "step_trigger" if episode_trigger is None else "episode_trigger"
            raise MetranaValidationError(
                f"{name}: videos need an environment that was made with render_mode='rgb_array', "
                f"not {render_mode!r}"
            )
        return cls(
            episode_trigger=episode_trigger,
            step_trigger=step_trigger,
            length=length,
            fps=_fps_of(metadata) if fps is None else fps,
        )


def video_indices(video_envs: Sequence[int], num_envs: int | None = None) -> list[int]:
    """Check the argument `video_envs` of an adapter.

    Args:
        video_envs: Indices of environments.
        num_envs: How many there are. Default: any number.

    Raises:
        MetranaValidationError: For anything else.
    """
    found = checks.listed("video_envs", video_envs, "a list of indices of environments")
    greatest = _MAX_LENGTH if num_envs is None else num_envs - 1
    return sorted({checks.whole_number("video_envs", each, maximum=greatest) for each in found})


def _fps_of(metadata: Mapping[str, Any]) -> float:
    fps = metadata.get("render_fps")
    is_number = isinstance(fps, (int, float)) and MIN_FPS <= fps <= MAX_FPS
    return float(fps) if is_number and fps is not None else _DEFAULT_FPS


class Recording:
    """The videos of one environment, one after the other. Never raises.

    Args:
        settings: Which.
        log_frame: Takes a frame, its rl_step and its episode.
        end_video: Called when a video has all its frames.
        faults: What goes wrong ends the video and is counted there.

    Attributes:
        is_on: Whether a video has begun and not ended.
    """

    def __init__(
        self,
        settings: VideoSettings,
        log_frame: Callable[[Pixels, int, int], None],
        end_video: Callable[[], None],
        faults: Faults,
    ) -> None:
        self.is_on = False
        self._settings = settings
        self._log_frame = log_frame
        self._end_video = end_video
        self._faults = faults
        self._is_possible = True
        self._left = math.inf

    @classmethod
    def of_run(cls, settings: VideoSettings, run: Run, env_id: str, faults: Faults) -> Recording:
        """One that logs to a run."""

        def log_frame(frame: Pixels, rl_step: int, episode: int) -> None:
            run.log_rendering(frame, rl_step, episode, env_id, settings.fps)

        def end_video() -> None:
            run._end_rendering(env_id)  # noqa: SLF001 - the run's other half

        return cls(settings, log_frame, end_video, faults)

    def begins(self, *, episode: int | None, triggered: bool) -> bool:
        """Whether a video begins with the present state; asked before a step.

        Args:
            episode: The episode's number, if the step is its first; else None.
            triggered: Whether `step_trigger` says so.

        Returns:
            True once for a video: a frame of the state is to be added.
        """
        if self.is_on or not self._is_possible:
            return False
        ask = self._settings.episode_trigger
        if episode is not None and ask is not None:
            with self._faults:
                triggered = bool(ask(episode)) or triggered
        self.is_on = triggered
        self._left = self._settings.length or math.inf
        return triggered

    def add(self, render: Callable[[], Any], rl_step: int, episode: int) -> None:
        """Add a frame.

        Args:
            render: Makes it.
            rl_step: Of the state.
            episode: The episode.
        """
        try:
            self._log_frame(even(render()), rl_step, episode)
        except Exception as error:  # noqa: BLE001 - whatever renderers raise; training goes on
            self._is_possible = not isinstance(error, ModuleNotFoundError)
            self._faults.note(error)
            self.end()
            return
        self._left -= 1
        if not self._left:
            self.end()

    def end(self) -> None:
        """The episode is over, or given up."""
        if self.is_on:
            self.is_on = False
            with self._faults:
                self._end_video()


def step_triggered(settings: VideoSettings, step: int, faults: Faults) -> bool:
    """Whether `step_trigger` begins a video before this step."""
    if settings.step_trigger is not None:
        with faults:
            return bool(settings.step_trigger(step))
    return False


def even(picture: Any) -> Pixels:
    """A frame as `Run.log_rendering` takes it: what `render` gave, without alpha, of even sizes.

    Args:
        picture: An array, or a list of them, of which the last one counts. A side of an odd size
            gets its last row or column twice.

    Raises:
        MetranaValidationError: If it is neither.
    """
    if isinstance(picture, (list, tuple)) and picture:
        picture = picture[-1]
    array = np.asarray(picture.cpu() if hasattr(picture, "cpu") else picture)
    if array.ndim not in (2, 3):
        raise checks.refusal("render()", picture, "an array of shape (H, W, 3) or (H, W)")
    if array.ndim == 3 and array.shape[2] == 4:
        array = array[:, :, :3]
    if array.shape[0] % 2 or array.shape[1] % 2:
        missing = [(0, side % 2) for side in array.shape[:2]]
        array = np.pad(array, [*missing, (0, 0)][: array.ndim], mode="edge")
    return array


class Frames:
    """Frames on their way through an info: one object, which nobody takes for an array.

    Args:
        frames: As `even` gives them, copies.
        fps: Frames per second.
        is_video: Whether they are of a video of the wrapper that gives them; else it is the last
            frame of an episode, for somebody who renders the others.
        ends: Whether their video ends with the last of them though the episode goes on.
    """

    __slots__ = ("ends", "fps", "frames", "is_video")

    def __init__(
        self, frames: list[Pixels], fps: float, *, is_video: bool, ends: bool = False
    ) -> None:
        self.frames = frames
        self.fps = fps
        self.is_video = is_video
        self.ends = ends

    def __repr__(self) -> str:
        return f"<{len(self.frames)} frames>"


class FrameSource:
    """What a wrapper without a run renders: frames that it gives through infos. Never raises.

    Those of its own videos, whose episodes count from 0 here, or go on from `number`. Beyond that,
    the last frame of an episode that somebody else renders: nobody else can have it where
    environments reset themselves.

    Args:
        settings: Of its own videos; None: it has none.
        faults: Counts what goes wrong.
    """

    def __init__(self, settings: VideoSettings | None, faults: Faults) -> None:
        self.was_rendered = False
        """Whether somebody rendered the environment since its last step."""
        self._settings = settings
        self._faults = faults
        self._recording = (
            None if settings is None else Recording(settings, self._keep, self._end, faults)
        )
        self._frames: list[Pixels] = []
        self._ends = False
        self._episode = self._length = self._step_count = 0

    def before_step(self, render: Callable[[], Any]) -> None:
        """The environment is about to be stepped."""
        recording = self._recording
        if recording is None or self._settings is None:
            return
        triggered = step_triggered(self._settings, self._step_count, self._faults)
        episode = None if self._length else self._episode
        if recording.begins(episode=episode, triggered=triggered):
            recording.add(render, 0, 0)

    def after_step(self, render: Callable[[], Any], *, is_over: bool) -> Frames | None:
        """The environment was stepped.

        Args:
            render: Makes a frame.
            is_over: Whether its episode ended.

        Returns:
            What to give through the step's info.
        """
        self._length += 1
        self._step_count += 1
        recording = self._recording
        # One of a single frame is over by now.
        is_video = bool(self._frames) or (recording is not None and recording.is_on)
        if recording is not None and recording.is_on:
            recording.add(render, 0, 0)
        elif is_over and self.was_rendered and not is_video:
            with self._faults:
                self._keep(even(render()), 0, 0)
        self.was_rendered = False
        frames, ends = self._frames, self._ends
        if is_over:
            self.begin()
        self._frames, self._ends = [], False
        if not frames:
            return None
        fps = _DEFAULT_FPS if self._settings is None else self._settings.fps
        return Frames(frames, fps, is_video=is_video, ends=ends)

    def number(self, episode: int) -> None:
        """The present episode begins anew under a number that somebody else counts."""
        self.begin()
        self._episode = episode

    def begin(self) -> None:
        """The environment is reset."""
        if self._recording is not None:
            self._recording.end()
        self._frames, self._ends = [], False
        self._episode += self._length > 0
        self._length = 0
        self.was_rendered = False

    def _keep(self, frame: Pixels, _rl_step: int, _episode: int) -> None:
        self._frames.append(np.array(frame))

    def _end(self) -> None:
        self._ends = True


class FrameReader:
    """Logs the frames that come through infos. Never raises.

    Args:
        run: Gets them.
        faults: Counts what goes wrong.
    """

    def __init__(self, run: Run, faults: Faults) -> None:
        self._run = run
        self._faults = faults
        self._open: set[str] = set()

    def log(self, frames: Frames, *, rl_step: int, episode: int, env_id: str) -> None:
        """Log frames of an environment's episode, if they are of a video."""
        if not frames.is_video:
            return
        self._open.add(env_id)
        with self._faults:
            for frame in frames.frames:
                self._run.log_rendering(frame, rl_step, episode, env_id, frames.fps)
        if frames.ends:
            self.end(env_id)

    def end(self, env_id: str) -> None:
        """An episode is over; does nothing if there were no frames of it."""
        if env_id in self._open:
            self._open.discard(env_id)
            with self._faults:
                self._run._end_rendering(env_id)  # noqa: SLF001 - the run's other half
