"""Aim into a repository in a folder."""

from __future__ import annotations

from pathlib import Path

from benchmarks.loggers import LoggerBase


class AimLocal(LoggerBase):
    """A run in a local repository."""

    imports = "from aim import Run"
    opening = 'run = Run(repo=folder, experiment="benchmark")'
    closing = "run.close()"
    scalar = 'run.track(x, name="loss", step=i)'
    mapping = "run.track(values, step=i)"

    def values(self, folder: Path) -> list[float]:
        """Returns the values of "loss" that the repository gives."""
        from aim import Repo, Run
        from aim.sdk.index_manager import RepoIndexManager
        from aim.storage.context import Context

        repo = Repo.from_path(str(folder))
        index = RepoIndexManager.get_index_manager(repo)
        values: list[float] = []
        for run_hash in repo.list_all_runs():
            # As `aim up` does: reads find only what is indexed.
            index.index(run_hash)
            metric = Run(run_hash, repo=repo, read_only=True).get_metric("loss", Context({}))
            if metric is not None:
                values += metric.values.sparse_numpy()[1].tolist()
        return values


def create() -> AimLocal:
    """Returns the logger."""
    return AimLocal()
