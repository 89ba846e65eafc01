"""Where commands look: data directories, missing ones, workspaces, projects, spools elsewhere."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest

import metrana
from metrana.query import Client
from tests.integration.cli.conftest import run_command
from tests.local_server import LocalServer, wait_until

# No text in UTF-8.
NO_TEXT = os.fsdecode(b"\xff")


def log_run(data_dir: Path, run_name: str = "only", **named: str) -> None:
    with metrana.init(run_name=run_name, data_dir=data_dir, mode="offline", **named) as run:  # type: ignore[arg-type]
        run.log("loss", [1.0, 2.0, 3.0])


# ── Nothing there ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("arguments", [["runs"], ["show", "x"], ["export", "x", "-o", "never"]])
@pytest.mark.parametrize("is_there", [False, True])
def test_reading_where_nothing_was_logged_says_so_and_makes_nothing(
    tmp_path: Path, arguments: list[str], is_there: bool
) -> None:
    missing = tmp_path / "typo"
    if is_there:
        missing.mkdir()
    done = run_command(*arguments, "--data-dir", str(missing), code=3, environment={})
    assert f"nothing logged yet in {missing}" in done.stderr
    assert [path.name for path in tmp_path.rglob("*")] == (["typo"] if is_there else [])


def test_an_empty_server_says_that_nothing_was_logged(tmp_path: Path) -> None:
    environment = {"METRANA_DIR": str(tmp_path)}
    with LocalServer(tmp_path):
        for arguments in (["runs"], ["show", "x"]):
            done = run_command(*arguments, code=3, environment=environment)
            assert "nothing logged yet" in done.stderr


def test_a_client_of_no_store_answers_and_makes_none(tmp_path: Path) -> None:
    with Client(data_dir=tmp_path / "typo") as client, client.hold():
        assert len(client.runs()) == 0
        with pytest.raises(metrana.MetranaNotFoundError, match="nothing logged yet"):
            client.points("x", "loss")
    assert list(tmp_path.iterdir()) == []


def test_sync_elsewhere_counts_the_runs_in_a_directory_of_any_name(tmp_path: Path) -> None:
    with metrana.init(data_dir=tmp_path / "store", mode="offline") as run:
        run.log("loss", 1.0)
    run_command("sync", code=0, environment={"METRANA_DIR": str(tmp_path / "store")})
    data_dir = (tmp_path / "store").rename(tmp_path / NO_TEXT)
    environment = {"METRANA_DIR": str(data_dir)}
    done = run_command("sync", "--url", "http://127.0.0.1:9", code=0, environment=environment)
    assert "sync does not copy what is in the local store" in done.stderr
    assert ": 1 run" in done.stderr


@pytest.mark.parametrize(
    "arguments", [["status"], ["runs"], ["show", "x"], ["sync"], ["server", "--port", "0"]]
)
def test_a_file_is_no_data_directory(short_path: Path, arguments: list[str]) -> None:
    file = short_path / "file"
    file.touch()
    for named, environment in ((["--data-dir", str(file)], {}), ([], {"METRANA_DIR": str(file)})):
        done = run_command(*arguments, *named, code=2, environment=environment)
        assert str(file) in done.stderr
        assert done.stdout == ""


@pytest.mark.parametrize(
    "arguments", [["status"], ["runs"], ["show", "x"], ["sync"], ["server", "--port", "0"]]
)
def test_a_name_that_no_file_system_takes_is_no_data_directory(arguments: list[str]) -> None:
    done = run_command(*arguments, "--data-dir", "x" * 300, code=2, environment={})
    assert "--data-dir" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("is_named", [False, True])
@pytest.mark.parametrize(
    "arguments",
    [
        ["sync"],
        ["runs"],
        ["show", "only"],
        ["export", "only", "-o", "never"],
        ["server", "--port", "0", "--grpc-port", "0"],
    ],
)
def test_an_embedded_store_needs_a_path_in_utf_8(
    short_path: Path, arguments: list[str], is_named: bool
) -> None:
    data_dir = short_path / NO_TEXT
    log_run(data_dir)
    named = ["--data-dir", str(data_dir)] if is_named else []
    environment = {} if is_named else {"METRANA_DIR": str(data_dir)}
    done = run_command(*arguments, *named, code=2, environment=environment)
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("metrana: data_dir: must be a path in UTF-8 ")
    assert repr(str(data_dir)) in done.stderr
    assert done.stdout == ""
    assert not (data_dir / "server").exists()


def test_a_client_of_an_embedded_store_needs_a_path_in_utf_8(tmp_path: Path) -> None:
    log_run(tmp_path / NO_TEXT)
    with (
        Client(data_dir=tmp_path / NO_TEXT) as client,
        pytest.raises(metrana.MetranaValidationError, match=r"^data_dir: must be a path in UTF-8"),
    ):
        client.runs()


def test_spools_may_be_at_a_path_of_any_bytes(tmp_path: Path) -> None:
    data_dir, store = tmp_path / NO_TEXT, tmp_path / "store"
    log_run(data_dir)
    done = run_command("status", "--json", "--data-dir", str(data_dir), code=0, environment={})
    (row,) = json.loads(done.stdout)
    assert (row["problems"], row["spooled_bytes"] > 0) == ([], True)
    environment = {"METRANA_DIR": str(store)}
    synced = run_command("sync", str(data_dir), code=0, environment=environment)
    assert "delivered default/only, writer 1" in synced.stderr
    with Client(data_dir=store) as client:
        assert list(client.points("only", "loss")["value"]) == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("arguments", [["runs"], ["show", "x"], ["export", "x"]])
def test_reading_refuses_what_is_no_url(arguments: list[str]) -> None:
    done = run_command(*arguments, "--url", "foo", code=2, environment={})
    assert "--url: must be an address like" in done.stderr
    assert "'foo'" in done.stderr


# ── Sync ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("named", [["typo"], ["--data-dir", "typo"], ["typo" * 100]])
def test_sync_refuses_a_path_that_is_not_there(
    short_path: Path, named: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(short_path)
    environment = {"METRANA_DIR": str(short_path / "data")}
    done = run_command("sync", *named, code=2, environment=environment)
    assert "typo" in done.stderr
    assert list(short_path.iterdir()) == []


def test_sync_with_nothing_to_deliver_makes_nothing(tmp_path: Path) -> None:
    done = run_command("sync", code=0, environment={"METRANA_DIR": str(tmp_path / "data")})
    assert "nothing to deliver" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("is_served", [False, True])
def test_sync_to_a_server_elsewhere_says_what_the_local_store_keeps(
    tmp_path: Path, is_served: bool
) -> None:
    for name in ("first", "second"):
        log_run(tmp_path, name)
    with Client(data_dir=tmp_path) as client:
        assert len(client.runs()) == 2

    def sync(*arguments: str) -> str:
        named = ["sync", "--url", "http://127.0.0.1:1", *arguments]
        return run_command(*named, code=0, environment={"METRANA_DIR": str(tmp_path)}).stderr

    kept = f"sync does not copy what is in the local store of {tmp_path}: 2 runs"
    with LocalServer(tmp_path) if is_served else nullcontext():
        told = sync()
        assert f"nothing is undelivered in {tmp_path}" in told
        assert kept in told
        copied = tmp_path / "copied"
        copied.mkdir()
        assert kept in sync(str(copied))
        with metrana.init(run_name="now", data_dir=copied, mode="offline"):
            told = sync(str(copied))
            assert "left alone, because they are still written: 1 " in told
            assert "nothing is undelivered" not in told
    (tmp_path / "server" / "catalog.sqlite").write_text("damaged")
    assert kept.rpartition(":")[0] in sync()


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999", "ftp://x", "http://", "foo"])
@pytest.mark.parametrize("has_spool", [False, True])
def test_sync_refuses_what_is_no_url(tmp_path: Path, url: str, has_spool: bool) -> None:
    if has_spool:
        log_run(tmp_path)
    done = run_command("sync", "--url", url, code=2, environment={"METRANA_DIR": str(tmp_path)})
    assert "--url: must be an address like" in done.stderr
    assert repr(url) in done.stderr


@pytest.mark.parametrize("serves", [False, True])
def test_sync_brings_the_spools_of_a_path_to_the_local_store(tmp_path: Path, serves: bool) -> None:
    copied, own = tmp_path / "copied", tmp_path / "own"
    log_run(copied, "from-elsewhere")
    log_run(copied, "for-a-server", ingestion_url="http://127.0.0.1:1")
    environment = {"METRANA_DIR": str(own)}

    def sync_and_list() -> list[str]:
        done = run_command("sync", str(copied), code=0, environment=environment)
        assert "delivered default/from-elsewhere, writer 1" in done.stderr
        with Client(data_dir=own) as client:
            return list(client.runs()["run_name"])

    if serves:
        with LocalServer(own):
            assert sync_and_list() == ["from-elsewhere"]
    else:
        assert sync_and_list() == ["from-elsewhere"]
    assert not (copied / "server").exists()
    rows = json.loads(
        run_command("status", "--json", "--data-dir", str(copied), code=0, environment={}).stdout
    )
    assert [row["run_name"] for row in rows] == ["for-a-server"]


@pytest.mark.parametrize("serves", [False, True])
def test_sync_takes_what_another_machine_left_only_by_force(tmp_path: Path, serves: bool) -> None:
    with metrana.init(run_name="r", data_dir=tmp_path, mode="offline") as run:
        run.log("loss", [1.0, 2.0, 3.0])
    (info_file,) = tmp_path.glob("spool/*/0*/writer.json")
    info = json.loads(info_file.read_text())
    # As a process leaves it that was killed, on a machine that sends to a server elsewhere.
    info |= {"machine_id": "0" * 32, "boot_id": "0" * 32, "sender": "grpc", "ended": None}
    info_file.write_text(json.dumps(info))
    environment = {"METRANA_DIR": str(tmp_path)}
    with LocalServer(tmp_path) if serves else nullcontext():
        left = run_command("sync", code=0, environment=environment).stderr
        assert "another machine's: 1 " in left
        assert "metrana sync --force" in left
        with Client(data_dir=tmp_path) as client:
            assert len(client.runs()) == 0
            forced = run_command("sync", "--force", code=1, environment=environment).stderr
            assert "delivered default/r, writer 1" in forced
            # What may have been in its memory nobody can tell.
            assert "bytes of points, is lost: it was on another machine" in forced
            assert list(client.points("r", "loss")["value"]) == [1.0, 2.0, 3.0]
    assert list(tmp_path.glob("spool/*/0*")) == []


def test_sync_says_under_which_name_it_delivered_a_run_whose_name_is_taken(
    tmp_path: Path,
) -> None:
    own, copied = tmp_path / "own", tmp_path / "copied"
    # Each as if by a process that knows nothing of the other.
    log_run(own, "same", orchestration_id="first")
    log_run(copied, "same", orchestration_id="second")
    with Client(data_dir=own) as client:
        assert list(client.runs()["run_name"]) == ["same"]
        synced = run_command("sync", str(copied), code=0, environment={"METRANA_DIR": str(own)})
        (renamed,) = set(client.runs()["run_name"]) - {"same"}
    (said,) = [line for line in synced.stderr.splitlines() if line.startswith("metrana: ")]
    assert "'same'" in said
    assert f"'{renamed}'" in said


# ── Workspaces and projects ──────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def teams(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two workspaces that both have a run of the same name."""
    data_dir = tmp_path_factory.mktemp("teams")
    log_run(data_dir, "same")
    log_run(data_dir, "same", workspace_name="vision", project_name="eyes")
    return {"METRANA_DIR": str(data_dir)}


def _workspace(text: str) -> str:
    name: str = json.loads(text)["workspace_name"]
    return name


VISION = ["--workspace", "vision", "--project", "eyes"]


def test_a_run_is_shown_by_workspace_and_project(teams: dict[str, str]) -> None:
    shown = run_command("show", "same", *VISION, "--json", code=0, environment=teams)
    assert _workspace(shown.stdout) == "vision"
    shown = run_command("show", "same", "--json", code=0, environment=teams)
    assert _workspace(shown.stdout) == "default"


def test_workspace_and_project_default_to_the_environment(teams: dict[str, str]) -> None:
    variables = {**teams, "METRANA_WORKSPACE": "vision", "METRANA_PROJECT": "eyes"}
    shown = run_command("show", "same", "--json", code=0, environment=variables)
    assert _workspace(shown.stdout) == "vision"


def test_a_run_is_exported_by_workspace_and_project(teams: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "points.jsonl"
    chosen = ["--format", "jsonl", "-o", str(path)]
    run_command("export", "same", *VISION, *chosen, code=0, environment=teams)
    assert len(path.read_text().splitlines()) == 3


def test_a_run_that_is_elsewhere_is_said_to_be_there(teams: dict[str, str]) -> None:
    missed = run_command("show", "same", "--project", "ears", code=3, environment=teams)
    assert "no project 'ears'" in missed.stderr
    assert "there is one with --project" in missed.stderr


def test_a_run_may_be_named_like_an_id(tmp_path: Path) -> None:
    name = "0123456789abcdef" * 2
    log_run(tmp_path, name)
    environment = {"METRANA_DIR": str(tmp_path)}
    shown = json.loads(run_command("show", name, "--json", code=0, environment=environment).stdout)
    assert shown["run_name"] == name


def test_runs_show_the_workspace_where_there_are_several(teams: dict[str, str]) -> None:
    heading, *lines = run_command("runs", code=0, environment=teams).stdout.splitlines()
    assert heading.split()[:3] == ["workspace", "project", "run"]
    assert sorted(line.split()[0] for line in lines) == ["default", "vision"]


def test_runs_of_one_workspace_are_shown_without_it(teams: dict[str, str]) -> None:
    one = run_command("runs", "--workspace", "vision", code=0, environment=teams).stdout
    assert one.split()[0] == "project"
    none = run_command("runs", "--workspace", "audio", code=3, environment=teams)
    assert "no runs in workspace 'audio'" in none.stderr


def test_runs_of_one_project_are_chosen_by_the_server(tmp_path: Path) -> None:
    log_run(tmp_path, "wanted", project_name="ours")
    log_run(tmp_path, "other", project_name="theirs")
    with LocalServer(tmp_path) as server, Client(data_dir=tmp_path) as client:
        wait_until(lambda: len(client.runs()) == 2, what="delivery")
        token = json.loads((tmp_path / "server" / "state.json").read_text())["token"]
        with forwarding(server.http_url) as (url, asked):
            chosen = ["--project", "ours", "--json", "--url", url]
            environment = {"METRANA_API_KEY": token}
            done = run_command("runs", *chosen, code=0, environment=environment)
    assert [row["run_name"] for row in json.loads(done.stdout)] == ["wanted"]
    assert asked == ["/api/v1/runs?project_name=ours"]


@contextmanager
def forwarding(url: str) -> Iterator[tuple[str, list[str]]]:
    """A proxy of a server; it gives its own address and what it was asked for so far."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            key = self.headers["authorization"]
            answer = httpx.get(f"{url}{self.path}", headers={"authorization": key})
            self.send_response(answer.status_code)
            self.send_header("content-length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as proxy:
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{proxy.server_port}", asked
        finally:
            proxy.shutdown()
            thread.join()


def test_runs_as_json_name_workspace_and_run_id(teams: dict[str, str]) -> None:
    environment = {**teams, "METRANA_PROJECT": "eyes"}
    rows = json.loads(run_command("runs", "--json", code=0, environment=environment).stdout)
    assert [(row["workspace_name"], len(row["run_id"])) for row in rows] == [("vision", 32)]


def test_a_delivered_run_is_readable_while_the_server_runs(tmp_path: Path) -> None:
    log_run(tmp_path, "late", workspace_name="vision")
    with LocalServer(tmp_path), Client(data_dir=tmp_path) as client:
        wait_until(lambda: list(client.runs()["status"]) == ["finished"], what="delivery")
        named = ["--workspace", "vision", "--json"]
        environment = {"METRANA_DIR": str(tmp_path)}
        shown = run_command("show", "late", *named, code=0, environment=environment)
    assert _workspace(shown.stdout) == "vision"
