"""`init()` and the module's functions, which act on the current run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from metrana import _native, lifecycle
from metrana.enums import (
    BackpressureStrategy,
    Compression,
    ErrorStrategy,
    LogLevel,
    ResumeStrategy,
    StandardMetricScale,
)
from metrana.errors import MetranaNotInitializedError, MetranaUnavailableError
from metrana.faults import warn
from metrana.run import Run
from metrana.snapshots import Metrics, Status

if TYPE_CHECKING:
    from metrana.settings import Settings


def init(
    *,
    api_key: str | None = None,
    workspace_name: str | None = None,
    project_name: str | None = None,
    run_name: str | None = None,
    experiment_name: str | None = None,
    ingestion_url: str | None = None,
    resume_strategy: ResumeStrategy | str | None = None,
    orchestration_id: str | None = None,
    logger_id: str | None = None,
    backpressure_strategy: BackpressureStrategy | str | None = None,
    error_strategy: ErrorStrategy | str | None = None,
    compression: Compression | str | None = None,
    log_level: LogLevel | str | None = None,
    create_project_if_missing: bool = True,
    fork_from_run: str | None = None,
    fork_at_step: int | None = None,
    tags: Iterable[str] | None = None,
    description: str | None = None,
    config: Mapping[str, Any] | None = None,
    queue_capacity: int | None = None,
    enqueue_timeout_secs: float = 0.1,
    init_timeout_secs: float = 120.0,
    connect_timeout_secs: float = 5.0,
    max_pending_requests: int = 30,
    max_send_retries: int | None = 60,
    send_retry_initial_backoff_secs: float = 0.05,
    send_retry_max_backoff_secs: float = 15.0,
    batch_max_age_secs: float = 1.0,
    max_msg_size: int = 1048576,
    rendering_output_dir: str | os.PathLike[str] | None = None,
    rendering_fps: float = 30,
    rendering_max_concurrent_encoders: int = 1,
    rendering_queue_max_size: int | None = None,
    skip_drain_render_on_close: bool | None = None,
    rendering_close_timeout: float | None = None,
    mode: str | None = None,
    run_id: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    spool_max_bytes: int | None = None,
    fsync: str = "never",
) -> Run:
    """Open a run and make it the current one.

    Works without any argument: a run of a generated name in the project `default`, logged to the
    local server if one runs, else to the spool on disk. Blocks while a server is asked for the run:
    at most `connect_timeout_secs` in mode `auto`, `init_timeout_secs` in mode `online`.

    An argument wins over its environment variable (in brackets), which wins over the default.

    Args:
        api_key: Key of the server; needed for one that is not on this machine. [METRANA_API_KEY]
        workspace_name: Default: `default`. [METRANA_WORKSPACE]
        project_name: Default: `default`. [METRANA_PROJECT]
        run_name: Name of the run, unique in its project. Default: a generated one.
        experiment_name: Groups runs. Default: none.
        ingestion_url: Address of the server. Default: the local one. [METRANA_INGESTION_URL]
        resume_strategy: What happens when the name is taken: `never` joins a run of the same
            `orchestration_id` and refuses others, `allow` resumes it. Default: `never`.
            [METRANA_RESUME_STRATEGY]
        orchestration_id: What the processes of one job have in common. Default: the launcher's id
            of the job, else random, published to child processes. [METRANA_ORCHESTRATION_ID]
        logger_id: Tells writers of one series apart for `log_distributed`. Default: the rank.
        backpressure_strategy: What a log call does when the queue is full: `drop_new`, `block` or
            `raise`. Default: `drop_new`. [METRANA_BACKPRESSURE_STRATEGY]
        error_strategy: How background faults come to light: `silent`, `warn`, `raise_on_log` or
            `raise_on_close`. Default: `warn`. [METRANA_ERROR_MODES]
        compression: `none` or `zstd`. Default: `zstd`.
        log_level: How much the engine writes to its own log. Default: `INFO`. [METRANA_LOG_LEVEL]
        create_project_if_missing: Whether an unknown project is created or refused.
        fork_from_run: Not available yet.
        fork_at_step: Not available yet.
        tags: Tags of the run, applied by the process that creates it.
        description: Free text, applied by the process that creates it.
        config: Hyperparameters, as for `log_config`, applied by the process that creates it.
        queue_capacity: Most points that wait to be sealed. Default: what the ring holds.
            [METRANA_EVENT_QUEUE_MAX_SIZE]
        enqueue_timeout_secs: How long a log call waits for room in the queue, in seconds.
        init_timeout_secs: Longest wait for the server in mode `online`, in seconds.
        connect_timeout_secs: Longest wait for the server in mode `auto`, in seconds.
        max_pending_requests: Batches sent and not yet acknowledged.
        max_send_retries: Failures in a row before one is reported; the batch stays in the spool and
            is tried again. None: never reported.
        send_retry_initial_backoff_secs: First wait between two attempts, in seconds; it doubles.
        send_retry_max_backoff_secs: Longest wait between two attempts, in seconds.
        batch_max_age_secs: Longest that a point waits to be sealed into a batch, in seconds.
        max_msg_size: Largest message to the server, in bytes: 16 KiB to 4 MiB.
        rendering_output_dir: Folder that gets a copy of each finished video; made if missing.
            Default: none.
        rendering_fps: Frames per second of videos: 0.001 to 1000.
        rendering_max_concurrent_encoders: Videos encoded at a time, a thread each.
        rendering_queue_max_size: Most frames that wait to be encoded. Default: what fits in 64 MiB,
            at least 4.
        skip_drain_render_on_close: Whether `close()` drops frames not yet encoded. Default: False.
            [METRANA_SKIP_DRAIN_RENDER_ON_CLOSE]
        rendering_close_timeout: Longest wait of `close()` for videos, in seconds; what is not
            encoded then is dropped. Default: 60, at exit without `close()` 5.
            [METRANA_RENDERING_CLOSE_TIMEOUT]
        mode: `auto` (the server if it can be reached, else the spool while it keeps connecting),
            `online` (raises without a server), `offline` (the spool) or `disabled` (arguments are
            checked, nothing else happens). Default: `auto`. [METRANA_MODE; METRANA_DISABLED=1
            disables whatever else is given]
        run_id: Resumes the run of this id; names are then optional.
        data_dir: The data directory. Default: `~/.metrana`. [METRANA_DIR]
        spool_max_bytes: Most bytes of this writer's spool, looked at before each write: the last
            one may exceed it by two messages of `max_msg_size` and the names used in them. What
            has no room waits in memory, a video in its file. Default: until 5 % of the disk or
            1 GiB is left; then no video is begun either.
        fsync: When written batches are forced to the disk: `never`, `interval` or `always`. The
            death of the process needs none of it, that of the machine does.

    Returns:
        The run. With the arguments of a run that is open in this process: that one, and a warning.

    Raises:
        MetranaValidationError: For an argument or variable that is not allowed.
        NoMetranaApiKeyError: For a server that is not on this machine, without a key.
        MetranaRunAlreadyExistsError: If the name belongs to another job.
        MetranaLoggerInitError: If no server could be reached in mode `online`, or it refused.
    """
    run, was_open = open_run(dict(locals()))
    if was_open:
        warn(f"the run {run.run_name!r} is open in this process already; metrana.init() returns it")
    return run


def open_run(arguments: Mapping[str, Any]) -> tuple[Run, bool]:
    """Find or open the run that all arguments of `init` name, and make it the current one.

    Returns:
        The run, and whether it was open already.

    Raises:
        MetranaError: As `init` does.
    """
    # What only opening a run takes is imported by it: `import metrana` is to be felt by nobody.
    from metrana.settings import resolve

    settings = resolve(arguments)
    if settings.fork_from_run is not None or settings.fork_at_step is not None:
        raise MetranaUnavailableError(
            "fork_from_run: this version of metrana cannot fork runs yet; a later one will"
        )
    with lifecycle.opening():
        run = _open_run_of(settings)
        was_open = run is not None
        if run is None:
            run = _open_new(settings)
        _native.set_current_run(run)
    return run, was_open


def log_config(config: Mapping[str, Any]) -> None:
    """Log hyperparameters of the current run; see `Run.log_config`."""
    _current().log_config(config)


def log_attributes(prefix_path: str, value: Any) -> None:
    """Log attributes of the current run under a path; see `Run.log_attributes`."""
    _current().log_attributes(prefix_path, value)


def log_env_attributes(
    env_id: str | int, value: Mapping[str, Any], episode: int | None = None
) -> None:
    """Log attributes of an environment of the current run; see `Run.log_env_attributes`."""
    _current().log_env_attributes(env_id, value, episode)


def log_rendering(
    frame: Any,
    rl_step: int,
    episode: int,
    env_id: str | int | None = None,
    fps: float | None = None,
) -> None:
    """Append a frame to the video of an episode of the current run; see `Run.log_rendering`."""
    _current().log_rendering(frame, rl_step, episode, env_id, fps)


def set_tags(tags: Iterable[str]) -> None:
    """Replace the tags of the current run; see `Run.set_tags`."""
    _current().set_tags(tags)


def add_tags(tags: Iterable[str]) -> None:
    """Add tags to the current run; see `Run.add_tags`."""
    _current().add_tags(tags)


def remove_tags(tags: Iterable[str]) -> None:
    """Remove tags from the current run; see `Run.remove_tags`."""
    _current().remove_tags(tags)


def set_description(description: str) -> None:
    """Replace the description of the current run; see `Run.set_description`."""
    _current().set_description(description)


def get_last_step(
    metric_name: str,
    scale: StandardMetricScale | str | None = None,
    labels: Mapping[str, str] | None = None,
) -> int | None:
    """The greatest step of a series of the current run, or None; see `Run.get_last_step`."""
    return _current().get_last_step(metric_name, scale, labels)


def get_env_last_rl_step_and_episode(env_id: str | int) -> tuple[int | None, int | None]:
    """The greatest `rl_step` and episode of an environment of the current run; each may be None."""
    return _current().get_env_last_rl_step_and_episode(env_id)


def get_metrics() -> Metrics:
    """What the current run added, sent and dropped so far; see `Run.get_metrics`."""
    return _current().get_metrics()


def status() -> Status:
    """How the current run's writer is doing; see `Run.status`."""
    return _current().status()


def check_sender_errors() -> list[str]:
    """Take the messages of the current run's background faults; see `Run.check_sender_errors`."""
    return _current().check_sender_errors()


def is_initialized() -> bool:
    """Whether there is a current run."""
    run = _native.current_run()
    return run is not None and run._is_open()  # noqa: SLF001


def flush(timeout_secs: float | None = None) -> None:
    """Wait until everything of the current run is delivered or sealed; see `Run.flush`."""
    _current().flush(timeout_secs)


def close(close_timeout: float = 15.0) -> None:
    """Deliver what is queued and end the current run; without one, do nothing. See `Run.close`."""
    run = _native.current_run()
    if run is not None:
        cast(Run, run).close(close_timeout)


def finish(close_timeout: float = 15.0) -> None:
    """The same as `close`."""
    close(close_timeout)


def _current() -> Run:
    run = _native.current_run()
    if run is None:
        raise MetranaNotInitializedError("no run is open: call metrana.init() first")
    return cast(Run, run)


def _open_run_of(settings: Settings) -> Run | None:
    """The run of this process that these settings name, if it is open."""
    # One that is being closed, in a forked child for ever, takes nothing any more.
    open_runs = (run for run in lifecycle.open_runs() if run._is_open())  # noqa: SLF001
    return next((run for run in open_runs if run._is_named_by(settings)), None)  # noqa: SLF001


def _open_new(settings: Settings) -> Run:
    from metrana.orchestration import generated_run_name, resolve_orchestration

    # A disabled run leaves no trace, in the environment of children neither.
    environ = dict(os.environ) if settings.mode == "disabled" else os.environ
    orchestration = resolve_orchestration(settings.orchestration_id, environ)
    run_name = settings.run_name
    if run_name is None and settings.run_id is None:
        run_name = generated_run_name(orchestration)
    run = Run(settings, run_name=run_name, orchestration=orchestration)
    lifecycle.track(run)
    return run
