"""`log_rendering` of a run: its settings, its counters and its end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import metrana
from tests.local_server import wait_until
from tests.processes import Machine
from tests.reading import read_one, run_folders
from tests.recording import delivered, leftovers, shade

ROOT = str(Path(__file__).parents[3])


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "machine", PYTHONPATH=ROOT)


def init(**settings: Any) -> metrana.Run:
    """A run that stays offline."""
    return metrana.init(mode="offline", **settings)


def _block(data_dir: Path) -> Path:
    """Lets no folder for videos be made in the only writer's."""
    (writer,) = run_folders(data_dir)[0].writers()
    folder = Path(writer.path) / "renderings"
    folder.symlink_to(folder.with_name("nowhere"))
    return folder


def test_a_runs_videos_are_finished_before_it_is_closed(data_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with init(rendering_fps=25, rendering_output_dir=out) as run:
        for i in range(10):
            metrana.log_rendering(shade(i * 20), rl_step=i, episode=1, env_id=3)
        run.log_rendering(shade(0), 10, 1, "other", fps=50)
    seen = delivered(data_dir)
    assert seen["3", 1, 1].shades == pytest.approx([i * 20 for i in range(10)], abs=2)
    assert {key: video.fps for key, video in seen.items()} == {
        ("3", 1, 1): 25,
        ("other", 1, 1): 50,
    }
    assert sorted(path.name for path in out.iterdir()) == [
        "3-episode-000001.mp4",
        "other-episode-000001.mp4",
    ]
    assert read_one(data_dir).end == "finished"
    assert leftovers(data_dir) == []
    with pytest.raises(metrana.MetranaLoggerClosedError):
        run.log_rendering(shade(0), 0, 0)


def test_counters_follow_a_frame() -> None:
    with init() as run:
        assert run.get_metrics().rendering_frames_added == 0
        run.log_rendering(shade(0), 0, 0)
        run.log_rendering(shade(0), 0, 0)
        wait_until(lambda: run.get_metrics().rendering_frames_encoded == 2)
        metrics = run.get_metrics()
        assert (metrics.rendering_frames_added, metrics.rendering_frames_dropped) == (2, 0)


def test_what_is_refused_is_not_counted() -> None:
    with init() as run:
        for arguments in ((None, 0, 0), (shade(0), -1, 0), (shade(0), 0, 0, "a/b")):
            with pytest.raises(metrana.MetranaValidationError):
                run.log_rendering(*arguments)
        with pytest.raises(metrana.MetranaValidationError, match="fps"):
            run.log_rendering(shade(0), 0, 0, fps=0)
        run.log_rendering(shade(0), 0, 0)
        with pytest.raises(metrana.MetranaValidationError, match="frame"):
            run.log_rendering(np.zeros((3, 3)), 0, 0)
        assert run.get_metrics().rendering_frames_added == 1


def test_a_disabled_run_checks_and_records_nothing(tmp_path: Path) -> None:
    with metrana.init(mode="disabled") as run:
        run.log_rendering(shade(0), 0, 0)
        with pytest.raises(metrana.MetranaValidationError, match="frame"):
            run.log_rendering(None, 0, 0)
        assert run.get_metrics().rendering_frames_added == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("rendering_fps", 0),
        ("rendering_fps", 1001),
        ("rendering_max_concurrent_encoders", 0),
        ("rendering_queue_max_size", 0),
        ("rendering_close_timeout", -1),
    ],
)
def test_settings_are_checked_when_the_run_is_opened(setting: str, value: Any) -> None:
    with pytest.raises(metrana.MetranaValidationError, match=setting):
        metrana.init(mode="offline", **{setting: value})


@pytest.mark.parametrize("strategy", ["raise_on_log", "raise_on_close", "warn"])
def test_faults_of_videos_follow_the_error_strategy(data_dir: Path, strategy: str) -> None:
    run = init(error_strategy=strategy)
    _block(data_dir)
    run.log_rendering(shade(0), 0, 0)
    wait_until(lambda: run.get_metrics().rendering_frames_dropped == 1)
    assert run.get_metrics().errors_reported == 1
    if strategy == "raise_on_log":
        with pytest.raises(metrana.MetranaSenderError, match="No such file"):
            run.log_rendering(shade(0), 0, 0)
        run.close()
    elif strategy == "raise_on_close":
        with pytest.raises(metrana.MetranaSenderError, match="No such file"):
            run.close()
    else:
        with pytest.warns(metrana.MetranaWarning, match="No such file"):
            run.close()
    assert read_one(data_dir).end == "finished"


def test_faults_of_videos_are_taken_with_all_others(data_dir: Path) -> None:
    with init(error_strategy="silent") as run:
        _block(data_dir)
        run.log_rendering(shade(0), 0, 0)
        wait_until(lambda: run.get_metrics().rendering_frames_dropped == 1)
        (fault,) = run.check_sender_errors()
        assert "No such file" in fault
        assert run.check_sender_errors() == []
        assert run.status().problems == [fault]


def test_a_close_while_the_first_frame_imports_what_it_needs_refuses_the_frame(
    machine: Machine,
) -> None:
    done = machine.python(
        """
        import sys, threading
        from tests.recording import shade

        class Closing:  # as another thread closes the run meanwhile
            def find_spec(self, name, path, target=None):
                if name == "metrana.rendering.recorder":
                    run.close()

        run = metrana.init(mode="offline")
        for name in [name for name in sys.modules if name.startswith("metrana.rendering.")]:
            del sys.modules[name]
        sys.meta_path.insert(0, Closing())
        try:
            run.log_rendering(shade(0), 0, 0)
        except metrana.MetranaLoggerClosedError as error:
            print(error)
        print([each.name for each in threading.enumerate()])
        """
    )
    assert "the run is closed" in done.stdout
    assert "metrana-render" not in done.stdout


def test_a_process_that_closes_nothing_finishes_its_videos(machine: Machine) -> None:
    machine.python(
        """
        from tests.recording import shade

        metrana.init(mode="offline")
        for i in range(30):
            metrana.log_rendering(shade(i), i, 0)
        """
    )
    assert leftovers(machine.data_dir) == []
    assert len(delivered(machine.data_dir)["default", 0, 1].frames) == 30


def test_a_process_with_a_stuck_encoder_ends_in_time_and_says_what_it_left(
    machine: Machine,
) -> None:
    done = machine.python(
        """
        import threading
        from tests.recording import shade
        from metrana.rendering.video import Video

        Video.add = lambda video, pixels: threading.Event().wait()
        metrana.init(mode="offline", rendering_close_timeout=0.2)
        metrana.log("x", 1)
        metrana.log_rendering(shade(0), 0, 0)
        """
    )
    assert "the videos could not be finished within 0.2 s" in done.stderr
    assert "Traceback" not in done.stderr
    assert read_one(machine.data_dir).end == "finished"


def test_without_pyav_the_first_frame_says_what_to_install(machine: Machine) -> None:
    done = machine.python(
        """
        import sys
        sys.modules["av"] = None  # as if it were not installed
        import numpy
        with metrana.init(mode="offline") as run:
            metrana.log("x", 1)
            for _ in range(2):
                try:
                    run.log_rendering(numpy.zeros((2, 2), numpy.uint8), 0, 0)
                except ImportError as error:
                    print(error)
        """
    )
    message = "log_rendering needs av, which is not installed: pip install 'metrana[rendering]'\n"
    assert done.stdout == message * 2


def test_a_child_of_a_parent_that_recorded_nothing_records(machine: Machine) -> None:
    machine.python(
        """
        import os
        from tests.recording import shade

        run = metrana.init(mode="offline")
        metrana.log("x", 1)
        try:
            run.log_rendering(None, 0, 0)
        except metrana.MetranaValidationError:
            pass
        pid = os.fork()
        for i in range(5):
            run.log_rendering(shade(0), i, 0, env_id="parent" if pid else "child")
        run.close()
        if pid == 0:
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        """
    )
    seen = delivered(machine.data_dir)
    assert {key: len(video.frames) for key, video in seen.items()} == {
        ("parent", 0, 1): 5,
        ("child", 0, 1): 5,
    }


def test_a_child_of_a_parent_that_recorded_is_told_and_logs_on(machine: Machine) -> None:
    answer = machine.answer(
        """
        import os
        from tests.recording import shade

        run = metrana.init(mode="offline", run_name="r")
        run.log_rendering(shade(0), 0, 0)
        pid = os.fork()
        if pid == 0:
            metrana.log("x", 1)
            try:
                run.log_rendering(shade(0), 0, 0)
            except metrana.MetranaProcessForkError:
                frames = run.get_metrics().rendering_frames_added
                run.close()
                with metrana.init(mode="offline", run_name="own") as own:
                    own.log_rendering(shade(0), 0, 0, "child")
                os._exit(frames)
            os._exit(100)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        run.close()
        print(json.dumps(code))
        """
    )
    assert answer == 0
    seen = delivered(machine.data_dir)
    assert seen.keys() == {("default", 0, 1), ("child", 0, 1)}


def test_a_run_without_renderings_imports_nothing_for_them() -> None:
    script = """
import json, sys, tempfile
import metrana
with tempfile.TemporaryDirectory() as folder, metrana.init(mode="disabled", data_dir=folder) as run:
    metrana.log("loss", 0.5)
    run.get_metrics()
    run.check_sender_errors()
print(json.dumps([name for name in sys.modules if name.startswith(("av", "metrana.rendering."))]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == []
