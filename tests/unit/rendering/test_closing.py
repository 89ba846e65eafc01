"""The end of a recorder: what is queued, what is open, and who has no time."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import pytest

import metrana
from tests.local_server import wait_until
from tests.processes import Machine
from tests.recording import decode, described, recorder, shade, videos, whole_part

# What scripts of processes begin with.
SCRIPT = """
from pathlib import Path
from tests.recording import recorder, shade
"""
ROOT = str(Path(__file__).parents[3])


def _log(recording: object, count: int, env_id: str = "e") -> None:
    for _ in range(count):
        recording.add(shade(100), 0, 0, env_id, None)  # type: ignore[attr-defined]


def test_a_close_encodes_what_is_queued_and_finishes_all(tmp_path: Path) -> None:
    finished: list[str] = []
    recording = recorder(tmp_path, finished, encoder_count=2)
    for env_id in "abc":
        _log(recording, 50, env_id)
    recording.close()
    assert recording.counts() == (150, 150, 0)
    assert {key: len(seen.frames) for key, seen in videos(tmp_path).items()} == {
        (env_id, 0, 1): 50 for env_id in "abc"
    }
    assert len(finished) == 3


def test_a_closed_recorder_takes_nothing(tmp_path: Path) -> None:
    recording = recorder(tmp_path)
    recording.close()
    recording.close()
    with pytest.raises(metrana.MetranaLoggerClosedError, match=r"metrana\.init\(\)"):
        _log(recording, 1)
    assert recording.counts() == (0, 0, 0)
    assert list(tmp_path.iterdir()) == []


def test_a_close_that_drops_the_queue_finishes_what_is_encoded(tmp_path: Path) -> None:
    handed_over, go_on = threading.Event(), threading.Event()

    def finished(_: str) -> None:
        handed_over.set()
        go_on.wait(30)

    recording = recorder(tmp_path, finished, drops_queue_on_close=True)
    _log(recording, 5)
    wait_until(lambda: recording.counts().encoded == 5)
    # The worker is busy with the end of another video while more is queued.
    recording.add(shade(0), 0, 0, "other", None)
    recording.add(shade(0), 0, 1, "other", None)
    assert handed_over.wait(30)
    _log(recording, 7)
    closing = threading.Thread(target=recording.close)
    closing.start()
    wait_until(lambda: recording.counts().dropped == 7)
    go_on.set()
    closing.join(30)
    assert recording.counts() == (14, 7, 7)
    assert {key: len(seen.frames) for key, seen in videos(tmp_path).items()} == {
        ("e", 0, 1): 5,
        ("other", 0, 1): 1,
        ("other", 1, 1): 1,
    }


def test_a_close_without_time_counts_the_rest_and_keeps_the_file(tmp_path: Path) -> None:
    go_on = threading.Event()
    recording = recorder(tmp_path, lambda _: go_on.wait(30), close_timeout_s=0.2)
    _log(recording, 3)
    wait_until(lambda: recording.counts().encoded == 3)
    recording.add(shade(0), 0, 0, "other", None)
    recording.add(shade(0), 0, 1, "other", None)  # here the worker is stuck
    wait_until(lambda: recording.counts().encoded == 4)
    wait_until(lambda: any(tmp_path.glob("*.mp4")))
    _log(recording, 4)
    before = time.monotonic()
    recording.close()
    assert 0.2 <= time.monotonic() - before < 10
    # The one that is being worked at, and four of the queue.
    assert recording.counts() == (9, 4, 5)
    with (
        pytest.warns(metrana.MetranaWarning, match=r"could not be finished within 0\.2 s"),
        recording.reporting(),
    ):
        pass
    go_on.set()
    wait_until(lambda: not any("metrana-render" in t.name for t in threading.enumerate()))
    assert recording.counts() == (9, 4, 5)
    descriptions = described(tmp_path)
    parts = {descriptions[path.stem]["env_id"]: path for path in tmp_path.glob("*.part")}
    assert len(decode(whole_part(parts["e"].read_bytes())).frames) == 3


@pytest.mark.usefixtures("interrupts")
def test_ctrl_c_ends_a_close_that_can_go_on_later(tmp_path: Path) -> None:
    go_on = threading.Event()

    def folder() -> Path:
        go_on.wait(30)
        return tmp_path

    recording = recorder(tmp_path, folder=folder)
    _log(recording, 3)
    main = threading.main_thread().ident
    assert main is not None
    alarm = threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT))
    alarm.start()
    with pytest.raises(KeyboardInterrupt):
        recording.close()
    alarm.join()
    assert recording.counts() == (3, 0, 0)
    go_on.set()
    recording.close()
    assert recording.counts() == (3, 3, 0)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "machine", PYTHONPATH=ROOT)


def test_a_worker_that_is_stuck_does_not_keep_the_process(machine: Machine) -> None:
    before = time.monotonic()
    done = machine.python(
        SCRIPT
        + """
import threading
recording = recorder(Path("videos"), folder=lambda: threading.Event().wait(), close_timeout_s=0.1)
recording.add(shade(0), 0, 0, None, None)
recording.close()
print(*recording.counts())
"""
    )
    assert done.stdout == "1 0 1\n"
    assert time.monotonic() - before < 30


def test_a_process_that_closes_nothing_ends(machine: Machine) -> None:
    machine.python(
        SCRIPT
        + """
recording = recorder(Path("videos"), encoder_count=2)
for i in range(200):
    recording.add(shade(0, 240, 320), 0, 0, i % 2, None)
"""
    )
    parts = [whole_part(path.read_bytes()) for path in (machine.folder / "videos").glob("*.part")]
    assert all(decode(part).frames for part in parts if part)


@pytest.mark.parametrize("wanted", [1, 20, 150])
def test_what_was_encoded_survives_a_kill(machine: Machine, wanted: int) -> None:
    machine.python(
        SCRIPT
        + f"""
import os, signal, threading, time
recording = recorder(Path("videos"))
def kill():
    while recording.counts().encoded < {wanted}:
        pass
    Path("encoded").write_text(str(recording.counts().encoded))
    os.kill(os.getpid(), signal.SIGKILL)
threading.Thread(target=kill).start()
for i in range(100_000):
    recording.add(shade(i % 256, 240, 320), i, 0, None, None)
""",
        code=-signal.SIGKILL,
    )
    encoded = int((machine.folder / "encoded").read_text())
    (part,) = (machine.folder / "videos").glob("*.part")
    seen = decode(whole_part(part.read_bytes()))
    assert len(seen.frames) >= encoded >= wanted
    assert seen.shades == pytest.approx([i % 256 for i in range(len(seen.frames))], abs=2)
    assert described(machine.folder / "videos")[part.stem]["episode"] == 0
