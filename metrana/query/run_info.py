"""One run, as `Client.run` gives it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from metrana.query.frames import FrameKind


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """A run: what it is, how it went, and what was written about it.

    Attributes:
        run_id: 32 hex digits.
        workspace_name: Where it is.
        project_name: Where it is.
        run_name: Its name.
        experiment_name: What it belongs to; None if nothing.
        status: `running`, `finished`, `failed`, or `lost` (its process was not heard of any more).
        created_at: UTC.
        updated_at: UTC, the last change of what the catalog knows.
        finished_at: UTC; None while it runs.
        tags: Its tags, sorted.
        description: Free text; None if none was given.
        git_sha: Of the checkout it was started in; None if there was none.
        point_count: Points stored.
        config: As it was logged, nested.
        attributes: Every attribute, value by path; the config's begin with `config/`.
    """

    run_id: str
    workspace_name: str
    project_name: str
    run_name: str
    experiment_name: str | None
    status: str
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    tags: list[str]
    description: str | None
    git_sha: str | None
    point_count: int
    config: dict[str, Any]
    attributes: dict[str, Any]
    _summary: Callable[[FrameKind], Any] = field(repr=False, compare=False)

    def summary(self, *, as_: FrameKind = "pandas") -> Any:
        """Gives one row a series with its statistics, as `Client.series` does. Blocks."""
        return self._summary(as_)
