"""What a video's file is called, and how it gets there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from metrana.rendering import files
from metrana.rendering.names import canonical_name, numbered


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (("walker-0", 123, 1), "walker-0-episode-000123.mp4"),
        (("walker-0", 123, 2), "walker-0-episode-000123.part002.mp4"),
        (("a:b", 12_345_678, 1), "a%3Ab-episode-12345678.mp4"),
        (("../a/b", 0, 1), "..%2Fa%2Fb-episode-000000.mp4"),
        (("a\0\r\n", 0, 1), "a%00%0D%0A-episode-000000.mp4"),
    ],
)
def test_a_canonical_name_says_environment_episode_and_part(
    place: tuple[str, int, int], name: str
) -> None:
    assert canonical_name(*place) == name


def test_a_canonical_name_fits_every_file_system() -> None:
    first, second = (":" * 127 + end for end in "ab")
    names = {canonical_name(env_id, 2**40 - 1, 1000) for env_id in (first, second)}
    assert len(names) == 2
    assert all(len(numbered(name, 1000)) <= 255 for name in names)


def test_names_need_no_pyav() -> None:
    script = (
        "import sys; sys.modules['av'] = None; sys.modules['numpy'] = None\n"
        "from metrana.rendering.names import canonical_name\n"
        "print(canonical_name('e', 1))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "e-episode-000001.mp4\n"


def test_a_published_file_never_overwrites_another(tmp_path: Path) -> None:
    video = tmp_path / "video"
    folder = tmp_path / "a" / "b"
    published = []
    for content in (b"one", b"two", b"three"):
        video.write_bytes(content)
        published.append(files.publish(video, folder, "e.mp4"))
    assert [path.name for path in published] == ["e.mp4", "e-2.mp4", "e-3.mp4"]
    assert [path.read_bytes() for path in published] == [b"one", b"two", b"three"]
    assert sorted(folder.iterdir()) == sorted(published)  # and nothing temporary
    assert {path.stat().st_mode & 0o777 for path in published} == {0o600}


def test_a_file_that_cannot_be_published_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with pytest.raises(FileNotFoundError):
        files.publish(tmp_path / "missing", folder, "e.mp4")
    assert list(folder.iterdir()) == []


def test_what_is_written_is_there_whole(tmp_path: Path) -> None:
    files.replace(tmp_path / "a.json", tmp_path / "a.tmp", b"{}")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o600
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        files.replace(tmp_path / "folder", tmp_path / "a.tmp", b"{}")
    (tmp_path / "folder").rmdir()
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
