"""The logger for Lightning: `Trainer(logger=MetranaLogger())`.

It works with both packages, `lightning` and `pytorch_lightning`, and inherits the `Logger` of each
that is imported before this module is; if none is, of one that is installed.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import weakref
from argparse import Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from metrana import checks
from metrana.integrations._common import (
    Faults,
    config_of,
    keeps_training,
    log_config,
    missing,
    number,
    numbers,
)
from metrana.integrations._lightning import PACKAGES, Course, SharedRunHandle
from metrana.run import Run

_CHECKPOINT_TEXTS: Final = ("monitor", "mode", "best_model_path", "last_model_path")
_CHECKPOINT_NUMBERS: Final = ("best_model_score", "current_score")


def _logger_modules() -> list[Any]:
    """The modules of the `Logger` that are inherited, one a package."""
    imported = [name for name in PACKAGES if sys.modules.get(name) is not None]
    if imported:
        return [importlib.import_module(f"{name}.loggers.logger") for name in imported]
    cause: ImportError | None = None
    for name in PACKAGES:
        try:
            return [importlib.import_module(f"{name}.loggers.logger")]
        except ImportError as error:
            cause = cause or error
    raise missing("lightning or pytorch_lightning", "lightning") from cause


if TYPE_CHECKING:
    from lightning.fabric.loggers.logger import rank_zero_experiment
    from lightning.pytorch.loggers.logger import Logger as _Logger
    from lightning_utilities.core.rank_zero import rank_zero_only
else:
    _MODULES = _logger_modules()
    _Logger = type("_Logger", tuple(module.Logger for module in _MODULES), {"__module__": __name__})
    rank_zero_experiment = _MODULES[0].rank_zero_experiment
    # Both packages have it from there.
    from lightning_utilities.core.rank_zero import rank_zero_only


class MetranaLogger(_Logger):
    """Logs what a `Trainer` logs to a metrana run.

    What is logged in training keeps Lightning's names and steps. What a trainer logs while it
    validates or tests is an evaluation (`evaluation=True`); of that, what `on_step` gives has the
    label `axis="eval_batch"`, for its steps are Lightning's count of batches. Later fits of a run
    whose steps begin again, whichever logger's, have labels `fit="2"` and so on; what a trainer
    logs after its fit has those of its fit, though others came in between. Hyperparameters become
    the run's config; paths and scores of checkpoints become attributes under
    `checkpoint/<monitored metric>`.

    The run is `run`; else, if `run_name`, `project_name`, `version` or `init_args` is given, this
    process's open run of that identity or a new one; else the current run; else a new one. It is
    found or made when a trainer begins to work, by global rank zero alone, which may raise. From
    then on nothing is raised into the training: faults are counted (`faults.count`), and warned of
    once. The end of a fit, validation or test delivers what was logged and leaves the run open: it
    is closed by `close`, by `metrana.close()` or at the end of the process. Its status is `failed`
    if the last of them was left by an exception.

    A pickled logger, that of `strategy="ddp_spawn"` say, joins the run of the original. The API key
    is not pickled: processes find it in METRANA_API_KEY. A copy is the logger itself. Methods are
    thread-safe; only those that say so block.

    Args:
        run_name: Name of the run. Default: a generated one.
        project_name: Its project: Lightning's `name`. Default: as for `metrana.init`.
        save_dir: Folder for the trainer's checkpoints, which go to `save_dir/name/version`; metrana
            writes nothing there. Default: the working directory.
        version: Id of a run, which is resumed. Default: none. A fit that goes on from a checkpoint
            of another process has the labels of the run's last fit; any other is a new one.
        prefix: Comes before the name of each metric, joined by `/`. Default: none.
        offline: Whether to log to the spool without a server, as `mode="offline"` does.
        run: The run. Default: see above.
        init_args: Further arguments of `metrana.init` for a run that is made. Default: none.

    Attributes:
        faults: What went wrong.

    Raises:
        MetranaValidationError: For an argument that is not allowed.
    """

    def __init__(
        self,
        run_name: str | None = None,
        project_name: str | None = None,
        save_dir: str | os.PathLike[str] = ".",
        version: str | None = None,
        prefix: str = "",
        offline: bool = False,
        *,
        run: Run | None = None,
        init_args: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self._save_dir = _folder("save_dir", save_dir)
        self._prefix = f"{given.rstrip('/')}/" if (given := checks.text("prefix", prefix)) else ""
        self._handle = SharedRunHandle(
            run,
            run_name=run_name,
            project_name=project_name,
            run_id=None if version is None else checks.text("version", version),
            mode="offline" if checks.flag("offline", offline) else None,
            init_args=init_args,
        )
        self.faults = Faults(type(self).__name__)
        self._course = Course(self._prefix)
        # The run that was used last, and the callbacks whose checkpoints it has.
        self._experiment: Run | None = None
        self._has_given_up = False
        self._checkpoints: dict[str, Any] = {}
        self._project_name: str | None = None

    # ── What Lightning asks ──────────────────────────────────────────────────────────────────────

    @property
    @rank_zero_experiment
    def experiment(self) -> Run:
        """The run; it is opened if it is not yet. On other ranks than zero: something that ignores.

        Blocks as `metrana.init` does if the run has to be made.

        Raises:
            MetranaError: If it cannot be made, and nothing was logged to it yet.
        """
        return self._open()

    @property
    def name(self) -> str:
        """The project, as a name that a folder may have: a `/` in it is written `-`."""
        name = self._project().replace("/", "-").replace("\\", "-")
        return name.replace(".", "-") if name in (".", "..") else name

    @property
    def version(self) -> str | None:
        """The id of the run; None before there is one. Never opens it."""
        return self._handle.run_id

    @property
    def save_dir(self) -> str:
        """The folder for checkpoints, as it was given."""
        return self._save_dir

    @property
    def root_dir(self) -> str:
        """`save_dir/name`: the folder for checkpoints of the project's runs."""
        return os.path.join(self.save_dir, self.name)  # noqa: PTH118 - it may be a URL

    @property
    def log_dir(self) -> str | None:
        """`save_dir/name/version`: the folder for the run's checkpoints; None without a run."""
        version = self.version
        return None if version is None else os.path.join(self.root_dir, version)  # noqa: PTH118

    # ── What Lightning tells ─────────────────────────────────────────────────────────────────────

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log values at a step; which series they belong to is told by the trainer's stage.

        Args:
            metrics: Numbers by name: Python's, NumPy's, tensors of one element; NaN and infinities
                included. What is no number is left out, which is warned of once a name.
            step: The step. Default: the series' last one + 1.

        Raises:
            MetranaError: If there is no run yet and it cannot be made.
        """
        self._open()
        self._log_metrics(metrics, step)

    @rank_zero_only
    def log_hyperparams(
        self,
        params: Mapping[str, Any] | Namespace,
        *args: Any,  # noqa: ARG002 - some loggers take metrics there
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Log hyperparameters as the run's config, item by item: none is lost for another's sake.

        Args:
            params: A mapping, `Namespace` or dataclass, nested as it may be. Keys that no path may
                have are written with `_`; values that no attribute can be are kept as their text.
            args: Ignored.
            kwargs: Ignored.

        Raises:
            MetranaError: If there is no run yet and it cannot be made.
        """
        self._open()
        self._log_hyperparams(params)

    @rank_zero_only
    def log_graph(self, model: Any, input_array: Any = None) -> None:  # noqa: ARG002
        """Learn which trainer is at work; the graph is not logged.

        Args:
            model: The module, of which nothing but a weak reference to its trainer is kept.
            input_array: Ignored.
        """
        with contextlib.suppress(RuntimeError, AttributeError):  # it has none
            trainer = model.trainer
            self._course.begin(trainer)

    def save(self) -> None:
        """Nothing: what was logged is kept already."""

    @rank_zero_only
    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Log the paths and scores of a callback's checkpoints as attributes.

        Args:
            checkpoint_callback: The callback, of which only a weak reference is kept.
        """
        self._after_save_checkpoint(checkpoint_callback)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Deliver what was logged, and note how it went; the run stays open. Nothing without one.

        Blocks until it is delivered or, offline, on the disk: 15 seconds at most.

        Args:
            status: `failed` or `aborted` make the run one that failed, if nothing else comes.
        """
        self._course.end()
        self._finalize(failed=status in ("failed", "aborted"))
        self._has_given_up = False

    @rank_zero_only
    def close(self) -> None:
        """Close the run if it was made here, else deliver what it has. Blocks as `Run.close` does.

        Raises:
            MetranaError: As `Run.close`.
        """
        self._handle.close()

    # ── Copies ───────────────────────────────────────────────────────────────────────────────────

    def __getstate__(self) -> dict[str, Any]:
        # The name is kept, which a copy cannot tell before its run is open.
        project_name = self._project()
        return {
            **vars(self),
            "_project_name": project_name,
            "_experiment": None,
            "_checkpoints": {},
        }

    def __deepcopy__(self, _memo: dict[int, Any]) -> MetranaLogger:
        # Two that count the fits of one run would not know of each other's.
        return self

    # ── Inside ───────────────────────────────────────────────────────────────────────────────────

    def _project(self) -> str:
        if self._handle.run is not None:
            self._project_name = self._handle.project_name
        return self._project_name or self._handle.project_name

    def _open(self) -> Run:
        """The run; raises only as long as none was used, for then no training has begun."""
        if self._experiment is None:
            self._experiment = self._handle.open()
        elif self._handle.run is None and not self._has_given_up:
            # An attempt may wait for a server: one a fit, not one a step.
            self._has_given_up = True
            with self.faults:
                self._experiment = self._handle.open()
                self._has_given_up = False
        return self._experiment

    @keeps_training
    def _log_metrics(self, metrics: Mapping[str, Any], step: int | None) -> None:
        run, trainer = self._open(), self._course.trainer_of(self)
        if trainer is not None and not self._is_first(trainer.loggers, run):
            self.faults.warn_once(
                "passive", "two loggers of a trainer have the same run and prefix; only one logs"
            )
            return

        def last_step(labels: dict[str, str] | None) -> int | None:
            return run.get_last_step(f"{self._prefix}epoch", labels=labels)

        self._course.use(run)
        place = self._course.place(trainer, step, last_step)
        values = numbers(metrics, self.faults, self._prefix)
        if values:
            run.log(values, step=step, labels=place.labels, evaluation=place.evaluation)

    @keeps_training
    def _log_hyperparams(self, params: Any) -> None:
        log_config(self._open(), params, self.faults)

    @keeps_training
    def _after_save_checkpoint(self, callback: Any) -> None:
        is_weak = isinstance(callback, weakref.ProxyTypes)
        self._checkpoints[callback.state_key] = callback if is_weak else weakref.proxy(callback)
        self._course.use(self._open())
        self._course.note_checkpoint(_saved_last(callback))
        self._log_checkpoint(callback)

    def _log_checkpoint(self, callback: Any) -> None:
        found = {name: getattr(callback, name, None) for name in _CHECKPOINT_TEXTS}
        # Without `save_last` there is a last one, too.
        found["last_model_path"] = found["last_model_path"] or _saved_last(callback)
        found |= {name: number(getattr(callback, name, None)) for name in _CHECKPOINT_NUMBERS}
        known = {name: value for name, value in found.items() if value not in (None, "")}
        monitor = known.get("monitor", "unmonitored")
        self._open().log_attributes("checkpoint", config_of({monitor: known}))

    @keeps_training
    def _finalize(self, *, failed: bool) -> None:
        if failed and self._handle.run is None and self._handle.is_shared:
            # It was open in a process that is gone, which could not tell what became of it.
            self._open()
        if self._handle.run is None:
            return
        self._handle.note_outcome(failed=failed)
        for callback in self._checkpoints.values():
            with contextlib.suppress(ReferenceError):
                self._log_checkpoint(callback)
        self._handle.deliver(self.faults)

    def _is_first(self, loggers: list[Any], run: Run) -> bool:
        """Whether no logger before this one logs the same."""
        same = (
            logger
            for logger in loggers
            if isinstance(logger, MetranaLogger)
            and logger._prefix == self._prefix  # noqa: SLF001 - of this class
            and logger._handle.run is run  # noqa: SLF001
        )
        return next(same, self) is self


def _saved_last(callback: Any) -> str:
    """The file that a callback saved last, a link to it not being one; empty: none is known."""
    return str(getattr(callback, "_last_checkpoint_saved", ""))


def _folder(name: str, value: object) -> str:
    """A folder or the URL of one, as it was given."""
    with contextlib.suppress(TypeError):
        folder = os.fspath(value)  # type: ignore[call-overload]  # its TypeError is the check
        if isinstance(folder, str) and folder:
            return folder
    raise checks.refusal(name, value, "a path")
