"""The stub of the native module says what the module is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_stub_equals_the_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "metrana._native", "--concise"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=55,
    )
    assert done.returncode == 0, done.stdout + done.stderr
