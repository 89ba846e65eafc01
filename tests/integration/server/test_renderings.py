"""Renderings on their way from a real engine's spool into the stores."""

from __future__ import annotations

import logging
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

import metrana
from metrana import _native
from metrana.query import Client
from metrana.server.catalog import OpenedRun, OpenRun, WriterOpening
from metrana.server.embedded import Stores, deliver_spools, open_stores, purge_deleted_runs
from metrana.server.ingest import Ingestor
from metrana.server.sessions import SealedBatch
from tests.integration.server.writing import (
    OTHER_ID,
    Heard,
    batch_of,
    open_writer,
    stored_steps,
    submit_all,
)
from tests.local_server import LocalServer, wait_until
from tests.processes import Machine
from tests.reading import run_folders
from tests.spool_damage import damage_batch
from tests.videos import HEIGHT, WIDTH, encode, frame_count, render

# Every video is several pieces.
PIECE_BYTES = 16 << 10
FIRST, SECOND = "a" * 32, "b" * 32


@pytest.fixture(scope="module")
def video() -> bytes:
    return encode(40)


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory, video: bytes) -> list[object]:
    """What an engine sealed of points, a video, points, and its end."""
    data_dir = tmp_path_factory.mktemp("sealed")
    log_offline(data_dir, video)
    (folder,) = (data_dir / "spool").iterdir()
    return list(_native.SpoolFollower(folder / "000001").read(1 << 30))


def log_offline(data_dir: Path, video: bytes, name: str = "r") -> None:
    """Logs points, a video of several batches, and points."""
    with metrana.init(
        mode="offline", data_dir=data_dir, run_name=name, max_msg_size=PIECE_BYTES
    ) as run:
        run.log("loss", [0.0] * 10)
        run.flush()
        render(run, video, FIRST, episode=3, rl_step=70, env_id="walker:0")
        run.flush()
        run.log("loss", [0.0] * 10)


def batches_of(messages: list[object], *kinds: str) -> list[SealedBatch]:
    return [batch_of(message) for message in messages if message.kind in kinds]  # type: ignore[attr-defined]


def stored_video(stores: Stores, rendering_id: str = FIRST) -> bytes:
    record = stores.catalog.rendering(rendering_id)
    with stores.media.open(record.run_id, rendering_id) as file:
        return file.read()


def files_in(data_dir: Path) -> list[Path]:
    return [path for path in (data_dir / "server" / "media").rglob("*") if path.is_file()]


def test_a_video_in_a_spool_is_delivered_byte_for_byte(
    tmp_path: Path, stores: Stores, video: bytes
) -> None:
    log_offline(tmp_path, video)
    report = deliver_spools(tmp_path, stores)
    assert (report.problems, report.delivered) == ([], [("default/r", 1)])
    assert stored_video(stores) == video
    (record,) = stores.catalog.renderings(stores.catalog.run("r").run_no)
    assert (record.env_id, record.episode, record.rl_step) == ("walker:0", 3, 70)
    assert (record.part, record.frame_count, record.fps) == (1, 40, 30.0)
    assert (record.width, record.height, record.size_bytes) == (WIDTH, HEIGHT, len(video))
    assert files_in(tmp_path) == [stores.media.path(record.run_id, FIRST)]
    assert frame_count(stored_video(stores)) == 40


def test_a_spool_that_is_delivered_twice_changes_nothing(
    tmp_path: Path, stores: Stores, video: bytes
) -> None:
    log_offline(tmp_path, video)
    shutil.copytree(tmp_path / "spool", tmp_path / "copy" / "spool")
    deliver_spools(tmp_path, stores)
    first = stores.catalog.rendering(FIRST)
    report = deliver_spools(tmp_path / "copy", stores)
    assert (report.problems, report.delivered) == ([], [("default/r", 1)])
    assert stores.catalog.rendering(FIRST) == first
    assert stored_video(stores) == video
    assert len(files_in(tmp_path)) == 1


def test_pieces_are_stored_though_later_points_are(
    stores: Stores, ingestor: Ingestor, messages: list[object], video: bytes
) -> None:
    pieces = batches_of(messages, "renderings")
    assert len(pieces) > 2
    writer, heard = open_writer(stores), Heard()
    lost = [(pieces[0].seq, pieces[-1].seq)]
    session = ingestor.open_session(writer, heard, 1, lost)
    others = [message for message in messages if message.kind != "renderings"]  # type: ignore[attr-defined]
    last = submit_all(ingestor, session, others)
    wait_until(lambda: heard.acked == last, what="the acknowledgement of points")

    heard = Heard()
    session = ingestor.open_session(writer, heard, 1)
    submit_all(ingestor, session, messages)
    wait_until(lambda: heard.acked == last, what="the acknowledgement of all")
    assert stored_video(stores) == video
    assert len(stored_steps(stores, writer)) == 20


def test_what_was_acknowledged_is_not_needed_again(
    stores: Stores, ingestor: Ingestor, messages: list[object], video: bytes
) -> None:
    pieces = batches_of(messages, "renderings")
    writer = open_writer(stores)
    for begin, end in ((0, 2), (2, len(pieces))):
        heard = Heard()
        first = pieces[begin].seq
        session = ingestor.open_session(writer, heard, first)
        for piece in pieces[begin:end]:
            assert session.admit(piece)
            ingestor.submit(session, piece)
        wait_until(lambda heard=heard, end=end: heard.acked == pieces[end - 1].seq)
        ingestor.close_session(session)
    assert stored_video(stores) == video


def test_a_last_piece_whose_acknowledgement_was_lost_is_acknowledged_again(
    stores: Stores, ingestor: Ingestor, messages: list[object], video: bytes
) -> None:
    pieces = batches_of(messages, "renderings")
    writer = open_writer(stores)
    for first in (0, len(pieces) - 1, 0):
        heard = Heard()
        session = ingestor.open_session(writer, heard, pieces[first].seq)
        for piece in pieces[first:]:
            ingestor.submit(session, piece)
        wait_until(lambda heard=heard: heard.acked == pieces[-1].seq)
        assert heard.problems == []
    assert stored_video(stores) == video
    assert len(stores.catalog.renderings(writer.run_no)) == 1


def test_a_server_that_died_before_it_registered_a_video_registers_it(
    stores: Stores, ingestor: Ingestor, messages: list[object], video: bytes
) -> None:
    pieces = batches_of(messages, "renderings")
    writer = open_writer(stores)
    path = stores.media.path(writer.run_id, FIRST)
    path.parent.mkdir(parents=True)
    path.write_bytes(video)
    heard = Heard()
    # Only the last one has not been acknowledged.
    session = ingestor.open_session(writer, heard, pieces[-1].seq)
    ingestor.submit(session, pieces[-1])
    wait_until(lambda: heard.acked == pieces[-1].seq, what="the acknowledgement")
    assert heard.problems == []
    assert stored_video(stores) == video


def test_a_video_without_its_beginning_is_said_and_not_registered(
    tmp_path: Path, stores: Stores, ingestor: Ingestor, messages: list[object]
) -> None:
    pieces = batches_of(messages, "renderings")
    writer, heard = open_writer(stores), Heard()
    session = ingestor.open_session(writer, heard, pieces[1].seq)
    for piece in pieces[1:]:
        ingestor.submit(session, piece)
    wait_until(lambda: heard.acked == pieces[-1].seq, what="the acknowledgement")
    (problem,) = heard.problems
    assert "episode 3 of environment 'walker:0'" in problem
    assert FIRST in problem
    assert stores.catalog.renderings(writer.run_no) == []
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("which", ["middle", "last"])
def test_a_damaged_piece_is_said_and_its_video_not_registered(
    tmp_path: Path,
    stores: Stores,
    messages: list[object],
    video: bytes,
    which: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    log_offline(tmp_path, video)
    pieces = batches_of(messages, "renderings")
    damage_batch(tmp_path, pieces[1 if which == "middle" else -1].seq)
    report = deliver_spools(tmp_path, stores)
    assert report.delivered == [("default/r", 1)]
    run = stores.catalog.run("r")
    assert stores.catalog.renderings(run.run_no) == []
    assert stores.points.point_counts([run.run_no]) == {run.run_no: 20}
    # What is left of it went with its writer.
    assert files_in(tmp_path) == []
    of_video = [problem for problem in report.problems if "rendering" in problem]
    assert len(report.problems) - len(of_video) == 1
    assert len(of_video) == (1 if which == "middle" else 0)
    assert all(problem.startswith("writer 1 of run default/r: ") for problem in of_video)
    assert [record.getMessage() for record in caplog.records] == report.problems


def test_points_are_stored_while_videos_cannot_be(
    tmp_path: Path, stores: Stores, ingestor: Ingestor, messages: list[object], video: bytes
) -> None:
    blocker = tmp_path / "server" / "media"
    blocker.write_text("no folder")
    writer, heard = open_writer(stores), Heard()
    last = submit_all(ingestor, ingestor.open_session(writer, heard, 1), messages)
    wait_until(lambda: len(stored_steps(stores, writer)) == 20, what="the points")
    wait_until(lambda: ingestor.renderings.fault, what="the fault")
    assert "cannot store renderings" in (ingestor.renderings.fault or "")
    assert ingestor.fault is None
    pieces = batches_of(messages, "renderings")
    wait_until(lambda: heard.acked == pieces[0].seq - 1, what="what is before the video")
    blocker.unlink()
    wait_until(lambda: heard.acked == last, what="the acknowledgement")
    assert stored_video(stores) == video
    assert ingestor.renderings.fault is None


def test_a_close_does_not_wait_for_a_media_store_that_fails(
    tmp_path: Path, stores: Stores, messages: list[object]
) -> None:
    (tmp_path / "server" / "media").write_text("no folder")
    ingestor = Ingestor(stores.catalog, stores.points, stores.media)
    heard = Heard()
    session = ingestor.open_session(open_writer(stores), heard, 1)
    submit_all(ingestor, session, messages)
    wait_until(lambda: ingestor.renderings.fault, what="the fault")
    ingestor.close()
    assert heard.refusal is not None
    assert heard.refusal.retryable


def test_an_end_follows_the_videos_before_it(
    tmp_path: Path, stores: Stores, ingestor: Ingestor, messages: list[object], video: bytes
) -> None:
    heard = Heard()
    session = ingestor.open_session(open_writer(stores), heard, 1, new=True)
    last = submit_all(ingestor, session, messages)
    ingestor.end(session, died=False)
    wait_until(lambda: heard.is_ended, what="the end")
    assert heard.acked == last
    assert stored_video(stores) == video
    assert [path.suffix for path in (tmp_path / "server/media").rglob("*/*")] == [".mp4"]


def test_bytes_that_are_no_piece_are_refused_behind_those_that_are(
    stores: Stores, ingestor: Ingestor, messages: list[object]
) -> None:
    pieces = batches_of(messages, "renderings")
    # Its place is drawn in docs/decisions/001: far beyond what any file has.
    far = pieces[1].payload[:20] + (1 << 50).to_bytes(8, "little") + pieces[1].payload[28:]
    cut = pieces[1].payload[:21]
    for number, payload in enumerate((far, cut)):
        heard = Heard()
        writer = open_writer(stores, f"{number}" * 32)
        session = ingestor.open_session(writer, heard, pieces[0].seq)
        ingestor.submit(session, pieces[0])
        bad = SealedBatch(pieces[1].seq, "renderings", payload, _native.crc32c(payload))
        ingestor.submit(session, bad)
        wait_until(lambda heard=heard: heard.refusal is not None, what="the refusal")
        assert heard.refusal is not None
        assert heard.refusal.code == "MALFORMED"
        assert not heard.refusal.retryable
        assert heard.acked == pieces[0].seq


def test_a_video_of_an_alias_belongs_to_the_run_that_holds_the_name(
    tmp_path: Path, stores: Stores, ingestor: Ingestor, messages: list[object], video: bytes
) -> None:
    pieces = batches_of(messages, "renderings")
    names = []
    for letter in "12":
        request = OpenRun(
            run_id=letter * 32,
            writer=WriterOpening(writer_id=letter * 32, number=1, opened_at_ms=1),
            created_at_ms=1,
            run_name="shared",
            orchestration_id="one job",
        )
        answer = stores.catalog.open_run(request)
        assert isinstance(answer, OpenedRun)
        names.append(answer.run_id)
    assert names == ["1" * 32] * 2
    alias, heard = stores.catalog.writer("2" * 32), Heard()
    assert alias is not None
    session = ingestor.open_session(alias, heard, pieces[0].seq)
    for piece in pieces:
        ingestor.submit(session, piece)
    wait_until(lambda: heard.acked == pieces[-1].seq, what="the acknowledgement")
    assert stored_video(stores) == video
    (record,) = stores.catalog.renderings(stores.catalog.run("shared").run_no)
    assert files_in(tmp_path) == [tmp_path / "server/media" / ("1" * 32) / f"{FIRST}.mp4"]
    assert record.run_id == "1" * 32


def test_a_deleted_run_takes_no_videos_and_loses_those_it_has(
    tmp_path: Path, stores: Stores, ingestor: Ingestor, messages: list[object]
) -> None:
    heard, other = Heard(), Heard()
    writer = open_writer(stores)
    last = submit_all(ingestor, ingestor.open_session(writer, heard, 1), messages)
    wait_until(lambda: heard.acked == last, what="the acknowledgement")
    kept = open_writer(stores, OTHER_ID)
    piece = batches_of(messages, "renderings")[0]
    session = ingestor.open_session(kept, other, piece.seq)
    ingestor.submit(session, piece)
    wait_until(lambda: other.acked == piece.seq, what="the other's acknowledgement")

    again = Heard()
    session = ingestor.open_session(writer, again, last + 1)
    stores.catalog.delete_run(writer.run_no)
    purge_deleted_runs(stores)
    late = SealedBatch(last + 1, "renderings", piece.payload, piece.crc)
    ingestor.submit(session, late)
    wait_until(lambda: again.refusal is not None, what="the refusal")
    assert again.refusal is not None
    assert again.refusal.code == "RUN_DELETED"
    # The part of the other run's.
    assert [path.suffix for path in files_in(tmp_path)] == [".part"]
    assert stores.points.point_counts([writer.run_no])[writer.run_no] == 0
    assert not stores.catalog.has_rendering(FIRST)


FOLLOWED = """
import os, signal, sys
from pathlib import Path
import metrana
from tests.videos import render

run = metrana.init(mode="offline", run_name="r", max_msg_size=16384)
run.log("loss", 0.0)
run.flush()
render(run, Path(sys.argv[1]).read_bytes())
run.flush()
print("rendered", flush=True)
sys.stdin.readline()
run.log("loss", 1.0)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_video_that_a_live_run_has_deleted_from_its_spool_is_not_missed(
    tmp_path: Path, video: bytes
) -> None:
    machine = Machine(tmp_path)
    (tmp_path / "video").write_bytes(video)
    with subprocess.Popen(
        [sys.executable, "-c", FOLLOWED, str(tmp_path / "video")],
        env=machine.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdin is not None
        assert writer.stdout.readline() == "rendered\n"
        with machine.client() as client:
            assert len(client.renderings("r")) == 1
        writer.stdin.write("go on\n")
        writer.stdin.flush()
        assert writer.wait(timeout=30) == -signal.SIGKILL
    (folder,) = run_folders(machine.data_dir)
    with folder.recover(1):
        pass  # the rest of the ring goes into a segment of its own
    (left,) = folder.writers()
    first, _ = sorted(Path(left.path).glob("*.spool"))
    first.unlink()
    with open_stores(machine.data_dir) as stores:
        report = deliver_spools(machine.data_dir, stores)
    assert (report.problems, report.delivered) == ([], [("default/r", 1)])
    with machine.client() as client:
        assert client.points("r")["value"].tolist() == [0.0, 1.0]


def test_a_server_follows_the_videos_of_a_live_run(tmp_path: Path, video: bytes) -> None:
    run = metrana.init(mode="offline", data_dir=tmp_path, run_name="live", max_msg_size=16384)
    with run, LocalServer(tmp_path), Client(data_dir=tmp_path) as client:
        render(run, video, FIRST)
        run.flush()
        wait_until(lambda: len(client.runs()) and len(client.renderings("live")))
        assert client.run("live").status == "running"
        path = client.download_rendering(FIRST, tmp_path)
    assert path.read_bytes() == video


def test_a_sender_waits_for_its_videos_and_a_restarted_server_has_them(
    tmp_path: Path, video: bytes
) -> None:
    server = LocalServer(tmp_path)
    try:
        run = metrana.init(data_dir=tmp_path, run_name="sent", max_msg_size=PIECE_BYTES)
        render(run, video, FIRST)
        run.log("loss", 1.0)
        run.flush(timeout_secs=30)
        with Client(data_dir=tmp_path) as client:
            assert client.renderings("sent")["rendering_id"].tolist() == [FIRST]
        server.kill()
        server = LocalServer(tmp_path)
        render(run, video, SECOND, episode=1)
        run.close(close_timeout=30)
        with Client(data_dir=tmp_path) as client:
            assert client.renderings("sent")["rendering_id"].tolist() == [FIRST, SECOND]
            for rendering_id in (FIRST, SECOND):
                path = client.download_rendering(rendering_id, tmp_path / "video")
                assert path.read_bytes() == video
    finally:
        server.kill()


def test_a_server_says_in_its_log_what_did_not_come_whole(
    tmp_path: Path, messages: list[object], video: bytes
) -> None:
    sender = Machine(tmp_path / "sender")
    log_offline(sender.data_dir, video)
    damage_batch(sender.data_dir, batches_of(messages, "renderings")[1].seq)
    with LocalServer(tmp_path / "data", "--no-token", stderr=subprocess.PIPE) as server:
        done = sender.command("sync", "--url", server.grpc_url, code=1)
        with Client(data_dir=server.data_dir) as client:
            assert client.points("r").shape[0] == 20
            assert client.renderings("r").empty
        server.stop()
        assert server.process.stderr is not None
        with server.process.stderr as log:
            told = [line for line in log if "rendering" in line]
    assert "damaged" in done.stderr
    (line,) = told
    assert "WARNING writer 1: the rendering of episode 3 of environment 'walker:0'" in line
    assert files_in(server.data_dir) == []


def test_healthz_tells_of_a_media_store_that_fails(tmp_path: Path, video: bytes) -> None:
    (tmp_path / "server").mkdir(parents=True)
    (tmp_path / "server" / "media").write_text("no folder")
    log_offline(tmp_path, video)

    def health() -> dict[str, object]:
        answer: dict[str, object] = httpx.get(f"{server.http_url}/healthz").json()
        return answer

    with LocalServer(tmp_path, stderr=subprocess.DEVNULL) as server:
        wait_until(lambda: health()["status"] == "degraded", what="the fault")
        assert "cannot store renderings" in str(health()["problems"])
        (tmp_path / "server" / "media").unlink()
        wait_until(lambda: health() == {"status": "ok"}, what="the end of the fault")
