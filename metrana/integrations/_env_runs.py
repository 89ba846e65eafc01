"""The run of a wrapper of environments: where it has none, and when it gets another."""

from __future__ import annotations

import copy
import sys
import types
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from metrana import checks, lifecycle, session
from metrana.errors import MetranaClosingError
from metrana.integrations._common import Faults, RunHandle
from metrana.integrations._episodes import EpisodeLog
from metrana.run import Run

HAND_OVER: Final = "metrana_hand_over"
"""The method of a wrapper that is called when something around it logs its environment."""

_FLUSH_TIMEOUT_S: Final = 5.0

# Runs that wrappers made.
_made: weakref.WeakSet[Run] = weakref.WeakSet()
# Runs that were waited for in vain: of many environments that are closed, one waits.
_late: weakref.WeakSet[Run] = weakref.WeakSet()


def is_passive_process() -> bool:
    """Whether this is a daemonic worker, of a vector environment say, that opened no run itself."""
    # A process that multiprocessing started has it.
    module = sys.modules.get("multiprocessing.process")
    if module is None or not module.current_process().daemon:
        return False
    own = (run for run in lifecycle.open_runs() if not run._is_inherited())  # noqa: SLF001
    return not any(run.is_initialized() for run in own)


class EnvRun:
    """The run that a wrapper logs to.

    Args:
        run: The run. Default: as `RunHandle` finds it.
        init_args: Arguments of `metrana.init`.
        faults: Counts what goes wrong at the end.

    Raises:
        MetranaValidationError: As `RunHandle`.
    """

    def __init__(
        self, run: Run | None, init_args: Mapping[str, Any] | None, faults: Faults
    ) -> None:
        self._handle = RunHandle(run, init_args=init_args)
        self._follows_current = run is None and init_args is None
        self._faults = faults
        self._last: Run | None = None
        # Whether it shares its handle with the one that it is a copy of, which closes the run.
        self._is_copy = False

    @property
    def made(self) -> bool:
        """Whether the run was made here and is open."""
        return self._handle.made and self._handle.run is not None and not self._is_copy

    def open(self) -> Run | None:
        """The run. Blocks as `metrana.init` does if it has to be made.

        Returns:
            None: one was open before, and no other can be had; that is counted as a fault.

        Raises:
            MetranaError: If the first one cannot be made.
        """
        last = self._last
        if last is not None and self._follows_current and self._handle.run is None:
            if session.is_initialized():
                self._handle = RunHandle()  # the one before would resume a run that it made
            elif last in _made and not self._handle.made:
                self._handle = RunHandle.resuming(last)
        try:
            run = self._handle.open()
        except Exception as error:
            if last is None:
                raise
            self._faults.note(error)
            return None
        if self._handle.made:
            _made.add(run)
        self._last = run
        return run

    def is_outdated(self, log: EpisodeLog) -> bool:
        """Whether a log's run was closed, and there is one to go on in.

        That is the current one, or the same: what one wrapper made and closed others may still be
        logging to, who resume it.
        """
        if log.run.is_initialized():
            return False
        return log.run in _made or (self._follows_current and session.is_initialized())

    def close(self) -> None:
        """Close the run if it was made here, else deliver what it has; never raises. Blocks."""
        run = self._handle.run
        if run is None or run._is_inherited():  # noqa: SLF001 - a fork's copy is its parent's
            return
        with self._faults:
            if self.made:
                self._handle.close()
                return
            try:
                run.flush(0.0 if run in _late else _FLUSH_TIMEOUT_S)
                _late.discard(run)
            except MetranaClosingError:  # nothing is lost
                _late.add(run)

    def __getstate__(self) -> dict[str, Any]:
        # A copy's first run is still to come; a pickled one has a handle of its own.
        return {**self.__dict__, "_last": None, "_is_copy": False}

    def __deepcopy__(self, memo: dict[int, Any]) -> EnvRun:
        copied = object.__new__(EnvRun)
        state = {name: copy.deepcopy(value, memo) for name, value in self.__getstate__().items()}
        copied.__dict__.update(state, _is_copy=True)
        return copied


def check_class(env: object, wanted: type) -> None:
    """Refuse what is no environment of a class of Gymnasium, whose older versions only assert it.

    Raises:
        TypeError: For anything else; for vector environments of Stable-Baselines3 it names what
            logs those.
    """
    # Without an import of what may not be installed.
    kinds = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(env).__mro__]
    if "stable_baselines3.common.vec_env.base_vec_env.VecEnv" in kinds:
        raise TypeError(
            f"env: must be an environment of Gymnasium, not {checks.shown(env)}: "
            "metrana.integrations.sb3.MetranaCallback logs those of Stable-Baselines3"
        )
    if not isinstance(env, wanted):
        raise TypeError(
            f"env: must be of Gymnasium's class {wanted.__name__}, not {checks.shown(env)}"
        )


def wrapped(env: Any) -> Iterator[Any]:
    """An environment and what it wraps, from outside."""
    while env is not None:
        yield env
        # Not `getattr`: that of some wrappers asks what they wrap.
        env = vars(env).get("env") if hasattr(env, "__dict__") else None


def hand_over(env: Any) -> bool:
    """Let whoever is around an environment log it; whether a wrapper of ours is in it."""
    if not env.has_wrapper_attr(HAND_OVER):
        return False
    env.get_wrapper_attr(HAND_OVER)()
    return True


class _Shared:
    """A callable that is the same object in every copy of what was recorded."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __deepcopy__(self, _memo: dict[int, Any]) -> _Shared:
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Shared) and other.function == self.function

    def __hash__(self) -> int:
        return hash(self.function)


def shared(function: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """A function as a spec records it: shared by copies, which never copy what it belongs to."""
    if function is None or isinstance(function, (types.FunctionType, _Shared)):
        return function
    return _Shared(function)


def without_key(init_args: Any) -> Any:
    """Arguments of `metrana.init` as a spec records them: without the API key."""
    if not isinstance(init_args, Mapping):
        return init_args
    return {name: value for name, value in init_args.items() if name != "api_key"}
