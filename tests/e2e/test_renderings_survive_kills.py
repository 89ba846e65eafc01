"""Servers and writers are killed at any instant while videos travel: each arrives once, whole."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from metrana.query import Client
from tests.local_server import LocalServer, wait_until
from tests.processes import Machine
from tests.videos import encode

# The server is killed under each of them twice, and every other one itself: 20 kills.
WRITER_COUNT = 8
VIDEOS_A_WRITER = 4
# An episode is a video of its own, and points of its own.
WRITER = """
import sys
from pathlib import Path
import metrana
from tests.videos import render

first = int(sys.argv[1])
run = metrana.init(
    project_name="kills", run_name="filmed", max_msg_size=16384, batch_max_age_secs=0.02,
    orchestration_id="one",
)
videos = [path.read_bytes() for path in sorted(Path(sys.argv[2]).iterdir())]
for episode, video in enumerate(videos, first):
    run.log("value", [float(episode)] * 50)
    render(run, video, env_id="walker", episode=episode, rl_step=episode)
    print(episode, flush=True)
sys.stdin.readline()
run.close(close_timeout=30)
"""


@contextmanager
def writing(machine: Machine, first: int, videos: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that renders each of the videos, as an episode from `first` on, and then waits."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(first), str(videos)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=machine.environ,
    ) as writer:
        yield writer


def read_episodes(writer: subprocess.Popen[str], count: int) -> set[int]:
    """Waits for so many videos that a writer was given."""
    assert writer.stdout is not None
    lines = [writer.stdout.readline() for _ in range(count)]
    assert all(lines), "the writer died"
    return {int(line) for line in lines}


@pytest.mark.timeout(180)
def test_every_video_arrives_once_and_byte_for_byte_whoever_is_killed(tmp_path: Path) -> None:
    chance = random.Random(20)
    machine = Machine(tmp_path)
    folder = tmp_path / "videos"
    folder.mkdir()
    videos = [encode(6 + 6 * seed, seed) for seed in range(VIDEOS_A_WRITER)]
    for number, video in enumerate(videos):
        (folder / f"{number}").write_bytes(video)

    rendered: set[int] = set()
    server = LocalServer(machine.data_dir, stderr=subprocess.DEVNULL)
    try:
        for number in range(WRITER_COUNT):
            first = number * VIDEOS_A_WRITER
            with writing(machine, first, folder) as writer:
                # Two kills of the server while it writes or sends, then the writer's or its close.
                rendered |= read_episodes(writer, 1 + number % 2)
                for _ in range(2):
                    chance_s = chance.uniform(0, 0.15)
                    with pytest.raises(subprocess.TimeoutExpired):
                        writer.wait(chance_s)
                    server.kill()
                    server = LocalServer(machine.data_dir, stderr=subprocess.DEVNULL)
                if number % 2:
                    writer.kill()
                    assert writer.stdout is not None
                    rendered |= {int(line) for line in writer.stdout}
                else:
                    rendered |= read_episodes(writer, VIDEOS_A_WRITER - 1)
                    assert writer.stdin is not None
                    writer.stdin.close()
                    assert writer.wait(timeout=40) == 0
        wait_until(
            lambda: not list(machine.data_dir.glob("spool/*/[0-9]*/writer.json")),
            timeout_s=60,
            what="the delivery",
        )
        with Client(data_dir=machine.data_dir) as client:
            rows = client.renderings("filmed", project_name="kills", as_="arrow").to_pylist()
            found = Counter(row["episode"] for row in rows)
            # A writer may have been killed between giving a video away and saying so.
            assert found.keys() >= rendered
            assert set(found.values()) == {1}
            for row in rows:
                path = client.download_rendering(row["rendering_id"], tmp_path / "video.mp4")
                assert path.read_bytes() == videos[row["episode"] % VIDEOS_A_WRITER]
    finally:
        server.kill()
    left = [path.suffix for path in (machine.data_dir / "server/media").rglob("*.*")]
    assert left == [".mp4"] * len(rows)
