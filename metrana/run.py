"""`Run`: everything that one process logs to one run."""

from __future__ import annotations

import contextlib
import os
import types
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from metrana import _native, attributes, checks, lifecycle
from metrana.enums import ErrorStrategy
from metrana.errors import (
    MetranaClosingError,
    MetranaError,
    MetranaProcessForkError,
)
from metrana.faults import warn
from metrana.renderings import Renderings
from metrana.snapshots import Metrics, Status

if TYPE_CHECKING:
    from metrana.orchestration import Orchestration
    from metrana.settings import Settings

_DEFAULT_CLOSE_TIMEOUT_S: Final = 15.0
_RAISING: Final = (ErrorStrategy.RAISE_ON_LOG, ErrorStrategy.RAISE_ON_CLOSE)
_MAX_EPISODE: Final = 2**40 - 1


class Run(_native.RunCore):
    """An open run. Made by `metrana.init()`; every method may be called from any thread.

    A context manager: leaving the block closes the run, as failed if an exception leaves it.
    """

    def __init__(
        self, settings: Settings, *, run_name: str | None, orchestration: Orchestration
    ) -> None:
        self._settings = settings
        self._run_name = run_name
        self._orchestration_id = orchestration.orchestration_id
        self._pid = os.getpid()
        self._renderings = Renderings(self, settings)
        # What the last stage of a training that an adapter logs came to: see `close`.
        self._has_failed = False
        if settings.mode == "disabled":
            self._open_disabled()
        else:
            self._open_engine()

    # ── What it is ───────────────────────────────────────────────────────────────────────────────

    @property
    def run_id(self) -> str:
        """The run's id for ever: 32 hexadecimal digits (all 0 in mode `disabled`)."""
        return self._named("run_id", self._settings.run_id or "0" * 32)

    @property
    def run_name(self) -> str:
        """The run's name: as given, generated, or as the server stored it."""
        return self._named("run_name", self._run_name or "")

    @property
    def project_name(self) -> str:
        """The project it belongs to."""
        return self._named("project_name", self._settings.project_name)

    @property
    def workspace_name(self) -> str:
        """The workspace its project belongs to."""
        return self._named("workspace_name", self._settings.workspace_name)

    @property
    def orchestration_id(self) -> str:
        """The id that every process of this job shares."""
        return self._orchestration_id

    @property
    def mode(self) -> str:
        """`auto`, `online`, `offline` or `disabled`."""
        return self._settings.mode

    def __repr__(self) -> str:
        state = "open" if self._is_open() else "closed"
        return f"<metrana.Run {self.project_name}/{self.run_name} {state}, mode={self.mode!r}>"

    # ── Attributes ───────────────────────────────────────────────────────────────────────────────

    def log_config(self, config: Mapping[str, Any]) -> None:
        """Log hyperparameters: nested mappings and lists flatten under `config/`.

        A mapping is merged into the one logged before it; anything else, a list or a mapping whose
        keys are numbers only included, replaces what was there.

        Args:
            config: Values by name: None, bool, int (exact at any size), float, str, datetime, and
                mappings and lists of them.

        Raises:
            MetranaValidationError: For a key or value that is not allowed; nothing was logged.
        """
        entries = attributes.flatten_config(config)
        self._log_attributes([("set", *entry, False) for entry in entries])

    def log_attributes(self, prefix_path: str, value: Any) -> None:
        """Log attributes of the run under a path of your own.

        Args:
            prefix_path: Path, `/` between its parts.
            value: One value, or a mapping or list that flattens under the path, as for
                `log_config`.

        Raises:
            MetranaValidationError: For a path or value that is not allowed; nothing was logged.
        """
        attributes.check_path(prefix_path, "prefix_path")
        entries = attributes.flatten(prefix_path, value, "value")
        self._log_attributes([("set", *entry, False) for entry in entries])

    def log_env_attributes(
        self, env_id: str | int, value: Mapping[str, Any], episode: int | None = None
    ) -> None:
        """Log attributes of an environment, or of one of its episodes.

        Args:
            env_id: The environment.
            value: Values by path, as for `log_config`.
            episode: The episode they belong to. Default: the environment itself.

        Raises:
            MetranaValidationError: For an id, path or value that is not allowed; nothing was
                logged.
        """
        entries = attributes.flatten("", checks.mapping("value", value), "value")
        if episode is not None:
            episode = checks.whole_number("episode", episode, maximum=_MAX_EPISODE)
        self._log_env_attributes(env_id, episode, entries)

    def set_tags(self, tags: Iterable[str]) -> None:
        """Replace the run's tags.

        Raises:
            MetranaValidationError: For anything but a collection of strings.
        """
        self._log_attributes([("set_tags", list(checks.tags("tags", tags)), False)])

    def add_tags(self, tags: Iterable[str]) -> None:
        """Add tags and keep the others.

        Raises:
            MetranaValidationError: For anything but a collection of strings.
        """
        self._log_attributes([("add_tags", list(checks.tags("tags", tags)), False)])

    def remove_tags(self, tags: Iterable[str]) -> None:
        """Remove tags; those that the run does not have are no error.

        Raises:
            MetranaValidationError: For anything but a collection of strings.
        """
        self._log_attributes([("remove_tags", list(checks.tags("tags", tags)), False)])

    def set_description(self, description: str) -> None:
        """Replace the run's description.

        Raises:
            MetranaValidationError: For anything but a string of at most 64 KiB.
        """
        self._log_attributes(
            [("set_description", attributes.check_description(description), False)]
        )

    def log_rendering(
        self,
        frame: Any,
        rl_step: int,
        episode: int,
        env_id: str | int | None = None,
        fps: float | None = None,
    ) -> None:
        """Append a frame to the video of an episode: H.264, encoded by other threads.

        The frame is copied, so it may be changed at once. An environment's video ends when a frame
        of another episode comes; other environments do not matter. Waits and raises as `log` does
        where `rendering_queue_max_size` frames wait. Thread-safe.

        Args:
            frame: uint8, an array of any library in this machine's memory. Shape: `(H, W, 3)`, or
                `(H, W)` and `(H, W, 1)` for gray; even sizes of 2 to 16,384. Where a size changes
                within an episode, another video begins.
            rl_step: The training step.
            episode: The episode.
            env_id: The environment. Default: `default`.
            fps: Frames per second: 0.001 to 1000. Default: `rendering_fps` of `init()`.

        Raises:
            MetranaValidationError: For what is not allowed; nothing was recorded.
            ModuleNotFoundError: Without PyAV, naming the extra that brings it.
            MetranaLoggerClosedError: If the run is closed.
            MetranaEventQueueFullError: If `backpressure_strategy` is `raise` and there is no room.
            MetranaSenderError: If `error_strategy` is `raise_on_log` and a video went wrong before.
            MetranaProcessForkError: In a forked child whose parent had logged a frame.
        """
        self._check_open()
        self._renderings.add(frame, rl_step, episode, env_id, fps)

    # ── Reading back ─────────────────────────────────────────────────────────────────────────────

    def get_last_step(
        self,
        metric_name: str,
        scale: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> int | None:
        """The greatest step of a series, what the run held before this process included.

        Args:
            metric_name: Name of the metric.
            scale: As it was logged with. Default: `ML_STEP`.
            labels: As it was logged with; `{"evaluation": "true"}` for `evaluation=True`.

        Returns:
            The step, or None. Of a series of the RL functions it is the greatest over environments,
            of steps inside episodes over those that they are in.
        """
        return self._last_step(metric_name, scale, labels)

    def get_env_last_rl_step_and_episode(self, env_id: str | int) -> tuple[int | None, int | None]:
        """The greatest `rl_step` and episode of an environment; each None if there is none."""
        return self._env_cursor(env_id)

    def get_metrics(self) -> Metrics:
        """What was added, sent and dropped so far. Does not block."""
        self._check_open()
        return self._renderings.counted_in(Metrics(**self._counters()))

    def status(self) -> Status:
        """How the run's writer is doing. Does not block."""
        self._check_open()
        status = self._status()
        if status is None:
            return Status(self.mode, None, "memory", 0.0, 0, 0, None, [])
        del status["connected"]
        status["problems"] += self._renderings.problems()
        return Status(mode=self.mode, **status)

    def check_sender_errors(self) -> list[str]:
        """Take the messages of background faults since the last call, the oldest first."""
        return self._take_errors() + self._renderings.take_faults()

    def is_initialized(self) -> bool:
        """Whether the run is open."""
        return self._is_open()

    # ── Ending ───────────────────────────────────────────────────────────────────────────────────

    def flush(self, timeout_secs: float | None = None) -> None:
        """Wait until the server has everything; offline or not yet connected: until it is sealed.

        Of videos it has those that have ended; frames that are on their way to one are not waited
        for.

        Args:
            timeout_secs: Longest wait, in seconds. Default: as long as it takes.

        Raises:
            MetranaClosingError: If the time was not enough; nothing is lost by it.
        """
        if timeout_secs is not None:
            timeout_secs = checks.number("timeout_secs", timeout_secs, minimum=0.0)
        self._check_open()
        if not self._is_inherited():
            self._flush(timeout_secs)

    def close(self, close_timeout: float = _DEFAULT_CLOSE_TIMEOUT_S) -> None:
        """Deliver what is queued and end the run; a second call does nothing. Blocks.

        Args:
            close_timeout: Longest wait, in seconds, behind that for videos, which is
                `rendering_close_timeout` of `init()`. What is undelivered then stays in the spool
                and is delivered later. 0 drops it, unless the run never reached a server.

        Raises:
            MetranaClosingError: If something is left and `error_strategy` raises; otherwise that is
                a warning. Its cause is what went wrong in the background, if that is known.
            MetranaSenderError: If something went wrong in the background and `error_strategy` is
                `raise_on_close` or `raise_on_log`.
            MetranaProcessForkError: In a forked child that logged nothing: the run is its parent's.
        """
        timeout = checks.number("close_timeout", close_timeout, minimum=0.0)
        if self._is_open() and self._is_inherited():
            raise MetranaProcessForkError(
                f"the run {self.run_name!r} was opened by process {self._pid}, which closes it; a "
                "forked child closes only what it logged itself"
            )
        self._end(timeout, failed=False)

    def finish(self, close_timeout: float = _DEFAULT_CLOSE_TIMEOUT_S) -> None:
        """The same as `close`."""
        self.close(close_timeout)

    def __enter__(self) -> Run:
        self._check_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        if not self._is_inherited():
            self._end(_DEFAULT_CLOSE_TIMEOUT_S, failed=kind is not None)

    # ── Inside ───────────────────────────────────────────────────────────────────────────────────

    def _open_engine(self) -> None:
        from metrana import local  # here, for the sake of `import metrana`
        from metrana.engine_options import engine_options

        settings = self._settings
        initial = _initial_operations(settings)
        options = engine_options(
            settings,
            run_name=self._run_name,
            orchestration_id=self._orchestration_id,
            server=local.choose_server(settings),
        )
        self._open(options)
        try:
            if initial:
                self._log_attributes(initial)
        except BaseException:  # nobody has this run yet, so nobody else can end it
            with contextlib.suppress(MetranaError):
                self._close(0.0, True)
            raise
        identity = self._identity()
        # Ranks that join would only repeat it.
        if (
            identity is not None
            and identity["created"]
            and local.needs_hint(settings, options.server)
        ):
            local.print_hint(self.run_name, settings.data_dir)

    def _end_rendering(self, env_id: str) -> None:
        """End an environment's video with its last frame, before one of another episode comes."""
        self._renderings.end(env_id)

    def _opened_in_child(self) -> None:
        """Called by the native module when a forked child has opened a writer of its own."""
        self._pid = os.getpid()
        lifecycle.track(self)

    def _is_named_by(self, settings: Settings) -> bool:
        """Whether settings name this run, and name it at all."""
        mine = self._settings
        if (settings.destination, settings.data_dir) != (mine.destination, mine.data_dir):
            return False
        if settings.run_id is not None:
            return settings.run_id == self.run_id
        if settings.run_name is None:
            return False
        names = (settings.workspace_name, settings.project_name, settings.run_name)
        # As it was asked for, or as it is called: a server may have given it another name.
        return names in (
            (mine.workspace_name, mine.project_name, self._run_name),
            (self.workspace_name, self.project_name, self.run_name),
        )

    def _attachment(self) -> dict[str, Any]:
        """Arguments of `init()` by which another process logs to this run; no key is among them."""
        settings = self._settings
        names = ("mode", "ingestion_url", "backpressure_strategy", "error_strategy", "fsync")
        arguments = {name: getattr(settings, name) for name in names}
        if settings.mode == "disabled":
            return arguments
        return {**arguments, "run_id": self.run_id, "data_dir": str(settings.data_dir)}

    def _named(self, key: str, default: str) -> str:
        identity = self._identity()
        return default if identity is None else str(identity[key])

    def _end(self, timeout_s: float, *, failed: bool) -> None:
        is_first = self._is_open()
        late = None
        self._renderings.close()
        try:
            with self._renderings.reporting():
                self._close(timeout_s, failed or self._has_failed)
        except MetranaClosingError as error:
            if self._settings.error_strategy in _RAISING:
                # Where it lies; why, if that is known, is its cause.
                error.args = (self._undelivered() or str(error),)
                raise
            late = str(error)
        finally:
            lifecycle.untrack(self)
        if not is_first or self._settings.error_strategy is ErrorStrategy.SILENT:
            return
        left = (self._undelivered() or late) if timeout_s > 0 else late
        if left is not None:
            warn(left)

    def _close_at_exit(self, timeout_s: float, *, failed: bool) -> str | None:
        """Close at the end of the process; returns what to say of undelivered data, if any."""
        if self._is_inherited() or not self._is_open():
            return None
        # The interpreter goes down: there is nobody left to raise to, and no time to wait longer.
        late = None
        self._renderings.close(timeout_s)
        try:
            with self._renderings.reporting(at_exit=True):
                self._close(timeout_s, failed or self._has_failed)
        except MetranaError as error:
            late = str(error)
        finally:
            lifecycle.untrack(self)
        return self._undelivered() or late

    def _undelivered(self) -> str | None:
        """What to say of data that its server does not have when the run is closed."""
        status = self._status()
        if status is None or status["server_url"] is None:
            return None
        left = self._left()
        pending = _counted(point=left["points"], attribute=left["attributes"])
        if not pending:
            return None
        unsealed, lost = left["unsealed"], left["lost"]
        in_memory, when = "", ""
        if unsealed and status["ring"] == "tmpfs":
            in_memory = (
                f", {unsealed:,} of them only in this machine's memory until it is restarted,"
            )
            when = "once this process has ended, "
        elif unsealed:
            in_memory = (
                f", but {unsealed:,} of them that are lost unless the disk takes them before this "
                "process ends,"
            )
        url = self._settings.ingestion_url
        command = "metrana sync" if url is None else f"metrana sync --url {url}"
        beside = f", beside {lost:,} that were accepted and are lost" if lost else ""
        return (
            f"the run {self.run_name!r} ended with {pending} that "
            f"{status['server_url']} has not acknowledged{beside}; they are kept in "
            f"{self._settings.data_dir}{in_memory} and delivered by the next metrana.init() with "
            f"this server, or {when}by: {command}"
        )


def _counted(**counts: int) -> str:
    """Counts by what is counted, in words; empty if there is nothing of any."""
    return " and ".join(
        f"{count:,} {noun}{'' if count == 1 else 's'}" for noun, count in counts.items() if count
    )


def _initial_operations(settings: Settings) -> list[tuple[Any, ...]]:
    """What `init()` was given: applied only if this process creates the run."""
    from metrana import git

    operations: list[tuple[Any, ...]] = [("set", *entry, True) for entry in settings.config]
    if settings.tags is not None:
        operations.append(("set_tags", list(settings.tags), True))
    if settings.description is not None:
        operations.append(("set_description", settings.description, True))
    sha = git.commit_sha()
    if sha is not None:
        operations.append(("set", "metrana/git_sha", "string", sha, True))
    return operations
