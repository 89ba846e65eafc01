"""One row an episode, out of the values and sums that the points store gives by metric.

An episode is told by environment, number, and whether it was for evaluation. The metrics' columns
are put beside each other by the place of each episode among all of them, column by column.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from metrana.server.reads.names import encoded
from metrana.server.reads.schemas import EPISODES_SCHEMA

if TYPE_CHECKING:
    from metrana.server.catalog import Catalog, MetricRecord, RunRecord
    from metrana.server.points import PointsStore

Numbers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_RETURN: Final = "episode_return"
_LENGTH: Final = "episode_length"
_ENDINGS: Final = (None, "terminated", "truncated", "both", "aborted")
_ABORTED: Final = 4

# Episodes are below 2^40; 2^22 environments, each with two kinds of episodes, are above them.
_EPISODE_BITS: Final = 40
_EPISODE_MASK: Final = (1 << _EPISODE_BITS) - 1
_NEVER: Final = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class _Metric:
    """A metric as episodes have it.

    Attributes:
        number: The store's.
        name: Its name.
        labels: Its labels but `evaluation`.
        evaluation: Whether its points are of evaluation episodes.
    """

    number: int
    name: str
    labels: tuple[tuple[str, str], ...]
    evaluation: bool

    @classmethod
    def of(cls, metric: MetricRecord) -> _Metric:
        """Takes a metric of the catalog; only the label that `evaluation=True` gives is special."""
        evaluation = metric.labels.get("evaluation") == "true"
        labels = sorted(metric.labels.items())
        if evaluation:
            labels.remove(("evaluation", "true"))
        return cls(metric.metric_no, metric.name, tuple(labels), evaluation)

    @property
    def is_reward(self) -> bool:
        """Whether a missing return or length comes from it."""
        return self.name == "reward" and not self.labels


@dataclass(slots=True)
class _Column:
    """Values by row, where there are some."""

    values: npt.NDArray[np.float64]
    known: Flags

    @classmethod
    def empty(cls, count: int) -> _Column:
        return cls(np.zeros(count), np.zeros(count, np.bool_))

    def put(self, rows: Numbers | slice, values: npt.NDArray[np.float64]) -> None:
        self.values[rows] = values
        self.known[rows] = True

    def fill(self, other: _Column) -> None:
        """Takes from another what is missing here."""
        missing = ~self.known
        self.values[missing] = other.values[missing]
        self.known |= other.known

    def is_set(self) -> Flags:
        """Says where there is a value that is true, which NaN is not."""
        is_set: Flags = self.known & (self.values != 0) & ~np.isnan(self.values)
        return is_set

    def array(self) -> Any:
        return pa.array(self.values, mask=~self.known)


@dataclass(frozen=True, slots=True)
class _Part:
    """What one metric says of episodes: its rows of an answer of the store, and whose they are."""

    metric: _Metric
    table: Any
    keys: Numbers


def episodes(
    catalog: Catalog, points: PointsStore, record: RunRecord, env_nos: Collection[int] | None
) -> Any:
    """Gives the frame of `Client.episodes`: `EPISODES_SCHEMA` and a column a further metric.

    Args:
        catalog: The names.
        points: The values.
        record: The run.
        env_nos: Only these environments; None for all.
    """
    series = points.series(record.run_no, env_nos=env_nos)
    series = series.filter(pa.array(series["env_no"].to_numpy() > 0))
    envs = np.unique(series["env_no"].to_numpy())
    ended, stepping = (
        _metrics(catalog, record, series, scale) for scale in ("EPISODE", "ENVIRONMENT_STEP")
    )
    values = points.episode_values(record.run_no, list(ended), env_nos)
    finished = list(_parts(values, ended, envs))
    sums = _sums(points, record, series, stepping)
    stepped = [part for table in sums for part in _parts(table, stepping, envs)]
    rows = _Rows(part.keys for part in (*finished, *stepped))
    columns = _columns(rows, finished, stepped, is_running=record.status == "running")
    env_ids = catalog.env_ids(envs.tolist())
    names = [env_ids[number] for number in envs.tolist()]
    columns["env_id"] = encoded([*names], rows.env_places)
    columns["rendering_id"] = _rendering_ids(catalog, record, rows, names)
    return _table(columns)


def _rendering_ids(catalog: Catalog, record: RunRecord, rows: _Rows, envs: list[str]) -> Any:
    """Gives the rendering of each row, of several parts the first; null for none.

    A rendering does not say whether its episode was for evaluation. If there are both of a number,
    it is taken for the other's.
    """
    places = {env_id: place for place, env_id in enumerate(envs)}
    only = envs[0] if len(envs) == 1 else None
    ids: dict[int, str] = {}
    for video in catalog.renderings(record.run_no, env_id=only):
        if (place := places.get(video.env_id)) is not None:
            ids.setdefault((2 * place << _EPISODE_BITS) + video.episode, video.rendering_id)
    column = np.full(rows.count, None, np.object_)
    if ids:
        keys = np.sort(np.fromiter(ids, np.int64, len(ids)))
        training = rows.keys & ~(1 << _EPISODE_BITS)
        found = np.minimum(np.searchsorted(keys, training), len(keys) - 1)
        is_shown = (keys[found] == training) & ~(rows.evaluation & np.isin(training, rows.keys))
        column[is_shown] = [ids[key] for key in training[is_shown].tolist()]
    return pa.array(column, pa.string())


def _metrics(catalog: Catalog, record: RunRecord, series: Any, scale: str) -> dict[int, _Metric]:
    """Gives the metrics that series have on a scale, by number."""
    in_run = set(np.unique(series["metric_no"].to_numpy()).tolist())
    found = catalog.metrics(project_id=record.project_id, scale=scale) if in_run else []
    return {each.metric_no: _Metric.of(each) for each in found if each.metric_no in in_run}


def _sums(
    points: PointsStore, record: RunRecord, series: Any, metrics: Mapping[int, _Metric]
) -> Iterable[Any]:
    """Gives the sums of the metrics that tell of episodes while they go on.

    That is `reward`. An environment that has none, in its training or its evaluation episodes, is
    told by all its metrics instead: to ask all of every environment would take as many times as
    long as there are metrics.
    """
    metric_nos, env_nos = series["metric_no"].to_numpy(), series["env_no"].to_numpy()
    for evaluation in (False, True):
        of_kind = [each for each in metrics.values() if each.evaluation is evaluation]
        rewards = [each.number for each in of_kind if each.is_reward]
        others = [each.number for each in of_kind if not each.is_reward]
        rewarded = np.unique(env_nos[np.isin(metric_nos, rewards)])
        without = np.setdiff1d(env_nos[np.isin(metric_nos, others)], rewarded)
        for chosen, envs in ((rewards, rewarded), (others, without)):
            if len(envs):
                yield points.episode_sums(record.run_no, chosen, envs.tolist())


def _parts(table: Any, metrics: Mapping[int, _Metric], envs: Any) -> Iterable[_Part]:
    """Cuts an answer that is ordered by metric, environment and episode into its metrics."""
    numbers = table["metric_no"].to_numpy()
    # Numbers begin at 1, so the first row begins a metric.
    starts = np.flatnonzero(np.diff(numbers, prepend=np.uint32(0)))
    for start, end in zip(starts, np.append(starts, len(numbers))[1:], strict=True):
        metric = metrics[int(numbers[start])]
        part = table.slice(start, end - start)
        # Points may have come since the environments were asked for: they are for the next time.
        places = np.searchsorted(envs, part["env_no"].to_numpy())
        is_known = envs[np.minimum(places, len(envs) - 1)] == part["env_no"].to_numpy()
        if not is_known.all():
            part, places = part.filter(pa.array(is_known)), places[is_known]
        kinds = 2 * places.astype(np.int64) + metric.evaluation
        yield _Part(metric, part, (kinds << _EPISODE_BITS) + part["episode"].to_numpy())


class _Rows:
    """The episodes of the answer, in order: by environment, training before evaluation, number.

    Args:
        parts: Keys of the episodes that each metric knows, ascending.
    """

    def __init__(self, parts: Iterable[Numbers]) -> None:
        self.keys: Numbers = np.empty(0, np.int64)
        for keys in parts:
            # Most metrics have the same episodes, which is cheaper to see than to merge.
            if not len(self.keys):
                self.keys = keys
            elif not np.array_equal(keys, self.keys):
                self.keys = _merged(self.keys, keys)

    @property
    def count(self) -> int:
        return len(self.keys)

    @property
    def env_places(self) -> Numbers:
        return self.keys >> (_EPISODE_BITS + 1)

    @property
    def evaluation(self) -> Flags:
        return (self.keys >> _EPISODE_BITS & 1).astype(np.bool_)

    @property
    def episode(self) -> Numbers:
        return self.keys & _EPISODE_MASK

    def is_last(self) -> Flags:
        """Says which are the last of their environment, of training and of evaluation each."""
        kinds = self.keys >> _EPISODE_BITS
        return np.append(kinds[1:] != kinds[:-1], np.ones(min(self.count, 1), np.bool_))

    def places(self, keys: Numbers) -> Numbers | slice:
        """Gives the rows of keys that there are."""
        if len(keys) == self.count:
            return slice(None)
        return np.searchsorted(self.keys, keys)


def _merged(left: Numbers, right: Numbers) -> Numbers:
    """Gives what is in either of two ascending arrays, ascending.

    A stable sort sees that there are two runs; `numpy.union1d` takes ten times as long.
    """
    both: Numbers = np.sort(np.concatenate([left, right]), kind="stable")
    is_last = np.append(both[1:] != both[:-1], np.ones(min(len(both), 1), np.bool_))
    merged: Numbers = both[is_last]
    return merged


def _columns(
    rows: _Rows, finished: Iterable[_Part], stepped: Iterable[_Part], *, is_running: bool
) -> dict[str, Any]:
    first, last = np.full(rows.count, _NEVER), np.full(rows.count, -1)
    has_points = np.zeros(rows.count, np.bool_)
    metrics: dict[tuple[str, tuple[tuple[str, str], ...]], _Column] = {}
    for part in finished:
        places = rows.places(part.keys)
        column = metrics.setdefault(
            (part.metric.name, part.metric.labels), _Column.empty(rows.count)
        )
        column.put(places, part.table["value"].to_numpy())
        has_points[places] = True
        _extend(first, last, places, part.table, ("rl_step", "rl_step"))
    returns, lengths = _Column.empty(rows.count), _Column.empty(rows.count)
    for part in stepped:
        places = rows.places(part.keys)
        _extend(first, last, places, part.table, ("first_rl_step", "last_rl_step"))
        if part.metric.is_reward:
            counts, nonfinite = (
                part.table[name].to_numpy() for name in ("point_count", "nonfinite_count")
            )
            lengths.put(places, counts.astype(np.float64))
            is_some = counts > nonfinite
            chosen = np.arange(rows.count)[places][is_some]
            returns.put(chosen, part.table["value_sum"].to_numpy()[is_some])
    own = {name: metrics.pop((name, ()), _Column.empty(rows.count)) for name in (_RETURN, _LENGTH)}
    own[_RETURN].fill(returns)
    own[_LENGTH].fill(lengths)
    return {
        "episode": pa.array(rows.episode),
        "evaluation": pa.array(rows.evaluation),
        "first_rl_step": pa.array(first, mask=last < 0),
        "last_rl_step": pa.array(last, mask=last < 0),
        **{name: column.array() for name, column in own.items()},
        "end": _ends(rows, metrics, has_points, is_running=is_running),
        **_named(metrics),
    }


def _extend(
    first: Numbers, last: Numbers, places: Numbers | slice, table: Any, names: tuple[str, str]
) -> None:
    """Widens the episodes' ranges of rl_steps; points without one leave them."""
    least, greatest = (table[name] for name in names)
    first[places] = np.minimum(first[places], least.fill_null(_NEVER).to_numpy())
    last[places] = np.maximum(last[places], greatest.fill_null(-1).to_numpy())


def _ends(
    rows: _Rows, metrics: Mapping[Any, _Column], has_points: Flags, *, is_running: bool
) -> Any:
    nothing = _Column.empty(rows.count)
    terminated, truncated = (
        metrics.get((name, ()), nothing).is_set() for name in ("terminated", "truncated")
    )
    ends = terminated + 2 * truncated.astype(np.int32)
    may_go_on = rows.is_last() if is_running else np.zeros(rows.count, np.bool_)
    ends[~has_points & ~may_go_on] = _ABORTED
    return encoded(list(_ENDINGS), ends)


def _named(metrics: Mapping[tuple[str, tuple[tuple[str, str], ...]], _Column]) -> dict[str, Any]:
    """Names the columns of further metrics, each as no other column is."""
    named: dict[str, Any] = {}
    # A mapping is what clients make of a column `labels`.
    taken = {*EPISODES_SCHEMA.names, "labels"}
    for name, labels in sorted(metrics):
        inside = ",".join(f"{key}={value}" for key, value in labels)
        column = f"{name}{{{inside}}}" if labels or name in taken else name
        number = 1
        while column in taken:  # a metric may have braces in its name
            number += 1
            column = f"{name}{{{inside}}}#{number}"
        taken.add(column)
        named[column] = metrics[name, labels].array()
    return named


def _table(columns: Mapping[str, Any]) -> Any:
    further = [name for name in columns if name not in EPISODES_SCHEMA.names]
    fields = [*EPISODES_SCHEMA, *(pa.field(name, pa.float64()) for name in further)]
    schema = pa.schema(fields)
    return pa.table([columns[name] for name in schema.names], schema)
