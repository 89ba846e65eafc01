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
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, ParamSpec, TypeVar

from metrana import _native, attributes, checks, lifecycle, session
from metrana.errors import MetranaError, MetranaLoggerClosedError, MetranaValidationError
from metrana.faults import warn
from metrana.run import Run
from metrana.values import as_values

_P = ParamSpec("_P")
_T = TypeVar("_T")

MAX_METRIC_NAME_BYTES: Final = 512

_INIT: Final = inspect.signature(session.init)
# Of `init`'s arguments, those that name a run or only take effect where it is created.
_CREATING: Final = frozenset(
    {"api_key", "run_name", "project_name", "workspace_name", "experiment_name", "run_id"}
    | {"tags", "description", "config", "resume_strategy", "create_project_if_missing"}
)
_PATH_CHARACTERS: Final = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:-"
)
# Deeper than any config is on purpose.
_MAX_CONFIG_DEPTH: Final = 32


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
        MetranaValidationError: If `run` is no `Run`, or `init_args` no mapping of what `init`
            takes, or it has another value for one of the other arguments.
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
        self._given = run
        self._init_args = {**_checked(init_args, given), **given}
        self._names_one = init_args is not None or any(name != "mode" for name in given)
        self._run: Run | None = run
        self._made = False

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
    def init_args(self) -> dict[str, Any]:
        """What a new run would be made of; a copy, without the API key."""
        return {name: value for name, value in self._init_args.items() if name != "api_key"}

    def open(self) -> Run:
        """The run. Blocks as `metrana.init` does if it has to be made.

        Raises:
            MetranaError: If it cannot be made.
            MetranaLoggerClosedError: If it was given and is closed.
        """
        run = self.run
        if run is not None:
            return run
        with lifecycle.opening():
            return self.run or self._found_or_made()

    def renew(self, **names: str | None) -> None:
        """End the run that was made here, and let the next `open` make another.

        Args:
            names: `run_name` or `project_name` of the next one; None: a generated one.
        """
        self.close()
        self._given = self._run = None
        self._init_args = {**self._init_args, **names}
        self._init_args.pop("run_id", None)
        self._names_one = True

    def note_outcome(self, *, failed: bool) -> None:
        """Say what the training came to so far: the run ends with the status of the last word."""
        run = self.run
        if run is not None:
            run._has_failed = failed  # noqa: SLF001 - the run's other half

    def flush(self, timeout_secs: float | None = None) -> None:
        """Wait until everything is delivered or sealed, as `Run.flush`; nothing without a run."""
        run = self.run
        if run is not None:
            run.flush(timeout_secs)

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

    def _found_or_made(self) -> Run:
        if self._given is not None:
            raise MetranaLoggerClosedError(
                f"run: {self._given.run_name!r} is closed; give another one, or none"
            )
        if self._made and self._run is not None:
            # It is resumed under the id it has, whatever it was called.
            self._init_args = self.attachment()
        elif not self._names_one:
            current = _native.current_run()
            if isinstance(current, Run) and current.is_initialized():
                self._run = current
                return current
        run, was_open = session.open_run(_all_arguments(self._init_args))
        self._run, self._made = run, self._made or not was_open
        return run


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


def _all_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    bound = _INIT.bind(**arguments)
    bound.apply_defaults()
    return dict(bound.arguments)


# ── Who logs ─────────────────────────────────────────────────────────────────────────────────────

_emitters: dict[tuple[str, str], weakref.ref[object]] = {}


def claim(run: Run, source: str, owner: object) -> bool:
    """Makes an adapter the one that logs a source to a run, until it is released or gone.

    Args:
        run: The run.
        source: What is logged, `"transformers/<id of the trainer's state>"` say.
        owner: The adapter, or what lives as long as it logs.

    Returns:
        Whether it is the one; False: another one logs the source, and this one has to be passive.
    """
    key = (run.run_id, source)
    present = _emitters.get(key)
    holder = None if present is None else present()
    if holder is None:
        _emitters[key] = weakref.ref(owner)
        return True
    return holder is owner


def release(run: Run, source: str, owner: object) -> None:
    """Lets another adapter log a source; nothing if `owner` is not the one that does."""
    present = _emitters.get((run.run_id, source))
    if present is not None and present() is owner:
        del _emitters[(run.run_id, source)]


class Fits:
    """Labels that keep apart the fits of one adapter whose steps begin again.

    The first fit has none. A later one that begins at or below the last step has `fit="2"` and so
    on; one that goes on, or resumes from a checkpoint, keeps the label and overwrites.

    Attributes:
        labels: Those of the present fit; None: none.
    """

    def __init__(self) -> None:
        self.labels: dict[str, str] | None = None
        self._number = 1
        self._last_step: int | None = None

    def begin(self, first_step: int, *, resumes: bool = False) -> None:
        """A fit begins: `first_step` is the first that it may log, if `resumes` of a checkpoint."""
        last = self._last_step
        if last is None or first_step > last or resumes:
            return
        self._number += 1
        self._last_step = None
        self.labels = {"fit": str(self._number)}

    def note(self, step: int) -> None:
        """Something was logged at a step."""
        if self._last_step is None or step > self._last_step:
            self._last_step = step


# ── What frameworks give ─────────────────────────────────────────────────────────────────────────


def number(value: Any) -> float | None:
    """A number as a float, NaN and infinities included; None for what is none.

    Numbers are those of Python and NumPy, arrays and tensors of one element of any framework, and
    bools, which count as 0 and 1.
    """
    if isinstance(value, (float, int)):
        with contextlib.suppress(OverflowError):
            return float(value)
        return None
    if value is None or isinstance(value, (str, bytes, Mapping, list, tuple)):
        return None
    size = _size(value)
    if size is not None and size != 1:
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
        if isinstance(value, Mapping):
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
    text = str(key).encode(errors="replace").decode()
    text = "".join(c if ord(c) >= 0x20 and not 0x7F <= ord(c) < 0xA0 else "_" for c in text)
    return text.encode()[:MAX_METRIC_NAME_BYTES].decode(errors="ignore") or "_"


def config_of(value: Any) -> dict[str, Any]:
    """Hyperparameters as `Run.log_config` takes them, item by item, so that none is lost.

    Keys become strings, and each character that a path may not have a `_`; two that become the same
    are told apart by `_2` and so on. A value that no attribute can be is kept as its text.

    Args:
        value: A mapping, `Namespace`, dataclass or the like, nested as it may be.
    """
    found = _config_mapping(value, 0)
    return {} if found is None else found


def _config_mapping(value: Any, depth: int) -> dict[str, Any] | None:
    items = _items(value)
    if items is None or depth > _MAX_CONFIG_DEPTH:
        return None
    found: dict[str, Any] = {}
    for key, read in items:
        name = part = _config_key(key)
        number_ = 1
        while name in found:
            number_ += 1
            name = f"{part}_{number_}"
        try:
            found[name] = _config_value(read(), depth + 1)
        except Exception as error:  # noqa: BLE001 - a container that makes its values when asked
            found[name] = f"<unreadable: {type(error).__name__}: {error}>"
    return found


def _items(value: Any) -> list[tuple[Any, Callable[[], Any]]] | None:
    """Keys, and what reads the value of each; None for what is no mapping."""
    if isinstance(value, Mapping):
        # A value that is missing or interpolated may raise when it is read.
        return [(key, functools.partial(value.__getitem__, key)) for key in value]
    found = attributes.as_mapping(value)
    if found is None:
        return None
    return [(key, functools.partial(found.__getitem__, key)) for key in found]


def _config_key(key: Any) -> str:
    text = "".join(c if c in _PATH_CHARACTERS else "_" for c in str(key))
    return text[: attributes.MAX_PATH_BYTES // 8] or "_"


def _config_value(value: Any, depth: int) -> Any:
    nested = _config_mapping(value, depth)
    if nested is not None:
        return nested
    if isinstance(value, (list, tuple)) and depth <= _MAX_CONFIG_DEPTH:
        return [_config_value(item, depth + 1) for item in value]
    try:
        attributes.flatten("config", value, "config")
    except MetranaError:
        return _text(value)
    return value


def _text(value: Any) -> str:
    try:
        text = str(value)
    except Exception as error:  # noqa: BLE001 - whatever their __str__ raises
        return f"<{type(value).__qualname__}: {type(error).__name__}>"
    kept = text.encode(errors="replace")[: attributes.MAX_BYTES]
    return kept.decode(errors="ignore")


def log_config(run: Run, config: Any, faults: Faults) -> None:
    """Logs hyperparameters as `config_of` gives them; what is refused at all is left out alone."""
    found = config_of(config)
    try:
        run.log_config(found)
    except MetranaValidationError:
        _log_each(run, found.items(), faults)


def _log_each(run: Run, items: Iterable[tuple[str, Any]], faults: Faults) -> None:
    for name, value in items:
        with faults:
            run.log_config({name: value})
