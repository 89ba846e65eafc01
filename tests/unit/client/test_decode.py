"""What servers call: decoders, number maps, the follower, recovery."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import metrana
from metrana import _native
from tests.reading import run_folders

SCHEMA = {
    "run_no": np.uint32,
    "metric_no": np.uint32,
    "env_no": np.uint32,
    "rl_step": np.int64,
    "episode": np.int64,
    "step": np.int64,
    "timestamp_ms": np.int64,
    "value": np.float64,
    "logger_no": np.uint32,
    "writer_no": np.uint32,
    "seq": np.uint64,
    "ordinal": np.uint16,
    "rewound": np.uint8,
}


def _numbers(*numbers: int) -> npt.NDArray[np.uint32]:
    return np.array(numbers, dtype=np.uint32)


@pytest.fixture
def messages(data_dir: Path) -> list[_native.SpoolMessage]:
    """The frames of a run with points of two metrics in an environment and without one."""
    with metrana.init(mode="offline") as run:
        run.log("loss", [1, 2], step=[4, 4])
        run.log_distributed("shared", 3, step=9)
        run.log_rl_episode("return", 4, rl_step=7, env_id="e")
    (writer,) = run_folders(data_dir)[0].writers()
    return _native.SpoolFollower(writer.path).read(1 << 30)


def _payload(messages: list[_native.SpoolMessage], kind: str) -> bytes:
    return next(message.payload for message in messages if message.kind == kind)


def test_points_become_columns_of_the_schema(messages: list[_native.SpoolMessage]) -> None:
    payload = _payload(messages, "points")
    one = _native.NumberMap(5, 6, 11, 3, _numbers(0, 70, 80, 90), _numbers(0, 40))
    two = _native.NumberMap(5, 6, 12, 3, _numbers(0, 71, 81, 91), _numbers(0, 41))
    columns = _native.decode_points([(payload, one), (payload, two)])
    assert {name: column.dtype for name, column in columns.items()} == SCHEMA
    assert list(columns) == list(SCHEMA)
    rows = {name: column.tolist() for name, column in columns.items()}
    # In the table's order: by series, then the batches one after the other.
    assert rows["metric_no"] == [70, 70, 71, 71, 80, 81, 90, 91]
    assert rows["env_no"] == [0] * 6 + [40, 41]
    assert rows["run_no"] == [5] * 8
    assert rows["writer_no"] == [6] * 8
    assert rows["seq"] == [11, 11, 12, 12, 11, 12, 11, 12]
    assert rows["logger_no"] == [0] * 4 + [3, 3] + [0, 0]
    assert rows["rl_step"] == [-1] * 6 + [7, 7]
    assert rows["episode"] == [-1] * 6 + [0, 0]
    assert rows["step"] == [4] * 4 + [9, 9] + [-1, -1]
    assert rows["ordinal"] == [0, 1, 0, 1] + [0] * 4
    assert rows["rewound"] == [0, 1, 0, 1] + [0] * 4
    assert rows["value"] == [1, 2, 1, 2, 3, 3, 4, 4]


def test_no_batches_are_empty_columns() -> None:
    columns = _native.decode_points([])
    assert {name: (column.dtype, len(column)) for name, column in columns.items()} == {
        name: (np.dtype(kind), 0) for name, kind in SCHEMA.items()
    }


@pytest.mark.parametrize(
    ("metrics", "envs", "what"),
    [
        (_numbers(0, 1, 2), _numbers(0, 1), "metric 3"),
        (_numbers(0, 0, 2, 3), _numbers(0, 1), "metric 1"),
        (_numbers(0, 1, 2, 3), _numbers(0), "environment 1"),
    ],
)
def test_an_undeclared_number_is_refused(
    messages: list[_native.SpoolMessage],
    metrics: npt.NDArray[np.uint32],
    envs: npt.NDArray[np.uint32],
    what: str,
) -> None:
    numbers = _native.NumberMap(1, 1, 8, 1, metrics, envs)
    with pytest.raises(ValueError, match=f"batch 8 uses {what}"):
        _native.decode_points([(_payload(messages, "points"), numbers)])


def test_what_a_payload_says_of_itself(messages: list[_native.SpoolMessage]) -> None:
    info = _native.batch_info(_payload(messages, "points"))
    assert (info.kind, info.float_point_count, info.rl_point_count) == ("points", 3, 1)
    info = _native.batch_info(_payload(messages, "attributes"))
    assert (info.kind, info.float_point_count, info.env_attribute_count) == ("attributes", 0, 0)


def test_declarations_are_named_in_order(messages: list[_native.SpoolMessage]) -> None:
    assert _native.decode_declarations(_payload(messages, "declarations")) == [
        ("metric", 1, "ML_STEP", "loss", {}),
        ("metric", 2, "ML_STEP", "shared", {}),
        ("metric", 3, "EPISODE", "return", {}),
        ("environment", 1, "e"),
    ]


@pytest.mark.parametrize("cut", range(0, 40, 3))
def test_broken_bytes_are_errors(messages: list[_native.SpoolMessage], cut: int) -> None:
    numbers = _native.NumberMap(1, 1, 1, 1, _numbers(0, 1, 2, 3), _numbers(0, 1))
    with pytest.raises(ValueError, match="batch 1: "):
        _native.decode_points([(_payload(messages, "points")[:cut], numbers)])
    with pytest.raises(ValueError, match=r"."):
        _native.decode_attributes(_payload(messages, "points")[:cut])
    with pytest.raises(ValueError, match=r"."):
        _native.decode_declarations(_payload(messages, "points")[:cut])


def test_crc32c_has_its_published_check_value() -> None:
    assert _native.crc32c(b"123456789") == 0xE3069283
    assert _native.crc32c(b"") == 0


def test_a_follower_goes_on_where_it_was_acknowledged(data_dir: Path) -> None:
    with metrana.init(mode="offline") as run:
        run.log("x", 1)
        run.flush()
        (writer,) = run_folders(data_dir)[0].writers()
        assert (writer.state, writer.sender, writer.undelivered) == ("live", "none", True)
        follower = _native.SpoolFollower(writer.path)
        batches = [message for message in follower.read(1 << 30) if message.seq]
        assert follower.read(1 << 30) == []
        follower.acknowledge(batches[-1].seq)
        run.log("x", 2)
        run.flush()
        (message,) = [message for message in follower.read(1 << 30) if message.kind == "points"]
        assert message.urgent
    again = _native.SpoolFollower(writer.path)
    assert again.acknowledged == batches[-1].seq
    assert [m.seq for m in again.read(1 << 30) if m.seq] == [message.seq, message.seq + 1]


def test_a_small_read_gives_one_frame_at_a_time(data_dir: Path) -> None:
    with metrana.init(mode="offline") as run:
        for value in range(3):
            run.log("x", value)
            run.flush()
    (writer,) = run_folders(data_dir)[0].writers()
    follower = _native.SpoolFollower(writer.path)
    kinds = []
    while messages := follower.read(1):
        assert len(messages) == 1
        kinds.append(messages[0].kind)
    assert kinds[0] == "declarations"
    assert kinds.count("points") == 3


def test_a_dead_writer_is_taken_over_and_removed(data_dir: Path) -> None:
    metrana.init(mode="offline").close()
    (folder,) = run_folders(data_dir)
    (writer,) = folder.writers()
    assert writer.state == "dead"
    with folder.recover(1) as recovery:
        assert recovery.report is not None
        assert recovery.report["is_complete"]
        (held,) = folder.writers()
        assert held.state == "live"
    folder.remove_delivered(1)
    folder.remove_delivered(1)
    assert folder.writers() == []


def test_a_live_writer_cannot_be_taken_over(data_dir: Path) -> None:
    with metrana.init(mode="offline"):
        (folder,) = run_folders(data_dir)
        with pytest.raises(BlockingIOError, match="lives"):
            folder.recover(1).__enter__()
        folder.remove_delivered(1)
        assert len(folder.writers()) == 1


def test_what_is_no_run_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        _native.RunFolder(tmp_path)
    assert _native.find_local_server(tmp_path) is None
    assert _native.is_network_file_system(tmp_path / "not" / "there") is False
