"""Does every work in a process, a folder and an environment of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.loggers import METRANA, PEERS
from benchmarks.place import Figures
from benchmarks.works import PROCESSES

ROOT = Path(__file__).parents[1]
_TIMEOUT_S = 400
_COUNTED = ("calls", "dropped")
_OURS = ("METRANA_", "WANDB_", "MLFLOW_", "TRACKIO_", "AIM_")
# Nobody listens there: what a peer would send out of the machine fails at once.
_NOWHERE = "http://127.0.0.1:9"
_OFFLINE = {
    "HTTP_PROXY": _NOWHERE,
    "HTTPS_PROXY": _NOWHERE,
    "NO_PROXY": "localhost,127.0.0.1",
    "DO_NOT_TRACK": "true",
    "HF_HUB_OFFLINE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
}
_VERSIONS = """
import importlib.metadata, json, sys
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


@dataclass
class Runner:
    """Measures what the table asks for, each work and logger once.

    Attributes:
        folder: On the disk to measure on; what is made in it is removed again.
        peers_python: The interpreter of the environment that has the peers; None: no peers.
        is_quick: Whether the figures are only to be seen.
        failures: Why a work has no figures, by work and logger.
        peer_versions: Of the peers that are installed, by name.
    """

    folder: Path
    peers_python: Path | None
    is_quick: bool = False
    failures: dict[tuple[str, str], str] = field(default_factory=dict)
    peer_versions: dict[str, str] = field(init=False, default_factory=dict)
    _done: dict[tuple[str, str], Figures] = field(default_factory=dict)
    _start_s: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        if self.peers_python is not None:
            try:
                self.peer_versions = installed(self.peers_python, PEERS)
            except (OSError, subprocess.SubprocessError, ValueError) as error:
                self._say(f"no peers: {reason_of(error)}")

    def measure(self, work: str, logger: str) -> Figures | None:
        """Returns the figures of a work: none for a peer without environment, None if it failed."""
        if logger in PEERS and self.peers_python is None:
            return {}
        key = (work, logger)
        if key not in self._done and key not in self.failures:
            try:
                if logger in PEERS and logger not in self.peer_versions:
                    raise ValueError(f"{PEERS[logger]} is not installed")
                self._say(f"{work}: {logger} …")
                self._done[key] = together(
                    [self._run(work, logger) for _ in range(self._process_count(work, logger))]
                )
            except (OSError, subprocess.SubprocessError, ValueError) as error:
                # A page tells nobody where on the machine this was.
                reason = reason_of(error).replace(str(self.folder), "…").replace(str(ROOT), "…")
                self.failures[key] = reason
                self._say(f"{work}: {logger} failed: {self.failures[key]}")
        return self._done.get(key)

    def _process_count(self, work: str, logger: str) -> int:
        is_one = self.is_quick or logger not in METRANA
        return 1 if is_one else PROCESSES.get(work, 1)

    def _say(self, line: str) -> None:
        passed_s = time.monotonic() - self._start_s
        print(f"[{passed_s:5.0f} s] {line}", file=sys.stderr, flush=True)

    def _run(self, work: str, logger: str) -> Figures:
        python = self.peers_python if logger in PEERS else None
        arguments = ["--quick"] if self.is_quick else []
        return run_work(work, logger, self.folder, *arguments, python=python)


def run_work(
    work: str, logger: str, folder: Path, *arguments: str, python: Path | None = None
) -> Figures:
    """Does a work in a fresh process; blocks until it has ended.

    Args:
        work: Its name.
        logger: The name of the logger that is measured.
        folder: On the disk to measure on; what is made in it is removed again.
        arguments: Further ones of `benchmarks.measure`.
        python: The interpreter; None: this one.

    Returns:
        The figures.

    Raises:
        OSError: The process could not be started.
        subprocess.SubprocessError: It failed, or took too long.
    """
    own = Path(tempfile.mkdtemp(prefix="metrana-bench-", dir=folder))
    home = own / "home"
    home.mkdir()
    place = own / "place"
    place.mkdir()
    interpreter = str(python or sys.executable)
    command = [interpreter, "-m", "benchmarks.measure", work, logger, str(place), *arguments]
    try:
        out = _output(command, home)
    finally:
        shutil.rmtree(own, ignore_errors=True)
    figures: Figures = json.loads(out.strip().rsplit("\n", 1)[-1])
    return figures


def together(processes: list[Figures]) -> Figures:
    """Returns the figures of a work that several processes did.

    They are the medians, but for what is counted. The lowest and the highest p50 stand where the
    ends of an interval would.
    """
    if len(processes) == 1:
        return processes[0]
    columns = {name: [figures[name] for figures in processes] for name in processes[0]}
    p50s = columns["p50_us"]
    return {
        **{name: statistics.median(values) for name, values in columns.items()},
        **{name: sum(columns[name]) for name in _COUNTED},
        "p50_us_low": min(p50s),
        "p50_us_high": max(p50s),
    }


def installed(python: Path, packages: Iterable[str]) -> dict[str, str]:
    """Returns the versions of those packages that an interpreter has.

    Raises:
        OSError: It could not be started.
        subprocess.SubprocessError: It failed.
    """
    command = [str(python), "-c", _VERSIONS, *packages]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    versions: dict[str, str] = json.loads(out)
    return versions


def _output(command: list[str], home: Path) -> str:
    # A session of its own: whatever a work leaves running ends with it.
    with subprocess.Popen(
        command,
        cwd=home,
        env=_environment(home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            out, errors = process.communicate(timeout=_TIMEOUT_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, out, errors)
    return out


def _environment(home: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    # Compiling its imports anew each time is not what a program costs.
    inherited.pop("PYTHONDONTWRITEBYTECODE", None)
    return {**inherited, **_OFFLINE, "HOME": str(home), "PYTHONPATH": str(ROOT)}


def reason_of(error: Exception) -> str:
    """Returns what a work that failed said last."""
    if isinstance(error, subprocess.CalledProcessError):
        lines = (error.stderr or "").strip().splitlines()
        return lines[-1] if lines else f"exit code {error.returncode}"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"not done within {error.timeout:g} s"
    return str(error)
