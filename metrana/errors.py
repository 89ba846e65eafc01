"""What can go wrong, as one tree. Every class is also the builtin exception it resembles.

```
MetranaError                                     anything below
├── MetranaNotInitializedError(RuntimeError)     a module function without an open run
├── MetranaLoggerInitError(ConnectionError)      init(): no server in time, or it refused
├── MetranaLoggerClosedError(RuntimeError)       a method of a closed Run
├── MetranaValidationError(ValueError)           bad input: which argument, and what is allowed
├── MetranaEventQueueFullError(BufferError)      backpressure_strategy="raise" and the queue is full
├── MetranaSenderError(ConnectionError)          a background fault, as error_strategy asks
├── MetranaClosingError(TimeoutError)            flush() or close() could not finish in time
├── MetranaRunAlreadyExistsError(FileExistsError)        init(): the name is another job's
│   └── MetranaOrchestrationIdMismatchError              … of another orchestration_id
├── MetranaProcessForkError(RuntimeError)        a parent's handle used in a forked child
├── MetranaNotFoundError(LookupError)            metrana.query: no such run, metric or environment
├── MetranaQueryError(RuntimeError)              metrana.query: no answer, from server or store
├── MetranaUnavailableError(NotImplementedError) a function this version does not have yet
└── NoMetranaApiKeyError(PermissionError)        a server that is not on this machine, and no key

MetranaWarning(UserWarning)                      what does not stop anything
```
"""

from __future__ import annotations

__all__ = [
    "MetranaClosingError",
    "MetranaError",
    "MetranaEventQueueFullError",
    "MetranaLoggerClosedError",
    "MetranaLoggerInitError",
    "MetranaNotFoundError",
    "MetranaNotInitializedError",
    "MetranaOrchestrationIdMismatchError",
    "MetranaProcessForkError",
    "MetranaQueryError",
    "MetranaRunAlreadyExistsError",
    "MetranaSenderError",
    "MetranaUnavailableError",
    "MetranaValidationError",
    "MetranaWarning",
    "NoMetranaApiKeyError",
]


class MetranaError(Exception):
    """The base of every error that metrana raises on purpose."""


class MetranaNotInitializedError(MetranaError, RuntimeError):
    """A function of the module was called while no run is open: call `metrana.init()` first."""


class MetranaLoggerInitError(MetranaError, ConnectionError):
    """`init()` could not open the run: no server answered in time, or it refused the run."""


class MetranaLoggerClosedError(MetranaError, RuntimeError):
    """A method of a `Run` that is closed."""


class MetranaValidationError(MetranaError, ValueError):
    """Bad input. Names the argument, what it was and what is allowed; the call logged nothing."""


class MetranaEventQueueFullError(MetranaError, BufferError):
    """The queue stayed full for `enqueue_timeout_secs` and `backpressure_strategy` is `raise`."""


class MetranaSenderError(MetranaError, ConnectionError):
    """A fault of the background threads, raised because `error_strategy` asks for it."""


class MetranaClosingError(MetranaError, TimeoutError):
    """`flush()` or `close()` could not finish in the time given; the rest is delivered later."""


class MetranaRunAlreadyExistsError(MetranaError, FileExistsError):
    """The run's name is held by another run, and `resume_strategy` is `never`."""


class MetranaOrchestrationIdMismatchError(MetranaRunAlreadyExistsError):
    """The run's name is held by a job with another `orchestration_id`; the message names both."""


class MetranaProcessForkError(MetranaError, RuntimeError):
    """A parent's handle was used in a forked child, or a fork's hook made a call while it forks."""


class MetranaNotFoundError(MetranaError, LookupError):
    """A run, metric or environment that nobody knows; the message names the nearest names."""


class MetranaQueryError(MetranaError, RuntimeError):
    """A question that could not be answered: no server, or the store is in use or failing."""


class MetranaUnavailableError(MetranaError, NotImplementedError):
    """A function of the interface that this version of metrana does not have yet."""


class NoMetranaApiKeyError(MetranaError, PermissionError):
    """A server that is not on this machine was given, and no API key."""


class MetranaWarning(UserWarning):
    """Something that does not stop training and that the user should know."""
