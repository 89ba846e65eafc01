"""What the calls of `Client` take, checked and as it travels: the names are those of the routes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any, Final, TypeVar

from metrana import checks
from metrana.enums import StandardMetricScale
from metrana.errors import MetranaValidationError

_Checked = TypeVar("_Checked")

_BY: Final = ("rl_step", "episode", "step")
_STATISTICS: Final = ("mean", "std", "min", "max", "median", "sum", "count")


def run_arguments(
    run_name: str | None, project_name: str, workspace_name: str, run_id: str | None
) -> dict[str, Any]:
    """Says which run is meant."""
    if run_id is not None:
        return {"run_id": checks.text("run_id", run_id).lower()}
    if run_name is None:
        raise MetranaValidationError("run_name: must be the name of a run, or give run_id")
    return {
        "run_name": checks.text("run_name", run_name),
        "project_name": checks.text("project_name", project_name),
        "workspace_name": checks.text("workspace_name", workspace_name),
    }


def series_arguments(
    metric_name: str | None,
    scale: str | None,
    labels: Mapping[str, str] | None,
    env_id: str | int | None,
) -> dict[str, Any]:
    """Says which series are meant; None does not restrict."""
    return {
        "metric_name": optional(checks.text, "metric_name", metric_name),
        "scale": None
        if scale is None
        else checks.choice("scale", scale, StandardMetricScale).value,
        "labels": None if labels is None else _labels(labels),
        "env_id": to_env_id(env_id),
    }


def _labels(labels: Mapping[str, str]) -> dict[str, str]:
    return {
        checks.text("labels", key): checks.text(f"labels[{key!r}]", value)
        for key, value in checks.mapping("labels", labels).items()
    }


def to_env_id(env_id: object) -> str | None:
    """Takes a number for its decimal string, as logging does."""
    if env_id is None or isinstance(env_id, str | bool):
        return optional(checks.text, "env_id", env_id)
    if isinstance(env_id, Integral):
        return str(int(env_id))
    return checks.text("env_id", env_id)


def range_arguments(
    episode: int | None, start: int | None, end: int | None
) -> dict[str, int | None]:
    """Says which positions are meant."""
    return {
        name: optional(checks.whole_number, name, value)
        for name, value in (("episode", episode), ("start", start), ("end", end))
    }


def optional(check: Callable[[str, object], _Checked], name: str, value: object) -> _Checked | None:
    """Checks a value unless it is None."""
    return None if value is None else check(name, value)


def statistics_arguments(by: str, stats: object, quantiles: object) -> dict[str, str]:
    """Says what is computed over environments; lists travel as texts with commas."""
    names = checks.listed("stats", stats, "a list of " + " or ".join(map(repr, _STATISTICS)))
    levels = checks.listed("quantiles", quantiles, "a list of numbers from 0 to 1")
    return {
        "by": checks.word("by", by, _BY),
        "stats": ",".join(
            checks.word(f"stats[{place}]", name, _STATISTICS) for place, name in enumerate(names)
        ),
        "quantiles": ",".join(
            repr(checks.number(f"quantiles[{place}]", level, minimum=0, maximum=1) + 0.0)
            for place, level in enumerate(levels)
        ),
    }
