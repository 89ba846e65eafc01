"""`commit_sha`, against git itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import metrana
from metrana.git import commit_sha
from tests.reading import read_one


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    # So that no repository above is found, nor the test runner's own.
    monkeypatch.setattr("__main__.__file__", str(folder / "train.py"), raising=False)
    monkeypatch.chdir(folder)
    return folder


def _git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _commit(folder: Path) -> str:
    _git(folder, "init", "--quiet")
    _git(folder, "commit", "--quiet", "--allow-empty", "-m", "first")
    return _git(folder, "rev-parse", "HEAD")


@pytest.mark.usefixtures("repository")
def test_outside_a_repository_there_is_none() -> None:
    assert commit_sha() is None


def test_before_the_first_commit_there_is_none(repository: Path) -> None:
    _git(repository, "init", "--quiet")
    assert commit_sha() is None


def test_a_branch_loose_and_packed(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sha = _commit(repository)
    assert commit_sha() == sha
    _git(repository, "pack-refs", "--all")
    (repository / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(repository / "deep" / "er")
    assert commit_sha() == sha


def test_a_detached_head(repository: Path) -> None:
    sha = _commit(repository)
    _git(repository, "checkout", "--quiet", "--detach")
    assert commit_sha() == sha


def test_a_worktree(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _commit(repository)
    worktree = tmp_path / "worktree"
    _git(repository, "worktree", "add", "--quiet", "-b", "other", str(worktree))
    _git(worktree, "commit", "--quiet", "--allow-empty", "-m", "second")
    monkeypatch.chdir(worktree)
    assert commit_sha() == _git(worktree, "rev-parse", "HEAD")


def test_the_scripts_folder_stands_in(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = _commit(repository)
    monkeypatch.chdir(tmp_path)
    assert commit_sha() == sha


def test_a_run_carries_its_commit(repository: Path, data_dir: Path) -> None:
    sha = _commit(repository)
    metrana.init(mode="offline").close()
    assert read_one(data_dir).operations[0] == ("set", "metrana/git_sha", "string", sha, True)
