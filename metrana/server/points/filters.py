"""WHERE clauses and result columns that several reads share. Only integers ever reach the text."""

from collections.abc import Collection, Iterable, Sequence
from operator import index
from typing import Final

from metrana.server.points.schema import VERSION

# A power of two, so that scaling rounds nothing but what is too small to matter in such a sum, and
# enough for more values than a store can hold.
_SCALE: Final = "pow(2, 64)"


def integers(numbers: Iterable[int]) -> str:
    """Returns `numbers` as the inside of an IN list; anything but an integer is a TypeError."""
    return ", ".join(str(index(number)) for number in numbers)


def series_filter(
    run_nos: Collection[int],
    metric_nos: Collection[int] | None = None,
    env_nos: Collection[int] | None = None,
) -> str:
    """Returns the condition for some series of some runs; None is every one."""
    chosen = (("run_no", run_nos), ("metric_no", metric_nos), ("env_no", env_nos))
    return " AND ".join(
        # An empty IN list is a syntax error, and nothing is what it means.
        f"{column} IN ({integers(numbers)})" if len(numbers) else "0"
        for column, numbers in chosen
        if numbers is not None
    )


def in_range(column: str, start: int | None, end: int | None) -> list[str]:
    """Returns the conditions for `start <= column < end`."""
    conditions = []
    if start is not None:
        conditions.append(f"{column} >= {index(start)}")
    if end is not None:
        conditions.append(f"{column} < {index(end)}")
    return conditions


def in_own_range(start: int | None, end: int | None) -> list[str]:
    """Returns the condition for a range on the scale's own axis.

    EPISODE points are those without a step. Spelled as ranges of key columns, not as a function of
    them, so that the sort order can be used.
    """
    if start is None and end is None:
        return []
    steps = " AND ".join(["step >= 0", *in_range("step", start, end)])
    episodes = " AND ".join(["step = -1", *in_range("episode", start, end)])
    return [f"(({steps}) OR ({episodes}))"]


def newest(
    columns: Sequence[str], key: Sequence[str], where: str, version: Sequence[str] = VERSION
) -> str:
    """Returns a query for the newest row of every `key`.

    Args:
        columns: What to select.
        key: What may occur once.
        where: The condition, applied before.
        version: What is greater in a newer row, first things first.
    """
    order = ", ".join((*key, *(f"{name} DESC" for name in version)))
    return (
        f"SELECT {', '.join(columns)} FROM points WHERE {where} "
        f"ORDER BY {order} LIMIT 1 BY {', '.join(key)}"
    )


def mean_within_range(value: str, where: str) -> str:
    """Returns the mean of the values that a condition chooses, even where their sum overflows.

    Half a float's range of bits is given up for that only if the plain sum is not finite. Rounding
    may leave the least or the greatest value by a bit, and so the range of floats.
    """
    plain, scaled = f"avgIf({value}, {where})", f"avgIf({value} / {_SCALE}, {where}) * {_SCALE}"
    within = f"greatest(minIf({value}, {where}), least(maxIf({value}, {where}), {scaled}))"
    return f"if(isFinite({plain}), {plain}, {within})"
