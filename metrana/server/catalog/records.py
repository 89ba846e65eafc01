"""What goes into the catalog and comes out of it. Times are Unix milliseconds, UTC."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

RunStatus: TypeAlias = Literal["running", "finished", "failed", "lost"]
EndStatus: TypeAlias = Literal["finished", "failed", "lost"]
Scale: TypeAlias = Literal["ML_STEP", "EPISODE", "ENVIRONMENT_STEP"]


class RefusalCode(enum.IntEnum):
    """Why a run was not opened, with the numbers of `RefusalCode` in ingestion.proto."""

    RUN_EXISTS = 3
    ORCHESTRATION_MISMATCH = 4
    RUN_NOT_FOUND = 5
    RUN_DELETED = 6
    PROJECT_NOT_FOUND = 7
    INVALID = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterOpening:
    """One process that logs to a run, as it introduces itself.

    Args:
        writer_id: 32 hex digits.
        number: Its place in the run's folder, from 1.
        opened_at_ms: When it began, by its own clock.
        logger_id: Who its distributed points are from; empty: the writer itself.
        host: Name of its machine.
        pid: Process id there.
        client_version: Version of metrana it runs.
        alive: Whether its process is there. None: unknown, so it is taken to be; an opener that
            holds the writer's lock says False, one that follows a live spool True.
    """

    writer_id: str
    number: int
    opened_at_ms: int
    logger_id: str = ""
    host: str = ""
    pid: int = 0
    client_version: str = ""
    alive: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRun:
    """A request to create, join or resume a run (docs/decisions/003-run-identity.md).

    Args:
        run_id: 32 hex digits, minted by the process that created the run.
        writer: Who asks, or for whom is delivered.
        created_at_ms: When the run was created, by its creator's clock.
        workspace_name: 1 to 256 bytes of printable Unicode, as the next two.
        project_name: See above.
        run_name: See above; may be empty with `by_run_id`.
        experiment_name: Empty: none.
        orchestration_id: Equal ones share a run; empty shares with nobody.
        resume_strategy: `allow` joins a run of the name whoever made it.
        name_conflict: What to do about a run of the name that may not be joined: `refuse` (a
            process that starts) or `rename` (delivery of data that exists).
        create_project_if_missing: False refuses with PROJECT_NOT_FOUND, but never for a delivery.
        by_run_id: The run is named by `run_id` alone and must exist.
        earlier_writers: Writers of the folder that are not delivered, by rising number; they are
            opened first.
    """

    run_id: str
    writer: WriterOpening
    created_at_ms: int
    workspace_name: str = "default"
    project_name: str = "default"
    run_name: str = ""
    experiment_name: str = ""
    orchestration_id: str = ""
    resume_strategy: Literal["never", "allow"] = "never"
    name_conflict: Literal["refuse", "rename"] = "refuse"
    create_project_if_missing: bool = True
    by_run_id: bool = False
    earlier_writers: Sequence[WriterOpening] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedRun:
    """The run that a writer logs to.

    Attributes:
        run_id: The run's own, not the one asked for if that is an alias.
        run_name: The name it is stored under.
        requested_name: The name asked for, if another run holds it; `warning` tells the user.
        created: This writer created the run, so what `init()` was given is applied.
        writer_no: The writer's number.
        logger_no: The number for its distributed points.
        new_writer: The catalog met the writer only now, so no store can hold batches of it.
    """

    run_no: int
    run_id: str
    project_id: int
    workspace_name: str
    project_name: str
    run_name: str
    requested_name: str | None
    created: bool
    writer_no: int
    logger_no: int
    new_writer: bool

    @property
    def warning(self) -> str | None:
        """What the user should be told, in one sentence."""
        if self.requested_name is None:
            return None
        return (
            f"the name {self.requested_name!r} is held by another run in project "
            f"{self.project_name!r}, so this one is stored as {self.run_name!r}"
        )


@dataclass(frozen=True, slots=True)
class RunRefusal:
    """A run that was not opened: why, in a code and in one sentence for the user."""

    code: RefusalCode
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterRecord:
    """A writer as the catalog knows it."""

    writer_no: int
    writer_id: str
    run_no: int
    run_id: str
    project_id: int
    number: int
    logger_no: int
    logger_id: str
    alias_run_id: str | None
    host: str | None
    pid: int | None
    client_version: str | None
    created_run: bool
    is_lead: bool
    lives: bool
    opened_at_ms: int
    closed_at_ms: int | None
    close_status: EndStatus | None
    attr_seq: int
    rendering_seq: int
    lease_until_ms: int | None
    run_deleted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs; an argument that is None does not restrict, deleted runs are never among them.

    Args:
        workspace_name: Exact name.
        project_name: Exact name.
        names: Any of these run names.
        tags: All of these tags.
        status: One status, or any of several.
        limit: At most so many, after `offset` others; newest first.
        offset: See above.
    """

    workspace_name: str | None = None
    project_name: str | None = None
    names: Sequence[str] | None = None
    tags: Sequence[str] | None = None
    status: RunStatus | Sequence[RunStatus] | None = None
    limit: int | None = None
    offset: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run, but for its points and attributes."""

    run_no: int
    run_id: str
    project_id: int
    workspace_name: str
    project_name: str
    run_name: str
    requested_name: str | None
    experiment_name: str | None
    orchestration_id: str | None
    parent_run_id: str | None
    fork_step: int | None
    status: RunStatus
    lease_until_ms: int | None
    host: str | None
    client_version: str | None
    description: str | None
    git_sha: str | None
    created_at_ms: int
    updated_at_ms: int
    finished_at_ms: int | None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectRecord:
    """A project and how many runs it has."""

    project_id: int
    workspace_name: str
    project_name: str
    run_count: int


@dataclass(frozen=True, slots=True)
class MetricRecord:
    """What a metric number stands for."""

    metric_no: int
    name: str
    scale: Scale
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EnvAttribute:
    """An attribute of an environment (`episode` None) or of one of its episodes."""

    env_id: str
    episode: int | None
    path: str
    value: object


@dataclass(frozen=True, kw_only=True)
class NewRendering:
    """A video that has arrived whole.

    Attributes:
        rendering_id: 32 hex digits.
        env_id: The environment that it shows.
        episode: The episode that it shows.
        rl_step: That of the first frame.
        part: Its place among the videos of the episode, from 1.
        frame_count: Frames; None: nobody counted.
        width: Pixels.
        height: Pixels.
        fps: Frames a second.
        size_bytes: Of the file.
        sha256: Of the file, 64 hex digits.
    """

    rendering_id: str
    env_id: str
    episode: int
    rl_step: int
    part: int
    frame_count: int | None
    width: int
    height: int
    fps: float
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class RenderingRecord(NewRendering):
    """A video as the catalog knows it, with the run that it belongs to."""

    run_no: int
    run_id: str
    created_at_ms: int
