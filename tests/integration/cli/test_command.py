"""What each command prints where, and what it exits with."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet
import pytest

from tests.integration.cli.conftest import Command, run_command
from tests.integration.query.recorded import PROJECT, RUN
from tests.local_server import LocalServer
from tests.spool_damage import damage_batch

COMMANDS = ["server", "ui", "runs", "show", "episodes", "export", "sync", "status"]
# Whatever a base install does not have.
EXTRAS = ["pyarrow", "pandas", "httpx", "rich", "fastapi", "uvicorn", "chdb", "sqlalchemy", "grpc"]


def without_extras(data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the command where none of the extras' packages can be imported."""
    code = (
        "import sys\n"
        f"for name in {EXTRAS!r}: sys.modules[name] = None\n"
        "from metrana.cli import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments, "--data-dir", str(data_dir)],
        capture_output=True,
        text=True,
        timeout=50,
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_what_a_command_does(metrana: Command, name: str) -> None:
    assert f"usage: metrana {name}" in metrana(name, "--help").stdout


def test_no_arguments_print_help(metrana: Command) -> None:
    text = metrana().stdout
    assert all(f"    {name} " in text for name in COMMANDS)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from metrana.cli import main; main([]); "
        f"print(*sorted(set({[*EXTRAS, 'asyncio', 'sqlite3']!r}) & sys.modules.keys()), "
        "file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr.strip()) == (0, "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["fly"],
        ["show"],
        ["export", RUN, "--format", "xls"],
        ["server", "--port", "99999"],
        ["runs", "--url", "ftp://x"],
    ],
)
def test_wrong_usage_exits_2(metrana: Command, arguments: list[str]) -> None:
    done = metrana(*arguments, code=2)
    assert done.stdout == ""
    assert "metrana" in done.stderr


@pytest.mark.parametrize("arguments", [["show", "ppo-2"], ["export", "ppo-2", "-o", "never"]])
def test_an_unknown_run_exits_3_naming_the_nearest(metrana: Command, arguments: list[str]) -> None:
    done = metrana(*arguments, "--project", PROJECT, code=3)
    assert "did you mean 'ppo-1'?" in done.stderr
    assert done.stdout == ""


def test_no_runs_exits_3_with_an_empty_list(metrana: Command) -> None:
    done = metrana("runs", "--project", "nobody's", "--json", code=3)
    assert json.loads(done.stdout) == []


def test_no_server_at_the_url_exits_1(metrana: Command) -> None:
    done = metrana("runs", "--url", "http://127.0.0.1:1", code=1)
    assert "127.0.0.1:1" in done.stderr


def test_runs_lists_runs(metrana: Command) -> None:
    text = metrana("runs").stdout
    assert RUN in text
    assert "<b>x</b>" in text
    rows = json.loads(metrana("runs", "--project", PROJECT, "--json").stdout)
    assert [(row["run_name"], row["tags"], row["point_count"]) for row in rows] == [
        (RUN, ["a", "b"], 61)
    ]


def test_show_prints_config_summary_and_plots(metrana: Command) -> None:
    text = metrana("show", RUN, "--project", PROJECT).stdout
    for part in ("lr = 0.0003", "sizes = [64, 64]", "a, b", "a <b>bold</b> try", "loss"):
        assert part in text
    assert "accuracy{fold=1, split=train}" in text
    assert "reward (mean of 2 environments)" in text
    assert "\x1b" not in text


def test_show_fits_80_columns(data_dir: Path) -> None:
    environment = {"METRANA_DIR": str(data_dir), "COLUMNS": "80"}
    done = run_command("show", RUN, "--project", PROJECT, code=0, environment=environment)
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_show_prints_where_there_is_no_unicode(data_dir: Path, arguments: list[str]) -> None:
    environment = {"METRANA_DIR": str(data_dir), "PYTHONIOENCODING": "ascii"}
    named = ["--project", PROJECT, *arguments]
    done = run_command("show", RUN, *named, code=0, environment=environment)
    assert done.stdout.isascii()
    if arguments:
        assert json.loads(done.stdout)["run_name"] == RUN


def test_show_as_json_has_every_series(metrana: Command) -> None:
    shown = json.loads(metrana("show", RUN, "--project", PROJECT, "--json").stdout)
    assert shown["config"]["net"] == {"act": "tanh", "sizes": [64, 64]}
    by_name = {row["metric_name"]: row for row in shown["series"]}
    assert by_name["nan"]["last_value"] == "NaN"
    assert by_name["nan"]["mean_value"] is None
    assert {"split": "test"} in [row["labels"] for row in shown["series"]]


def test_show_takes_a_run_id(metrana: Command) -> None:
    run_id = json.loads(metrana("runs", "--project", PROJECT, "--json").stdout)[0]["run_id"]
    assert json.loads(metrana("show", run_id, "--json").stdout)["run_name"] == RUN


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_export_writes_every_point(metrana: Command, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"points.{kind}"
    done = metrana("export", RUN, "--project", PROJECT, "--format", kind, "-o", str(path))
    assert done.stdout == ""
    assert "60 points" in done.stderr
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    if kind == "parquet":
        assert pyarrow.parquet.read_table(path).num_rows == 60
        return
    with path.open() as file:
        rows = list(csv.DictReader(file)) if kind == "csv" else [json.loads(li) for li in file]
    assert len(rows) == 60
    labels = [json.loads(r["labels"]) if kind == "csv" else r["labels"] for r in rows]
    assert {"split": "test"} in labels
    assert [str(r["value"]).lower()[:3] for r in rows if r["metric_name"] == "odd"][:2] == [
        "nan",
        "inf",
    ]


def test_export_that_cannot_write_exits_1_and_leaves_nothing(
    metrana: Command, tmp_path: Path
) -> None:
    missing = tmp_path / "missing" / "points.parquet"
    done = metrana("export", RUN, "--project", PROJECT, "-o", str(missing), code=1)
    assert f"no folder {missing.parent}" in done.stderr
    assert str(missing) in done.stderr
    assert ".tmp" not in done.stderr


def test_a_reader_that_leaves_early_is_no_error(data_dir: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m metrana.cli show {RUN} --project {PROJECT} --data-dir {data_dir}"
        " | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.stdout.startswith(f"{PROJECT}/{RUN}")
    assert done.stderr == ""


def test_status_then_sync_then_status(tmp_path: Path) -> None:
    import metrana

    run = metrana.init(run_name="late", data_dir=tmp_path, mode="offline")
    run.log("loss", 1.0)
    run.close()
    before = without_extras(tmp_path, "status", "--json")
    assert before.returncode == 0, before.stderr
    (row,) = json.loads(before.stdout)
    assert (row["run_name"], row["writer"], row["state"]) == ("late", 1, "dead")
    assert row["spooled_bytes"] > 0
    assert "default/late" in without_extras(tmp_path, "status").stdout

    synced = run_command("sync", "--data-dir", str(tmp_path), code=0, environment={})
    assert synced.stdout == ""
    assert "late" in synced.stderr
    after = without_extras(tmp_path, "status")
    assert (after.returncode, after.stdout) == (0, "")
    assert "is delivered" in after.stderr
    assert json.loads(without_extras(tmp_path, "status", "--json").stdout) == []


def test_status_tells_what_is_in_the_spool_from_what_is_in_memory(tmp_path: Path) -> None:
    import metrana

    run = metrana.init(run_name="r", data_dir=tmp_path, mode="offline", spool_max_bytes=1)

    def undelivered() -> tuple[str, int, int]:
        (row,) = json.loads(without_extras(tmp_path, "status", "--json").stdout)
        sizes = (
            f"{row['spooled_bytes']:,} bytes in the spool, {row['ring_bytes']:,} bytes in memory"
        )
        assert sizes in without_extras(tmp_path, "status").stdout
        return row["state"], row["spooled_bytes"], row["ring_bytes"]

    run.log("loss", 1.0)
    run.flush()
    state, spooled, in_memory = undelivered()
    assert (state, in_memory) == ("live", 0)
    assert spooled > 0
    # The spool is full now.
    run.log("loss", [2.0] * 1000)
    state, still_spooled, in_memory = undelivered()
    assert (state, still_spooled) == ("live", spooled)
    assert in_memory >= 8000
    with pytest.warns(metrana.MetranaWarning):
        run.close(0.1)
    assert undelivered()[:2] == ("dead", spooled)
    assert undelivered()[2] >= in_memory
    del run  # its memory is this process's until then
    run_command("sync", "--data-dir", str(tmp_path), code=0, environment={})
    assert "is delivered" in without_extras(tmp_path, "status").stderr


def test_sync_of_a_live_run_names_it_and_status_tells_what_is_left(tmp_path: Path) -> None:
    import metrana

    with metrana.init(run_name="r", data_dir=tmp_path, mode="offline") as run:
        run.log("loss", [1.0] * 1000)
        run.flush()
        synced = run_command("sync", "--data-dir", str(tmp_path), code=0, environment={})
        assert "followed default/r, writer 1, so far" in synced.stderr
        assert "of 1 writer delivered" in synced.stderr
        run.log("loss", 1.0)
        run.flush()
        (row,) = json.loads(without_extras(tmp_path, "status", "--json").stdout)
        assert 0 < row["undelivered_bytes"] < row["spooled_bytes"] // 2
        told = f"of which {row['undelivered_bytes']:,} are undelivered"
        assert told in without_extras(tmp_path, "status").stdout


def test_status_of_a_writer_that_deletes_segments_meanwhile(tmp_path: Path) -> None:
    from metrana.cli.status import _spooled_bytes

    (tmp_path / "1.spool").write_bytes(b"1234")
    # Listed, and gone by the time it is looked at.
    (tmp_path / "2.spool").symlink_to(tmp_path / "deleted")
    assert _spooled_bytes(tmp_path) == 4


def test_status_tells_of_renderings_that_are_not_in_the_spool(tmp_path: Path) -> None:
    writer = offline_run(tmp_path)
    renderings = writer / "renderings"
    renderings.mkdir()
    (renderings / f"{'a' * 32}.mp4").write_bytes(b"1234")
    (renderings / f"{'b' * 32}.part").write_bytes(b"123")
    (renderings / f"{'a' * 32}.json").write_bytes(b"{}")
    (row,) = json.loads(without_extras(tmp_path, "status", "--json").stdout)
    assert row["rendering_bytes"] == 7
    told = ", 7 bytes of renderings that are not in the spool yet"
    assert told in without_extras(tmp_path, "status").stdout


def test_status_says_when_memory_cannot_be_looked_into(tmp_path: Path) -> None:
    writer = offline_run(tmp_path)
    info = json.loads((writer / "writer.json").read_text())
    # Another container's, whose memory is not here.
    info |= {"ended": None, "ring": "/elsewhere/ring", "ring_device": 0}
    (writer / "writer.json").write_text(json.dumps(info))
    (row,) = json.loads(without_extras(tmp_path, "status", "--json").stdout)
    assert row["ring_bytes"] is None
    shown = without_extras(tmp_path, "status").stdout
    assert "bytes in the spool, those in memory are not known" in shown


def test_status_and_sync_say_what_a_spool_lost(tmp_path: Path) -> None:
    import metrana

    with metrana.init(run_name="hurt", data_dir=tmp_path, mode="offline") as run:
        for step in range(3):
            run.log("loss", float(step))
            run.flush()
    damage_batch(tmp_path, 2)
    assert "batch 2 is lost" in without_extras(tmp_path, "status").stdout
    (row,) = json.loads(without_extras(tmp_path, "status", "--json").stdout)
    assert [problem[:15] for problem in row["problems"]] == ["batch 2 is lost"]
    synced = run_command("sync", "--data-dir", str(tmp_path), code=1, environment={})
    assert synced.stderr.count("batch 2 is lost") == 1
    assert "delivered default/hurt, writer 1" in synced.stderr


def offline_run(data_dir: Path) -> Path:
    """Gives the folder of a closed writer that logged something."""
    import metrana

    with metrana.init(run_name="hurt", data_dir=data_dir, mode="offline") as run:
        run.log("loss", 1.0)
    return next((data_dir / "spool").rglob("writer.json")).parent


@pytest.mark.parametrize("name", ["run.json", "writer.json"])
@pytest.mark.parametrize("is_there", [True, False], ids=["empty", "missing"])
def test_folders_that_cannot_be_read_are_failures(
    tmp_path: Path, name: str, is_there: bool
) -> None:
    writer = offline_run(tmp_path)
    path = writer / name if name == "writer.json" else writer.parent / name
    path.unlink()
    if is_there:
        path.touch()
    status = without_extras(tmp_path, "status")
    assert status.returncode == 1
    assert name in status.stdout + status.stderr
    assert "is delivered" not in status.stderr
    synced = run_command("sync", "--data-dir", str(tmp_path), code=1, environment={})
    assert name in synced.stderr
    path.unlink(missing_ok=True)  # whoever clears up after the tests reads those that are there


@pytest.mark.parametrize("is_zeroed", [True, False], ids=["zeroed", "empty"])
def test_sync_says_that_a_spool_cannot_be_read(tmp_path: Path, is_zeroed: bool) -> None:
    writer = offline_run(tmp_path)
    (segment,) = writer.glob("*.spool")
    size = segment.stat().st_size
    segment.write_bytes(bytes(size if is_zeroed else 0))
    synced = run_command("sync", "--data-dir", str(tmp_path), code=1, environment={})
    assert "are lost, the spool is damaged" in synced.stderr
    kept = list(writer.parent.glob("*.unreadable/*.spool"))
    assert [path.stat().st_size for path in kept] == ([size] if is_zeroed else [])
    assert run_command("sync", "--data-dir", str(tmp_path), code=0, environment={}).stdout == ""
    status = without_extras(tmp_path, "status")
    assert status.returncode == (1 if is_zeroed else 0)
    if is_zeroed:
        assert f"{size:,} bytes in {kept[0].parent}" in status.stderr
    assert ("is delivered" in status.stderr) is not is_zeroed


def test_status_and_sync_say_that_a_ring_was_lost(tmp_path: Path) -> None:
    writer = offline_run(tmp_path)
    for segment in writer.glob("*.spool"):
        segment.unlink()
    info = json.loads((writer / "writer.json").read_text())
    # Killed before its first batch, and the machine was restarted since.
    info |= {"ended": None, "boot_id": "0" * 32}
    (writer / "writer.json").write_text(json.dumps(info))
    assert "is lost: the machine was restarted" in without_extras(tmp_path, "status").stdout
    synced = run_command("sync", "--data-dir", str(tmp_path), code=1, environment={})
    assert "is lost: the machine was restarted" in synced.stderr
    assert "is delivered" in without_extras(tmp_path, "status").stderr


@pytest.mark.parametrize("is_sealed", [True, False], ids=["sealed", "unsealed"])
def test_status_tells_of_memory_that_nobody_will_look_for(tmp_path: Path, is_sealed: bool) -> None:
    code = (
        "import os, signal, sys, metrana\n"
        "metrana.init(data_dir=sys.argv[1], mode='offline', batch_max_age_secs=1000)\n"
        f"metrana.log('loss', 1.0); {is_sealed} and metrana.flush()\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "data")], timeout=50, check=False)
    (writer,) = (path.parent for path in (tmp_path / "data").rglob("writer.json"))
    ring = Path(json.loads((writer / "writer.json").read_text())["ring"])
    try:
        assert ring.name not in without_extras(tmp_path / "data", "status").stderr
        moved = tmp_path / "moved"
        (tmp_path / "data").rename(moved)
        # Its run is there, so it is found with what it left.
        assert ring.name not in without_extras(moved, "status").stderr
        elsewhere = without_extras(tmp_path / "other", "status")
        (line,) = (line for line in elsewhere.stderr.splitlines() if str(ring) in line)
        assert f"{ring.stat().st_size:,} bytes of memory" in line
        assert str(writer) in line
        assert ("nothing undelivered is in it" in line) is is_sealed
        assert elsewhere.returncode == 0
        # What a moved folder still needs is not lost by anybody's looking.
        synced = run_command("sync", "--data-dir", str(moved), code=0, environment={})
        assert "delivered" in synced.stderr
        assert not ring.exists()
    finally:
        ring.unlink(missing_ok=True)


@pytest.mark.parametrize("arguments", [["runs"], ["show", RUN], ["server"], ["export", RUN]])
def test_without_extras_commands_say_what_to_install(data_dir: Path, arguments: list[str]) -> None:
    done = without_extras(data_dir, *arguments)
    assert done.returncode == 1
    assert "pip install 'metrana[server]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_commands_ask_the_server_that_runs(tmp_path: Path) -> None:
    environment = {"METRANA_DIR": str(tmp_path)}
    with LocalServer(tmp_path) as server:
        run_command("runs", code=3, environment=environment)
        second = run_command(
            "server", "--port", "0", "--grpc-port", "0", code=1, environment=environment
        )
        assert str(server.process.pid) in second.stderr
        assert server.stop() == 0
