"""What the adapters share: their run, their faults, and how they read what frameworks give them.

Nothing here imports a framework. An adapter's constructor checks and keeps its arguments; its run
is found or made by the first event that needs it, which may raise. From then on an adapter never
raises into training: what goes wrong is counted, warned of once, and passed over.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Final, ParamSpec, TypeVar

from metrana import _native, checks, lifecycle, session
from metrana.errors import MetranaClosingError, MetranaLoggerClosedError, MetranaValidationError
from metrana.faults import warn
from metrana.integrations._config import config_of as config_of  # the adapters take both from here
from metrana.integrations._config import log_config as log_config
from metrana.run import Run
from metrana.values import as_values

_P = ParamSpec("_P")
_T = TypeVar("_T")

MAX_METRIC_NAME_BYTES: Final = 512
_FLUSH_TIMEOUT_S: Final = 15.0

_INIT: Final = inspect.signature(session.init)
# Of `init`'s arguments, those that name a run or only take effect where it is created.
_CREATING: Final = frozenset(
    {"api_key", "run_name", "project_name", "workspace_name", "experiment_name", "run_id"}
    | {"tags", "description", "config", "resume_strategy", "create_project_if_missing"}
)


def missing(framework: str, extra: str) -> ImportError:
    """The error of an adapter whose framework cannot be imported; raise it from that error."""
    return ImportError(
        f"metrana.integrations.{extra} needs {framework}: pip install 'metrana[{extra}]'"
    )


# ── Faults ───────────────────────────────────────────────────────────────────────────────────────


class Faults:
    """What went wrong in an adapter, kept from the training that it is part of.

    A context manager that ends any `Exception` of its block: it is counted, and the first one is
    warned of. Thread-safe enough: a count may be short by one if two threads fail at once.

    Args:
        adapter: The adapter's name, for the warning.

    Attributes:
        count: How many there were.
    """

    def __init__(self, adapter: str) -> None:
        self.adapter = adapter
        self.count = 0
        self._said: set[str] = set()

    def __enter__(self) -> Faults:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> bool:
        if not isinstance(error, Exception):
            return False
        self.note(error)
        return True

    def note(self, error: Exception) -> None:
        """Count a fault, and warn if it is the first."""
        self.count += 1
        self.warn_once(
            "",
            f"{self.adapter} could not log something and goes on without it; further faults are "
            f"only counted: {type(error).__name__}: {error}",
        )

    def warn_once(self, topic: str, message: str) -> None:
        """Warn of something, once for each topic; never raises, though warnings be errors."""
        if topic not in self._said:
            self._said.add(topic)
            with contextlib.suppress(Exception):
                warn(message)


def keeps_training(method: Callable[_P, _T]) -> Callable[_P, _T | None]:
    """Makes a method of an adapter with `faults: Faults` return None instead of raising."""

    @functools.wraps(method)
    def guarded(*args: _P.args, **kwargs: _P.kwargs) -> _T | None:
        faults: Faults = args[0].faults  # type: ignore[attr-defined]  # the adapter's
        with faults:
            return method(*args, **kwargs)
        return None

    return guarded


# ── The run ──────────────────────────────────────────────────────────────────────────────────────


class RunHandle:
    """The run of an adapter, found or made when it is first asked for.

    That is the run given; else, if anything names one, this process's open run of that identity or
    a new one; else the current run; else a new one. A new one becomes current, and is closed by
    `close`, by `metrana.close()` or at the end of the process. One that was closed and is asked for
    again is resumed if it has a name of its own here, else found anew as above.

    Pickled, it carries the run's id and where it is kept, never the API key: in another process it
    joins that run. Copied, it is itself. Thread-safe.

    Args:
        run: The run. Default: see above.
        run_name: Name of the run.
        project_name: Its project.
        run_id: Id of a run that is resumed.
        mode: As for `metrana.init`.
        init_args: Further arguments of `metrana.init`.

    Raises:
        MetranaValidationError: If `run` is no `Run`, `run_name` or `project_name` not allowed as
            one, `init_args` no mapping of what `init` takes, or it has another value for one of the
            other arguments.
    """

    def __init__(
        self,
        run: Run | None = None,
        *,
        run_name: str | None = None,
        project_name: str | None = None,
        run_id: str | None = None,
        mode: str | None = None,
        init_args: Mapping[str, Any] | None = None,
    ) -> None:
        if run is not None and not isinstance(run, Run):
            raise checks.refusal("run", run, "a metrana.Run, as metrana.init() returns it")
        named = {"run_name": run_name, "project_name": project_name, "run_id": run_id, "mode": mode}
        given = {name: value for name, value in named.items() if value is not None}
        for name in given.keys() & {"run_name", "project_name"}:
            checks.entity_name(name, given[name])
        self._given = run
        self._init_args = {**_checked(init_args, given), **given}
        self._names_one = init_args is not None or any(name != "mode" for name in given)
        self._run: Run | None = run
        self._made = False

    @classmethod
    def resuming(cls, run: Run) -> RunHandle:
        """One that resumes a run which this process has closed."""
        return cls(init_args=_attachment_with_key(run))

    @property
    def run(self) -> Run | None:
        """The run, if there is one yet and it is open."""
        run = self._run
        return run if run is not None and run.is_initialized() else None

    @property
    def run_id(self) -> str | None:
        """The id of the run, if there was one yet; it stays when the run is closed."""
        return self._init_args.get("run_id") if self._run is None else self._run.run_id

    @property
    def made(self) -> bool:
        """Whether the run was made here, so that it is closed here."""
        return self._made

    @property
    def names_one(self) -> bool:
        """Whether a run was given or named here, so that the current one is not meant."""
        return self._names_one or self._given is not None

    @property
    def names(self) -> dict[str, str | None]:
        """`run_name` and `project_name` as they were given here; None: not at all."""
        return {name: self._init_args.get(name) for name in ("run_name", "project_name")}

    @property
    def init_args(self) -> dict[str, Any]:
        """What a new run would be made of; a copy, without the API key."""
        return {name: value for name, value in self._init_args.items() if name != "api_key"}

    def open(self, run_name: str | None = None, run_id: str | None = None) -> Run:
        """The run. Blocks as `metrana.init` does if it has to be made.

        Args:
            run_name: What a new one is called, if nothing here says so.
            run_id: Which one is resumed instead of making a new one, if nothing here says so;
                names given here are not looked at.

        Raises:
            MetranaError: If it cannot be made.
            MetranaLoggerClosedError: If it was given and is closed.
        """
        run = self.run
        if run is not None:
            return run
        with lifecycle.opening():
            return self.run or self._found_or_made(run_name, run_id)

    def renew(self, **names: str | None) -> None:
        """End the run that was made here, and let the next `open` make another beside it.

        That is in the same project and kept in the same place, as beside a run that was given or is
        the current one.

        Args:
            names: `run_name` or `project_name` of the next one; None: a generated one.

        Raises:
            MetranaError: As `close`; the next `open` makes another nevertheless.
        """
        run = self._run or (None if self.names_one else open_current_run())
        try:
            self.close()
        finally:
            self._given, self._run, self._made = None, None, False
            self._init_args = {**_place_of(run), **self._init_args, **names}
            self._init_args.pop("run_id", None)
            self._names_one = True

    def note_outcome(self, *, failed: bool) -> None:
        """Say what the training came to so far: the run ends with the status of the last word."""
        if (run := self.run) is not None:
            run._has_failed = failed  # noqa: SLF001 - the run's other half

    def flush(self, timeout_secs: float | None = None) -> None:
        """Wait until everything is delivered or sealed, as `Run.flush`; nothing without a run."""
        run = self.run
        if run is not None:
            run.flush(timeout_secs)

    def deliver(self, faults: Faults) -> None:
        """Flush at the end of a stage of training, 15 seconds at most; that it is late is said."""
        try:
            self.flush(_FLUSH_TIMEOUT_S)
        except MetranaClosingError as error:  # nothing is lost
            faults.warn_once("late", f"{faults.adapter} goes on: {error}")

    def close(self) -> None:
        """Close the run if it was made here; else deliver what it has. A second call does nothing.

        Raises:
            MetranaError: As `Run.close`.
        """
        run = self.run
        if run is None:
            return
        if self._made:
            run.close()
        else:
            run.flush()

    def attachment(self) -> dict[str, Any]:
        """Arguments of `metrana.init` with which another process gets to the run, or makes it."""
        run = self._run
        if run is None:
            return self.init_args
        kept = {name: value for name, value in self._init_args.items() if name not in _CREATING}
        return {**kept, **run._attachment()}  # noqa: SLF001 - the run's other half

    def __getstate__(self) -> dict[str, Any]:
        return {
            "init_args": self.attachment(),
            "names_one": self._names_one or self._run is not None,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._given, self._run, self._made = None, None, False
        self._init_args, self._names_one = state["init_args"], state["names_one"]

    def __deepcopy__(self, _memo: dict[int, Any]) -> RunHandle:
        return self

    def _found_or_made(self, run_name: str | None, run_id: str | None) -> Run:
        if self._given is not None:
            raise MetranaLoggerClosedError(
                f"run: {self._given.run_name!r} is closed; give another one, or none"
            )
        if self._made and self._run is not None:
            # It is resumed under the id it has, whatever it was called.
            key = self._init_args.get("api_key")
            self._init_args = self.attachment() | ({} if key is None else {"api_key": key})
        elif not self._names_one:
            current = open_current_run()
            if current is not None:
                self._run = current
                return current
        arguments = self._arguments(run_name, run_id)
        run, was_open = session.open_run(all_arguments(arguments))
        self._run, self._made = run, self._made or not was_open
        return run

    def _arguments(self, run_name: str | None, run_id: str | None) -> dict[str, Any]:
        given = self._init_args
        if given.get("run_id") is not None:
            return given
        if run_id is not None:
            kept = {
                name: value
                for name, value in given.items()
                if name not in _CREATING or name == "api_key"
            }
            return {**kept, "run_id": run_id}
        if given.get("run_name") is None:
            return {**given, "run_name": run_name}
        return given


def open_current_run() -> Run | None:
    """The current run of this process, if there is one and it is open."""
    current = _native.current_run()
    return current if isinstance(current, Run) and current.is_initialized() else None


def _place_of(run: Run | None) -> dict[str, Any]:
    """Arguments of `metrana.init` for a run beside this one."""
    if run is None:
        return {}
    return {
        **_attachment_with_key(run),
        "project_name": run.project_name,
        "workspace_name": run.workspace_name,
    }


def _attachment_with_key(run: Run) -> dict[str, Any]:
    key = run._settings.api_key  # noqa: SLF001 - the run's other half
    known = run._attachment()  # noqa: SLF001
    return known if key is None else {**known, "api_key": key}


def _checked(init_args: object, given: Mapping[str, Any]) -> dict[str, Any]:
    arguments = {} if init_args is None else dict(checks.mapping("init_args", init_args))
    unknown = [name for name in arguments if name not in _INIT.parameters]
    if unknown:
        raise checks.refusal("init_args", unknown[0], "arguments of metrana.init()")
    for name, value in given.items():
        if arguments.get(name, value) != value:
            raise MetranaValidationError(
                f"{name}: must be given once, not as {value!r} and in init_args as "
                f"{arguments[name]!r}"
            )
    return arguments


def all_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `metrana.init` with its defaults where there are none."""
    bound = _INIT.bind(**arguments)
    bound.apply_defaults()
    return dict(bound.arguments)


# ── Who logs ─────────────────────────────────────────────────────────────────────────────────────

_emitters: weakref.WeakValueDictionary[tuple[str, str], object] = weakref.WeakValueDictionary()


def claim(run: Run | None, source: str, owner: object) -> bool:
    """Makes an adapter the one that logs a source to a run, until it is released or gone.

    Args:
        run: The run; None: whichever it is.
        source: What is logged, `"transformers/<id of the trainer's state>"` say.
        owner: The adapter, or what lives as long as it logs.

    Returns:
        Whether it is the one; False: another one logs the source, and this one has to be passive.
    """
    with lifecycle.opening():  # two threads may come at once
        return _emitters.setdefault(_emitter_key(run, source), owner) is owner


def release(run: Run | None, source: str, owner: object) -> None:
    """Lets another adapter log a source; nothing if `owner` is not the one that does."""
    key = _emitter_key(run, source)
    if _emitters.get(key) is owner:
        del _emitters[key]


def _emitter_key(run: Run | None, source: str) -> tuple[str, str]:
    return ("" if run is None else run.run_id, source)


# ── What frameworks give ─────────────────────────────────────────────────────────────────────────


def number(value: Any) -> float | None:
    """A number as a float, NaN and infinities included; None for what is none.

    Numbers are those of Python and NumPy, arrays and tensors of one element of any framework, and
    bools, which count as 0 and 1.
    """
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int):
        with contextlib.suppress(OverflowError):
            return float(value)
        return None
    if value is None or isinstance(value, (str, bytes, Mapping, list, tuple)):
        return None
    if _size(value) not in (None, 1):
        return None  # before it is copied from a device
    try:
        found = as_values(value, "value")
    except MetranaValidationError:
        return None
    if isinstance(found, float):
        return found
    return float(found.reshape(-1)[0]) if found.size == 1 else None


def _size(value: Any) -> int | None:
    size = getattr(value, "numel", None)
    if callable(size):
        with contextlib.suppress(Exception):
            return int(size())
    size = getattr(value, "size", None)
    return size if isinstance(size, int) else None


def numbers(metrics: Mapping[Any, Any], faults: Faults, prefix: str = "") -> dict[str, float]:
    """The numbers of a mapping under names that metrics may have; what is none is left out.

    Args:
        metrics: Values by key; mappings in it count with their keys joined by `/`.
        faults: What is left out is warned of there, once for each key; None never is.
        prefix: Comes before each name as it is.
    """
    found: dict[str, float] = {}
    for key, value in metrics.items():
        if not isinstance(value, float) and isinstance(value, Mapping):
            found.update(numbers(value, faults, f"{prefix}{key}/"))
            continue
        name = metric_name(f"{prefix}{key}")
        result = number(value)
        if result is not None:
            found[name] = result
        elif value is not None:
            faults.warn_once(
                f"left out {name}",
                f"{faults.adapter} leaves out {name!r}: a number was expected, not "
                f"{checks.shown(value)}",
            )
    return found


def metric_name(key: object) -> str:
    """The nearest name that a metric may have: printable, of 1 to 512 bytes."""
    text = str(key)
    if 0 < len(text) <= MAX_METRIC_NAME_BYTES // 4 and text.isprintable():
        return text
    text = text.encode(errors="replace").decode()
    text = "".join(c if ord(c) >= 0x20 and not 0x7F <= ord(c) < 0xA0 else "_" for c in text)
    return text.encode()[:MAX_METRIC_NAME_BYTES].decode(errors="ignore") or "_"
