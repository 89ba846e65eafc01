"""How sure a figure is that was measured in rounds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.place import Figures

_PERCENT = 95
_RESAMPLES = 10_000


def with_interval(
    name: str, rounds: np.ndarray, figure_of: Callable[[np.ndarray], np.ndarray]
) -> Figures:
    """Returns a figure as `name`, and the ends of its interval as `name_low` and `name_high`.

    The interval is the middle 95 % of what the figure would have been with other rounds of the same
    kind, drawn from those that were measured (Efron's percentile bootstrap).

    Args:
        name: Of the figure.
        rounds: What was measured, in columns that `figure_of` knows. Shape: (rounds, columns).
        figure_of: The figures of many such tables. Shape: (tables, rounds, columns) to (tables,).
    """
    rng = np.random.default_rng(0)
    drawn = rounds[rng.integers(0, len(rounds), (_RESAMPLES, len(rounds)))]
    ends = ((100 - _PERCENT) / 2, (100 + _PERCENT) / 2)
    low, high = np.percentile(figure_of(drawn), ends)
    (figure,) = figure_of(rounds[np.newaxis])
    return {name: float(figure), f"{name}_low": float(low), f"{name}_high": float(high)}
