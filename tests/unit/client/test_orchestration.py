"""Which processes are one job, and what a run without a name is called."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import metrana
from metrana.names import run_name_from
from metrana.orchestration import (
    ID_VARIABLE,
    default_logger_id,
    resolve_orchestration,
)

_NAMES = """
import json, os
from metrana.orchestration import generated_run_name, resolve_orchestration
orchestration = resolve_orchestration(None, os.environ)
print(json.dumps([generated_run_name(orchestration) for _ in range(2)]), flush=True)
"""


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"METRANA_ORCHESTRATION_ID": "m", "TORCHELASTIC_RUN_ID": "t"}, "m"),
        ({"TORCHELASTIC_RUN_ID": "t", "SLURM_JOB_ID": "s"}, "t"),
        ({"TORCHELASTIC_RUN_ID": "none", "SLURM_JOB_ID": "s"}, None),
        ({"SLURM_JOB_ID": "s", "RAY_JOB_ID": "r"}, "s"),
        ({"RAY_JOB_ID": "r"}, "r"),
    ],
)
def test_the_order_of_sources(environ: dict[str, str], expected: str | None) -> None:
    assert resolve_orchestration("argument", dict(environ)).orchestration_id == "argument"
    found = resolve_orchestration(None, environ).orchestration_id
    if expected is not None:
        assert found == expected
    assert environ[ID_VARIABLE] == found


def test_without_any_source_it_is_random_and_published() -> None:
    one: dict[str, str] = {}
    other: dict[str, str] = {}
    first = resolve_orchestration(None, one).orchestration_id
    assert first != resolve_orchestration(None, other).orchestration_id
    assert resolve_orchestration(None, one).orchestration_id == first


def test_torchrun_without_an_id_on_one_node() -> None:
    environ = {"TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "host", "MASTER_PORT": "29500"}
    found = resolve_orchestration(None, dict(environ)).orchestration_id
    assert found.startswith(f"host:29500:{os.getppid()}:")
    assert resolve_orchestration(None, dict(environ)).orchestration_id == found


def test_torchrun_without_an_id_on_several_nodes_is_refused() -> None:
    environ = {
        "TORCHELASTIC_RUN_ID": "none",
        "MASTER_ADDR": "host",
        "MASTER_PORT": "29500",
        "GROUP_WORLD_SIZE": "2",
    }
    with pytest.raises(metrana.MetranaLoggerInitError, match="--rdzv-id"):
        resolve_orchestration(None, environ)


@pytest.mark.parametrize("count", ["WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"])
def test_ranks_agree_on_a_generated_name(count: str) -> None:
    environ = {**os.environ, "SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0", count: "2"}
    first, second = (_names(environ) for _ in range(2))
    assert first == second
    assert len(set(first)) == 2
    assert _names({**environ, "SLURM_STEP_ID": "1"}) != first


def test_scripts_of_one_allocation_get_names_of_their_own() -> None:
    environ = {"SLURM_JOB_ID": "77"}
    names = [_names({**os.environ, **environ})[0] for _ in range(2)]
    assert names[0] != names[1]


def test_a_child_gets_its_parents_names() -> None:
    # Both processes make their first names here; this one may have made others before.
    script = f"""
import os, subprocess, sys
child = {_NAMES!r}
exec(child)
subprocess.run([sys.executable, "-c", child], check=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    parents, childs = done.stdout.splitlines()
    assert parents == childs


def test_names_of_a_user_given_id_are_a_function_of_it() -> None:
    environ = {**os.environ, ID_VARIABLE: "job-1"}
    assert _names(environ) == _names(environ)


def test_names_are_readable_and_valid() -> None:
    names = {run_name_from(str(seed)) for seed in range(1000)}
    assert len(names) == 1000
    assert all(name.isascii() and len(name) < 40 and name.count("-") == 2 for name in names)


@pytest.mark.parametrize("name", ["RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"])
def test_the_logger_is_the_rank(name: str) -> None:
    assert default_logger_id({name: "3"}) == "3"
    assert default_logger_id({}) is None


def _names(environ: dict[str, str]) -> list[str]:
    """The first two names that a process of this environment makes."""
    done = subprocess.run(
        [sys.executable, "-c", _NAMES], env=environ, capture_output=True, text=True, check=True
    )
    names: list[str] = json.loads(done.stdout)
    return names
