"""Which processes are one job: the orchestration id, and the run name that its processes share.

The id comes from the argument, METRANA_ORCHESTRATION_ID, TORCHELASTIC_RUN_ID, SLURM_JOB_ID,
RAY_JOB_ID, or is random. It is published to METRANA_ORCHESTRATION_ID, so that child processes
inherit it, with a note of who set it: a process must tell an id of its own from an inherited one.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from metrana import checks
from metrana.errors import MetranaLoggerInitError
from metrana.names import run_name_from

ID_VARIABLE: Final = "METRANA_ORCHESTRATION_ID"
# A token of the process that set the id: what tells its job from others of the same allocation.
_NOTE_VARIABLE: Final = "METRANA_ORCHESTRATION_SET_BY"

_PROCESS_COUNT_VARIABLES: Final = ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
_JOB_VARIABLES: Final = ("TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "RAY_JOB_ID")
_RANK_VARIABLES: Final = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK")


class _Process:
    """What belongs to this process alone; a forked child gets its own."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.token = os.urandom(8).hex()
        self.nameless_runs = itertools.count(1)


_process = _Process()


@dataclass(frozen=True)
class Orchestration:
    """The job that this process belongs to."""

    orchestration_id: str
    """Equal in every process that should share a run."""
    run_name_seed: str
    """What generated run names are made from: equal in the processes whose names should be."""


def resolve_orchestration(argument: str | None, environ: MutableMapping[str, str]) -> Orchestration:
    """Find this process's orchestration id and publish it to its children.

    Args:
        argument: What `init()` was given, or None.
        environ: The environment; METRANA_ORCHESTRATION_ID is written to it.

    Raises:
        MetranaValidationError: For a variable that is no name.
        MetranaLoggerInitError: For torchrun on several nodes without an id that they share.
    """
    inherited = environ.get(ID_VARIABLE) or None
    if inherited is not None:
        checks.entity_name(ID_VARIABLE, inherited)
    note = environ.get(_NOTE_VARIABLE, "")
    orchestration_id = argument or inherited or _launcher_id(environ) or os.urandom(16).hex()
    if argument is not None or inherited is None:
        environ[_NOTE_VARIABLE] = note = _own().token
    environ[ID_VARIABLE] = orchestration_id
    return Orchestration(orchestration_id, _run_name_seed(environ, orchestration_id, note))


def generated_run_name(orchestration: Orchestration) -> str:
    """A readable name for the next run of this process that was given none."""
    return run_name_from(f"{orchestration.run_name_seed}\0{next(_own().nameless_runs)}")


def default_logger_id(environ: Mapping[str, str]) -> str | None:
    """This process's rank as its launcher tells it; None: there is none.

    Raises:
        MetranaValidationError: For a variable that is no name.
    """
    name = next((name for name in _RANK_VARIABLES if environ.get(name)), None)
    return None if name is None else checks.entity_name(name, environ[name])


def _launcher_id(environ: Mapping[str, str]) -> str | None:
    if environ.get("TORCHELASTIC_RUN_ID") == "none":
        return _torchrun_without_id(environ)
    name = next((name for name in _JOB_VARIABLES if environ.get(name)), None)
    return None if name is None else checks.entity_name(name, environ[name])


def _torchrun_without_id(environ: Mapping[str, str]) -> str | None:
    """An id for torchrun that was started with an explicit master port, hence without a run id."""
    address, port = environ.get("MASTER_ADDR"), environ.get("MASTER_PORT")
    if not address or not port:
        return None
    if _count(environ, "GROUP_WORLD_SIZE") > 1:
        raise MetranaLoggerInitError(
            "torchrun on several nodes gave its processes no common id: start it with "
            "--rdzv-id=<a name for this job>, or pass orchestration_id= to metrana.init()"
        )
    launcher = os.getppid()
    return f"{address}:{port}:{launcher}:{_start_time(launcher)}"


def _run_name_seed(environ: Mapping[str, str], orchestration_id: str, token: str) -> str:
    # The ranks of one launch agree on the id alone. Elsewhere a token tells apart the scripts of
    # one allocation, which share its id; a child has the token of the process that set the id.
    is_launched = any(_count(environ, name) > 1 for name in _PROCESS_COUNT_VARIABLES)
    step = environ.get("SLURM_STEP_ID", "")
    return "\0".join((orchestration_id, step, "" if is_launched else token))


def _own() -> _Process:
    global _process
    if _process.pid != os.getpid():
        _process = _Process()
    return _process


def _count(environ: Mapping[str, str], name: str) -> int:
    try:
        return int(environ.get(name, ""))
    except ValueError:
        return 0


def _start_time(pid: int) -> str:
    """When a process started, in the kernel's ticks: with its pid it names it for ever."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:  # not Linux: the pid and the port have to do
        return "0"
    # The name in parentheses may hold anything. The start time is the 20th field after it.
    return stat.rpartition(")")[2].split()[19]
