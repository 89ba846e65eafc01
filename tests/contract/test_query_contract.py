"""The public interface of `metrana.query`: names, order of arguments, defaults."""

from __future__ import annotations

import inspect

import pytest

import metrana.query
from metrana.query import Client

_RUN = {"project_name": "default", "workspace_name": "default", "run_id": None}
_FRAME = {"as_": "pandas"}
_RANGE = {"episode": None, "start": None, "end": None}
_SERIES = {"scale": None, "labels": None, "env_id": None}
REQUIRED = inspect.Parameter.empty

# Positional arguments, then those by keyword, with their defaults. `run_name` and what follows it
# may be left out where a `run_id` names the run.
SIGNATURES: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "__init__": ({"url": None}, {"api_key": None, "data_dir": None, "timeout_secs": 30.0}),
    "runs": ({"project_name": None}, {"tags": None, "status": None, **_FRAME}),
    "run": ({"run_name": None}, _RUN),
    "series": ({"run_name": None}, {"metric_name": None, **_RUN, **_FRAME}),
    "points": (
        {"run_name": None, "metric_name": None},
        {**_SERIES, **_RANGE, "limit": None, "duplicates": "last", **_RUN, **_FRAME},
    ),
    "buckets": (
        {"run_name": None, "metric_name": None},
        {
            "x": None,
            "bucket_count": 1000,
            "loggers": "mean",
            **_SERIES,
            **_RANGE,
            **_RUN,
            **_FRAME,
        },
    ),
    "aggregate": (
        {"run_name": None, "metric_name": None},
        {
            "by": "rl_step",
            "over": "env",
            "stats": ("mean", "std", "min", "max"),
            "quantiles": (),
            "scale": None,
            "labels": None,
            "start": None,
            "end": None,
            **_RUN,
            **_FRAME,
        },
    ),
    "episodes": ({"run_name": None}, {"env_id": None, **_RUN, **_FRAME}),
    "env_attributes": (
        {"run_name": None},
        {"env_id": None, "episode": None, **_RUN, **_FRAME},
    ),
    "renderings": ({"run_name": None}, {"env_id": None, **_RUN, **_FRAME}),
    "download_rendering": ({"rendering_id": REQUIRED, "path": REQUIRED}, {}),
    "env_steps": (
        {"run_name": REQUIRED, "metric_name": REQUIRED, "env_id": REQUIRED, "episode": REQUIRED},
        {"labels": None, **_RUN, **_FRAME},
    ),
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_call_has_the_contracts_signature(name: str) -> None:
    parameters = list(inspect.signature(getattr(Client, name)).parameters.values())[1:]
    positional, keyword = SIGNATURES[name]
    kinds = {
        inspect.Parameter.POSITIONAL_OR_KEYWORD: positional,
        inspect.Parameter.KEYWORD_ONLY: keyword,
    }
    for kind, wanted in kinds.items():
        found = [(each.name, each.default) for each in parameters if each.kind is kind]
        assert found == list(wanted.items())
    assert {each.kind for each in parameters} <= kinds.keys()


def test_the_module_exports_the_contracts_names() -> None:
    assert sorted(metrana.query.__all__) == ["Client", "RunInfo"]


def test_every_public_call_has_a_docstring() -> None:
    calls = [name for name in vars(Client) if not name.startswith("_")]
    assert sorted(calls) == sorted({*SIGNATURES, "hold", "close"} - {"__init__"})
    assert all(inspect.getdoc(getattr(Client, name)) for name in calls)
