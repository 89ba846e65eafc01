"""The calls that every logger has."""

from __future__ import annotations

from typing import Any

from benchmarks.loggers import logger_of, opened
from benchmarks.place import Figures, Place
from benchmarks.timing import percentiles, sample

_SECONDS = 10.0
_METRICS = 10


def measure_scalar(place: Place) -> Figures:
    """Times the logging of one value."""
    return _timed(place, logger_of(place.logger).scalar, {})


def measure_mapping(place: Place) -> Figures:
    """Times the logging of ten new values at once, in a new dict with the keys of a literal."""
    names = {"keys": [f"metric/{number}" for number in range(_METRICS)]}
    built = "values = {key: i + 0.25 * number for number, key in enumerate(keys)}"
    return _timed(place, logger_of(place.logger).mapping, names, built)


def measure_mapping_keys(place: Place) -> Figures:
    """Times the same with keys that are built anew, too; building is not timed."""
    built = f'values = {{f"metric/{{number}}": i + 0.25 * number for number in range({_METRICS})}}'
    return _timed(place, logger_of(place.logger).mapping, {}, built)


def _timed(place: Place, statement: str, names: dict[str, Any], setup: str = "pass") -> Figures:
    logger = logger_of(place.logger)
    with opened(logger, place.folder) as own:
        names = {**own, **names}
        # A first call declares its metrics, in every logger; it is not what a training waits for.
        sample(statement, names, place.seconds(0.5), setup=setup)
        figures = percentiles(sample(statement, names, place.seconds(_SECONDS), setup=setup))
        return {**figures, **logger.dropped()}
