"""Which training of a run a metric is of, where several have the same steps."""

from __future__ import annotations

import contextlib
import weakref
from typing import Any


def fit_labels(number: int) -> dict[str, str] | None:
    """The labels of a fit by its number, from 1; None: none, as the first has."""
    return {"fit": str(number)} if number > 1 else None


class Fits:
    """Labels that keep apart the fits of one run whose steps begin again.

    The first fit has none. A later one that begins at or below the last step has `fit="2"` and so
    on; one that goes on, or resumes from a checkpoint, keeps the label and overwrites.

    Attributes:
        number: Which fit is the present one, from 1.
        labels: Those of the present fit; None: none.
    """

    def __init__(self) -> None:
        self.number = 1
        self.labels: dict[str, str] | None = None
        self._count = 1
        self._last_step: int | None = None
        # By the id of who trained: a number is that of the last fit, as long as they live.
        self._numbers: dict[int, tuple[weakref.ref[Any], int]] = {}

    def begin(
        self, first_step: int, *, resumes: bool = False, resumed_fit: int | None = None
    ) -> None:
        """A fit begins.

        Args:
            first_step: The first that it may log.
            resumes: Whether it goes on from a checkpoint.
            resumed_fit: Which fit made the checkpoint, from 1. Default: the present one.
        """
        if resumes and resumed_fit is not None:
            self._count = max(self._count, resumed_fit)
            self._take(resumed_fit)
            return
        last = self._last_step
        if last is None or first_step > last or resumes:
            return
        self._count += 1
        self._take(self._count)
        self._last_step = None

    def _take(self, number: int) -> None:
        self.number = number
        self.labels = fit_labels(number)

    def note(self, step: int) -> None:
        """Something was logged at a step."""
        if self._last_step is None or step > self._last_step:
            self._last_step = step

    def note_owner(self, owner: Any) -> None:
        """The present fit is that of a trainer, of which only a weak reference is kept.

        Args:
            owner: The trainer, or what lives as long as its fit counts. It need not be hashable;
                one of which there are no weak references is not remembered.
        """
        key, numbers = id(owner), self._numbers

        def forget(_: object) -> None:
            numbers.pop(key, None)

        with contextlib.suppress(TypeError):
            numbers[key] = (weakref.ref(owner, forget), self.number)

    def number_of(self, owner: Any) -> int | None:
        """Which fit is a trainer's last one, from 1; None if it made none."""
        found = self._numbers.get(id(owner))
        return None if found is None else found[1]

    def __getstate__(self) -> dict[str, Any]:
        # Copies of trainers are others.
        return {**vars(self), "_numbers": {}}
