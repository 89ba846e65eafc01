"""The command as a process, over the recorded run."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.integration.query.recorded import record


class Command(Protocol):
    """Runs the command; never raises for its exit code."""

    def __call__(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Runs it and checks the exit code, and that no traceback reaches the user."""


def run_command(
    *arguments: str, code: int, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Runs `metrana` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "metrana.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, **environment},
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory whose spools have the recorded run."""
    directory = tmp_path_factory.mktemp("command") / "data"
    record(directory)
    return directory


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder so near that a message has room for its whole path."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
def metrana(data_dir: Path) -> Command:
    """The command, in that directory."""

    def command(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        return run_command(*arguments, code=code, environment={"METRANA_DIR": str(data_dir)})

    return command
