"""Statistics over environments: how all of them did at an rl_step, an episode or a step."""

from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from metrana.server.points.engine import Engine
from metrana.server.points.filters import in_range, mean_within_range, newest, series_filter
from metrana.server.points.schema import FINITE, SORT_KEY
from metrana.server.points.summary import SeriesProfile, shape
from metrana.server.points.types import AggregateQuery

_HAS_VALUE: Final = "n > 0"
_MEDIAN: Final = 0.5

_STATISTICS: Final = {
    "mean": f"avgIf(y, {_HAS_VALUE})",
    # Of the population, as `numpy.std` by default.
    "std": f"stddevPopStableIf(y, {_HAS_VALUE})",
    "min": f"minIf(y, {_HAS_VALUE})",
    "max": f"maxIf(y, {_HAS_VALUE})",
    "sum": f"sumIf(y, {_HAS_VALUE})",
}

STATISTICS: Final = (*_STATISTICS, "median", "count")

# Squares of the greatest floats scaled by it are still within their range.
_SCALE: Final = "pow(2, 600)"
_GREATEST: Final = "1.7976931348623157e308"

# The same where sums, squares or differences are beyond the range of a float. A sum may be.
_WITHIN_RANGE: Final = {
    **_STATISTICS,
    "mean": mean_within_range("y", _HAS_VALUE),
    "std": f"if(isFinite({_STATISTICS['std']}), {_STATISTICS['std']}, "
    f"least({_GREATEST}, stddevPopStableIf(y / {_SCALE}, {_HAS_VALUE}) * {_SCALE}))",
}


def level_name(level: float) -> str:
    """Returns the name of a quantile's column: `q0.25`, `q0`, `q1`."""
    return f"q{level!r}".removesuffix(".0")


def aggregate(engine: Engine, query: AggregateQuery) -> pa.Table:
    """Returns statistics over environments as `PointsStore.aggregate` documents."""
    stored = shape(engine, query.run_no, (query.metric_no,), None)
    if _may_have_one_each(stored, query.by):
        # Cheaper by half than a mean of each environment, which would be of one point.
        table = _read(engine, query, _single(query, stored), within_range=False)
        if pc.all(pc.equal(table["finite_count"], table["env_count"])).as_py() is not False:
            if _is_finite(table, query):
                return _answer(table, query)
            table = _read(engine, query, _single(query, stored), within_range=True)
            return _answer(table, query)
    table = _read(engine, query, _means(query, stored, within_range=False), within_range=False)
    if not _is_finite(table, query):
        # So rare that only then the slower ways are asked for.
        table = _read(engine, query, _means(query, stored, within_range=True), within_range=True)
    return _answer(table, query)


def _may_have_one_each(stored: SeriesProfile, by: str) -> bool:
    """Returns whether no series is known to have several points at a value; a guess else."""
    columns = stored.columns
    if by == "rl_step":
        span = columns["last_rl_step"] - columns["first_rl_step"] + 1
        return bool((columns["row_count"] <= span).all())
    # The steps of an episode share it, and the episodes of an environment share their steps.
    return not ((columns["last_step"] >= 0) & (columns["last_episode"] >= 0)).any()


def _points(query: AggregateQuery, stored: SeriesProfile) -> str:
    where = " AND ".join(
        [
            series_filter((query.run_no,), (query.metric_no,)),
            f"{query.by} >= 0",
            *in_range(query.by, query.start, query.end),
        ]
    )
    if stored.any_dirty:
        return f"({newest((query.by, 'env_no', 'value'), (*SORT_KEY, 'logger_no'), where)})"
    return f"points WHERE {where}"


def _single(query: AggregateQuery, stored: SeriesProfile) -> str:
    """Returns a query for `y` of `n` finite points, 0 or 1, at `x` of an environment."""
    return (
        f"SELECT {query.by} AS x, env_no, value AS y, toUInt64({FINITE}) AS n "
        f"FROM {_points(query, stored)}"
    )


def _means(query: AggregateQuery, stored: SeriesProfile, *, within_range: bool) -> str:
    """Returns a query for the mean `y` of an environment's `n` finite points at `x`."""
    mean = mean_within_range("value", FINITE) if within_range else f"avgIf(value, {FINITE})"
    return (
        f"SELECT {query.by} AS x, env_no, {mean} AS y, countIf({FINITE}) AS n "
        f"FROM {_points(query, stored)} GROUP BY x, env_no"
    )


def _read(engine: Engine, query: AggregateQuery, source: str, *, within_range: bool) -> pa.Table:
    names = [name for name in query.statistics if name in _STATISTICS]
    statistics = _WITHIN_RANGE if within_range else _STATISTICS
    inner = [f"{statistics[name]} AS {name}_" for name in names]
    outer = [f"if(environments = 0, NULL, {name}_)" for name in names]
    levels = _levels(query)
    if levels:
        listed = ", ".join(map(repr, levels))
        inner.append(f"quantilesExactInclusiveIf({listed})(y, {_HAS_VALUE}) AS levels")
        each = [f"levels[{place}]" for place in range(1, len(levels) + 1)]
        if within_range:
            # The difference of two values may be beyond the range, that of their halves is not.
            inner.append(f"quantilesExactInclusiveIf({listed})(y / 2, {_HAS_VALUE}) AS halves")
            each = [
                f"if(isFinite({level}), {level}, halves[{place}] * 2)"
                for place, level in enumerate(each, 1)
            ]
        outer += [f"if(environments = 0, NULL, {level})" for level in each]
    own = ["x", "sum(n) AS finite", f"groupBitmapIf(env_no, {_HAS_VALUE}) AS environments"]
    sql = (
        f"SELECT {', '.join(['x', 'finite', 'environments', *outer])} FROM "
        f"(SELECT {', '.join([*own, *inner])} FROM ({source}) GROUP BY x) ORDER BY x"
    )
    fields = [("x", pa.int64()), ("finite_count", pa.int64()), ("env_count", pa.int64())]
    fields += [(name, pa.float64()) for name in (*names, *map(level_name, levels))]
    return engine.read(sql, pa.schema(fields))


def _levels(query: AggregateQuery) -> list[float]:
    """Returns the quantiles to ask for, each once."""
    median = [_MEDIAN] if "median" in query.statistics else []
    return sorted({*query.quantiles, *median})


def _is_finite(table: pa.Table, query: AggregateQuery) -> bool:
    """Returns whether nothing that could be within the range of a float is beyond it."""
    names = {name for name in query.statistics if name in _STATISTICS} - {"sum"}
    names |= {level_name(level) for level in _levels(query)}
    return all(pc.all(pc.is_finite(table[name])).as_py() is not False for name in names)


def _answer(table: pa.Table, query: AggregateQuery) -> pa.Table:
    """Returns the columns in the order of the query, the axis first and `env_count` last."""
    places = {"median": level_name(_MEDIAN), "count": "finite_count"}
    columns: dict[str, Any] = {query.by: table["x"]}
    columns |= {name: table[places.get(name, name)] for name in query.statistics}
    columns |= {level_name(level): table[level_name(level)] for level in query.quantiles}
    return pa.table({**columns, "env_count": table["env_count"]})
