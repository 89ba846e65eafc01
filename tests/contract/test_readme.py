"""What the README shows works as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def test_the_quick_start_runs_and_reads_back_what_it_logged(tmp_path: Path) -> None:
    (quick_start,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", quick_start],
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
        cwd=tmp_path,
        env={**os.environ, "METRANA_DIR": str(tmp_path / "data")},
    )
    heading, *rows = (line.split() for line in done.stdout.splitlines())
    assert "metric_name" in heading
    shown = [row[:2] for row in rows if "loss" in row]
    assert shown == [[str(step), "loss"] for step in range(95, 100)]
