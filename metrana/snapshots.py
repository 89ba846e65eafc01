"""Snapshots of how a run is doing: what `get_metrics()` and `status()` return."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metrics:
    """What was logged and what became of it, by kind of data; every count only grows.

    `added` was given to log calls, `enqueued` of it was taken, `spooled` is sealed on disk, `sent`
    is acknowledged by the server, `dropped` was refused for want of room or thrown away by
    `close(0)`. `added - sent - dropped` is still on its way.
    """

    float_points_added: int = 0
    float_points_enqueued: int = 0
    float_points_spooled: int = 0
    float_points_sent: int = 0
    float_points_dropped: int = 0
    rl_float_points_added: int = 0
    rl_float_points_enqueued: int = 0
    rl_float_points_spooled: int = 0
    rl_float_points_sent: int = 0
    rl_float_points_dropped: int = 0
    attribute_updates_added: int = 0
    attribute_updates_enqueued: int = 0
    attribute_updates_spooled: int = 0
    attribute_updates_sent: int = 0
    attribute_updates_dropped: int = 0
    env_attribute_updates_added: int = 0
    env_attribute_updates_enqueued: int = 0
    env_attribute_updates_spooled: int = 0
    env_attribute_updates_sent: int = 0
    env_attribute_updates_dropped: int = 0
    rendering_frames_added: int = 0
    """Frames given to `log_rendering`; `added - encoded - dropped` wait to be encoded."""
    rendering_frames_encoded: int = 0
    rendering_frames_dropped: int = 0
    """For want of room, after a fault of their video, or by `close()`."""
    connection_attempts: int = 0
    """Attempts to connect to the server."""
    requests_sent: int = 0
    """Messages sent, batches and others."""
    send_errors: int = 0
    """Attempts that failed and were tried again."""
    errors_reported: int = 0
    """Background faults that `check_sender_errors()` gave or will give."""
    errors_evicted: int = 0
    """Background faults forgotten because too many waited to be asked for."""


@dataclass(frozen=True)
class Status:
    """How a run's writer is doing right now."""

    mode: str
    """`auto`, `online`, `offline` or `disabled`."""
    server_url: str | None
    """The server that batches go to; None: they stay in the spool."""
    ring: str
    """`tmpfs` (accepted points survive a kill) or `memory`."""
    loss_window_ms: float
    """What a kill of the process loses at most, in milliseconds of logging."""
    pending_points: int
    """Points accepted and neither acknowledged nor dropped."""
    spooled_bytes: int
    """Bytes of this writer's spool on disk."""
    last_ack_age_s: float | None
    """Seconds since the server last acknowledged anything; None: it never did."""
    problems: list[str]
    """Sentences on what is wrong, the newest last."""
