"""However a process ends, what `log_rendering` took is in a video, unless it has no time for it."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tests.processes import Machine
from tests.reading import read_one
from tests.recording import delivered, leftovers

ROOT = str(Path(__file__).parents[3])
ENVS = ("a", "b", "c")
# What scripts begin with: ten frames of an open video for each environment, and points.
SCRIPT = """
import os, sys, threading
from tests.recording import shade

def log(count=10):
    for number in range(count):
        for env_id in "abc":
            run.log_rendering(shade(number * 20), number, 5, env_id=env_id)
        run.log("x", number)

run = metrana.init(mode="offline")
"""
ENDINGS = {
    "close": "log(); run.close()",
    "close at once": "log(); run.close(0)",
    "close twice": "log(); run.close(0); run.close()",
    "none": "log()",
    "exit": "log(); sys.exit(0)",
    "exit in a thread": "threading.Thread(target=lambda: (log(), sys.exit(3))).start()",
    "exit beside a thread": """
        logged = threading.Event()
        def work():
            log()
            logged.set()
            threading.Event().wait()
        threading.Thread(target=work, daemon=True).start()
        logged.wait()
    """,
    "close in a thread": "log(); threading.Thread(target=run.close).start()",
    "context": """
        with run:
            log()
    """,
}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "machine", PYTHONPATH=ROOT)


@pytest.mark.parametrize("ending", ENDINGS)
def test_open_videos_are_finished_at_the_end_of(machine: Machine, ending: str) -> None:
    done = machine.python(SCRIPT + textwrap.dedent(ENDINGS[ending]))
    assert "Traceback" not in done.stderr
    # All of it is in the spool, and nothing is left to a recovery.
    assert leftovers(machine.data_dir) == []
    seen = delivered(machine.data_dir)
    assert seen.keys() == {(env_id, 5, 1) for env_id in ENVS}
    for video in seen.values():
        assert video.shades == pytest.approx([number * 20 for number in range(10)], abs=2)
    logged = read_one(machine.data_dir)
    assert logged.values("x") == list(range(10))
    assert logged.end == "finished"


@pytest.mark.parametrize("code", ["raise ValueError(1)", "os._exit(1)"])
def test_what_was_encoded_outlives_a_process_that_fails(machine: Machine, code: str) -> None:
    machine.python(
        f"""{SCRIPT}
log()
while run.get_metrics().rendering_frames_encoded < 30:
    pass
{code}
""",
        code=1,
    )
    seen = delivered(machine.data_dir)
    assert {key: len(video.frames) for key, video in seen.items()} == {
        (env_id, 5, 1): 10 for env_id in ENVS
    }
    assert leftovers(machine.data_dir) == []
    assert read_one(machine.data_dir).end == ("failed" if "raise" in code else None)


def test_a_process_that_goes_on_logging_at_its_end_loses_nothing_it_took(
    machine: Machine,
) -> None:
    counts = machine.answer(
        f"""{SCRIPT}
import atexit
begun = threading.Event()
taken = 0

def work():
    global taken
    while True:
        run.log_rendering(shade(100), 0, 0)
        taken += 1
        begun.set()

def tell():
    print(json.dumps([taken, *run._renderings._recorder.counts()]))

# Called in the reverse order: when the run is closed.
atexit.unregister(metrana.lifecycle._close_at_exit)
atexit.register(tell)
atexit.register(metrana.lifecycle._close_at_exit)
threading.excepthook = lambda arguments: None
threading.Thread(target=work, daemon=True).start()
begun.wait()
"""
    )
    taken, added, encoded, dropped = counts
    (video,) = delivered(machine.data_dir).values()
    assert added in {taken, taken + 1}
    assert len(video.frames) == encoded == added - dropped
    assert leftovers(machine.data_dir) == []
