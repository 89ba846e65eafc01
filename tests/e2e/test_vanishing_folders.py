"""Somebody deletes or moves the folder that a living run writes to."""

from __future__ import annotations

import json
import math
import shutil
import signal
from pathlib import Path

import pytest

from metrana.query import Client
from tests.e2e.conftest import KEY
from tests.local_server import LocalServer
from tests.processes import Machine
from tests.reading import read_one
from tests.rings import rings_left_behind

_START = """
import os, pathlib, shutil, sys, time

data_dir = pathlib.Path(os.environ["METRANA_DIR"])

def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, run.status()
        time.sleep(0.01)

def has_heard_of(what):
    return any(what in text for text in run.status().problems)
"""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine that logs into the spool."""
    return Machine(tmp_path / "machine", METRANA_MODE="offline")


@pytest.mark.parametrize("flushed_before", [True, False])
@pytest.mark.parametrize("end", ["metrana.close()", "os.kill(os.getpid(), 9)"])
def test_a_folder_that_was_deleted_is_made_anew_with_all_that_was_in_it(
    machine: Machine, flushed_before: bool, end: str
) -> None:
    is_killed = "kill" in end
    done = machine.python(
        f"""
        {_START.replace(chr(10), chr(10) + " " * 8)}
        run = metrana.init(run_name="r", config={{"lr": 1}})
        metrana.log("x", [0, 1])
        if {flushed_before}:
            run.flush()
        shutil.rmtree(data_dir)
        metrana.log("x", 2)
        run.flush()
        metrana.log("x", 3)
        {end}
        """,
        code=-signal.SIGKILL if is_killed else 0,
    )
    assert done.stderr.count("were deleted by somebody; they were written anew") == 1
    logged = read_one(machine.data_dir)
    assert logged.values("x") == [0, 1, 2, 3]
    assert logged.attributes["config/lr"] == ("int", "1")
    assert logged.end == (None if is_killed else "finished")


def test_a_folder_that_was_deleted_is_noticed_by_a_run_that_logs_nothing(machine: Machine) -> None:
    machine.python(
        f"""
        {_START.replace(chr(10), chr(10) + " " * 8)}
        run = metrana.init(run_name="r")
        metrana.log("x", [1, 2])
        run.flush()
        shutil.rmtree(data_dir)
        wait_for(lambda: has_heard_of("deleted"))
        os.kill(os.getpid(), 9)
        """,
        code=-signal.SIGKILL,
    )
    assert read_one(machine.data_dir).values("x") == [1, 2]


def test_segments_that_are_gone_for_good_are_told_with_their_size(machine: Machine) -> None:
    done = machine.python(f"""
    {_START.replace(chr(10), chr(10) + " " * 4)}
    import math

    run = metrana.init(run_name="r", spool_max_bytes=400_000, backpressure_strategy="block")
    count = 0
    while len(list(data_dir.rglob("*.spool"))) < 2:
        metrana.log("x", [math.sin(count + i) for i in range(1000)])
        count += 1000
        run.flush()
    shutil.rmtree(data_dir)
    metrana.log("x", 0.5)
    run.flush()
    assert has_heard_of("bytes of sealed batches are lost"), run.status()
    metrana.close()
    print(json.dumps(count))
    """)
    assert "bytes of sealed batches are lost" in done.stderr
    count = json.loads(done.stdout)
    # The file that was being written held the last batch.
    last = [math.sin(i) for i in range(count - 1000, count)]
    assert read_one(machine.data_dir, damage_count=1).values("x") == [*last, 0.5]


def test_a_folder_that_another_run_has_taken_over_is_left_to_it(machine: Machine) -> None:
    done = machine.python(f"""
    {_START.replace(chr(10), chr(10) + " " * 4)}
    import subprocess

    other = "import metrana; run = metrana.init(run_name='r'); run.log('y', 1); run.close()"
    theirs = data_dir.with_name("theirs")
    subprocess.run(
        [sys.executable, "-c", other], env={{**os.environ, "METRANA_DIR": str(theirs)}}, check=True
    )
    run = metrana.init(run_name="r")
    metrana.log("x", 1)
    run.flush()
    data_dir.rename(data_dir.with_name("ours"))
    theirs.rename(data_dir)
    shutil.rmtree(data_dir.with_name("ours"))
    metrana.log("x", 2)
    try:
        run.flush(0.5)
    except metrana.MetranaClosingError:
        pass
    metrana.close(0.5)
    """)
    assert "nothing can be written to the spool, points wait in memory" in done.stderr
    assert [point.metric for point in read_one(machine.data_dir).points] == ["y"]
    (ring,) = rings_left_behind(machine.folder)
    assert str(ring) in machine.command("status").stderr
    ring.unlink()


def test_a_folder_that_was_moved_has_everything_and_its_run_says_so(machine: Machine) -> None:
    done = machine.python(f"""
    {_START.replace(chr(10), chr(10) + " " * 4)}
    run = metrana.init(run_name="r")
    metrana.log("x", [1, 2])
    run.flush()
    data_dir.rename(data_dir.with_name("moved"))
    metrana.log("x", 3)
    run.flush()
    wait_for(lambda: has_heard_of("moved"))
    metrana.close()
    """)
    assert "was moved by somebody" in done.stderr
    logged = read_one(machine.folder / "moved")
    assert logged.values("x") == [1, 2, 3]
    assert logged.end == "finished"


def test_a_server_gets_what_was_logged_before_and_after_the_folder_was_deleted(
    elsewhere: LocalServer, reader: Client, tmp_path: Path, project: str
) -> None:
    machine = Machine(
        tmp_path,
        METRANA_MODE="online",
        METRANA_PROJECT=project,
        METRANA_INGESTION_URL=elsewhere.grpc_url,
        METRANA_API_KEY=KEY,
    )
    machine.python(f"""
    {_START.replace(chr(10), chr(10) + " " * 4)}
    run = metrana.init(run_name="r")
    for round in range(3):
        metrana.log("x", [3 * round, 3 * round + 1])
        if round != 1:
            run.flush()
        shutil.rmtree(data_dir)
        metrana.log("x", 3 * round + 2)
        run.flush(30)
    assert run.get_metrics().float_points_sent == 9
    metrana.close()
    """)
    assert not list(machine.data_dir.glob("spool/*/[0-9]*"))
    shutil.rmtree(machine.data_dir)
    points = reader.points("r", "x", project_name=project, duplicates="all")
    assert list(points["value"]) == list(range(9))
    assert reader.run("r", project_name=project).status == "finished"
