"""What the suites owe whoever runs them: an end, nothing left running, a word of what was left out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_pytest(folder: Path, *arguments: str, code: int) -> str:
    """Runs tests in a process of its own, in workers; returns what it said.

    Args:
        folder: For its temporary files.
        arguments: Of the command.
        code: Its exit code.
    """
    environ = {name: value for name, value in os.environ.items() if "_TEST_" not in name}
    command = [sys.executable, "-m", "pytest"]
    done = subprocess.run(
        [*command, "-n1", "-p", "no:cacheprovider", f"--basetemp={folder}/temporary", *arguments],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_what_workers_left_out_is_named_in_the_last_line(tmp_path: Path) -> None:
    suite = "tests/integration/server/catalog/test_runs.py"
    nothing_else = 5
    said = run_pytest(tmp_path, suite, "-k", "postgresql", code=nothing_else)
    assert said.splitlines()[-1] == (
        f"left out, METRANA_TEST_ALL=1 runs them: {suite} (needs postgresql)"
    )
