"""Videos that cannot be written: training goes on, and the user hears of it as they asked to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import metrana
from metrana.rendering.recorder import Recorder
from tests.local_server import wait_until
from tests.mounts import MountedMachine
from tests.recording import decode, described, recorder, shade, videos

STRATEGY = metrana.ErrorStrategy
SCRIPT = """
from pathlib import Path
from tests.recording import recorder, shade
import numpy as np

chance = np.random.default_rng(1)
def noise():
    return chance.integers(0, 255, (64, 64, 3), np.uint8)

def settle(recording):
    while True:
        counts = recording.counts()
        if counts.added == counts.encoded + counts.dropped:
            return counts
"""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[MountedMachine]:
    with MountedMachine(tmp_path / "machine") as machine:
        yield machine


class Unwritable:
    """A folder that cannot be made, until it can."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.is_broken = True

    def __call__(self) -> Path:
        if self.is_broken:
            raise OSError(28, "No space left on device", str(self.folder))
        return self.folder


def _log(recording: Recorder, episode: int = 0, env_id: str = "e") -> None:
    recording.add(shade(100), 0, episode, env_id, None)


def _settle(recording: Recorder) -> None:
    wait_until(lambda: recording.counts().added == sum(recording.counts()[1:]))


def _end(recording: Recorder) -> None:
    recording.close()
    with recording.reporting():
        pass


def _broken(folder: Path, strategy: metrana.ErrorStrategy) -> Recorder:
    """A recorder whose first video could not be begun."""
    recording = recorder(folder, folder=Unwritable(folder), error_strategy=strategy)
    _log(recording)
    _settle(recording)
    assert recording.counts() == (1, 0, 1)
    return recording


def test_a_fault_is_a_warning_once(tmp_path: Path) -> None:
    recording = _broken(tmp_path, STRATEGY.WARN)

    def go_on() -> None:
        for episode in range(5):
            _log(recording, episode)
        _end(recording)

    with pytest.warns(metrana.MetranaWarning) as told:
        go_on()
    (warning,) = told
    assert str(warning.message) == (
        "the video of episode 0 of environment 'e' could not be written, its further frames are "
        f"dropped: [Errno 28] No space left on device: '{tmp_path}'"
    )
    assert Path(warning.filename) == Path(__file__)
    assert recording.counts() == (6, 0, 6)
    assert recording.fault_count == 1
    assert len(recording.take_faults()) == 1
    assert recording.take_faults() == []


def test_a_fault_is_silent_where_it_is_to_be(tmp_path: Path) -> None:
    recording = _broken(tmp_path, STRATEGY.SILENT)
    _log(recording)
    _end(recording)
    assert len(recording.take_faults()) == 1


def test_a_fault_is_raised_by_the_next_log_call(tmp_path: Path) -> None:
    recording = _broken(tmp_path, STRATEGY.RAISE_ON_LOG)
    with pytest.raises(metrana.MetranaSenderError, match="No space left on device"):
        _log(recording)
    _log(recording)
    _end(recording)
    assert recording.counts() == (3, 0, 3)


def test_a_fault_is_raised_by_the_close(tmp_path: Path) -> None:
    recording = _broken(tmp_path, STRATEGY.RAISE_ON_CLOSE)
    _log(recording)
    with pytest.raises(metrana.MetranaSenderError, match="No space left on device"):
        _end(recording)


def test_a_fault_is_the_cause_of_what_the_runs_end_raises(tmp_path: Path) -> None:
    recording = _broken(tmp_path, STRATEGY.RAISE_ON_CLOSE)
    recording.close()
    with (
        pytest.raises(metrana.MetranaClosingError, match="late") as raised,
        recording.reporting(),
    ):
        raise metrana.MetranaClosingError("late")
    assert isinstance(raised.value.__cause__, metrana.MetranaSenderError)


def test_a_fault_is_a_warning_at_the_end_of_the_process(tmp_path: Path) -> None:
    recording = _broken(tmp_path, STRATEGY.RAISE_ON_CLOSE)
    recording.close()
    with (
        pytest.warns(metrana.MetranaWarning, match="No space left on device"),
        recording.reporting_at_exit(),
    ):
        pass


def test_the_next_episode_is_tried_again(tmp_path: Path) -> None:
    folder = Unwritable(tmp_path)
    recording = recorder(tmp_path, folder=folder, error_strategy=STRATEGY.SILENT)
    _log(recording, 0)
    _settle(recording)
    folder.is_broken = False
    _log(recording, 0)
    _log(recording, 0, "other")
    _log(recording, 1)
    recording.close()
    assert recording.counts() == (4, 2, 2)
    assert videos(tmp_path).keys() == {("other", 0, 1), ("e", 1, 1)}


def test_whoever_is_told_of_a_video_may_fail(tmp_path: Path) -> None:
    def finished(_: str) -> None:
        raise RuntimeError("the engine is gone")

    recording = recorder(tmp_path, finished, error_strategy=STRATEGY.SILENT)
    for episode in range(3):
        _log(recording, episode)
    recording.close()
    assert recording.counts() == (3, 3, 0)
    (fault,) = recording.take_faults()
    assert "could not be handed over: the engine is gone" in fault
    assert len(videos(tmp_path)) == 3


def test_an_output_folder_that_cannot_be_made_costs_only_the_copy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    finished: list[str] = []
    recording = recorder(
        tmp_path / "run",
        finished,
        output_dir=tmp_path / "file" / "out",
        error_strategy=STRATEGY.SILENT,
    )
    for episode in range(3):
        _log(recording, episode)
    recording.close()
    (fault,) = recording.take_faults()
    assert "e-episode-000000.mp4 could not be written to" in fault
    assert "rendering_output_dir" in fault
    assert len(finished) == len(videos(tmp_path / "run")) == 3


def test_a_full_disk_costs_the_rest_of_its_videos_and_nothing_else(
    machine: MountedMachine,
) -> None:
    machine.mount_disk("4m")
    done = machine.filler(
        SCRIPT
        + """
recording = recorder(Path(DISK) / "videos", error_strategy=metrana.ErrorStrategy.SILENT)
for i in range(10):
    recording.add(noise(), i, 0, "e", None)
settle(recording)
fill(DISK)
for i in range(30):
    recording.add(noise(), i, 0, "e", None)
counts = settle(recording)
assert 10 <= counts.encoded < 40, counts
for i in range(3):
    recording.add(noise(), i, 1, "e", None)
assert settle(recording) == (43, counts.encoded, 33 + 10 - counts.encoded), recording.counts()
empty(DISK)
for i in range(5):
    recording.add(noise(), i, 2, "e", None)
recording.close()
faults = recording.take_faults()
assert len(faults) == 1 and "No space left on device" in faults[0], faults
print(json.dumps([counts.encoded, recording.counts()]))
import shutil
shutil.copytree(Path(DISK) / "videos", Path(DISK).parent / "copy")
"""
    )
    encoded, counts = json.loads(done.stdout)
    assert counts == [48, encoded + 5, 43 - encoded]
    copy = machine.folder / "copy"
    assert {path.suffix for path in copy.iterdir()} == {".mp4", ".json"}
    frame_counts = {key: len(seen.frames) for key, seen in videos(copy).items()}
    # There was no room for another copy of the first, so it is as it was recorded.
    assert frame_counts == {("e", 0, 1): encoded, ("e", 2, 1): 5}


def test_no_video_is_begun_where_the_disk_is_left_to_others(machine: MountedMachine) -> None:
    machine.mount_disk("40m")  # of which 2 are left
    machine.filler(
        SCRIPT
        + """
def record(episode):
    for i in range(3):
        run.log_rendering(noise(), i, episode)
    return settle(run._renderings._recorder)[1:]

with metrana.init(mode="offline", error_strategy="silent") as run:
    fill(DISK)
    os.truncate(f"{DISK}/ballast", os.path.getsize(f"{DISK}/ballast") - (1 << 20))
    assert record(0) == (0, 3)
    (problem,) = run.status().problems
    assert "are free on the disk, and 2097152 are left to others" in problem, problem
    empty(DISK)
    assert record(1) == (3, 3)
with metrana.init(mode="offline", spool_max_bytes=1 << 20) as run:  # who says so is believed
    fill(DISK)
    os.truncate(f"{DISK}/ballast", os.path.getsize(f"{DISK}/ballast") - (1 << 20))
    assert record(0) == (3, 0)
    empty(DISK)
"""
    )


def test_a_folder_that_becomes_read_only_is_told(machine: MountedMachine) -> None:
    machine.mount_disk("4m")
    done = machine.filler(
        SCRIPT
        + """
import subprocess
recording = recorder(Path(DISK) / "videos", error_strategy=metrana.ErrorStrategy.SILENT)
recording.add(noise(), 0, 0, "e", None)
recording.add(noise(), 0, 1, "e", None)
recording.close()
subprocess.run(["mount", "-o", "remount,ro", DISK], check=True)
late = recorder(Path(DISK) / "videos", error_strategy=metrana.ErrorStrategy.SILENT)
for episode in range(3):
    late.add(noise(), 0, episode, "e", None)
late.close()
print(json.dumps([recording.counts(), late.counts(), late.take_faults()]))
"""
    )
    before, after, faults = json.loads(done.stdout)
    assert (before, after) == ([2, 2, 0], [3, 0, 3])
    assert len(faults) == 1
    assert "Read-only file system" in faults[0]


def test_a_folder_that_vanishes_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    recording = recorder(folder, error_strategy=STRATEGY.SILENT)
    _log(recording)
    _settle(recording)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    _log(recording, 1)
    _log(recording, 1)
    recording.close()
    (fault,) = recording.take_faults()
    assert "No such file or directory" in fault
    # The next video is in the folder that is made in its place.
    assert recording.counts() == (3, 3, 0)
    assert len(videos(folder)["e", 1, 1].frames) == 2


def test_a_fragmented_file_is_handed_over_where_its_index_has_no_room(
    machine: MountedMachine,
) -> None:
    machine.mount_disk("2m")
    machine.filler(
        SCRIPT
        + """
from fractions import Fraction
from metrana.rendering.encoder import Encoder
from metrana.rendering.frames import Format, Place
from metrana.rendering.video import Video
import shutil

video = Video(Path(DISK), Place("e", 0, 0), 1, Encoder(Format((64, 64, 3), Fraction(30))))
for _ in range(20):
    video.add(noise())
fill(DISK)
path = video.finish()
assert path.suffix == ".mp4"
empty(DISK)
shutil.copytree(DISK, Path(DISK).parent / "copy")
"""
    )
    copy = machine.folder / "copy"
    ((rendering_id, description),) = described(copy).items()
    assert description["frame_count"] == 20
    assert {path.name for path in copy.iterdir()} == {
        f"{rendering_id}.json",
        f"{rendering_id}.mp4",
    }
    assert len(decode(copy / f"{rendering_id}.mp4").frames) == 20


def test_frames_that_the_encoder_refuses_cost_their_video(tmp_path: Path) -> None:
    recording = recorder(tmp_path, error_strategy=STRATEGY.SILENT)
    _log(recording)
    _settle(recording)
    # The file is closed under the worker's hands: whatever goes wrong is an error like another.
    video: Any = recording._environments["e"]._video
    video._close()
    _log(recording)
    _log(recording, 1)
    recording.close()
    assert recording.counts() == (3, 2, 1)
    assert videos(tmp_path)["e", 1, 1].shades == pytest.approx([100], abs=2)
