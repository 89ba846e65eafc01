"""Numbers back into names: dictionary-encoded columns, each distinct name written once."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from metrana.server.reads.schemas import TIMESTAMP

if TYPE_CHECKING:
    from metrana.server.catalog import Catalog, MetricRecord


def labels_json(labels: Mapping[str, str]) -> str:
    """Writes labels as they travel: a JSON object with sorted keys."""
    return json.dumps(dict(sorted(labels.items())), ensure_ascii=False, separators=(",", ":"))


class Names:
    """What the numbers in an answer stand for, asked of the catalog once each. Not thread-safe.

    Args:
        catalog: The catalog.
        run_no: The run the answer is about.
    """

    def __init__(self, catalog: Catalog, run_no: int) -> None:
        self._catalog = catalog
        self._run_no = run_no
        self._metrics: dict[int, MetricRecord] = {}
        self._env_ids: dict[int, str] = {0: ""}
        self._logger_ids: dict[int, str] = {0: ""}
        self._writer_ids: dict[int, str] = {}

    def metric(self, metric_no: int) -> MetricRecord:
        """Gives a metric that a column passed to `metric_columns` held."""
        return self._metrics[metric_no]

    def metric_columns(self, numbers: Any) -> dict[str, Any]:
        """Gives `metric_name`, `scale` and `labels` (JSON) for a column of metric numbers."""
        distinct, positions = _distinct(numbers)
        _learn(self._metrics, distinct, self._ask_metrics)
        metrics = [self._metrics[number] for number in distinct]
        return {
            "metric_name": encoded([metric.name for metric in metrics], positions),
            "scale": encoded([metric.scale for metric in metrics], positions),
            "labels": encoded([labels_json(metric.labels) for metric in metrics], positions),
        }

    def env_ids(self, numbers: Any) -> Any:
        """Gives the environment ids for a column of numbers, null for none."""
        return self._texts(self._env_ids, numbers, self._catalog.env_ids)

    def logger_ids(self, numbers: Any) -> Any:
        """Gives the logger ids for a column of numbers, null for none."""
        return self._texts(
            self._logger_ids, numbers, lambda _: self._catalog.logger_ids(self._run_no)
        )

    def writer_ids(self, numbers: Any) -> Any:
        """Gives the writer ids for a column of numbers."""
        return self._texts(self._writer_ids, numbers, self._ask_writers)

    def _ask_metrics(self, numbers: Collection[int]) -> dict[int, MetricRecord]:
        return {metric.metric_no: metric for metric in self._catalog.metrics(metric_nos=numbers)}

    def _ask_writers(self, numbers: Collection[int]) -> dict[int, str]:
        writers = self._catalog.writers(writer_nos=numbers)
        return {writer.writer_no: writer.writer_id for writer in writers}

    @staticmethod
    def _texts(known: dict[int, str], numbers: Any, ask: Callable[[Collection[int]], Any]) -> Any:
        distinct, positions = _distinct(numbers)
        _learn(known, distinct, ask)
        # Number 0 stands for nothing: ids are never empty.
        return encoded([known[number] or None for number in distinct], positions)


def _distinct(numbers: Any) -> tuple[list[int], np.ndarray]:
    values, positions = np.unique(numbers.to_numpy(zero_copy_only=False), return_inverse=True)
    return values.tolist(), positions.astype(np.int32)


def _learn(known: dict[int, Any], numbers: Collection[int], ask: Callable[[Any], Any]) -> None:
    missing = [number for number in numbers if number not in known]
    if missing:
        known.update(ask(missing))


def encoded(texts: list[str | None], positions: np.ndarray) -> Any:
    """Builds a dictionary-encoded column; texts that are equal share an entry."""
    entries = {text: index for index, text in enumerate(dict.fromkeys(t for t in texts if t))}
    codes = np.array([entries[text] if text else -1 for text in texts], np.int32)
    taken = codes[positions] if len(texts) else np.empty(0, np.int32)
    indices = pa.array(taken, mask=taken < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(list(entries), pa.string()))


def timestamps(milliseconds: Any) -> Any:
    """Casts Unix milliseconds to UTC timestamps."""
    return milliseconds.cast(TIMESTAMP)
