"""What the native engine is opened with: settings, once names and the server are known."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from metrana.orchestration import default_logger_id
from metrana.settings import Settings


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Read by the native module attribute by attribute: `native/python/src/options.rs`."""

    data_dir: Path
    destination: str
    workspace_name: str
    project_name: str
    run_name: str | None
    experiment_name: str
    run_id: str | None
    orchestration_id: str
    resume_strategy: str
    create_project_if_missing: bool
    logger_id: str
    server: str | None
    """`local`: wherever the local server's state file says; None: the spool is the destination."""
    api_key: str | None
    connect_required: bool
    connect_within_secs: float
    max_pending_requests: int
    max_send_retries: int | None
    send_retry_initial_backoff_secs: float
    send_retry_max_backoff_secs: float
    batch_max_age_secs: float
    max_msg_size: int
    compression: str
    queue_capacity: int | None
    backpressure_strategy: str
    enqueue_timeout_secs: float
    spool_max_bytes: int | None
    fsync: str
    error_strategy: str
    log_level: str


def engine_options(
    settings: Settings, *, run_name: str | None, orchestration_id: str, server: str | None
) -> EngineOptions:
    """Options for a run of these settings."""
    required = settings.mode == "online"
    within = settings.init_timeout_secs if required else settings.connect_timeout_secs
    return EngineOptions(
        data_dir=settings.data_dir,
        destination=settings.destination,
        workspace_name=settings.workspace_name,
        project_name=settings.project_name,
        run_name=run_name,
        experiment_name=settings.experiment_name or "",
        run_id=settings.run_id,
        orchestration_id=orchestration_id,
        resume_strategy=settings.resume_strategy.value,
        create_project_if_missing=settings.create_project_if_missing,
        logger_id=settings.logger_id or default_logger_id(os.environ) or "",
        server=server,
        api_key=settings.api_key,
        connect_required=required,
        connect_within_secs=within,
        max_pending_requests=settings.max_pending_requests,
        max_send_retries=settings.max_send_retries,
        send_retry_initial_backoff_secs=settings.send_retry_initial_backoff_secs,
        send_retry_max_backoff_secs=settings.send_retry_max_backoff_secs,
        batch_max_age_secs=settings.batch_max_age_secs,
        max_msg_size=settings.max_msg_size,
        compression=settings.compression.value,
        queue_capacity=settings.queue_capacity,
        backpressure_strategy=settings.backpressure_strategy.value,
        enqueue_timeout_secs=settings.enqueue_timeout_secs,
        spool_max_bytes=settings.spool_max_bytes,
        fsync=settings.fsync,
        error_strategy=settings.error_strategy.value,
        log_level=settings.log_level.value,
    )
