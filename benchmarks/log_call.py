"""What one log call costs, by percentile: `python benchmarks/log_call.py`.

Each kind of call is timed one by one with the timer's own cost taken off, in mode `offline` into a
data directory that is thrown away. The engine drains and compresses in the background meanwhile.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np

import metrana

Call = Callable[[int], object]
_ENV_COUNT = 4096


def main() -> None:
    """Time every kind of call and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each kind of call")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = metrana.init(mode="offline", data_dir=folder, backpressure_strategy="block")
        print(f"{'call':44}{'p50':>12}{'p99':>12}{'p99.9':>12}  µs")
        for name, call in _calls():
            samples = _samples(call, arguments.seconds) / 1000
            p50, p99, p999 = np.percentile(samples, [50, 99, 99.9])
            print(f"{name:44}{p50:12.3f}{p99:12.3f}{p999:12.3f}")
        run.close()


def _calls() -> Iterator[tuple[str, Call]]:
    yield "nothing", lambda _: None
    yield 'log("loss", x)', lambda i: metrana.log("loss", 0.5 + i)
    yield 'log("loss", x, step=i)', lambda i: metrana.log("loss_at", 0.5, step=i)
    yield "log of a name built anew", lambda i: metrana.log(f"loss_{i % 8}", 0.5)
    labels = {"policy": "greedy"}
    yield "log with labels", lambda _: metrana.log("labelled", 0.5, labels=labels)
    yield "log with evaluation=True", lambda _: metrana.log("loss", 0.5, evaluation=True)
    ten = {f"metric/{i}": 0.25 * i for i in range(10)}
    yield "log of a mapping of 10", lambda _: metrana.log(ten)
    scalar = np.float32(0.5)
    yield "log of np.float32", lambda _: metrana.log("scalar32", scalar)
    yield from _tensor_calls()
    small = np.random.default_rng(0).normal(size=(8, 128)).astype(np.float32)
    large = np.random.default_rng(0).normal(size=(64, 128)).astype(np.float32)
    ids = [f"env-{i}" for i in range(64)]
    step = metrana.log_rl_environment_step
    yield "env steps 8 x 128 f32", lambda i, e=ids[:8]: step("small", small, i, e)
    yield "env steps 64 x 128 f32", lambda i: step("large", large, i, ids)
    many = [f"env-{i}" for i in range(_ENV_COUNT)]
    ones = np.ones(_ENV_COUNT, dtype=np.float32)
    yield "env steps 4096 x 1, the same list", lambda i: step("many", ones, i, many)
    fresh = [[f"env-{i}" for i in range(_ENV_COUNT)] for _ in range(64)]
    yield "env steps 4096 x 1, fresh strings", lambda i: step("fresh", ones, i, fresh[i % 64])


def _tensor_calls() -> Iterator[tuple[str, Call]]:
    try:
        import torch
    except ImportError:
        return
    scalar = torch.tensor(0.5, requires_grad=True)
    yield "log of a torch scalar with grad", lambda _: metrana.log("tensor", scalar)


def _samples(call: Call, seconds: float) -> np.ndarray:
    clock = time.perf_counter_ns
    overhead = min(-clock() + clock() for _ in range(1000))
    samples = []
    end = clock() + int(seconds * 1e9)
    index = 0
    while (start := clock()) < end:
        call(index)
        samples.append(clock() - start - overhead)
        index += 1
    return np.array(samples)


if __name__ == "__main__":
    main()
