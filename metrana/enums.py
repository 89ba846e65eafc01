"""The choices that arguments take.

Every member is also its string, so plain strings are accepted wherever a member is, in any case:
`backpressure_strategy="BLOCK"` is `BackpressureStrategy.BLOCK`.
"""

from __future__ import annotations

from enum import Enum


class _Choice(str, Enum):
    """A string enumeration that is looked up without regard to case."""

    @classmethod
    def _missing_(cls, value: object) -> _Choice | None:
        if isinstance(value, str):
            folded = value.strip().casefold()
            for member in cls:
                if member.value.casefold() == folded:
                    return member
        return None

    def __str__(self) -> str:
        return str(self.value)


class StandardMetricScale(_Choice):
    """Which step axis a metric has."""

    ML_STEP = "ML_STEP"
    """Training steps: the default of `log` and `log_distributed`."""
    EPISODE = "EPISODE"
    """Episode numbers: the scale of `log_rl_episode`."""
    ENVIRONMENT_STEP = "ENVIRONMENT_STEP"
    """Steps inside an episode: the scale of `log_rl_environment_step`."""


class BackpressureStrategy(_Choice):
    """What a log call does when the queue stays full for `enqueue_timeout_secs`."""

    DROP_NEW = "drop_new"
    """Drop the call's points and count them: the training loop never stands still."""
    BLOCK = "block"
    """Wait until there is room: nothing is lost, the loop may stand still."""
    RAISE = "raise"
    """Raise `MetranaEventQueueFullError`."""


class ErrorStrategy(_Choice):
    """How faults of the background threads come to light."""

    SILENT = "silent"
    """Only in `check_sender_errors()` and `status()`."""
    WARN = "warn"
    """As a warning, once for each kind of fault."""
    RAISE_ON_LOG = "raise_on_log"
    """As `MetranaSenderError` from the next log call."""
    RAISE_ON_CLOSE = "raise_on_close"
    """As `MetranaSenderError` from `close()`."""


class ResumeStrategy(_Choice):
    """What `init()` does when the run's name is taken."""

    NEVER = "never"
    """Join a run of the same `orchestration_id`, refuse any other."""
    ALLOW = "allow"
    """Go on with that run, whoever made it."""


class Compression(_Choice):
    """How batches are compressed when they are sealed."""

    NONE = "none"
    """Not at all."""
    ZSTD = "zstd"
    """zstd at a low level, wherever it makes a section smaller."""


class LogLevel(_Choice):
    """How much the engine writes into its own log file."""

    TRACE = "TRACE"
    DEBUG = "DEBUG"
    INFO = "INFO"
    WARN = "WARN"
    ERROR = "ERROR"
    OFF = "OFF"
