"""A run's renderings; nothing of the package `metrana.rendering` is imported before a frame."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from metrana.snapshots import Metrics

if TYPE_CHECKING:
    from metrana._native import RunCore
    from metrana.rendering.recorder import Recorder
    from metrana.settings import Settings


class Renderings:
    """The videos of a run. Thread-safe.

    Args:
        core: The run.
        settings: What it was opened with.
    """

    _recorder: Recorder | None = None
    _is_closed = False

    def __init__(self, core: RunCore, settings: Settings) -> None:
        self._core = core
        self._settings = settings

    def add(self, frame: Any, rl_step: Any, episode: Any, env_id: Any, fps: Any) -> None:
        """Take a frame, as `Run.log_rendering` says."""
        recorder = self._recorder
        if recorder is None:
            from metrana.rendering import opening

            opening.check(frame, rl_step, episode, env_id, fps)
            if not self._is_recorded():
                return
            recorder = opening.open_recorder(
                self._settings,
                folder=self._folder,
                finished=self._core._rendering_finished,  # noqa: SLF001
            )
            # Two threads may be here.
            recorder = self.__dict__.setdefault("_recorder", recorder)
            if self._is_closed:  # by another one, which saw no recorder: the import takes its time
                recorder.close()
        recorder.add(frame, rl_step, episode, env_id, fps)

    def end(self, env_id: str) -> None:
        """End the video of an environment with the last frame that was added, if there is one."""
        if self._recorder is not None:
            self._recorder.end(env_id)

    def counted_in(self, metrics: Metrics) -> Metrics:
        """The counters of a run with those of its videos."""
        recorder = self._recorder
        if recorder is None:
            return metrics
        counts = recorder.counts()
        return replace(
            metrics,
            rendering_frames_added=counts.added,
            rendering_frames_encoded=counts.encoded,
            rendering_frames_dropped=counts.dropped,
            errors_reported=metrics.errors_reported + recorder.fault_count,
        )

    def problems(self) -> list[str]:
        """The messages of what went wrong, taken or not, the oldest first."""
        return [] if self._recorder is None else self._recorder.problems()

    def take_faults(self) -> list[str]:
        """Take the messages of what went wrong, the oldest first."""
        return [] if self._recorder is None else self._recorder.take_faults()

    def close(self, exit_timeout_s: float | None = None) -> None:
        """Finish all videos; the engine delivers them when it is closed, so after this. Blocks.

        Args:
            exit_timeout_s: At the end of the process: longest wait if the user named none.
        """
        self._is_closed = True  # before the look, as `add` looks here behind its change there
        if self._recorder is not None:
            is_named = self._settings.rendering_close_timeout is not None
            self._recorder.close(None if is_named else exit_timeout_s)

    def reporting(self, *, at_exit: bool = False) -> contextlib.AbstractContextManager[None]:
        """What a run's end is put in, so that faults of its videos come to light behind it.

        Raises:
            MetranaSenderError: As `error_strategy` asks. At the exit of the process never.
        """
        if self._recorder is None:
            return contextlib.nullcontext()
        return self._recorder.reporting_at_exit() if at_exit else self._recorder.reporting()

    def _is_recorded(self) -> bool:
        """Whether the run keeps anything: not in mode `disabled`.

        The first look also opens the writer of a forked child, so it is the user's thread's.
        """
        try:
            return self._core._rendering_folder() is not None  # noqa: SLF001
        except OSError:  # the recorder meets it again, and reports it as it does all others
            return True

    def _folder(self) -> str:
        folder = self._core._rendering_folder()  # noqa: SLF001
        if folder is None:
            raise AssertionError("a disabled run records nothing")
        return folder
