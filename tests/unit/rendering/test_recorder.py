"""The recorder: which frames go into which video, in order, whatever comes between them."""

from __future__ import annotations

import random
import threading
from fractions import Fraction
from pathlib import Path

import pytest

import metrana
from metrana.rendering.recorder import MAX_OPEN_VIDEOS
from tests.local_server import wait_until
from tests.recording import decode, described, recorder, shade, videos


def test_an_episode_becomes_a_video(tmp_path: Path) -> None:
    finished: list[str] = []
    recording = recorder(tmp_path, finished)
    for i in range(20):
        recording.add(shade(i * 10), rl_step=500 + i, episode=3, env_id="walker", fps=None)
    recording.close()
    assert recording.counts() == (20, 20, 0)
    ((rendering_id, description),) = described(tmp_path).items()
    assert finished == [rendering_id]
    assert (description["rl_step"], description["fps"]) == (500, 30.0)
    assert videos(tmp_path)["walker", 3, 1].shades == pytest.approx(
        [i * 10 for i in range(20)], abs=2
    )
    assert {path.suffix for path in tmp_path.iterdir()} == {".mp4", ".json"}


def test_a_frame_may_be_changed_once_it_is_logged(tmp_path: Path) -> None:
    recording = recorder(tmp_path)
    frame = shade(0)
    for i in range(50):
        frame[...] = i * 5
        recording.add(frame, 0, 0, None, None)
    frame[...] = 255
    recording.close()
    assert videos(tmp_path)["default", 0, 1].shades == pytest.approx(
        [i * 5 for i in range(50)], abs=2
    )


def test_a_video_ends_when_the_next_episode_begins(tmp_path: Path) -> None:
    finished: list[str] = []
    recording = recorder(tmp_path, finished)
    recording.add(shade(100), 0, 0, "e", None)
    recording.add(shade(100), 0, 0, "e", None)
    wait_until(lambda: recording.counts().encoded == 2)
    assert finished == []
    recording.add(shade(200), 0, 1, "e", None)
    wait_until(lambda: len(finished) == 1)
    assert described(tmp_path)[finished[0]]["episode"] == 0
    recording.close()
    assert len(finished) == 2


@pytest.mark.parametrize("waits", [True, False], ids=["encoded", "queued"])
def test_a_video_that_is_ended_is_whole_before_another_begins(tmp_path: Path, waits: bool) -> None:
    finished: list[str] = []
    recording = recorder(tmp_path, finished)
    for _ in range(20):
        recording.add(shade(100), 0, 0, "e", None)
    recording.add(shade(100), 0, 0, "other", None)
    if waits:
        wait_until(lambda: recording.counts().encoded == 21)
    recording.end("e")
    recording.end("e")
    recording.end("nobody")
    wait_until(lambda: len(finished) == 1)
    assert described(tmp_path)[finished[0]]["env_id"] == "e"
    assert recording.counts() == (21, 21, 0)
    recording.add(shade(200), 0, 0, "e", None)
    recording.close()
    recording.end("other")
    seen = {key: len(video.shades) for key, video in videos(tmp_path).items()}
    assert seen == {("e", 0, 1): 20, ("e", 0, 2): 1, ("other", 0, 1): 1}


@pytest.mark.parametrize("encoder_count", [1, 3])
def test_videos_end_where_they_are_ended_whatever_comes_between(
    tmp_path: Path, encoder_count: int
) -> None:
    finished: list[str] = []
    recording = recorder(tmp_path, finished, encoder_count=encoder_count)
    chance = random.Random(3)
    levels: dict[tuple[str, int, int], list[int]] = {}
    episodes = dict.fromkeys("abcde", 0)
    ended = 0
    for _ in range(600):
        env_id = chance.choice("abcde")
        key = (env_id, episodes[env_id], 1)
        level = chance.randrange(256)
        levels.setdefault(key, []).append(level)
        recording.add(shade(level), 0, episodes[env_id], env_id, None)
        if chance.random() < 0.1:
            recording.end(env_id)
            episodes[env_id] += 1
            ended += 1
        if chance.random() < 0.05:
            wait_until(lambda: recording.counts().encoded == recording.counts().added)
    wait_until(lambda: len(finished) >= ended)
    assert len(finished) == ended
    recording.close()
    seen = videos(tmp_path)
    assert seen.keys() == levels.keys()
    for key, expected in levels.items():
        assert seen[key].shades == pytest.approx(expected, abs=2), key


@pytest.mark.parametrize("encoder_count", [1, 3])
def test_interleaved_environments_do_not_split_videos(tmp_path: Path, encoder_count: int) -> None:
    recording = recorder(tmp_path, encoder_count=encoder_count)
    chance = random.Random(5)
    levels: dict[tuple[str, int, int], list[int]] = {}
    episodes = dict.fromkeys("abcde", 0)
    for _ in range(400):
        env_id = chance.choice("abcde")
        if chance.random() < 0.04:
            episodes[env_id] += 1
        level = chance.randrange(256)
        levels.setdefault((env_id, episodes[env_id], 1), []).append(level)
        recording.add(shade(level), 0, episodes[env_id], env_id, None)
    recording.close()
    seen = videos(tmp_path)
    assert seen.keys() == levels.keys()
    for key, expected in levels.items():
        assert seen[key].shades == pytest.approx(expected, abs=2), key


def test_encoders_work_at_the_same_time_and_never_at_one_environment(tmp_path: Path) -> None:
    gates = {name: threading.Event() for name in ("first", "second")}
    inside: list[str] = []

    def folder() -> Path:
        name = threading.current_thread().name
        inside.append(name)
        gates["first" if len(inside) == 1 else "second"].wait(30)
        return tmp_path

    recording = recorder(tmp_path, folder=folder, encoder_count=2)
    for _ in range(3):
        recording.add(shade(0), 0, 0, "a", None)
    wait_until(lambda: len(inside) == 1)
    # The first is in its folder's making; the frames of its environment wait for it.
    recording.add(shade(0), 0, 0, "b", None)
    wait_until(lambda: len(inside) == 2)
    assert sorted(inside) == ["metrana-render-1", "metrana-render-2"]
    gates["second"].set()
    wait_until(lambda: recording.counts().encoded == 1)
    gates["first"].set()
    recording.close()
    assert {key: len(seen.frames) for key, seen in videos(tmp_path).items()} == {
        ("a", 0, 1): 3,
        ("b", 0, 1): 1,
    }


def test_threads_are_named_and_no_more_than_there_is_work_for(tmp_path: Path) -> None:
    def names() -> set[str]:
        return {t.name for t in threading.enumerate() if t.name.startswith("metrana-render")}

    recording = recorder(tmp_path, encoder_count=1000)
    wait_until(lambda: names() == set())  # that of the test before may be about to end
    for i in range(5):
        recording.add(shade(0), 0, 0, None, None)
        wait_until(lambda count=i + 1: recording.counts().encoded == count)  # type: ignore[misc]
    assert names() == {"metrana-render-1"}
    recording.close()
    wait_until(lambda: names() == set())


def test_an_earlier_episode_is_just_the_next_video(tmp_path: Path) -> None:
    finished: list[str] = []
    recording = recorder(tmp_path / "run", finished, output_dir=tmp_path / "out")
    for episode in (5, 4, 5):
        recording.add(shade(0), 0, episode, "e", None)
    recording.close()
    found = described(tmp_path / "run")
    assert [(found[i]["episode"], found[i]["part"]) for i in finished] == [(5, 1), (4, 1), (5, 1)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "e-episode-000004.mp4",
        "e-episode-000005-2.mp4",
        "e-episode-000005.mp4",
    ]


def test_what_changes_within_an_episode_begins_a_further_part(tmp_path: Path) -> None:
    recording = recorder(tmp_path / "run", output_dir=tmp_path / "out")
    recording.add(shade(10), 0, 1, "a:b", None)

    def change() -> None:
        recording.add(shade(20, 64, 64), 0, 1, "a:b", None)
        recording.add(shade(30, 64, 64)[:, :, 0], 0, 1, "a:b", None)
        recording.add(shade(40, 64, 64)[:, :, 0], 0, 1, "a:b", 25)
        recording.add(shade(50, 64, 64)[:, :, 0], 0, 2, "a:b", 25)
        recording.close()
        with recording.reporting():
            pass

    with pytest.warns(metrana.MetranaWarning, match="changed their size, colours or fps") as told:
        change()
    assert len(told) == 1
    seen = videos(tmp_path / "run")
    assert {key: video.fps for key, video in seen.items()} == {
        ("a:b", 1, 1): 30,
        ("a:b", 1, 2): 30,
        ("a:b", 1, 3): 30,
        ("a:b", 1, 4): 25,
        ("a:b", 2, 1): 25,
    }
    assert [seen["a:b", 1, part].frames[0].shape[0] for part in (1, 2)] == [32, 64]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a%3Ab-episode-000001.mp4",
        "a%3Ab-episode-000001.part002.mp4",
        "a%3Ab-episode-000001.part003.mp4",
        "a%3Ab-episode-000001.part004.mp4",
        "a%3Ab-episode-000002.mp4",
    ]


def test_the_video_longest_without_a_frame_makes_room(tmp_path: Path) -> None:
    finished: list[str] = []
    recording = recorder(tmp_path, finished)
    frame = shade(100, 4, 4)
    for i in range(MAX_OPEN_VIDEOS):
        recording.add(frame, 0, 0, i, None)
    recording.add(frame, 0, 0, 0, None)
    wait_until(lambda: recording.counts().encoded == MAX_OPEN_VIDEOS + 1)
    assert finished == []

    def more() -> None:
        recording.add(frame, 0, 0, "one-more", None)
        wait_until(lambda: len(finished) == 1)
        # Environment 0 had a frame after 1 had.
        assert described(tmp_path)[finished[0]]["env_id"] == "1"
        recording.add(frame, 0, 0, 1, None)  # its video is finished, so this is another part
        wait_until(lambda: len(finished) == 2)
        recording.add(frame, 0, 0, 1, None)

    with pytest.warns(metrana.MetranaWarning, match="more than 64 environments") as told:
        more()
    recording.close()
    assert len(told) == 1
    counts = {key: len(seen.frames) for key, seen in videos(tmp_path).items()}
    assert (counts["1", 0, 1], counts["1", 0, 2], counts["0", 0, 1]) == (1, 2, 2)
    assert len(counts) == MAX_OPEN_VIDEOS + 2
    assert len(set(finished)) == len(counts)


def test_many_environments_in_turns_lose_no_frame(tmp_path: Path) -> None:
    recording = recorder(tmp_path, encoder_count=2, error_strategy=metrana.ErrorStrategy.SILENT)
    frame = shade(100, 4, 4)
    for _ in range(3):
        for env_id in range(MAX_OPEN_VIDEOS + 20):
            recording.add(frame, 0, 0, env_id, None)
    recording.close()
    found = described(tmp_path)
    per_environment = dict.fromkeys(map(str, range(MAX_OPEN_VIDEOS + 20)), 0)
    for rendering_id, description in found.items():
        seen = decode(tmp_path / f"{rendering_id}.mp4")
        per_environment[description["env_id"]] += len(seen.frames)
    assert set(per_environment.values()) == {3}
    assert recording.counts() == (252, 252, 0)


def test_threads_may_log_at_once(tmp_path: Path) -> None:
    recording = recorder(tmp_path, encoder_count=2, fps=Fraction(10))

    def log(env_id: int) -> None:
        for i in range(60):
            recording.add(shade(i * 4), i, i // 20, env_id, None)

    threads = [threading.Thread(target=log, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recording.close()
    seen = videos(tmp_path)
    assert len(seen) == 12
    for (_, episode, _), video in seen.items():
        expected = [i * 4 for i in range(episode * 20, episode * 20 + 20)]
        assert video.shades == pytest.approx(expected, abs=2)


def test_every_frame_is_accounted_for_at_every_instant(tmp_path: Path) -> None:
    recording = recorder(
        tmp_path,
        queue_frames=3,
        enqueue_timeout_s=0.0,
        backpressure_strategy=metrana.BackpressureStrategy.DROP_NEW,
    )
    given = 0
    ends = threading.Event()
    wrong: list[object] = []

    def watch() -> None:
        while not ends.is_set():
            before = given
            counts = recording.counts()
            pending = counts.added - counts.encoded - counts.dropped
            # At most the queue and the one that is being encoded; the call under way may count.
            if not (before <= counts.added <= given + 1 and 0 <= pending <= 4):
                wrong.append((before, counts, given))

    watcher = threading.Thread(target=watch)
    watcher.start()
    for i in range(500):
        recording.add(shade(i % 256), 0, i // 100, None, None)
        given += 1
    recording.close()
    ends.set()
    watcher.join()
    assert wrong == []
    counts = recording.counts()
    assert counts.added == counts.encoded + counts.dropped == 500
    assert counts.dropped > 0
    assert sum(len(seen.frames) for seen in videos(tmp_path).values()) == counts.encoded


def test_encoders_go_from_video_to_video_and_are_closed_where_there_is_nothing_to_do(
    tmp_path: Path,
) -> None:
    recording = recorder(tmp_path)
    for episode in range(4):
        for env_id in "abc":
            recording.add(shade(50 * episode), 0, episode, env_id, None)
    wait_until(lambda: recording.counts().encoded == 12)
    encoders = recording._outlet.encoders
    open_ones = {
        environment._video.encoder for environment in recording._open if environment._video
    }
    assert len(open_ones) == 3
    # A smaller one for the fourth; the third's are free.
    recording.add(shade(0, 16, 16), 0, 4, "a", None)
    wait_until(lambda: recording.counts().encoded == 13)
    wait_until(lambda: len(encoders) == 0)
    recording.close()
    assert len(encoders) == 0
    assert all(
        videos(tmp_path)[env_id, episode, 1].shades == pytest.approx([50 * episode], abs=2)
        for env_id in "abc"
        for episode in range(4)
    )
