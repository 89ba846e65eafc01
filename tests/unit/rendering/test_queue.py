"""A queue that is full: what becomes of the next frame."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import metrana
from metrana.rendering.recorder import Recorder
from tests.local_server import wait_until
from tests.recording import recorder, shade, videos

STRATEGY = metrana.BackpressureStrategy


class Stuck:
    """A recorder whose worker waits with its first frame, as long as it is to."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self._go_on = threading.Event()
        self._inside = threading.Event()
        self._folder = folder
        self.recorder: Recorder = recorder(folder, folder=self._made, **options)

    def _made(self) -> Path:
        self._inside.set()
        self._go_on.wait(60)
        return self._folder

    def fill(self, frame: np.ndarray, count: int) -> None:
        """Logs one that the worker takes, and as many that wait."""
        self.recorder.add(frame, 0, 0, None, None)
        assert self._inside.wait(30)
        for _ in range(count):
            self.recorder.add(frame, 0, 0, None, None)

    def go_on(self) -> None:
        self._go_on.set()


@pytest.fixture
def stuck(tmp_path: Path) -> Iterator[Any]:
    made: list[Stuck] = []

    def make(**options: Any) -> Stuck:
        made.append(Stuck(tmp_path, **options))
        return made[-1]

    yield make
    for each in made:
        each.go_on()
        each.recorder.close()


def test_a_frame_without_room_is_dropped_and_counted(stuck: Any, tmp_path: Path) -> None:
    queue = stuck(queue_frames=5, backpressure_strategy=STRATEGY.DROP_NEW, enqueue_timeout_s=0.05)
    queue.fill(shade(10), 5)
    before = time.monotonic()
    queue.recorder.add(shade(20), 0, 0, None, None)
    assert time.monotonic() - before >= 0.05
    assert queue.recorder.counts() == (7, 0, 1)
    queue.go_on()
    queue.recorder.close()
    assert queue.recorder.counts() == (7, 6, 1)
    assert videos(tmp_path)["default", 0, 1].shades == pytest.approx([10] * 6, abs=1)


def test_a_frame_without_room_raises_and_is_counted(stuck: Any) -> None:
    queue = stuck(queue_frames=5, backpressure_strategy=STRATEGY.RAISE)
    queue.fill(shade(10), 5)
    with pytest.raises(metrana.MetranaEventQueueFullError, match=r"5 frames.*0\.05 s.*max_size"):
        queue.recorder.add(shade(20), 0, 0, None, None)
    assert queue.recorder.counts() == (7, 0, 1)


def test_a_frame_without_room_waits_for_it(stuck: Any) -> None:
    queue = stuck(queue_frames=5, backpressure_strategy=STRATEGY.BLOCK)
    queue.fill(shade(10), 5)
    waiting = threading.Thread(target=queue.recorder.add, args=(shade(20), 0, 0, None, None))
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive()
    assert queue.recorder.counts() == (6, 0, 0)
    queue.go_on()
    waiting.join(30)
    queue.recorder.close()
    assert queue.recorder.counts() == (7, 7, 0)


@pytest.mark.usefixtures("interrupts")
def test_ctrl_c_ends_the_wait_and_takes_nothing(stuck: Any) -> None:
    queue = stuck(queue_frames=5, backpressure_strategy=STRATEGY.BLOCK)
    queue.fill(shade(10), 5)
    main = threading.main_thread().ident
    assert main is not None
    alarm = threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT))
    alarm.start()
    with pytest.raises(KeyboardInterrupt):
        queue.recorder.add(shade(20), 0, 0, None, None)
    alarm.join()
    assert queue.recorder.counts() == (6, 0, 0)
    queue.go_on()
    queue.recorder.close()
    assert queue.recorder.counts() == (6, 6, 0)


def test_a_close_ends_the_wait(stuck: Any) -> None:
    queue = stuck(queue_frames=5, backpressure_strategy=STRATEGY.BLOCK)
    queue.fill(shade(10), 5)
    raised: list[BaseException] = []

    def log() -> None:
        try:
            queue.recorder.add(shade(20), 0, 0, None, None)
        except metrana.MetranaLoggerClosedError as error:
            raised.append(error)

    waiting, closing = threading.Thread(target=log), threading.Thread(target=queue.recorder.close)
    waiting.start()
    wait_until(lambda: queue.recorder._has_room._waiters)
    closing.start()
    waiting.join(30)
    assert len(raised) == 1
    queue.go_on()
    closing.join(30)
    assert queue.recorder.counts() == (6, 6, 0)


@pytest.mark.parametrize(
    ("shape", "limit"),
    [((480, 640, 3), 72), ((480, 640), 217), ((4096, 4096, 3), 4), ((2, 2), 95_325)],
    ids=str,
)
def test_a_queue_holds_64_mib_if_nobody_says_otherwise(
    stuck: Any, shape: tuple[int, ...], limit: int
) -> None:
    queue = stuck(backpressure_strategy=STRATEGY.RAISE, enqueue_timeout_s=0.0)
    frame = np.zeros(shape, np.uint8)
    queue.fill(frame, limit)
    with pytest.raises(metrana.MetranaEventQueueFullError, match=f"{limit} frames"):
        queue.recorder.add(frame, 0, 0, None, None)
    queue.recorder.close(0)


def test_a_handler_that_logs_while_its_thread_logs_waits_for_nobody(tmp_path: Path) -> None:
    recording = recorder(tmp_path)
    logged, in_loop = 0, 0

    def handler(*_: object) -> None:
        nonlocal logged
        recording.add(shade(200), 0, 0, "handler", None)
        logged += 1

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
    try:
        while logged < 50:
            recording.add(shade(100), 0, 0, "loop", None)
            in_loop += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    recording.close()
    assert recording.counts() == (in_loop + logged, in_loop + logged, 0)


@pytest.mark.usefixtures("interrupts")
def test_interrupts_at_any_instant_leave_the_counts_right(tmp_path: Path) -> None:
    recording = recorder(tmp_path)
    interrupted, returned = 0, 0

    def handler(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, handler)
    try:
        for i in range(600):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.00002 + (i % 50) * 0.000004)
                recording.add(shade(100), i, 0, None, None)
                returned += 1
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted > 10
    recording.close(30)
    counts = recording.counts()
    assert counts.added == counts.encoded >= returned
    assert len(videos(tmp_path)["default", 0, 1].frames) == counts.encoded
