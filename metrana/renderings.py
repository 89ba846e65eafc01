"""A run's renderings; nothing of the package `metrana.rendering` is imported before a frame."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from metrana.errors import MetranaUnavailableError
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

    def __init__(self, core: RunCore, settings: Settings) -> None:
        self._core = core
        self._settings = settings

    def add(self, frame: Any, rl_step: Any, episode: Any, env_id: Any, fps: Any) -> None:
        """Take a frame, as `Run.log_rendering` says."""
        recorder = self._recorder
        if recorder is None:
            engine = self._engine()
            from metrana.rendering import opening

            opening.check(frame, rl_step, episode, env_id, fps)
            if engine is None:
                return
            recorder = self._open(*engine)
        recorder.add(frame, rl_step, episode, env_id, fps)

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

    def take_faults(self) -> list[str]:
        """Take the messages of what went wrong, the oldest first."""
        return [] if self._recorder is None else self._recorder.take_faults()

    def close(self, exit_timeout_s: float | None = None) -> None:
        """Finish all videos; the engine delivers them when it is closed, so after this. Blocks.

        Args:
            exit_timeout_s: At the end of the process: longest wait if the user named none.
        """
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

    def _engine(self) -> tuple[Callable[[], str], Callable[[str], None]] | None:
        """What the native module offers for renderings; None in mode `disabled`."""
        if self._settings.mode == "disabled":
            return None
        # The folder of the writer's videos, made; and who is told the rendering_id of each that
        # is whole. A native module that has neither has no other part of it.
        folder = getattr(self._core, "_rendering_folder", None)
        finished = getattr(self._core, "_rendering_finished", None)
        if folder is None or finished is None:
            raise MetranaUnavailableError(
                "this version of metrana does not record renderings yet; a later one will, with "
                "pip install 'metrana[rendering]'"
            )
        return folder, finished

    def _open(self, folder: Callable[[], str], finished: Callable[[str], None]) -> Recorder:
        from metrana.rendering.opening import open_recorder

        recorder = open_recorder(self._settings, folder=folder, finished=finished)
        with contextlib.suppress(OSError):  # which the recorder reports as it does all others
            folder()  # a forked child's own writer is opened by this, so in the user's thread
        # Two threads may be here.
        return self.__dict__.setdefault("_recorder", recorder)  # type: ignore[no-any-return]
