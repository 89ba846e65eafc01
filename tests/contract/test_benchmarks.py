"""That the benchmarks still run, and that their table hides nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.goals import ROWS, Goal, Row
from benchmarks.loggers import PEERS
from benchmarks.table import table
from benchmarks.works import work_of

ROOT = Path(__file__).parents[2]
ROW = Row(
    "scalar",
    "a call",
    "scalar",
    (Goal("p50_us", "p50", 1.0, "µs"), Goal("dropped", "dropped", 0, "points", is_quiet=True)),
    has_peers=True,
)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_work_is_there_for_every_row(row: Row) -> None:
    assert callable(work_of(row.work))


def test_names_of_rows_are_unique() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_command_writes_what_it_measured_and_where(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", "startup"]
    done = subprocess.run(
        [*command, "--output", str(page), "--folder", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert "the figures mean nothing" in text
    assert "| startup | open and close a run, offline | median ≤ 60 ms | median " in text
    assert str(tmp_path) not in text
    assert list(tmp_path.iterdir()) == [page]


def test_table_keeps_a_goal_that_is_missed() -> None:
    figures = {"p50_us": 2.5, "net_p50_us": 2.0, "dropped": 0.0}
    (line,) = table([ROW], lambda _work, logger: {} if logger in PEERS else figures)[2:]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[2:5] == ["p50 ≤ 1 µs", "p50 2.5 µs", "p50 2 µs"]
    assert cells[5:-1] == ["-"] * len(PEERS)
    assert cells[-1] == "**no** (p50)"


def test_table_says_what_was_dropped_to_be_fast() -> None:
    (line,) = table([ROW], lambda *_: {"p50_us": 0.5, "dropped": 3.0})[2:]
    assert "p50 0.5 µs, dropped 3 points" in line
    assert line.endswith("| **no** (dropped) |")


def test_table_says_what_failed() -> None:
    (line,) = table([ROW], lambda *_: None)[2:]
    assert line.count("failed") == 2 + len(PEERS)
    assert line.endswith("| no |")
