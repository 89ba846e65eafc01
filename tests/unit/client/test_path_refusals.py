"""Refusals of paths: they say which one is meant, however long it is."""

from __future__ import annotations

from pathlib import Path

import pytest

import metrana
from metrana import checks
from metrana.cli.main import main
from metrana.settings import checked_data_dir


def _long_path(folder: Path) -> Path:
    return folder.joinpath(*["a-folder-of-some-length"] * 6, "end")


def test_a_data_dir_that_is_a_file_is_shown_whole(tmp_path: Path) -> None:
    path = _long_path(tmp_path)
    path.parent.mkdir(parents=True)
    path.touch()
    with pytest.raises(metrana.MetranaValidationError) as refused:
        checked_data_dir(path)
    assert repr(str(path)) in str(refused.value)


def test_a_path_that_no_file_system_takes_is_shown_whole() -> None:
    path = f"/{'x' * 300}/end"
    with pytest.raises(metrana.MetranaValidationError) as refused:
        checks.directory("data_dir", path)
    assert repr(path) in str(refused.value)


def test_sync_shows_a_missing_path_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _long_path(tmp_path)
    assert main(["sync", str(path)]) != 0
    assert str(path) in "".join(capsys.readouterr().err.split("\n"))
