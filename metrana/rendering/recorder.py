"""The recorder: a bounded queue of frames, and the workers that make videos of them.

The caller appends to an inbox, one atomic operation under the one lock, so that a signal's handler
that raises, or logs in its turn, finds everything in order. Workers, which no signal ever
interrupts, move frames from there to their environments. An environment is *held* by at most one
worker, which takes one frame of it at a time: its frames are encoded in order, and environments
take turns.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from metrana.enums import BackpressureStrategy
from metrana.errors import (
    MetranaError,
    MetranaEventQueueFullError,
    MetranaLoggerClosedError,
    MetranaProcessForkError,
    MetranaSenderError,
)
from metrana.rendering.environment import Environment, Frame
from metrana.rendering.frames import (
    Format,
    FramePool,
    checked_fps,
    checked_pixels,
    checked_place,
    copy,
)
from metrana.rendering.options import RecordingOptions
from metrana.rendering.outlet import Outlet
from metrana.rendering.reports import Reports

# Each has a file and an encoder, which keeps some frames.
MAX_OPEN_VIDEOS: Final = 64
# A worker that waits so long closes an encoder that has no video.
_IDLE_S: Final = 0.25


class FrameCounts(NamedTuple):
    """What became of frames: `added - encoded - dropped` of them are on their way."""

    added: int
    encoded: int
    dropped: int


class _Job(NamedTuple):
    environment: Environment
    frame: Frame | None
    """None: the environment's video is to be finished."""


class Recorder:
    """Makes videos of the frames that it is given. Thread-safe.

    Its threads start with the first frames, as many as there is work for.

    Args:
        options: How, and where they go.
    """

    def __init__(self, options: RecordingOptions) -> None:
        self._options = options
        self._reports = Reports(options.error_strategy)
        self._pid = os.getpid()
        # Reentrant: a signal's handler may log or close while its thread is in here.
        self._lock = threading.RLock()
        self._has_work = threading.Condition(self._lock)
        self._has_room = threading.Condition(self._lock)
        self._has_ended = threading.Condition(self._lock)
        self._pool = FramePool()
        self._inbox: deque[Frame] = deque()
        self._environments: dict[str, Environment] = {}
        self._ready: deque[Environment] = deque()
        """Those that have frames and that nobody holds."""
        self._ending: deque[Environment] = deque()
        """Those whose video has all its frames and is to end; held, for the worker that comes."""
        self._open: dict[Environment, None] = {}
        """Those with an open video, the one longest without a frame first."""
        self._waiting_count = self._working_count = 0
        """Frames of environments, those that are being encoded."""
        self._encoded_count = self._dropped_count = 0
        self._threads: list[threading.Thread] = []
        """Started by callers."""
        self._worker_count = self._idle_count = 0
        """Threads that have begun and not ended, those of them that wait for work."""
        self._is_closed = self._is_given_up = False
        self._outlet = Outlet(options, self._reports)

    # ── The caller's side ────────────────────────────────────────────────────────────────────────

    def add(self, frame: Any, rl_step: Any, episode: Any, env_id: Any, fps: Any) -> None:
        """Take a frame, as `Run.log_rendering` says; waits for room as the strategy says."""
        if self._is_inherited():
            raise MetranaProcessForkError(
                f"the videos of this run are recorded by process {self._pid}, of which this one is "
                "a fork: open a run of your own with metrana.init() to record here"
            )
        place = checked_place(rl_step, episode, env_id)
        pixels = checked_pixels(frame)
        speed = self._options.fps if fps is None else checked_fps(fps)
        with self._lock:
            if self._waits_for_room(pixels.nbytes):
                buffer = self._pool.take(pixels.shape)
                copy(pixels, buffer)
                self._inbox.append(Frame(place, Format(pixels.shape, speed), buffer))
                self._start_worker()
                self._has_work.notify()
        self._reports.show()

    def end(self, env_id: str) -> None:
        """End an environment's video behind the frames that came so far. Does not wait for it."""
        if self._is_inherited():
            return
        with self._lock:
            frames = [frame for frame in self._inbox.copy() if frame.place.env_id == env_id]
            environment = self._environments.get(env_id)
            if not frames and environment is not None:
                frames = list(environment.waiting)
            if frames:
                frames[-1].is_last = True
            elif environment is not None and environment.is_held:
                environment.is_to_end = True
            elif environment is not None and environment.has_video:
                self._let_end(environment)
                self._start_worker()
                self._has_work.notify()

    def counts(self) -> FrameCounts:
        """The frames so far."""
        if self._is_inherited():
            return FrameCounts(0, 0, 0)
        with self._lock:
            pending = len(self._inbox) + self._waiting_count + self._working_count
            encoded, dropped = self._encoded_count, self._dropped_count
        return FrameCounts(encoded + dropped + pending, encoded, dropped)

    @property
    def fault_count(self) -> int:
        """How many messages `take_faults` gave or will give."""
        return 0 if self._is_inherited() else self._reports.fault_count

    def problems(self) -> list[str]:
        """The messages of faults, taken or not, the oldest first."""
        return [] if self._is_inherited() else self._reports.messages()

    def take_faults(self) -> list[str]:
        """Take the messages of faults, the oldest first."""
        return [] if self._is_inherited() else self._reports.take()

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Let faults come to light behind the block, which ends the run.

        Raises:
            MetranaSenderError: As `error_strategy` asks. If the block raises, it is the cause.
        """
        try:
            yield
        except MetranaError as error:
            try:
                self._show_at_close()
            except MetranaSenderError as fault:
                error.__cause__ = error.__cause__ or fault
            raise
        self._show_at_close()

    @contextmanager
    def reporting_at_exit(self) -> Iterator[None]:
        """The same at the end of the process, where faults are warnings, whoever is to raise."""
        try:
            yield
        finally:
            if not self._is_inherited():
                self._reports.show_at_exit()

    def close(self, timeout_s: float | None = None) -> None:
        """Encode what is queued, unless it is to be dropped, and finish all videos. Blocks.

        What is not done in time is dropped and counted; the files stay for recovery. Called again
        after an interrupt, it goes on waiting; else a second call does nothing.

        Args:
            timeout_s: Longest wait, in seconds. Default: `rendering_close_timeout`.
        """
        if self._is_inherited():
            return
        limit_s = self._options.close_timeout_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + limit_s
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                if self._options.drops_queue_on_close:
                    self._drop_queue()
                self._has_room.notify_all()
            if self._is_busy() and not self._is_given_up:
                self._start_worker()  # an interrupt may have come before there was one
            self._has_work.notify_all()
            while self._is_busy() and not self._is_given_up:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    self._give_up(limit_s)
                else:
                    self._has_ended.wait(left_s)
            self._pool = FramePool()
            self._outlet.encoders.clear()

    def _is_busy(self) -> bool:
        """Whether anything is left of which a worker is to make something, or has not made it."""
        return bool(self._worker_count or self._inbox or self._waiting_count or self._open)

    def _show_at_close(self) -> None:
        if not self._is_inherited():
            self._reports.show_at_close()

    def _is_inherited(self) -> bool:
        """Whether this is a forked child's copy: its threads do not exist, its lock may be held."""
        return os.getpid() != self._pid

    def _waits_for_room(self, frame_bytes: int) -> bool:
        """Wait until the queue has room for a frame. False: it is dropped.

        Raises:
            MetranaEventQueueFullError: If there is none and the strategy is `raise`.
            MetranaLoggerClosedError: If the recorder is closed.
        """
        limit = self._options.queue_limit(frame_bytes)
        strategy = self._options.backpressure_strategy
        blocks = strategy is BackpressureStrategy.BLOCK
        timeout_s = None if blocks else self._options.enqueue_timeout_s

        def may_go_on() -> bool:
            return self._is_closed or len(self._inbox) + self._waiting_count < limit

        has_room = self._has_room.wait_for(may_go_on, timeout_s)
        if self._is_closed:
            raise MetranaLoggerClosedError(
                "the run is closed: call metrana.init() to open another, or this one again"
            )
        if has_room:
            return True
        self._dropped_count += 1
        if strategy is BackpressureStrategy.RAISE:
            raise MetranaEventQueueFullError(
                f"{limit} frames waited to be encoded for {timeout_s:g} s, which is as many as may "
                "(rendering_queue_max_size); this one is dropped"
            )
        return False

    def _start_worker(self) -> None:
        # An interrupt may have come before one that is in the list has begun.
        alive = [thread for thread in self._threads if thread.is_alive()]
        if self._idle_count or len(alive) >= self._options.encoder_count:
            return
        name = f"metrana-render-{len(alive) + 1}"
        self._threads = [*alive, threading.Thread(target=self._work, name=name, daemon=True)]
        try:
            self._threads[-1].start()
        except RuntimeError:  # no more threads, or the interpreter is about to end
            if not alive:  # else those there are have to do
                self._drop_queue()
                self._reports.fault("thread", "no thread could be started to encode videos")

    def _drop_queue(self) -> None:
        count = len(self._inbox) + self._waiting_count
        for environment in self._environments.values():
            environment.waiting.clear()
        self._ready.clear()
        self._inbox.clear()
        self._waiting_count = 0
        self._dropped_count += count

    def _give_up(self, limit_s: float) -> None:
        """Leave the rest to recovery: workers may be stuck for ever."""
        self._is_given_up = True
        while self._ending:
            self._ending.popleft().is_held = False
        for environment in self._environments.values():
            environment.abandon()
        self._open.clear()
        self._drop_queue()
        self._dropped_count += self._working_count
        self._working_count = 0
        self._reports.fault(
            "close",
            f"the videos could not be finished within {limit_s:g} s: what was not encoded yet is "
            "dropped, the rest is kept for delivery",
        )

    # ── The workers' side ────────────────────────────────────────────────────────────────────────

    def _work(self) -> None:
        with self._lock:
            self._worker_count += 1
        while (job := self._next_job()) is not None:
            environment, frame = job
            is_encoded = False
            try:
                if frame is not None:
                    is_encoded = environment.encode(frame, self._make_room)
                if frame is None or frame.is_last:
                    environment.finish()
            except Exception as error:  # noqa: BLE001 - a close would wait for a worker that died
                self._reports.fault("worker", f"a frame could not be recorded: {error!r}")
            self._end_job(job, is_encoded=is_encoded)

    def _next_job(self) -> _Job | None:
        """Wait for something to do. None: nothing comes any more, the worker ends."""
        with self._lock:
            while not self._is_given_up:
                self._sort_inbox()
                if self._ending:
                    return _Job(self._ending.popleft(), None)
                if self._ready:
                    return self._next_frame()
                if self._is_closed:
                    left = next((each for each in self._open if not each.is_held), None)
                    if left is None:
                        break
                    left.is_held = True
                    return _Job(left, None)
                self._idle_count += 1
                encoders = self._outlet.encoders
                is_called = self._has_work.wait(_IDLE_S if encoders else None)
                self._idle_count -= 1
                if not is_called:
                    encoders.drop_one()  # one at a time: a caller waits meanwhile
            self._worker_count -= 1
            self._has_ended.notify_all()
            return None

    def _sort_inbox(self) -> None:
        while self._inbox:
            frame = self._inbox.popleft()
            environment = self._environments.get(frame.place.env_id)
            if environment is None:
                environment = self._environments[frame.place.env_id] = Environment(self._outlet)
            if not environment.waiting and not environment.is_held:
                self._ready.append(environment)
            environment.waiting.append(frame)
            self._waiting_count += 1

    def _next_frame(self) -> _Job:
        environment = self._ready.popleft()
        environment.is_held = True
        frame = environment.waiting.popleft()
        self._waiting_count -= 1
        self._working_count += 1
        self._has_room.notify_all()
        if self._ready:
            self._has_work.notify()
        return _Job(environment, frame)

    def _end_job(self, job: _Job, *, is_encoded: bool) -> None:
        with self._lock:
            self._release(job.environment)
            if job.frame is None:
                return
            self._pool.give_back(job.frame.pixels)
            if self._is_given_up:  # it is counted as dropped
                return
            self._working_count -= 1
            if is_encoded:
                self._encoded_count += 1
            else:
                self._dropped_count += 1

    def _let_end(self, environment: Environment) -> None:
        """Leave an environment to the next worker that is free, which ends its video."""
        environment.is_held = True
        self._ending.append(environment)

    def _release(self, environment: Environment) -> None:
        environment.is_held = False
        self._open.pop(environment, None)
        if environment.has_video:
            self._open[environment] = None  # the last one: it has just had a frame
        if environment.is_to_end:
            environment.is_to_end = False
            if environment.has_video and not self._is_given_up:
                self._let_end(environment)
                return  # what waits is readied when it is ended
        if environment.waiting:
            self._ready.append(environment)

    def _make_room(self) -> None:
        """Finish the video that has been longest without a frame, if too many are open."""
        with self._lock:
            if len(self._open) < MAX_OPEN_VIDEOS:
                return
            free = [each for each in self._open if not each.is_held]
            oldest = next((each for each in free if not each.waiting), free[0] if free else None)
            if oldest is None:
                return
            oldest.is_held = True
            if oldest.waiting:
                self._ready.remove(oldest)
        self._reports.remark(
            "open",
            f"frames of more than {MAX_OPEN_VIDEOS} environments come in turns, and no more videos "
            "are open at a time: episodes are recorded in several parts",
        )
        oldest.finish()
        with self._lock:
            self._release(oldest)
