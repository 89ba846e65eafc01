"""That the benchmarks still run, and that their table hides nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.commit import commit
from benchmarks.confidence import with_interval
from benchmarks.disk import file_system
from benchmarks.goals import ROWS, Goal, Row
from benchmarks.loggers import PEERS
from benchmarks.page import PUBLISHED, README, page, publish, section, section_of
from benchmarks.place import Place
from benchmarks.processes import started_by
from benchmarks.runner import Runner, together
from benchmarks.table import table
from benchmarks.timing import percentiles, sample
from benchmarks.walks import Walks
from benchmarks.works import PROCESSES, work_of
from benchmarks.works.kill import lost_and_wrong

ROOT = Path(__file__).parents[2]
ROW = Row(
    "scalar",
    "a call",
    "scalar",
    (
        Goal("p50_us", "p50", 1.0, "µs", reason="{copy_us:g} µs are the copy"),
        Goal("dropped", "dropped", 0, "points", fault="dropped"),
    ),
    has_peers=True,
    note="a copy: {copy_us:g} µs",
)
FIGURES = {"p50_us": 0.5, "copy_us": 0.25, "dropped": 0.0}
WORKS = sorted({(row.work, row.logger) for row in ROWS})
# Of few calls there is none.
RARE = {"p99_us", "p999_us", "p9999_us"}
WITHOUT_POINTS = {"import", "startup", "startup-server"}
# There a point that was dropped is one that was lost.
COUNTED_OTHERWISE = {"kill"}
SHARED_MEMORY = Path("/dev/shm")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_work_is_there_for_every_row(row: Row) -> None:
    assert callable(work_of(row.work))


def test_names_of_rows_are_unique() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_command_writes_what_it_measured_and_where(tmp_path: Path) -> None:
    written = tmp_path / "benchmarks.md"
    done = _benchmarks(
        *("--quick", "--only", "startup"), "--output", str(written), "--folder", str(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    text = written.read_text()
    assert f"the measured folder is on {file_system(tmp_path)}" in text
    assert "the figures mean nothing" in text
    assert (
        "| startup | open and close a run, offline | first ≤ 60 ms, later ≤ 60 ms | first " in text
    )
    assert str(tmp_path) not in text
    assert list(tmp_path.iterdir()) == [written]


def test_a_part_of_the_table_is_not_published() -> None:
    before = PUBLISHED.read_bytes() if PUBLISHED.exists() else None
    for part in (["--quick", "--only", "import"], ["--quick"], ["--only", "import"], []):
        done = _benchmarks(*part, "--output", "docs/benchmarks.md")
        assert done.returncode == 2
        assert "benchmarks.md is published, so it takes the whole table only" in done.stderr
    assert (PUBLISHED.read_bytes() if PUBLISHED.exists() else None) == before


@pytest.mark.parametrize(("options", "is_published"), [("", True), ("--quick", False)])
def test_make_publishes_a_whole_table_only(options: str, is_published: bool) -> None:
    command = ["make", "--dry-run", "bench", f"BENCH={options}"]
    planned = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ("--output docs/benchmarks.md" in planned.stdout) == is_published


@pytest.mark.parametrize(("work", "logger"), WORKS)
def test_work_gives_every_figure_of_its_rows(work: str, logger: str, tmp_path: Path) -> None:
    runner = Runner(tmp_path, None, is_quick=True)
    figures = runner.measure(work, logger)
    assert figures is not None, runner.failures
    for row in ROWS:
        if (row.work, row.logger) == (work, logger):
            assert {goal.figure for goal in row.goals} <= figures.keys() | RARE
            told = row.note + "".join(goal.reason for goal in row.goals)
            assert told.format_map(figures).count("{") == 0
    assert figures.get("dropped", 0) == 0
    if work == "ingest-blocks":
        # What is on its way is bounded: the client alone logs ten times as much in this time.
        assert figures["points"] < 8e6
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_row_counts_what_metrana_dropped(row: Row) -> None:
    counted = any(goal.figure == "dropped" and goal.limit == 0 for goal in row.goals)
    assert counted != (row.name in WITHOUT_POINTS | COUNTED_OTHERWISE)


def test_peers_that_are_not_there_are_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    runner = Runner(tmp_path, tmp_path / "no-python", is_quick=True)
    assert runner.measure("scalar", "aim") is None
    assert runner.failures == {("scalar", "aim"): "Aim is not installed"}
    assert runner.measure("import", "metrana-server")


def test_setup_is_done_anew_before_each_call() -> None:
    seen: list[object] = []
    took = sample("see(fresh)", {"see": seen.append}, 0.2, setup="fresh = object()", burst=10)
    assert len(took) == len(seen) == len(set(map(id, seen)))


def test_setup_is_not_timed() -> None:
    names = {"wait": lambda: sum(range(100_000))}
    took = sample("pass", names, 0.3, setup="wait()", burst=10)
    waited = sample("wait()", names, 0.3, burst=10)
    assert np.median(took) < np.median(waited)


def test_walks_differ_until_all_were_taken() -> None:
    walks = Walks(length=100, count=10)
    taken = np.concatenate([walks.take(4), walks.take(4), walks.take(4)])
    assert taken.shape == (12, 100)
    assert taken.dtype == np.float32
    assert len(np.unique(taken[:10], axis=0)) == 10
    assert (taken[10:] == taken[:2]).all()


def test_disk_load_is_refused_where_there_is_no_disk() -> None:
    assert file_system(SHARED_MEMORY) == "tmpfs"
    with pytest.raises(RuntimeError, match="is on tmpfs, not on a disk"):
        work_of("scalar-dd")(Place(SHARED_MEMORY, "metrana-server", is_quick=True))
    whole = ("--peers-python", sys.executable, "--output", "docs/benchmarks.md")
    done = _benchmarks(*whole, "--folder", str(SHARED_MEMORY))
    assert done.returncode == 2
    assert "is on tmpfs, not on a disk" in done.stderr


def test_table_keeps_a_goal_that_is_missed_and_says_why() -> None:
    figures = {**FIGURES, "p50_us": 2.5, "net_p50_us": 2.0}
    cells = _row(figures, ROW)
    assert cells[2:5] == ["p50 ≤ 1 µs", "p50 2.5 µs", "p50 2 µs"]
    assert cells[5:-2] == ["-"] * len(PEERS)
    assert cells[-2:] == ["**no** (p50)", "a copy: 0.25 µs; missed: p50: 0.25 µs are the copy"]


def test_table_does_not_hide_that_the_reason_is_not_known() -> None:
    row = Row("scalar", "a call", "scalar", (Goal("p50_us", "p50", 1.0, "µs"), ROW.goals[1]))
    assert _row({**FIGURES, "p50_us": 2.5}, row)[-1] == "missed: p50: no reason is known yet"


def test_table_gives_a_reason_for_its_own_figure_only() -> None:
    row = Row("scalar", "a call", "scalar", (ROW.goals[0], Goal("p99_us", "p99", 3.0, "µs")))
    figures = {**FIGURES, "p99_us": 9.0}
    assert _row(figures, row)[-2:] == ["**no** (p99)", "missed: p99: no reason is known yet"]
    assert _row({**figures, "p50_us": 2.5}, row)[-1] == (
        "missed: p50: 0.25 µs are the copy; missed: p99: no reason is known yet"
    )


def test_table_names_each_goal_that_is_missed() -> None:
    rate = Goal("rate", "", 5, "M points/s", at_least=True)
    pace = Goal("pace", "at", 950, "points/s", at_least=True, fault="pace not kept")
    row = Row("scalar", "a call", "scalar", (rate, pace))
    assert _row({"rate": 4.0, "pace": 990.0}, row)[-2] == "**no**"
    cells = _row({"rate": 4.0, "pace": 700.0}, row)
    assert cells[-2] == "**no** (M points/s, pace not kept)"
    assert cells[-1].endswith("the figures do not count: pace not kept")


def test_table_says_how_many_calls_there_were() -> None:
    assert _row({**FIGURES, "calls": 12345.0}, ROW)[-1] == "12,345 calls; a copy: 0.25 µs"


def test_table_gives_no_reason_for_a_goal_that_is_met() -> None:
    assert _row(FIGURES, ROW)[-2:] == ["yes", "a copy: 0.25 µs"]


def test_table_says_what_was_dropped_to_be_fast() -> None:
    cells = _row({**FIGURES, "dropped": 3.0}, ROW)
    assert cells[3] == "p50 0.5 µs, dropped 3 points"
    assert cells[-2] == "**no** (dropped)"
    assert cells[-1].endswith("the figures do not count: dropped")


def test_table_takes_a_figure_that_is_missing_for_a_missed_goal() -> None:
    assert _row({"p50_us": 0.5, "copy_us": 0.25}, ROW)[-2] == "**no** (dropped)"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.1, 0.9, "yes"), (-0.1, 1.1, "within noise (p50)"), (1.1, 1.3, "**no** (p50)")],
)
def test_table_calls_a_goal_met_if_its_whole_interval_is(
    low: float, high: float, verdict: str
) -> None:
    cells = _row({**FIGURES, "p50_us_low": low, "p50_us_high": high}, ROW)
    assert cells[3] == f"p50 0.5 ({low} to {high}) µs"
    assert cells[-2] == verdict
    assert ("within noise: the goal lies between" in cells[-1]) == verdict.startswith("within")


def test_table_has_no_verdict_where_there_is_no_goal() -> None:
    row = Row("scalar", "a call", "scalar", (Goal("p50_us", "p50", None, "µs"), ROW.goals[1]))
    assert _row(FIGURES, row)[-2] == "-"
    assert _row({**FIGURES, "dropped": 3.0}, row)[-2] == "**no** (dropped)"


def test_table_rounds_nothing_to_its_goal() -> None:
    assert _row({**FIGURES, "p50_us": 1.0016}, ROW)[3] == "p50 1.002 µs"
    assert _row({**FIGURES, "p50_us": 0.99612}, ROW)[3] == "p50 0.9961 µs"
    assert _row({**FIGURES, "p50_us": 1.00004}, ROW)[3] == "p50 1.00004 µs"
    assert _row({**FIGURES, "p50_us": 1.0}, ROW)[3] == "p50 1 µs"


@pytest.mark.parametrize("count", [4, 10, 14])
@pytest.mark.parametrize("kind", ["normal", "skewed"])
def test_interval_holds_the_mean_as_often_as_it_says(kind: str, count: int) -> None:
    rng = np.random.default_rng(count)
    # Log-normal with a skewness of one.
    drawn = (
        rng.lognormal(0.0, 0.314, (4000, count))
        if kind == "skewed"
        else (rng.normal(3.0, 1.0, (4000, count)))
    )
    mean = np.exp(0.314**2 / 2) if kind == "skewed" else 3.0
    hits = 0
    for rounds in drawn.tolist():
        figures = with_interval("x", rounds)
        assert figures["x"] == pytest.approx(np.mean(rounds))
        hits += figures["x_low"] <= mean <= figures["x_high"]
    # By chance it is within 0.7 percent, nineteen times of twenty; skewed rounds take two off.
    assert (0.925 if kind == "skewed" else 0.94) < hits / len(drawn) < 0.96


def test_interval_of_a_single_round_has_no_end() -> None:
    figures = with_interval("x", [2.0], lambda mean: mean + 1)
    assert figures == {"x": 3.0, "x_low": -np.inf, "x_high": np.inf}


def test_percentiles_are_given_where_ten_calls_took_longer() -> None:
    def given(count: int) -> set[str]:
        return percentiles(np.arange(count)).keys() & {"p50_us", *RARE}

    assert given(999) == {"p50_us"}
    assert given(1000) == given(9999) == {"p50_us", "p99_us"}
    assert given(10_000) == {"p50_us", "p99_us", "p999_us"}
    assert given(100_000) == {"p50_us", *RARE}
    figures = percentiles(np.arange(10_000) * 1000)
    assert (figures["p50_us"], figures["p99_us"], figures["p999_us"]) == (5000, 9900, 9990)


def test_processes_of_a_work_hide_neither_the_slowest_nor_what_was_dropped() -> None:
    p50s = (2.0, 9.0, 3.0)
    figures = together([{"p50_us": p50, "calls": 100.0, "dropped": 1.0} for p50 in p50s])
    assert figures == {
        "p50_us": 3.0,
        "p50_us_low": 2.0,
        "p50_us_high": 9.0,
        "calls": 300.0,
        "dropped": 3.0,
    }
    assert PROCESSES.keys() <= {row.work for row in ROWS}


def test_commit_tells_of_sources_that_are_in_none(tmp_path: Path) -> None:
    assert commit(tmp_path) == "no commit"
    names = ("source.py", "page.md")
    for name in names:
        (tmp_path / name).write_text("")
    for arguments in (["init"], ["add", "."], ["commit", "--message", "All"]):
        identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, capture_output=True, check=True
        )
    clean = commit(tmp_path)
    assert len(clean) == 40
    source, written = (tmp_path / name for name in names)
    written.write_text("written")
    assert commit(tmp_path, but=[written]) == clean
    assert commit(tmp_path) == f"{clean}-dirty"
    source.write_text("changed")
    assert commit(tmp_path, but=[written]) == f"{clean}-dirty"


@pytest.mark.parametrize("name", ["startup", "startup-server"])
def test_first_run_of_a_process_has_the_goal_of_the_later_ones(name: str) -> None:
    (row,) = (row for row in ROWS if row.name == name)
    limits = {goal.label: goal.limit for goal in row.goals}
    assert limits["first"] == limits["later"] is not None


@pytest.mark.parametrize(
    ("stored", "lost", "wrong"),
    [
        ([2.0, 0.0, 1.0], 0, 0),
        ([0.0, 1.0, 2.0, 3.0], 0, 0),  # the last call was taken, but not written down yet
        ([0.0, 2.0], 1, 0),
        ([0.0, 1.0, 1.0], 1, 1),
        ([0.0, 1.0, 2.0, 4.0], 0, 1),
        ([0.0, 0.5, 2.0], 1, 1),
    ],
)
def test_kill_compares_values_one_by_one(stored: list[float], lost: int, wrong: int) -> None:
    assert lost_and_wrong(3, stored) == (lost, wrong)


def test_processes_that_a_process_started_are_found_to_the_last() -> None:
    grandchild = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", grandchild], stdin=subprocess.PIPE) as child:
        assert child.stdin
        deadline = time.monotonic() + 20
        while len(found := started_by(child.pid)) < 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(found) == 1
        assert {child.pid, *found} <= set(started_by(os.getpid()))
        child.stdin.write(b"\n")


def test_page_names_the_rows_without_a_server() -> None:
    text = page("python -m benchmarks", ["A machine", "a system"], ["| row |"], [])
    told = text.partition("except in the rows")[2].partition(".")[0]
    expected = {row.name for row in ROWS if row.logger == "metrana"}
    assert set(told.split('"')[1::2]) == expected
    assert "import" in expected


def test_table_says_what_failed() -> None:
    (line,) = table([ROW], lambda *_: None)[2:]
    assert line.count("| failed ") == 2 + len(PEERS)
    assert line.endswith("| no | failed: see below |")


def test_readme_shows_what_the_page_shows(tmp_path: Path) -> None:
    lines = table([ROW], lambda _work, logger: {"p50_us": 9.0} if logger in PEERS else FIGURES)
    text = page("python -m benchmarks", ["A machine", "a system"], lines, ["kill, aim: no"])
    readme = tmp_path / "README.md"
    readme.write_text(README.read_text())
    for _ in range(2):
        publish(text, tmp_path / "benchmarks.md", readme)
        assert section_of(readme.read_text()) == section(text)
    shown = section(text)
    assert "A machine; a system." in shown
    peers = " | ".join(["p50 9 µs"] * len(PEERS))
    assert "[docs/performance.md](docs/performance.md) how it is measured" in shown
    assert shown.endswith(f"| a call | p50 ≤ 1 µs | p50 0.5 µs | {peers} | yes |")
    assert _outside(readme.read_text()) == _outside(README.read_text())


def test_readme_shows_the_table_that_is_published() -> None:
    expected = section(PUBLISHED.read_text()) if PUBLISHED.exists() else ""
    assert section_of(README.read_text()) == expected


def _outside(readme: str) -> list[str]:
    return readme.replace(section_of(readme), "").split()


def _row(figures: dict[str, float], row: Row) -> list[str]:
    (line,) = table([row], lambda _work, logger: {} if logger in PEERS else figures)[2:]
    return [cell.strip() for cell in line.strip("|").split("|")]


def _benchmarks(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
