"""A machine that fails: the disk is full or read-only, shared memory small, missing or wiped.

Training goes on, the state is told, what was accepted is there once there is room again.
"""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mounts import MountedMachine
from tests.processes import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[MountedMachine]:
    """A machine that logs into the spool, on a file system that a test mounts."""
    with MountedMachine(tmp_path / "machine", METRANA_MODE="offline") as machine:
        yield machine


def test_a_full_disk_stops_nothing_and_everything_arrives_once_it_has_room(
    machine: MountedMachine,
) -> None:
    machine.mount_disk("8m")
    # The last page of a file has room for numbers that can be compressed.
    done = machine.filler("""
    import math

    run = metrana.init(run_name="r", batch_max_age_secs=0.05)
    metrana.log("x", math.sin(0))
    run.flush()
    for round in range(3):
        fill(DISK)
        for value in range(10_000):
            metrana.log("x", math.sin(1 + round * 10_000 + value))
        try:
            run.flush(0.5)
        except metrana.MetranaClosingError:
            pass
        else:
            raise AssertionError("flushed to a full disk")
        status = run.status()
        assert status.pending_points >= 10_000, status
        assert any("nothing can be written to the spool" in text for text in status.problems)
        empty(DISK)
        run.flush(30)
        assert len(run.check_sender_errors()) == 1
        metrics = run.get_metrics()
        assert metrics.float_points_spooled == metrics.float_points_added, metrics
        assert metrics.float_points_dropped == 0, metrics
    metrana.close()
    """)
    assert done.stderr.count("MetranaWarning") == 1, done.stderr
    assert machine.logged() == [[[math.sin(i) for i in range(30_001)], "finished"]]


@pytest.mark.parametrize("end", ["metrana.close(0.1)", "pass", "os.kill(os.getpid(), 9)"])
def test_what_a_process_leaves_on_a_full_disk_is_recovered(
    machine: MountedMachine, end: str
) -> None:
    machine.mount_disk("8m")
    done = machine.filler(
        f"""
        metrana.init(run_name="r")
        fill(DISK)
        for value in range(1000):
            metrana.log("x", value)
        {end}
        """,
        code=-signal.SIGKILL if "kill" in end else 0,
    )
    assert ("still undelivered" in done.stderr) is ("kill" not in end), done.stderr
    assert "Traceback" not in done.stderr
    machine.empty_disk()
    ended = None if "kill" in end else "finished"
    assert machine.logged() == [[list(range(1000)), ended]]


def test_a_queue_that_overflows_on_a_full_disk_counts_what_it_drops(
    machine: MountedMachine,
) -> None:
    machine.mount_disk("8m")
    dropped = json.loads(
        machine.filler("""
        run = metrana.init(
            run_name="r",
            queue_capacity=1000,
            backpressure_strategy="drop_new",
            enqueue_timeout_secs=0,
        )
        fill(DISK)
        for value in range(3000):
            metrana.log("x", value)
        dropped = run.get_metrics().float_points_dropped
        empty(DISK)
        run.flush(30)
        metrana.log("x", 3000)
        metrana.close()
        print(json.dumps(dropped))
        """).stdout
    )
    assert dropped == 2000
    assert machine.logged() == [[[*range(1000), 3000], "finished"]]


def test_a_run_that_was_whole_before_the_disk_filled_is_not_called_damaged(
    machine: MountedMachine,
) -> None:
    machine.mount_disk("8m")
    machine.filler("""
    run = metrana.init(run_name="r")
    metrana.log("x", [1, 2, 3])
    run.flush()
    fill(DISK)
    metrana.close()
    """)
    machine.empty_disk()
    status = json.loads(machine.command("status", "--json").stdout)
    assert "lost" not in json.dumps(status), status
    values, _ = machine.logged()[0]
    assert values == [1, 2, 3]


@pytest.mark.parametrize(
    ("options", "reason"),
    [("size=64k", "No space left on device"), ("ro", "Read-only file system")],
)
def test_a_run_that_finds_no_room_says_where_and_leaves_nothing(
    machine: MountedMachine, options: str, reason: str
) -> None:
    machine.mount("-t", "tmpfs", "-o", options, "none", str(machine.disk))
    refused = machine.filler("""
    if os.access(DISK, os.W_OK):
        os.makedirs(f"{DISK}/data/spool")
        fill(DISK)
    try:
        metrana.init(run_name="r")
    except metrana.MetranaLoggerInitError as error:
        print(error)
    assert not os.path.exists(f"{DISK}/data/spool") or not os.listdir(f"{DISK}/data/spool")
    assert not metrana.is_initialized()
    """).stdout
    assert reason in refused
    assert str(machine.data_dir) in refused
    machine.unmount(machine.disk)
    machine.python("with metrana.init(run_name='r'): metrana.log('x', 1)")
    assert machine.logged() == [[[1], "finished"]]


def test_a_folder_that_becomes_read_only_is_told_and_gets_everything_later(
    machine: MountedMachine,
) -> None:
    done = machine.filler("""
    import subprocess

    run = metrana.init(run_name="r")
    subprocess.run(["mount", "--bind", "-o", "ro", DISK, DISK], check=True)
    metrana.log("x", [1, 2, 3])
    try:
        run.flush(0.5)
    except metrana.MetranaClosingError:
        pass
    else:
        raise AssertionError("flushed to a read-only folder")
    assert any("Read-only file system" in text for text in run.status().problems), run.status()
    subprocess.run(["umount", DISK], check=True)
    metrana.log("x", 4)
    run.flush(30)
    metrana.close()
    """)
    assert "Read-only file system" in done.stderr
    assert machine.logged() == [[[1, 2, 3, 4], "finished"]]


# ── Shared memory ────────────────────────────────────────────────────────────────────────────────

_LOG = """
run = metrana.init(run_name="r")
status = run.status()
for value in range(20_000):
    metrana.log("x", value)
run.flush()
metrics = run.get_metrics()
assert metrics.float_points_dropped == 0, metrics
metrana.close()
print(json.dumps([status.ring, status.loss_window_ms, status.problems]))
"""


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["-t", "tmpfs", "-o", "size=512k", "none", "/dev/shm"], "No space left"),
        (["-t", "tmpfs", "-o", "ro", "none", "/dev/shm"], "Read-only"),
        (["--bind", "/", "/dev/shm"], "is not on tmpfs"),
        (["-t", "tmpfs", "none", "/dev"], "No such file"),
    ],
    ids=["tiny", "read_only", "on_a_disk", "missing"],
)
def test_without_shared_memory_a_run_says_so_and_loses_nothing(
    machine: MountedMachine, arguments: list[str], reason: str
) -> None:
    machine.environ["METRANA_BACKPRESSURE_STRATEGY"] = "block"
    machine.mount(*arguments)
    ring, loss_window_ms, problems = machine.answer(_LOG)
    assert ring == "memory"
    assert 0 < loss_window_ms <= 50
    assert len(problems) == 1
    assert reason in problems[0]
    assert machine.logged() == [[list(range(20_000)), "finished"]]


def test_small_shared_memory_is_shared_with_others(machine: MountedMachine) -> None:
    machine.environ["METRANA_BACKPRESSURE_STRATEGY"] = "block"
    machine.mount("-t", "tmpfs", "-o", "size=2m", "none", "/dev/shm")
    first = machine.filler(f"""
    import subprocess, sys

    run = metrana.init(run_name="first")
    second = subprocess.run(
        [sys.executable, "-c", {("import json, metrana" + _LOG)!r}],
        capture_output=True, text=True, check=True,
    )
    # Full to the last byte: what was reserved before is there.
    fill("/dev/shm")
    for value in range(300_000):
        metrana.log("x", value)
    run.flush()
    print(json.dumps([run.status().ring, json.loads(second.stdout)[0]]))
    metrana.close()
    """)
    assert json.loads(first.stdout) == ["tmpfs", "memory"]
    assert sorted(len(values) for values, _ in machine.logged()) == [20_000, 300_000]


def test_a_ring_that_was_wiped_out_is_replaced_before_the_next_kill(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine", METRANA_MODE="offline")
    machine.python(
        """
        import os, pathlib, time

        metrana.init(run_name="r", batch_max_age_secs=3600)
        (info,) = pathlib.Path(os.environ["METRANA_DIR"]).rglob("writer.json")
        ring = pathlib.Path(json.loads(info.read_text())["ring"])
        for round in range(2):
            metrana.log("x", [3 * round, 3 * round + 1])
            ring.unlink()
            metrana.log("x", 3 * round + 2)
            deadline = time.monotonic() + 30
            while not ring.exists():
                assert time.monotonic() < deadline, "no new ring"
                time.sleep(0.01)
        metrana.log("x", 6)
        os.kill(os.getpid(), 9)
        """,
        code=-signal.SIGKILL,
    )
    with machine.client() as client:
        points = client.points("r", "x", duplicates="all")
    assert list(points["value"]) == list(range(7))
    assert list(points["step"]) == list(range(7))


# ── The clock ────────────────────────────────────────────────────────────────────────────────────


def test_a_clock_that_jumps_back_changes_neither_order_nor_count(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine", METRANA_MODE="offline")
    # A point's time is the only thing that a process's wall clock is for.
    machine.python("""
    run = metrana.init(run_name="r")
    now = 1_700_000_000_000
    for step, time in enumerate([now, now + 1, now - 86_400_000, now - 86_399_999, now + 2]):
        metrana.log("x", step, timestamp=time)
        run.flush()
    metrana.close()
    """)
    with machine.client() as client:
        points = client.points("r", "x", duplicates="all")
    assert list(points["value"]) == [0, 1, 2, 3, 4]
    assert list(points["step"]) == [0, 1, 2, 3, 4]
    since_ms = [round(time.timestamp() * 1000) - 1_700_000_000_000 for time in points["timestamp"]]
    assert since_ms == [0, 1, -86_400_000, -86_399_999, 2]
