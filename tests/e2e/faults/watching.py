"""Counters that add up at every instant, as a thread beside the training sees them."""

from __future__ import annotations

import threading
from dataclasses import asdict
from typing import Self

import metrana

_KINDS = ("float_points", "rl_float_points", "attribute_updates", "env_attribute_updates")
_POINTS = _KINDS[:2]


class Watch:
    """Samples `get_metrics()` and `status()` for as long as the block lasts.

    Args:
        run: An open run; it has to stay open meanwhile.

    Attributes:
        sample_count: Samples taken so far.
        faults: What did not add up.
    """

    def __init__(self, run: metrana.Run) -> None:
        self.sample_count = 0
        self.faults: list[str] = []
        self._run = run
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        before = self._run.get_metrics()
        while not self._is_over.wait(0.001):
            status = self._run.status()
            after = self._run.get_metrics()
            self._compare(before, status, after)
            before = after
            self.sample_count += 1

    def _compare(
        self, before: metrana.Metrics, status: metrana.Status, after: metrana.Metrics
    ) -> None:
        old, new = asdict(before), asdict(after)
        self.faults += [
            f"{name} fell: {old[name]}, {new[name]}" for name in new if new[name] < old[name]
        ]
        for kind in _KINDS:
            added, enqueued, spooled, sent, dropped = (
                new[f"{kind}_{verb}"]
                for verb in ("added", "enqueued", "spooled", "sent", "dropped")
            )
            # The rest waits for room; nothing here is thrown away once it was taken.
            if not (0 <= sent <= spooled <= enqueued <= added - dropped):
                self.faults.append(f"{kind} do not add up: {after}")
        # Between the two, pending is what was added and neither sent nor dropped.
        least = _total(old, "added") - _total(new, "sent") - _total(new, "dropped")
        most = _total(new, "added") - _total(old, "sent") - _total(old, "dropped")
        if not max(least, 0) <= status.pending_points <= most:
            self.faults.append(f"{status.pending_points} pending, not in {least} to {most}")


def _total(counters: dict[str, int], verb: str) -> int:
    return sum(counters[f"{kind}_{verb}"] for kind in _POINTS)
