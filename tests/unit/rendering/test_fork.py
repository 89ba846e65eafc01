"""Recorders and forks: threads and locks are the parent's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.processes import Machine
from tests.recording import videos

ROOT = str(Path(__file__).parents[3])
SCRIPT = """
import os, sys
from pathlib import Path
from tests.recording import recorder, shade

def forked(child):
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writing, child().encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    assert os.waitpid(pid, 0)[1] == 0
    return text
"""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "machine", PYTHONPATH=ROOT, PYTHONWARNINGS="ignore")


def test_a_forked_child_is_told_to_open_a_run_of_its_own(machine: Machine) -> None:
    done = machine.python(
        SCRIPT
        + """
recording = recorder(Path("videos"))
recording.add(shade(10), 0, 0, None, None)

def child():
    try:
        recording.add(shade(20), 0, 0, None, None)
    except metrana.MetranaProcessForkError as error:
        recording.close()
        return f"{error} {tuple(recording.counts())} {recording.take_faults()}"
    return "it was taken"

answer = forked(child)
recording.add(shade(30), 0, 0, None, None)
recording.close()
print(json.dumps([os.getpid(), answer, recording.counts()]))
"""
    )
    pid, answer, counts = json.loads(done.stdout)
    assert answer == (
        f"the videos of this run are recorded by process {pid}, of which this one is a fork: open "
        "a run of your own with metrana.init() to record here (0, 0, 0) []"
    )
    assert counts == [2, 2, 0]
    assert videos(machine.folder / "videos")["default", 0, 1].shades == pytest.approx(
        [10, 30], abs=2
    )


def test_children_that_are_forked_at_any_instant_record_their_own(machine: Machine) -> None:
    done = machine.python(
        SCRIPT
        + """
recording = recorder(Path("videos"), encoder_count=2)
answers = []
for i in range(20):
    for j in range(10):
        recording.add(shade(100, 240, 320), i, 0, j % 3, None)

    def child():
        own = recorder(Path(f"child{i}"))
        for _ in range(5):
            own.add(shade(50), 0, 0, None, None)
        own.close(20)
        recording.close()
        return str(tuple(own.counts()))

    answers.append(forked(child))
recording.close()
print(json.dumps([sorted(set(answers)), recording.counts()]))
"""
    )
    assert json.loads(done.stdout) == [["(5, 5, 0)"], [200, 200, 0]]
    for i in range(20):
        assert len(videos(machine.folder / f"child{i}")["default", 0, 1].frames) == 5
    seen = videos(machine.folder / "videos")
    assert sorted(len(video.frames) for video in seen.values()) == [60, 60, 80]


def test_a_child_that_ends_as_programs_do_disturbs_nothing(machine: Machine) -> None:
    # Its interpreter takes everything down, the copies of the parent's encoders too.
    done = machine.python(
        SCRIPT
        + """
recording = recorder(Path("videos"), encoder_count=2)
for i in range(10):
    for j in range(10):
        recording.add(shade(100, 240, 320), i, 0, j % 3, None)
    pid = os.fork()
    if pid == 0:
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0
recording.close()
print(*recording.counts())
"""
    )
    assert done.stdout == "100 100 0\n"
    seen = videos(machine.folder / "videos")
    assert sum(len(video.frames) for video in seen.values()) == 100
