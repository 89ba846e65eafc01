"""Parts are told whole by the lengths of their files, without reading them."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from metrana.server.points import SCHEMA, PointsStore
from metrana.server.points.engine import ChdbEngine
from metrana.server.points.parts import is_surely_whole
from metrana.server.points.schema import PROJECTION

_NEWEST = (
    "SELECT path, bytes_on_disk, part_type FROM system.parts "
    "WHERE table = 'points' AND active ORDER BY max_block_number DESC LIMIT 1"
)
_NEWEST_SCHEMA = pa.schema(
    [("path", pa.string()), ("bytes_on_disk", pa.uint64()), ("part_type", pa.string())]
)
# Of the files that the engine counts, one of the data and the one of the key; then uncounted ones.
_SHORTENED = ["data", "primary.cidx", "checksums.txt", "columns.txt"]


@pytest.fixture(scope="module", params=["Wide", "Compact"])
def part(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, int]:
    """A copy of a part of either kind, and how long the engine says it is."""
    root = tmp_path_factory.mktemp("part")
    is_wide = request.param == "Wide"
    with closing(ChdbEngine(root / "points")) as engine, closing(PointsStore(engine)) as store:
        if is_wide:  # as an insert of many megabytes is by itself
            engine.command("ALTER TABLE points MODIFY SETTING min_bytes_for_wide_part = 1")
        rows = {name: np.arange(1000).astype(dtype) for name, dtype in SCHEMA.items()}
        store.insert(rows)
        (found,) = engine.read(_NEWEST, _NEWEST_SCHEMA).to_pylist()
        assert found["part_type"] == request.param
        copy = shutil.copytree(found["path"], root / "copy")
    return copy, found["bytes_on_disk"]


@pytest.fixture
def own_part(part: tuple[Path, int], tmp_path: Path) -> tuple[Path, int]:
    """The same for one test to spoil."""
    return shutil.copytree(part[0], tmp_path / "part"), part[1]


def file_of(part: Path, name: str) -> Path:
    """Gives the file of a name, or the longest of the data."""
    if name != "data":
        return part / name
    return max(part.glob("*.bin"), key=lambda file: file.stat().st_size)


def test_a_part_that_was_written_whole_is_told_by_its_lengths(part: tuple[Path, int]) -> None:
    assert is_surely_whole(*part)


@pytest.mark.parametrize("name", _SHORTENED)
def test_a_file_that_was_left_empty_is_found(own_part: tuple[Path, int], name: str) -> None:
    file = file_of(own_part[0], name)
    assert file.stat().st_size > 0
    file.write_bytes(b"")
    assert not is_surely_whole(*own_part)


def test_a_file_that_was_cut_by_one_byte_is_found(own_part: tuple[Path, int]) -> None:
    file = file_of(own_part[0], "data")
    file.write_bytes(file.read_bytes()[:-1])
    assert not is_surely_whole(*own_part)


@pytest.mark.parametrize("inside", ["", f"{PROJECTION}.proj"])
def test_a_file_that_is_missing_is_found(own_part: tuple[Path, int], inside: str) -> None:
    file_of(own_part[0] / inside, "data").unlink()
    assert not is_surely_whole(*own_part)


def test_a_part_that_is_gone_is_not_taken_for_whole(tmp_path: Path) -> None:
    assert not is_surely_whole(tmp_path / "merged-away", 1)
