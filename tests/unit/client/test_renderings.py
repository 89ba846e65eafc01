"""Renderings on their way into the spool, and what is saved of one whose writer was killed."""

from __future__ import annotations

import io
import json
import os
import stat
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
import pytest

import metrana
from metrana import _native
from metrana.errors import MetranaClosingError, MetranaLoggerClosedError
from tests.reading import Logged, read_all, read_one, run_folders

WIDTH, HEIGHT = 32, 16
# A fragment a frame, each written at once.
FRAGMENTED = {
    "movflags": "empty_moov+default_base_moof+frag_every_frame",
    "flush_packets": "1",
}


def encode(frame_count: int, options: dict[str, str]) -> bytes:
    """Encodes a video of a square that moves."""
    with TemporaryDirectory() as folder:
        return _encode(Path(folder) / "video", frame_count, options)


def _encode(file: Path, frame_count: int, options: dict[str, str]) -> bytes:
    with av.open(file, "w", format="mp4", options=options) as container:
        stream = container.add_stream("libx264", rate=30, options={"tune": "zerolatency"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(frame_count):
            image = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
            image[4:8, index : index + 4] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return file.read_bytes()


def boxes(video: bytes) -> Iterator[tuple[bytes, int]]:
    """The boxes of a file, each with where it ends."""
    at = 0
    while at < len(video):
        at, kind = at + int.from_bytes(video[at : at + 4], "big"), video[at + 4 : at + 8]
        yield kind, at


def frame_ends(video: bytes) -> list[int]:
    """Where each fragment of a frame ends."""
    return [
        end for (one, _), (two, end) in pairwise(boxes(video)) if (one, two) == (b"moof", b"mdat")
    ]


def decoded(video: bytes) -> int:
    """How many frames a player shows."""
    with av.open(io.BytesIO(video)) as container:
        return sum(1 for _ in container.decode(video=0))


def sidecar(**changes: Any) -> str:
    """What an encoder says of a rendering."""
    fields = {"version": 1, "env_id": "e", "episode": 3, "rl_step": 70, "part": 1}
    size = {"width": WIDTH, "height": HEIGHT, "fps": 30.0}
    return json.dumps(fields | size | changes)


def leave(folder: Path, rendering_id: str, kind: str, video: bytes, **changes: Any) -> None:
    """Leaves a rendering as an encoder does."""
    folder.mkdir(exist_ok=True)
    (folder / f"{rendering_id}.json").write_text(sidecar(**changes))
    (folder / f"{rendering_id}.{kind}").write_bytes(video)


def ended_run(data_dir: Path) -> Path:
    """The folder for renderings of a run that was closed."""
    metrana.init(mode="offline").close()
    (writer,) = run_folders(data_dir)[0].writers()
    return Path(writer.path) / "renderings"


def test_what_was_encoded_before_a_kill_plays_wherever_the_file_was_cut(data_dir: Path) -> None:
    video = encode(4, FRAGMENTED)
    ends = frame_ends(video)
    assert len(ends) == 4
    folder = ended_run(data_dir)
    for cut in range(len(video) + 1):
        leave(folder, f"{cut:032x}", "part", video[:cut])
    logged = read_one(data_dir)
    for cut in range(len(video) + 1):
        whole = [end for end in ends if end <= cut]
        rendering = logged.renderings.get(f"{cut:032x}")
        if not whole:
            assert rendering is None
            continue
        assert rendering is not None, cut
        assert rendering.data == video[: whole[-1]]
        assert rendering.info.frame_count == len(whole)
    assert list(folder.iterdir()) == []
    for end, count in zip(ends, range(1, 5), strict=True):
        assert decoded(logged.renderings[f"{end:032x}"].data) == count


def test_a_finished_rendering_is_delivered_as_it_is(data_dir: Path) -> None:
    video = encode(5, {"movflags": "faststart"})
    with metrana.init(mode="offline") as run:
        path = run._rendering_folder()
        assert path is not None
        folder = Path(path)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        leave(folder, "a" * 32, "mp4", video, frame_count=5)
        run._rendering_finished("a" * 32)
        # Nobody said how many frames it has.
        leave(folder, "b" * 32, "mp4", video, episode=4, env_id="other")
        run._rendering_finished("b" * 32)
        run.flush()
        assert list(folder.iterdir()) == []
    logged = read_one(data_dir)
    one, two = logged.renderings["a" * 32], logged.renderings["b" * 32]
    assert one.data == two.data == video
    assert (one.info.frame_count, two.info.frame_count) == (5, 5)
    info = two.info
    assert (info.env_id, info.episode, info.rl_step, info.part) == ("other", 4, 70, 1)
    assert (info.width, info.height, info.fps) == (WIDTH, HEIGHT, 30.0)
    assert decoded(two.data) == 5


def test_a_finished_rendering_counts_before_what_it_was_made_of(data_dir: Path) -> None:
    folder = ended_run(data_dir)
    leave(folder, "a" * 32, "part", encode(2, FRAGMENTED))
    video = encode(2, {})
    leave(folder, "a" * 32, "mp4", video)
    (folder / f"{'b' * 32}.tmp").write_bytes(b"half")
    logged = read_one(data_dir)
    assert logged.renderings["a" * 32].data == video
    assert list(folder.iterdir()) == []


def test_what_is_no_id_or_comes_after_the_close_is_refused() -> None:
    with metrana.init(mode="offline") as run:
        with pytest.raises(ValueError, match="32 hexadecimal digits"):
            run._rendering_finished("../../etc/passwd")
        run._rendering_folder()
    with pytest.raises(MetranaLoggerClosedError):
        run._rendering_finished("a" * 32)
    with pytest.raises(MetranaLoggerClosedError):
        run._rendering_folder()


def test_a_disabled_run_has_no_renderings() -> None:
    with metrana.init(mode="disabled") as run:
        assert run._rendering_folder() is None
        run._rendering_finished("a" * 32)


def test_a_close_tells_of_a_rendering_that_is_left(data_dir: Path) -> None:
    run = metrana.init(mode="offline", error_strategy="raise_on_close")
    path = run._rendering_folder()
    assert path is not None
    leave(Path(path), "a" * 32, "part", encode(2, FRAGMENTED))
    with pytest.raises(MetranaClosingError, match="and 1 rendering are still") as raised:
        run.close()
    assert "1 rendering is not in the spool yet" in str(raised.value.__cause__)
    (writer,) = run_folders(data_dir)[0].writers()
    assert writer.undelivered
    assert writer.info["ended"] == "closed"
    assert read_one(data_dir).renderings["a" * 32].info.frame_count == 2


def test_a_forked_child_has_renderings_of_its_own(data_dir: Path) -> None:
    video = encode(1, {})

    def render(run: metrana.Run, rendering_id: str) -> str:
        path = run._rendering_folder()
        assert path is not None
        leave(Path(path), rendering_id, "mp4", video)
        run._rendering_finished(rendering_id)
        return path

    run = metrana.init(mode="offline")
    parents = render(run, "a" * 32)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            is_own = render(run, "b" * 32) != parents
            run.close()
            status = 0 if is_own else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    run.close()
    logged: list[Logged] = read_all(data_dir)
    assert [list(one.renderings) for one in logged] == [["a" * 32], ["b" * 32]]


def test_bytes_that_are_no_piece_are_refused(data_dir: Path) -> None:
    folder = ended_run(data_dir)
    leave(folder, "a" * 32, "mp4", b"a video", frame_count=9)
    read_one(data_dir)
    (writer,) = run_folders(data_dir)[0].writers()
    messages = _native.SpoolFollower(writer.path).read(1 << 30)
    (payload,) = (message.payload for message in messages if message.kind == "renderings")
    assert _native.batch_info(payload).kind == "renderings"
    rendering_id, offset, data, last = _native.decode_rendering(payload)
    assert (rendering_id, offset, bytes(data)) == (b"\xaa" * 16, 0, b"a video")
    assert last is not None
    assert (last.frame_count, last.size) == (9, 7)
    for cut in range(len(payload)):
        with pytest.raises(ValueError, match="payload"):
            _native.decode_rendering(payload[:cut])
