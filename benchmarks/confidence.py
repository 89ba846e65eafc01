"""How sure a figure is that was measured in rounds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

from benchmarks.place import Figures

# Student's t that 97.5 % lie below, for 1, 2, … degrees of freedom: any table of the distribution.
_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)


def with_interval(
    name: str, rounds: Sequence[float], figure_of: Callable[[float], float] = float
) -> Figures:
    """Returns a figure as `name`, and the ends of its interval as `name_low` and `name_high`.

    The figure is that of the rounds' mean; the interval is Student's 95 % interval of this mean. It
    takes the rounds for independent: what is the same in all of a process, and another in the next
    one, is not in it. A single round says nothing of how sure it is: the ends are infinite.

    Args:
        name: Of the figure.
        rounds: What was measured, at most 21.
        figure_of: What is shown of a mean; must grow with it.
    """
    mean = statistics.fmean(rounds)
    half = math.inf
    if len(rounds) > 1:
        half = _T[len(rounds) - 2] * statistics.stdev(rounds) / math.sqrt(len(rounds))
    return {
        name: figure_of(mean),
        f"{name}_low": figure_of(mean - half),
        f"{name}_high": figure_of(mean + half),
    }
