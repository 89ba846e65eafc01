"""Videos read through both backends: the frame, the file, and what is refused."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pandas as pd
import pyarrow as pa
import pytest

import metrana
from metrana import _native
from metrana.errors import (
    MetranaNotFoundError,
    MetranaQueryError,
    MetranaValidationError,
)
from metrana.query import Client
from metrana.rendering.names import canonical_name
from tests.local_server import LocalServer, wait_until
from tests.videos import HEIGHT, WIDTH, encode, render

COLUMNS = "rendering_id env_id episode rl_step frame_count width height fps size_bytes sha256 part"
VIDEOS = {number: encode(2, number) for number in range(4)}
# By environment, episode and part.
ORDER = [("a", 2, 1), ("walker:0", 10, 1), ("walker:0", 10, 2), ("walker:0", 123, 1)]
# Environment, episode, whether it is for evaluation.
EPISODES = [
    ("quiet", 0, False),
    ("a", 2, False),
    ("walker:0", 10, False),
    ("walker:0", 10, True),
    ("walker:0", 123, True),
]


def an_id(number: int) -> str:
    return f"{number}" * 32


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory whose spool has videos."""
    directory = tmp_path_factory.mktemp("filmed") / "data"
    with metrana.init(mode="offline", data_dir=directory, run_name="filmed") as run:
        run.log("loss", 1.0)
        for env_id, episode, evaluation in EPISODES:
            run.log_rl_episode(
                "score", 1.0, rl_step=1, env_id=env_id, episode=episode, evaluation=evaluation
            )
        for number in (2, 0, 3, 1):
            env_id, episode, part = ORDER[number]
            render(
                run,
                VIDEOS[number],
                an_id(number),
                env_id=env_id,
                episode=episode,
                part=part,
                rl_step=number,
            )
    with metrana.init(mode="offline", data_dir=directory, run_name="other") as run:
        run.log("loss", 1.0)
    return directory


@pytest.fixture(scope="module")
def server(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A server that delivers the same spool to a store of its own."""
    own = tmp_path_factory.mktemp("served") / "data"
    shutil.copytree(data_dir / "spool", own / "spool")
    with LocalServer(own) as running:
        with Client(data_dir=own) as client:
            wait_until(lambda: list(client.runs()["status"]) == ["finished"] * 2, what="delivery")
        yield running


@pytest.fixture(scope="module", params=["embedded", "remote"])
def client(request: pytest.FixtureRequest, data_dir: Path, server: LocalServer) -> Iterator[Client]:
    """Each of the two."""
    where = data_dir if request.param == "embedded" else server.data_dir
    with Client(data_dir=where) as opened:
        yield opened


def get(server: LocalServer, route: str, **headers: str) -> httpx.Response:
    """Asks a server as its own user."""
    token = (_native.find_local_server(server.data_dir, 5.0) or {})["token"]
    return httpx.get(
        f"{server.http_url}/api/v1/{route}", headers={"authorization": f"Bearer {token}", **headers}
    )


def test_the_frame_has_a_row_a_video_in_order(client: Client) -> None:
    frame = client.renderings("filmed")
    assert list(frame.columns) == COLUMNS.split()
    assert list(zip(frame["env_id"], frame["episode"], frame["part"], strict=True)) == ORDER
    assert frame["rendering_id"].tolist() == [an_id(number) for number in range(4)]
    assert frame["rl_step"].tolist() == [0, 1, 2, 3]
    assert frame["frame_count"].tolist() == [2] * 4
    assert frame["frame_count"].dtype == pd.Int64Dtype()
    assert set(frame["width"]) == {WIDTH}
    assert set(frame["height"]) == {HEIGHT}
    assert set(frame["fps"]) == {30.0}
    assert frame["size_bytes"].tolist() == [len(VIDEOS[number]) for number in range(4)]
    assert frame["sha256"].tolist() == [
        hashlib.sha256(VIDEOS[number]).hexdigest() for number in range(4)
    ]


def test_an_environment_is_chosen_or_named_as_missing(client: Client) -> None:
    chosen = client.renderings("filmed", env_id="walker:0", as_="arrow")
    assert isinstance(chosen, pa.Table)
    assert chosen["episode"].to_pylist() == [10, 10, 123]
    # It has points.
    assert client.renderings("filmed", env_id="quiet").empty
    with pytest.raises(MetranaNotFoundError, match=r"no environment 'walker:1'.*'walker:0'"):
        client.renderings("filmed", env_id="walker:1")


def test_an_episode_names_the_first_part_of_its_video(client: Client) -> None:
    frame = client.episodes("filmed").set_index(["env_id", "episode", "evaluation"])
    named = frame["rendering_id"].dropna().to_dict()
    assert named == {
        ("a", 2, False): an_id(0),
        ("walker:0", 10, False): an_id(1),
        # There is no other episode of this number.
        ("walker:0", 123, True): an_id(3),
    }
    assert len(frame) == 5
    alone = client.episodes("filmed", env_id="a")
    assert alone["rendering_id"].tolist() == [an_id(0)]
    assert client.episodes("other").empty


def test_a_run_without_videos_has_an_empty_frame_of_the_same_types(client: Client) -> None:
    empty = client.renderings("other", as_="arrow")
    assert empty.num_rows == 0
    assert empty.schema == client.renderings("filmed", as_="arrow").schema
    assert client.renderings("other").columns.tolist() == COLUMNS.split()
    with pytest.raises(MetranaNotFoundError):
        client.renderings("nobody's")


def test_a_video_is_downloaded_under_its_name_or_the_one_given(
    client: Client, tmp_path: Path
) -> None:
    given = tmp_path / "given.mp4"
    given.write_text("replaced")
    assert client.download_rendering(an_id(0), given) == given
    assert given.read_bytes() == VIDEOS[0]
    paths = [client.download_rendering(an_id(number).upper(), tmp_path) for number in range(4)]
    assert [path.name for path in paths] == [canonical_name(*place) for place in ORDER]
    assert paths[2].name == "walker%3A0-episode-000010.part002.mp4"
    for number, path in enumerate(paths):
        assert path.read_bytes() == VIDEOS[number]
    assert len(list(tmp_path.iterdir())) == 5


def test_threads_that_download_the_same_video_do_not_meet(client: Client, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        paths = list(threads.map(lambda _: client.download_rendering(an_id(0), tmp_path), range(8)))
    assert paths[0].read_bytes() == VIDEOS[0]
    assert list(tmp_path.iterdir()) == [paths[0]]


def test_what_cannot_be_downloaded_leaves_nothing(client: Client, tmp_path: Path) -> None:
    with pytest.raises(MetranaNotFoundError, match="no rendering has the rendering_id"):
        client.download_rendering("f" * 32, tmp_path)
    with pytest.raises(MetranaNotFoundError):
        client.download_rendering("../../state.json", tmp_path)
    with pytest.raises(MetranaValidationError, match="path: must be in a folder that exists"):
        client.download_rendering(an_id(0), tmp_path / "missing" / "video.mp4")
    with pytest.raises(MetranaValidationError, match="rendering_id"):
        client.download_rendering(7, tmp_path)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_download_takes_the_place_of_files_only(client: Client, tmp_path: Path) -> None:
    pipe, link, file = (tmp_path / name for name in ("pipe", "link", "file"))
    os.mkfifo(pipe)
    with pytest.raises(MetranaValidationError, match="path: must be a file or a folder"):
        client.download_rendering(an_id(0), pipe)
    assert pipe.is_fifo()
    link.symlink_to("file")
    assert client.download_rendering(an_id(0), link) == file
    assert link.is_symlink()
    assert file.read_bytes() == VIDEOS[0]


@pytest.mark.parametrize("where", ["embedded", "remote"])
def test_a_file_that_was_damaged_or_lost_is_not_handed_out(where: str, tmp_path: Path) -> None:
    data_dir, target = tmp_path / "data", tmp_path / "video.mp4"
    target.write_text("kept")
    with metrana.init(mode="offline", data_dir=data_dir, run_name="r") as run:
        for number in range(2):
            render(run, VIDEOS[number], an_id(number), episode=number)
    with Client(data_dir=data_dir) as client:
        assert len(client.renderings("r")) == 2
    files = sorted((data_dir / "server" / "media").rglob("*.mp4"))
    files[0].write_bytes(VIDEOS[2][: len(VIDEOS[0]) - 1])
    files[1].unlink()
    server = LocalServer(data_dir) if where == "remote" else None
    try:
        with Client(data_dir=data_dir) as client:
            with pytest.raises(MetranaQueryError, match="SHA-256"):
                client.download_rendering(an_id(0), target)
            with pytest.raises(MetranaNotFoundError, match="is gone"):
                client.download_rendering(an_id(1), target)
    finally:
        if server is not None:
            server.stop()
    assert target.read_text() == "kept"
    assert {path.name for path in tmp_path.iterdir()} == {"data", "video.mp4"}


def test_a_data_directory_without_a_store_has_no_videos(tmp_path: Path) -> None:
    with Client(data_dir=tmp_path / "none") as client:
        with pytest.raises(MetranaNotFoundError):
            client.download_rendering(an_id(0), tmp_path)
        with pytest.raises(MetranaNotFoundError):
            client.renderings("r")


def test_a_browser_may_ask_for_a_part_and_keep_it(server: LocalServer) -> None:
    route = f"renderings/{an_id(2)}.mp4"
    whole = get(server, route)
    assert (whole.status_code, whole.content) == (200, VIDEOS[2])
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.headers["accept-ranges"] == "bytes"
    assert "immutable" in whole.headers["cache-control"]
    assert whole.headers["content-disposition"].startswith("inline")
    assert "episode-000010.part002.mp4" in whole.headers["content-disposition"]
    part = get(server, route, range="bytes=10-19")
    assert (part.status_code, part.content) == (206, VIDEOS[2][10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(VIDEOS[2])}"
    assert get(server, route, range="bytes=-5").content == VIDEOS[2][-5:]
    assert get(server, route, range=f"bytes={len(VIDEOS[2])}-").status_code == 416


def test_videos_are_for_those_who_show_the_token(server: LocalServer) -> None:
    for route in (
        f"renderings/{an_id(0)}.mp4",
        f"rendering?rendering_id={an_id(0)}",
        "renderings?run_name=filmed",
    ):
        assert httpx.get(f"{server.http_url}/api/v1/{route}").status_code == 401
        assert get(server, route).status_code == 200
    assert get(server, f"renderings/{'f' * 32}.mp4").status_code == 404
