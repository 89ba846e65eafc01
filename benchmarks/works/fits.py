"""How much longer a framework's training takes because it is logged.

A process trains without a logger, twice with one, and without again, behind a short training that
is not timed: what drifts in this time is the same on both sides. Each training has a run of its
own, which is open before its clock starts; what the framework does at its end counts, closing the
run is apart.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch

from benchmarks.fits import NONE, SERVED, open_run, training_of
from benchmarks.place import Figures, Place

# One or two seconds each.
_STEPS = {"lightning": 2000, "transformers": 400, "gymnasium": 200_000, "sb3": 2048}
_WARM_UP = 20


def measure_fit_lightning(place: Place) -> Figures:
    """Fits a perceptron."""
    return _slow_down(place, "lightning")


def measure_fit_transformers(place: Place) -> Figures:
    """Trains a small GPT-2."""
    return _slow_down(place, "transformers")


def measure_fit_gymnasium(place: Place) -> Figures:
    """Steps an environment."""
    return _slow_down(place, "gymnasium")


def measure_fit_sb3(place: Place) -> Figures:
    """Learns with PPO."""
    return _slow_down(place, "sb3")


def _slow_down(place: Place, framework: str) -> Figures:
    torch.set_num_threads(1)
    step_count = place.count(_STEPS[framework])
    fits = _Fits(place, framework)
    with ExitStack() as stack:
        if place.logger == SERVED:
            from tests.local_server import LocalServer

            stack.enter_context(LocalServer(place.folder))
        for logger in (NONE, place.logger):
            fits.timed(logger, max(1, step_count // _WARM_UP))
        none, first, second, none_again = (
            fits.timed(logger, step_count) for logger in (NONE, place.logger, place.logger, NONE)
        )
    plain_s = (none.step_s + none_again.step_s) / 2
    logged_s = (first.step_s + second.step_s) / 2
    return {
        "step_us": plain_s * 1e6,
        "added_us": (logged_s - plain_s) * 1e6,
        "added_percent": (logged_s / plain_s - 1) * 100,
        "close_ms": (first.close_s + second.close_s) / 2 * 1000,
        "points": fits.points,
        "dropped": fits.dropped,
    }


class _Timed(NamedTuple):
    step_s: float
    close_s: float


class _Fits:
    # The trainings of one process.
    def __init__(self, place: Place, framework: str) -> None:
        self.points = 0.0
        self.dropped = 0.0
        self._place = place
        self._framework = framework
        self._count = 0

    def timed(self, logger: str, step_count: int) -> _Timed:
        self._count += 1
        folder = self._place.folder / f"files-{self._count}"
        folder.mkdir()
        name = f"fit-{self._count}"
        # A local server is found in the folder that it serves.
        data_dir = self._place.folder if logger == SERVED else folder
        run = open_run(logger, data_dir, name, syncs_tensorboard=self._framework == "sb3")
        fit = training_of(self._framework, logger, run, folder, step_count)
        gc.collect()
        step_s = _seconds(fit.train) / fit.step_count
        self._add_points(run)
        return _Timed(step_s, _seconds(fit.close))

    def _add_points(self, run: Any) -> None:
        # Of metrana's runs; those of W&B do not say.
        if (counted := getattr(run, "get_metrics", None)) is not None:
            counts = counted()
            self.points += counts.float_points_added + counts.rl_float_points_added
            self.dropped += counts.float_points_dropped + counts.rl_float_points_dropped


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
