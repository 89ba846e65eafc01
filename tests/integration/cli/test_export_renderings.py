"""`metrana export --renderings`: a run's videos in a folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import metrana
from metrana.query import Client
from tests.integration.cli.conftest import run_command
from tests.videos import encode, render

VIDEOS = [encode(2, seed) for seed in range(3)]
NAMES = ["a%3Ab-episode-000007.mp4", "a%3Ab-episode-000007-2.mp4", "a%3Ab-episode-000008.mp4"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Where the command finds a run of three videos, two of which are of one episode."""
    data_dir = tmp_path / "data"
    with metrana.init(mode="offline", data_dir=data_dir, run_name="filmed") as run:
        for number, video in enumerate(VIDEOS):
            episode = 8 if number == 2 else 7
            render(run, video, f"{number}" * 32, env_id="a:b", episode=episode)
    with metrana.init(mode="offline", data_dir=data_dir, run_name="plain") as run:
        run.log("loss", 1.0)
    return {"METRANA_DIR": str(data_dir)}


def exported(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_video_is_written_once(tmp_path: Path, environment: dict[str, str]) -> None:
    folder = tmp_path / "out"
    arguments = ("export", "filmed", "--renderings", "-o", str(folder))
    done = run_command(*arguments, code=0, environment=environment)
    assert done.stderr == f"3 videos written to {folder}\n"
    assert exported(folder) == dict(zip(NAMES, VIDEOS, strict=True))

    # What is there is kept; what is something else is replaced; what is not ours is left.
    kept = (folder / NAMES[0]).stat().st_mtime_ns
    (folder / NAMES[1]).write_bytes(VIDEOS[1][::-1])
    (folder / "notes.txt").write_text("mine")
    done = run_command(*arguments, code=0, environment=environment)
    assert done.stderr == f"1 video written to {folder}, 2 were there\n"
    assert (folder / NAMES[0]).stat().st_mtime_ns == kept
    assert exported(folder) == {**dict(zip(NAMES, VIDEOS, strict=True)), "notes.txt": b"mine"}


def test_the_folder_is_named_by_the_run(
    tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_command("export", "filmed", "--renderings", code=0, environment=environment)
    assert exported(tmp_path / "filmed").keys() == set(NAMES)


def test_no_name_that_another_writer_chose_leads_out_of_the_folder(tmp_path: Path) -> None:
    # Only our own calls check ids: what a server has may be from anybody.
    data_dir, folder = tmp_path / "data", tmp_path / "a" / "out"
    folder.parent.mkdir()
    with metrana.init(mode="offline", data_dir=data_dir, run_name="foreign") as run:
        for env_id, video in zip(("../b", "/c", "d\0"), VIDEOS, strict=True):
            render(run, video, env_id=env_id)
    arguments = ("export", "foreign", "--renderings", "-o", str(folder))
    run_command(*arguments, code=0, environment={"METRANA_DIR": str(data_dir)})
    names = [f"{env}-episode-000000.mp4" for env in ("..%2Fb", "%2Fc", "d%00")]
    assert exported(folder) == dict(zip(names, VIDEOS, strict=True))
    assert list(folder.parent.iterdir()) == [folder]


def test_a_run_without_videos_makes_no_folder(tmp_path: Path, environment: dict[str, str]) -> None:
    folder = tmp_path / "out"
    arguments = ("export", "plain", "--renderings", "-o", str(folder))
    done = run_command(*arguments, code=0, environment=environment)
    assert done.stderr == f"0 videos written to {folder}\n"
    assert not folder.exists()


def test_a_video_that_is_damaged_is_said_and_the_others_written(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    data_dir = Path(environment["METRANA_DIR"])
    with Client(data_dir=data_dir) as client:
        assert len(client.renderings("filmed")) == 3
    (damaged,) = (data_dir / "server" / "media").rglob("0*.mp4")
    damaged.write_bytes(b"\0" * len(VIDEOS[0]))
    folder = tmp_path / "out"
    arguments = ("export", "filmed", "--renderings", "-o", str(folder))
    done = run_command(*arguments, code=1, environment=environment)
    assert "SHA-256" in done.stderr
    assert exported(folder) == dict(zip(NAMES[1:], VIDEOS[1:], strict=True))


def test_a_folder_that_cannot_be_made_and_two_kinds_at_once_are_refused(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    missing = tmp_path / "missing" / "out"
    arguments = ("export", "filmed", "--renderings", "-o", str(missing))
    done = run_command(*arguments, code=1, environment=environment)
    assert f"there is no folder {missing.parent}" in done.stderr
    arguments = ("export", "filmed", "--renderings", "--format", "csv")
    done = run_command(*arguments, code=2, environment=environment)
    assert "not allowed with argument" in done.stderr


def test_points_and_videos_take_the_place_of_no_device(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for arguments in (["plain"], ["filmed", "--renderings"]):
        done = run_command("export", *arguments, "-o", str(pipe), code=1, environment=environment)
        assert str(pipe) in done.stderr
        assert "Traceback" not in done.stderr
    assert pipe.is_fifo()
