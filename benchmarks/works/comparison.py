"""The calls that every logger has."""

from __future__ import annotations

from typing import Any

from benchmarks.loggers import PEERS, logger_of, opened
from benchmarks.place import Figures, Place
from benchmarks.timing import percentiles, sample

_SECONDS = 10.0
_PEER_SECONDS = 7.0  # enough for the p99 of the slowest
_METRICS = 10


def measure_scalar(place: Place) -> Figures:
    """Times the logging of one value, a new one each time."""
    return _timed(place, logger_of(place.logger).scalar, {}, "x = 0.25 * i")


def measure_mapping(place: Place) -> Figures:
    """Times the logging of ten new values at once, in a new dict with the keys of a literal."""
    names = {"keys": [f"metric/{number}" for number in range(_METRICS)]}
    built = "values = {key: i + 0.25 * number for number, key in enumerate(keys)}"
    return _timed(place, logger_of(place.logger).mapping, names, built)


def measure_mapping_keys(place: Place) -> Figures:
    """Times the same with keys that are built anew, too; building is not timed."""
    built = f'values = {{f"metric/{{number}}": i + 0.25 * number for number in range({_METRICS})}}'
    return _timed(place, logger_of(place.logger).mapping, {}, built)


def _timed(place: Place, statement: str, names: dict[str, Any], setup: str) -> Figures:
    logger = logger_of(place.logger)
    seconds = place.seconds(_PEER_SECONDS if place.logger in PEERS else _SECONDS)
    with opened(logger, place.folder) as own:
        names = {**own, **names}
        # A first call declares its metrics, in every logger; it is not what a training waits for.
        sample(statement, names, place.seconds(0.5), setup=setup)
        figures = percentiles(sample(statement, names, seconds, setup=setup))
        return {**figures, **logger.dropped()}
