"""The media store that is a directory: pieces, whole files, what is removed."""

from __future__ import annotations

import hashlib
import shutil
import stat
from pathlib import Path

import pytest

from metrana.server.media import MediaFolder, MediaName

NAME = MediaName("a" * 32, "b" * 32, "c" * 32)
OTHER = MediaName("a" * 32, "d" * 32, "e" * 32)
VIDEO = bytes(range(256)) * 40
SHA256 = hashlib.sha256(VIDEO).digest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "media"


@pytest.fixture
def media(folder: Path) -> MediaFolder:
    return MediaFolder(folder)


def pieces() -> list[tuple[int, bytes]]:
    return [(at, VIDEO[at : at + 1000]) for at in range(0, len(VIDEO), 1000)]


def test_pieces_in_any_order_and_more_than_once_make_the_whole(
    media: MediaFolder, folder: Path
) -> None:
    for one in [*reversed(pieces()), *pieces()[3:5]]:
        media.write(NAME, [one])
        assert not media.is_complete(NAME)
    assert media.complete(NAME, len(VIDEO), SHA256)
    assert media.is_complete(NAME)
    path = folder / NAME.run_id / f"{NAME.rendering_id}.mp4"
    assert media.path(NAME.run_id, NAME.rendering_id) == path
    assert path.read_bytes() == VIDEO
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for made in (folder, path.parent, path.parent / NAME.writer_id):
        assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert list((path.parent / NAME.writer_id).iterdir()) == []


def test_pieces_of_what_is_complete_change_nothing(media: MediaFolder) -> None:
    media.write(NAME, pieces())
    assert media.complete(NAME, len(VIDEO), SHA256)
    media.write(NAME, [(0, b"something else")])
    assert media.complete(NAME, len(VIDEO), SHA256)
    with media.open(NAME.run_id, NAME.rendering_id) as file:
        assert file.read() == VIDEO


@pytest.mark.parametrize(
    ("size", "sha256"), [(len(VIDEO) + 1, SHA256), (len(VIDEO), bytes(32))], ids=["size", "sha256"]
)
def test_what_is_not_what_was_sent_is_removed(
    media: MediaFolder, folder: Path, size: int, sha256: bytes
) -> None:
    media.write(NAME, pieces())
    assert not media.complete(NAME, size, sha256)
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    # So it may come again.
    media.write(NAME, pieces())
    assert media.complete(NAME, len(VIDEO), SHA256)


def test_a_missing_beginning_shows_at_the_end(media: MediaFolder) -> None:
    media.write(NAME, pieces()[1:])
    assert not media.complete(NAME, len(VIDEO), SHA256)


def test_an_empty_file_is_a_file(media: MediaFolder) -> None:
    media.write(NAME, [(0, b"")])
    assert media.complete(NAME, 0, hashlib.sha256().digest())
    with media.open(NAME.run_id, NAME.rendering_id) as file:
        assert file.read() == b""


def test_the_end_of_a_writer_removes_what_it_left_and_nothing_else(media: MediaFolder) -> None:
    media.write(NAME, pieces())
    assert media.complete(NAME, len(VIDEO), SHA256)
    unfinished = MediaName(NAME.run_id, NAME.writer_id, "f" * 32)
    media.write(unfinished, pieces()[:2])
    media.write(OTHER, pieces()[:2])
    for _ in range(2):
        media.end_writer(NAME.run_id, NAME.writer_id)
    assert media.is_complete(NAME)
    assert not media.complete(unfinished, 2000, hashlib.sha256(VIDEO[:2000]).digest())
    assert media.complete(OTHER, 2000, hashlib.sha256(VIDEO[:2000]).digest())


def test_a_run_is_removed_with_everything_and_may_come_again(
    media: MediaFolder, folder: Path
) -> None:
    media.write(NAME, pieces())
    media.write(OTHER, pieces())
    assert media.complete(NAME, len(VIDEO), SHA256)
    for _ in range(2):
        media.remove_run(NAME.run_id)
    assert list(folder.iterdir()) == []
    media.write(NAME, pieces())
    assert media.complete(NAME, len(VIDEO), SHA256)


def test_folders_that_somebody_removed_are_made_anew(media: MediaFolder, folder: Path) -> None:
    media.write(NAME, pieces())
    shutil.rmtree(folder)
    with pytest.raises(FileNotFoundError):
        media.write(NAME, pieces())
    media.write(NAME, pieces())
    assert media.complete(NAME, len(VIDEO), SHA256)
