"""A video's file: what players see of it, finished and unfinished."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from metrana.rendering.encoder import Encoder, Encoders
from metrana.rendering.frames import Format, Place
from metrana.rendering.video import Video
from tests.recording import BARS, boxes, colour_bars, decode, shade, whole_part

PLACE = Place("walker", 7, 1000)
SMALL = Format((32, 48, 3), Fraction(30))


def test_a_finished_video_is_plain_with_its_index_in_front(tmp_path: Path) -> None:
    video = Video(tmp_path, PLACE, 1, Encoder(SMALL))
    for level in range(10, 250, 10):
        video.add(shade(level))
    path = video.finish()
    assert path == tmp_path / f"{video.rendering_id}.mp4"
    assert [kind for kind, _ in boxes(path.read_bytes())] == ["ftyp", "moov", "mdat"]
    seen = decode(path)
    assert seen.shades == pytest.approx(list(range(10, 250, 10)), abs=2)
    assert seen.fps == 30
    assert seen.times_s == pytest.approx([i / 30 for i in range(24)])
    assert {frame.shape for frame in seen.frames} == {(32, 48, 3)}


def test_a_finished_video_leaves_itself_and_its_description(tmp_path: Path) -> None:
    video = Video(tmp_path, PLACE, 2, Encoder(SMALL))
    name = video.rendering_id
    assert len(name) == 32
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.part", f"{name}.json"}
    video.add(shade(0))
    video.finish()
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.mp4", f"{name}.json"}
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    assert json.loads((tmp_path / f"{name}.json").read_text()) == {
        "version": 1,
        "env_id": "walker",
        "episode": 7,
        "rl_step": 1000,
        "part": 2,
        "width": 48,
        "height": 32,
        "fps": 30.0,
        "frame_count": 1,
    }


def test_colours_come_back_as_they_were(tmp_path: Path) -> None:
    video = Video(tmp_path, PLACE, 1, Encoder(Format((480, 640, 3), Fraction(30))))
    for _ in range(3):
        video.add(colour_bars())
    path = video.finish()
    assert path is not None
    seen = decode(path)
    bt709, limited = 1, 1
    assert seen.colours == (bt709, limited, bt709, bt709)
    for i, colour in enumerate(BARS):
        bar = seen.frames[-1][:, i * 80 + 8 : (i + 1) * 80 - 8]
        assert np.abs(bar.astype(int) - colour).max() <= 4, colour


def test_the_tags_in_the_file_are_those_of_its_pictures(tmp_path: Path) -> None:
    # A player that reads only one of the two must see the same.
    video = Video(tmp_path, PLACE, 1, Encoder(SMALL))
    video.add(shade(100))
    path = video.finish()
    assert path is not None
    assert b"colrnclx" + bytes([0, 1, 0, 1, 0, 1, 0]) in path.read_bytes()
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    assert (frame.colorspace, frame.color_range) == (1, 1)


def test_gray_has_no_colour(tmp_path: Path) -> None:
    ramp = np.repeat(np.arange(0, 256, 4, dtype=np.uint8)[None, :], 32, axis=0)
    video = Video(tmp_path, PLACE, 1, Encoder(Format(ramp.shape, Fraction(30))))
    video.add(ramp)
    path = video.finish()
    assert path is not None
    with av.open(str(path)) as container:
        planes = next(container.decode(video=0)).to_ndarray(format="yuv420p")
    assert set(planes[32:].ravel()) == {128}
    seen = decode(path).frames[0].astype(int)
    assert np.abs(seen - ramp[:, :, None]).max() <= 6


@pytest.mark.parametrize(
    "fps", [Fraction(1, 1000), Fraction(30000, 1001), Fraction(1000), Fraction(2997, 100)], ids=str
)
def test_a_frame_is_shown_when_its_time_has_come(tmp_path: Path, fps: Fraction) -> None:
    video = Video(tmp_path, PLACE, 1, Encoder(Format((32, 48, 3), fps)))
    for level in (0, 100, 200):
        video.add(shade(level))
    part = (tmp_path / f"{video.rendering_id}.part").read_bytes()
    path = video.finish()
    assert path is not None
    for file in (part, path):
        seen = decode(file)
        assert seen.times_s == pytest.approx([float(i / fps) for i in range(3)])
        assert seen.shades == pytest.approx([0, 100, 200], abs=2)
    assert decode(path).fps == fps


@pytest.mark.parametrize("shape", [(2, 2, 3), (2, 2), (2, 130, 3), (130, 2), (64, 1000, 3)])
def test_every_even_size_can_be_recorded(tmp_path: Path, shape: tuple[int, ...]) -> None:
    video = Video(tmp_path, PLACE, 1, Encoder(Format(shape, Fraction(30))))
    for level in (50, 150):
        video.add(np.full(shape, level, np.uint8))
    path = video.finish()
    assert path is not None
    seen = decode(path)
    assert [frame.shape[:2] for frame in seen.frames] == [shape[:2]] * 2
    assert seen.shades == pytest.approx([50, 150], abs=3)


def test_each_frame_is_in_the_file_as_soon_as_it_is_encoded(tmp_path: Path) -> None:
    video = Video(tmp_path, PLACE, 1, Encoder(SMALL))
    part = tmp_path / f"{video.rendering_id}.part"
    assert [kind for kind, _ in boxes(part.read_bytes())] == ["ftyp", "moov"]
    for count in range(1, 6):
        video.add(shade(40 * count))
        data = part.read_bytes()
        assert [kind for kind, _ in boxes(data)] == ["ftyp", "moov"] + ["moof", "mdat"] * count
        assert boxes(data)[-1][1] == len(data)
        assert decode(data).shades == pytest.approx([40 * i for i in range(1, count + 1)], abs=2)
    video.finish()


def test_a_file_that_was_cut_anywhere_plays_up_to_there(tmp_path: Path) -> None:
    video = Video(tmp_path, PLACE, 1, Encoder(SMALL))
    part = tmp_path / f"{video.rendering_id}.part"
    ends = []
    for level in (0, 80, 160):
        video.add(shade(level))
        ends.append(part.stat().st_size)
    data = part.read_bytes()
    for length in range(ends[0] - 1, ends[-1] + 1, 7):
        count = sum(end <= length for end in ends)
        whole = whole_part(data[:length])
        assert len(whole) == ([0, *ends][count])
        if whole:
            assert len(decode(whole).frames) == count
    video.finish()


def test_a_long_video_is_written_anew_in_pieces(tmp_path: Path) -> None:
    # Noise does not compress, so this is more than the pieces in which it is copied.
    chance = np.random.default_rng(3)
    video = Video(tmp_path, PLACE, 1, Encoder(Format((480, 640), Fraction(30))))
    for _ in range(15):
        video.add(chance.integers(0, 255, (480, 640), np.uint8))
    part = (tmp_path / f"{video.rendering_id}.part").read_bytes()
    assert len(part) > 2 * 512 * 1024
    path = video.finish()
    assert path is not None
    before, after = decode(part), decode(path)
    assert len(after.frames) == 15
    assert all((a == b).all() for a, b in zip(before.frames, after.frames, strict=True))


def test_players_can_go_to_any_frame(tmp_path: Path) -> None:
    video = Video(tmp_path, PLACE, 1, Encoder(SMALL))
    for i in range(300):  # more than one keyframe
        video.add(shade(i * 255 // 300))
    path = video.finish()
    assert path is not None
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.frames == 300
        assert stream.duration is not None
        assert stream.time_base is not None
        assert float(stream.duration * stream.time_base) == pytest.approx(10.0)
        container.seek(290, stream=stream)
        frame = next(container.decode(stream))
        assert 0 < float(frame.time or 0) <= 290 / 30


def test_a_video_without_a_frame_leaves_nothing(tmp_path: Path) -> None:
    video = Video(tmp_path, PLACE, 1, Encoder(SMALL))
    assert video.finish() is None
    assert list(tmp_path.iterdir()) == []


def test_an_abandoned_video_keeps_what_it_has(tmp_path: Path) -> None:
    video = Video(tmp_path, PLACE, 1, Encoder(SMALL))
    video.add(shade(100))
    video.abandon()
    with pytest.raises(InterruptedError):
        video.add(shade(200))
    (part,) = tmp_path.glob("*.part")
    assert decode(part.read_bytes()).shades == pytest.approx([100], abs=2)


def test_files_that_cannot_be_made_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Video(tmp_path / "missing", PLACE, 1, Encoder(SMALL))
    assert list(tmp_path.iterdir()) == []


def test_a_video_needs_none_of_those_that_its_encoder_had_before(tmp_path: Path) -> None:
    encoders = Encoders()
    levels = [[10, 100, 200], [60], [220, 30]]
    used, paths = [], []
    for part, shades in enumerate(levels, start=1):
        video = Video(tmp_path, PLACE, part, encoders.take(SMALL))
        for level in shades:
            video.add(shade(level))
        path = video.finish()
        assert path is not None
        paths.append(path)
        used.append(video.encoder)
        encoders.give_back(video.encoder)
    assert used == [used[0]] * 3
    for path, shades in zip(paths, levels, strict=True):
        seen = decode(path)
        assert seen.shades == pytest.approx(shades, abs=2)
        assert seen.times_s == pytest.approx([i / 30 for i in range(len(shades))])


def test_an_encoder_is_for_its_format_alone_and_makes_room_for_another() -> None:
    encoders = Encoders()
    small = [encoders.take(SMALL) for _ in range(3)]
    for encoder in small:
        encoders.give_back(encoder)
    gray = encoders.take(Format(SMALL.shape[:2], SMALL.fps))
    assert gray not in small
    assert len(encoders) == 2
    assert encoders.take(SMALL) is small[2]
    encoders.clear()
    assert len(encoders) == 0
    assert encoders.take(SMALL) not in small
