"""What the README shows works as it stands there, once and again."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.reading import read_all

README = Path(__file__).parents[2] / "README.md"
# It serves until it is stopped, and opens a browser.
ENDLESS = ["ui"]


def shown(language: str, after: str) -> str:
    """The first block of this language after a heading."""
    _, _, text = README.read_text().partition(f"# {after}\n")
    block = re.search(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)
    assert block is not None
    return block[1]


def run(tmp_path: Path, *arguments: str) -> str:
    """Runs Python, where the package is installed; gives what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        cwd=tmp_path,
        env={**os.environ, "METRANA_DIR": str(tmp_path / "data")},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_quick_start_runs_and_reads_back_what_it_logged(tmp_path: Path) -> None:
    quick_start = shown("python", "Quick start")
    for first_step in (0, 100):
        heading, *rows = (line.split() for line in run(tmp_path, "-c", quick_start).splitlines())
        assert heading == ["step", "value"]
        values = [(int(step), float(value)) for _, step, value in rows]
        expected = [(first_step + step, round(1 / (step + 1), 6)) for step in range(95, 100)]
        assert values == expected


def test_the_wrapper_of_environments_logs_their_steps(tmp_path: Path) -> None:
    run(tmp_path, "-c", shown("python", "Gymnasium"))
    (found,) = read_all(tmp_path / "data")
    assert found.end == "finished"
    rewards = Counter(point.env_id for point in found.of("reward"))
    assert set(rewards) == {f"CartPole-v1-{index}" for index in range(4)}
    assert 350 < sum(rewards.values()) < 400
    assert len(found.of("episode_return")) > 4


def test_the_commands_of_the_quick_start_find_its_run(tmp_path: Path) -> None:
    run(tmp_path, "-c", shown("python", "Quick start"))
    commands = [
        shlex.split(line, comments=True) for line in shown("sh", "Quick start").splitlines()
    ]
    assert {program for program, *_ in commands} == {"metrana"}
    printed = {
        name: run(tmp_path, "-m", "metrana.cli", name, *arguments)
        for _, name, *arguments in commands
        if name not in ENDLESS
    }
    assert printed.keys() == {"runs", "show", "status"}
    assert "first" in printed["runs"]
    assert "accuracy" in printed["show"]
    assert printed["status"] == ""


def test_videos_are_recorded_as_shown(tmp_path: Path) -> None:
    for repeat in range(1, 3):
        run(tmp_path, "-c", shown("python", "Videos"))
        writers = read_all(tmp_path / "data")
        videos = [rendering.info for logged in writers for rendering in logged.renderings.values()]
        seen = Counter((video.env_id, video.episode, video.frame_count) for video in videos)
        assert seen == {
            (env_id, episode, 30): repeat for env_id in ("env-0", "env-1") for episode in range(2)
        }


def test_an_rl_run_is_read_as_shown(tmp_path: Path) -> None:
    run(tmp_path, "-c", shown("python", "Quick start"))
    printed = run(tmp_path, "-c", shown("python", "Reading an RL run")).splitlines()
    rows = [line.split()[1:] for line in printed]
    assert ["env-0", "0", "100.0", "100.0", "NaN"] in rows
    assert ["env-1", "0", "100.0", "50.0", "aborted"] in rows
    assert ["99", "0.75", "0.25", "0.625", "0.875", "2"] in rows
    for line in shown("sh", "Reading an RL run").splitlines():
        _, name, *arguments = shlex.split(line, comments=True)
        text = run(tmp_path, "-m", "metrana.cli", name, *arguments)
        assert "env-0" in text
        assert ("env-1" in text) is (name == "episodes")
