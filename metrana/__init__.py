"""metrana: an experiment logger for reinforcement learning and deep learning.

```python
import metrana

metrana.init(project_name="cartpole", config={"lr": 3e-4})
metrana.log("loss", 0.5)
metrana.close()
```

Nothing happens at import, and only NumPy is ever needed.
"""

from metrana._native import (
    __version__,
    log,
    log_distributed,
    log_rl_environment_step,
    log_rl_episode,
)
from metrana.enums import (
    BackpressureStrategy,
    Compression,
    ErrorStrategy,
    LogLevel,
    ResumeStrategy,
    StandardMetricScale,
)
from metrana.errors import (
    MetranaClosingError,
    MetranaError,
    MetranaEventQueueFullError,
    MetranaLoggerClosedError,
    MetranaLoggerInitError,
    MetranaNotFoundError,
    MetranaNotInitializedError,
    MetranaOrchestrationIdMismatchError,
    MetranaProcessForkError,
    MetranaQueryError,
    MetranaRunAlreadyExistsError,
    MetranaSenderError,
    MetranaUnavailableError,
    MetranaValidationError,
    MetranaWarning,
    NoMetranaApiKeyError,
)
from metrana.run import Run
from metrana.session import (
    add_tags,
    check_sender_errors,
    close,
    finish,
    flush,
    get_env_last_rl_step_and_episode,
    get_last_step,
    get_metrics,
    init,
    is_initialized,
    log_attributes,
    log_config,
    log_env_attributes,
    log_rendering,
    remove_tags,
    set_description,
    set_tags,
    status,
)
from metrana.snapshots import Metrics, Status

__all__ = [
    "BackpressureStrategy",
    "Compression",
    "ErrorStrategy",
    "LogLevel",
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
    "Metrics",
    "NoMetranaApiKeyError",
    "ResumeStrategy",
    "Run",
    "StandardMetricScale",
    "Status",
    "__version__",
    "add_tags",
    "check_sender_errors",
    "close",
    "finish",
    "flush",
    "get_env_last_rl_step_and_episode",
    "get_last_step",
    "get_metrics",
    "init",
    "is_initialized",
    "log",
    "log_attributes",
    "log_config",
    "log_distributed",
    "log_env_attributes",
    "log_rendering",
    "log_rl_environment_step",
    "log_rl_episode",
    "remove_tags",
    "set_description",
    "set_tags",
    "status",
]
