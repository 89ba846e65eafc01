"""The calls that every logger has."""

from __future__ import annotations

from benchmarks.loggers import logger_of, opened
from benchmarks.place import Figures, Place
from benchmarks.timing import percentiles, sample

_SECONDS = 10.0


def measure_scalar(place: Place) -> Figures:
    """Times the logging of one value."""
    logger = logger_of(place.logger)
    return _timed(place, logger.scalar)


def measure_mapping(place: Place) -> Figures:
    """Times the logging of ten values at once."""
    logger = logger_of(place.logger)
    return _timed(place, logger.mapping)


def _timed(place: Place, statement: str) -> Figures:
    logger = logger_of(place.logger)
    with opened(logger, place.folder) as names:
        names = {**names, "values": {f"metric/{number}": 0.25 * number for number in range(10)}}
        # A first call declares its metrics, in every logger; it is not what a training waits for.
        sample(statement, names, place.seconds(0.5))
        figures = percentiles(sample(statement, names, place.seconds(_SECONDS)))
        return {**figures, **logger.dropped()}
