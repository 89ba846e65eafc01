"""That the benchmark of trainings still runs, and that its table hides nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.fits import EPISODES, FRAMEWORKS, LOGGERS, METRANA, SERVED, TENSORBOARD, loggers_of
from benchmarks.runner import run_work
from benchmarks.trainings import table

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_training_is_logged_whole_and_leaves_nothing(framework: str, tmp_path: Path) -> None:
    figures = run_work(f"fit-{framework}", METRANA, tmp_path, "--quick")
    assert figures["step_us"] > 0
    assert figures["points"] > 0
    assert figures["dropped"] == 0
    assert list(tmp_path.iterdir()) == []


def test_command_measures_without_peers(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.trainings", "--quick", "--only", "gymnasium"]
    done = subprocess.run(
        [*command, "--folder", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "the figures mean nothing" in done.stdout
    (row,) = (line for line in done.stdout.splitlines() if line.startswith("| Gymnasium |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")][2:]
    shown = dict(zip(LOGGERS, cells, strict=True))
    assert {name for name, cell in shown.items() if "µs" in cell} == {METRANA, EPISODES, SERVED}
    assert shown[TENSORBOARD] == "-"
    assert list(tmp_path.iterdir()) == []


def test_table_shows_medians_with_the_lowest_and_the_highest_and_what_failed() -> None:
    processes = [
        {"step_us": step_us, "added_us": added, "added_percent": added / 10, "close_ms": 2.0}
        for step_us, added in ((1500.0, 30.0), (1000.0, 10.0), (2000.0, 150.0))
    ]
    line = table(
        ["lightning"],
        {("lightning", METRANA): processes, ("lightning", TENSORBOARD): processes[:1]},
        {("lightning", TENSORBOARD): "no module"},
    )[2]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:3] == ["Lightning", "1.5 ms", "30 (10 to 150) µs, 3.0 %; closing 2 ms"]
    assert cells[3:] == ["-", "-", "failed", "-"]


def test_episodes_alone_are_measured_where_there_are_environments() -> None:
    assert EPISODES in loggers_of("sb3")
    assert EPISODES not in loggers_of("transformers")
