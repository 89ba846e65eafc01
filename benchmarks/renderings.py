"""What videos cost a training loop: `python -m benchmarks.renderings [--episodes 200]`.

Steps of 30 environments with episodes of about 20 frames of 64x64, offline. A step is some
milliseconds of work, half of them with the interpreter's lock, as Python has it, half without, as
tensors have it; then each environment's frame is made anew. The loop runs without videos, with all
frames kept (a full queue holds it up), and with those dropped that find no room. Memory is that of
the process, the greatest in each quarter of a loop. Last, the call that takes a new frame of
640x480 in colour. Ratios matter, absolutes drift with the machine.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import metrana
from benchmarks.processes import memory_mb
from benchmarks.timing import percentile_us, sample

ENVS = 30
EPISODE_FRAMES = 20
SIZE = (64, 64, 3)
CALL_SIZE = (480, 640, 3)
WORK_S = 0.005
MODES: dict[str, dict[str, Any] | None] = {
    "no videos": None,
    "every frame kept": {"backpressure_strategy": "block"},
    "dropped where no room is": {"backpressure_strategy": "drop_new", "enqueue_timeout_secs": 0},
}
_HEAD = ("", "p50 ms", "mean ms", "frames", "dropped", "videos", "close s", "MB by quarters")
_ROW = "{:26}{:>9}{:>9}{:>9}{:>9}{:>8}{:>9}  {}"


class Environments:
    """Their episodes, which end at different steps, and their frames."""

    def __init__(self) -> None:
        self.episode = np.zeros(ENVS, np.int64)
        self._left = np.array([self._length(index) for index in range(ENVS)])
        self._background = np.random.default_rng(0).integers(0, 255, SIZE).astype(np.uint8)
        self._matrix = np.ones((256, 256), np.float32)

    def work(self) -> None:
        """Take a step's time."""
        start = time.perf_counter()
        while time.perf_counter() < start + WORK_S / 2:
            pass
        while time.perf_counter() < start + WORK_S:
            self._product = self._matrix @ self._matrix

    def frame(self, index: int) -> np.ndarray:
        """A new array, as renderers give it: something moves over a background."""
        frame = self._background.copy()
        at = int(self._left[index]) * 2
        frame[at : at + 12, at : at + 12] = 255
        return frame

    def step(self) -> None:
        """Go on to the next frame of each, in the next episode where one has ended."""
        self._left -= 1
        for index in np.flatnonzero(self._left == 0):
            self.episode[index] += 1
            self._left[index] = self._length(int(index))

    def _length(self, index: int) -> int:
        return EPISODE_FRAMES - 5 + int(index * 7 + self.episode[index] * 3) % 11


def run_loop(name: str, data_dir: Path, steps: int) -> None:
    """Runs one of `MODES` and prints its row."""
    settings, envs = MODES[name], Environments()
    run = metrana.init(mode="offline", data_dir=data_dir, **(settings or {}))
    pid, times, memory = os.getpid(), [], []
    for step in range(steps):
        start = time.perf_counter()
        envs.work()
        for index in range(ENVS):
            frame = envs.frame(index)
            if settings is not None:
                run.log_rendering(
                    frame, rl_step=step, episode=int(envs.episode[index]), env_id=index
                )
        envs.step()
        run.log("loss", step)
        times.append(time.perf_counter() - start)
        memory.append(memory_mb([pid], ["RssAnon", "RssFile", "RssShmem"]))
    metrics, start = run.get_metrics(), time.perf_counter()
    run.close()
    closing_s = time.perf_counter() - start
    quarters = [max(part) for part in np.array_split(memory, 4)]
    print(
        _ROW.format(
            name,
            f"{np.median(times) * 1e3:.2f}",
            f"{np.mean(times) * 1e3:.2f}",
            metrics.rendering_frames_added,
            metrics.rendering_frames_dropped,
            0 if settings is None else int(envs.episode.sum()) + ENVS,
            f"{closing_s:.2f}",
            " ".join(f"{quarter:.1f}" for quarter in quarters),
        ),
        flush=True,
    )


def time_calls(data_dir: Path, seconds: float) -> None:
    """Prints what the call takes that is given a new frame, while an encoder is at work."""
    background = np.random.default_rng(0).integers(0, 255, CALL_SIZE).astype(np.uint8)
    with metrana.init(mode="offline", data_dir=data_dir, backpressure_strategy="block") as run:
        for pause_s in (0.02, 0.1):
            nanoseconds = sample(
                "log(frame, i, 0)",
                {"log": run.log_rendering, "background": background},
                seconds,
                setup="frame = background.copy()",
                burst=1,
                between=lambda pause_s=pause_s: time.sleep(pause_s),
            )
            p50, p90, p99 = (percentile_us(nanoseconds, one_in) for one_in in (2, 10, 100))
            print(
                f"call with a new 640x480 frame every {pause_s * 1e3:.0f} ms, "
                f"{len(nanoseconds)} calls: p50 {p50:,.0f} us, p90 {p90:,.0f} us, p99 {p99:,.0f} us"
            )


def main() -> None:
    """Runs each loop in a process of its own, in a temporary directory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=200, help="of each environment")
    parser.add_argument("--seconds", type=float, default=15, help="of calls, at each pace")
    parser.add_argument("--data-dir", type=Path, help="where; default: the system's temporary one")
    arguments = parser.parse_args()
    processes = multiprocessing.get_context("spawn")
    print(_ROW.format(*_HEAD), flush=True)
    with tempfile.TemporaryDirectory(dir=arguments.data_dir) as folder:
        works: list[tuple[Any, tuple[Any, ...]]] = [
            (run_loop, (name, Path(folder), arguments.episodes * EPISODE_FRAMES)) for name in MODES
        ]
        for work, given in [*works, (time_calls, (Path(folder), arguments.seconds))]:
            process = processes.Process(target=work, args=given)
            process.start()
            process.join()
    print("load average {:.2f} {:.2f} {:.2f}".format(*os.getloadavg()))


if __name__ == "__main__":
    main()
