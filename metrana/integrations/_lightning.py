"""What the Lightning logger knows of its run before there is one, and of its trainer."""

from __future__ import annotations

import contextlib
import os
import sys
import weakref
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from metrana import orchestration
from metrana.errors import MetranaError
from metrana.integrations._common import (
    RunHandle,
    all_arguments,
    open_current_run,
)
from metrana.integrations._fits import Fits, fit_labels
from metrana.run import Run
from metrana.settings import Settings, resolve

PACKAGES: Final = ("lightning.pytorch", "pytorch_lightning")
# From a call of the logger to the trainer that makes it, there are fewer.
_MOST_FRAMES: Final = 12


class SharedRunHandle(RunHandle):
    """A run handle whose copies in processes that a launcher starts come to one run.

    They do though none was open when they were spawned or forked, whichever opens it first.
    Thread-safe. Its arguments are those of `RunHandle`.

    Attributes:
        is_shared: Whether another process may have a copy.
    """

    def __init__(self, run: Run | None = None, **arguments: Any) -> None:
        super().__init__(run, **arguments)
        self.is_shared = False
        _handles.add(self)

    @property
    def project_name(self) -> str:
        """The project of the run, or the one that it will be in. Opens nothing."""
        run = self.run if self._run is not None or self.names_one else open_current_run()
        if run is not None:
            return run.project_name
        try:
            return self._settings().project_name
        except MetranaError:  # `open` raises it
            return str(self._init_args.get("project_name") or "default")

    def settle(self) -> None:
        """Decide on the name and the job of a run that is not open yet; copies come to it by them.

        Raises:
            MetranaError: If it cannot be made.
        """
        self.is_shared = True
        known = {name for name, value in self._init_args.items() if value is not None}
        if self._run is not None or "run_id" in known or {"run_name", "orchestration_id"} <= known:
            return
        settings = self._settings()
        if settings.mode == "disabled":
            return
        job = orchestration.resolve_orchestration(settings.orchestration_id, os.environ)
        name = settings.run_name or orchestration.generated_run_name(job)
        ids = {"run_name": name, "orchestration_id": job.orchestration_id}
        self._init_args = {**self._init_args, **ids}

    def __getstate__(self) -> dict[str, Any]:
        if self._run is None and not self._names_one:
            self._run = open_current_run()
        with contextlib.suppress(MetranaError):  # `open` raises it
            self.settle()
        return super().__getstate__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.is_shared = True
        _handles.add(self)

    def _settings(self) -> Settings:
        return resolve(all_arguments(self._init_args))


_handles: weakref.WeakSet[SharedRunHandle] = weakref.WeakSet()


def _settle_before_fork() -> None:
    # A forked child finds the current run by itself; it is the others that have to agree.
    for handle in list(_handles):
        with contextlib.suppress(MetranaError):
            handle.settle()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_settle_before_fork)


LastStep = Callable[[dict[str, str] | None], int | None]


class Place(NamedTuple):
    """Where values belong beside their step: the arguments of `Run.log`."""

    evaluation: bool
    labels: dict[str, str] | None


class RunFits(Fits):
    """The fits of a run, whichever loggers log them, and the checkpoints that each saved.

    Args:
        lags: Whether the run may have fits from other processes.

    Attributes:
        fit_of: Which fit saved a checkpoint, by its path.
        lags: Whether it has to catch up with them.
    """

    def __init__(self, *, lags: bool = False) -> None:
        super().__init__()
        self.fit_of: dict[str, int] = {}
        self.lags = lags

    def catch_up(self, last_step: LastStep) -> None:
        """Learn of fits that the run has from other processes."""
        self.lags = False
        while (last := last_step(self.labels)) is not None:
            self.note(last)
            if last_step({"fit": str(self.number + 1)}) is None:
                return
            self.begin(0)


# By run id and prefix. They outlive loggers: each fold may have a logger of its own.
_fits: dict[tuple[str, str], RunFits] = {}


class Course:
    """Follows what trainers do with a logger: the stage that they are in, and which fit it is.

    Pickled, it forgets the trainer. There and in a forked process it first asks the run for the
    fits of others.

    Args:
        prefix: That of the logger.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._run_id: str | None = None
        self._fits = RunFits()
        # The fit of the trainer that was last at work; None: the last of the run.
        self._number: int | None = None
        self._pid = os.getpid()
        self._trainer: Callable[[], Any] = _nobody
        self._has_begun = self._lags = False
        self._first_step: int | None = None

    def use(self, run: Run) -> None:
        """What comes next belongs to a run: its fits, which other loggers may have made, count."""
        if run.run_id != self._run_id:
            self._run_id, self._number = run.run_id, None
            # In a run that began here an `epoch` of before may be the user's own.
            lags = not (run._identity() or {"created": True})["created"]  # noqa: SLF001
            self._fits = _fits.setdefault((run.run_id, self._prefix), RunFits(lags=lags))

    def begin(self, trainer: Any) -> None:
        """A trainer begins to fit, validate, test or predict; the first word of it counts.

        Nothing if it is none of Lightning's.
        """
        if (self._has_begun and self._trainer() is trainer) or not _is_trainer(trainer):
            return
        self._trainer, self._has_begun = weakref.ref(trainer), True
        # Whether it resumes is not known yet: some strategies restore a checkpoint later.
        self._first_step = _batches_that_stepped(trainer) if trainer.state.fn == "fit" else None

    def end(self) -> None:
        """What a trainer had begun is over."""
        self._has_begun = False

    def trainer_of(self, logger: object) -> Any:
        """The trainer that is at work with a logger; None: it is called by somebody else."""
        trainer = self._trainer()
        if trainer is not None and trainer.state.stage is not None:
            return trainer
        # With `enable_autolog_hparams=False` no call tells of the trainer.
        trainer = _calling_trainer(logger)
        if trainer is not None:
            self.begin(trainer)
        return trainer

    def place(self, trainer: Any, step: int | None, last_step: LastStep) -> Place:
        """Where values belong that are logged now.

        Args:
            trainer: What `trainer_of` gave.
            step: The step that comes with them; None: none does.
            last_step: The last step that the run has of the fit of some labels; None if none.
        """
        if self._lags or self._fits.lags or self._pid != os.getpid():
            self._lags, self._pid, self._number = False, os.getpid(), None
            self._fits.catch_up(last_step)
        if trainer is None:
            return Place(evaluation=False, labels=self._labels())
        if self._first_step is not None:
            self._begin_fit(trainer, self._first_step)
        self._number = self._fits.number_of(trainer) or self._number
        is_evaluation = bool(trainer.evaluating)
        if is_evaluation and _gives_count_of_batches(trainer):
            labels = {**(self._labels() or {}), "axis": "eval_batch"}
            return Place(evaluation=True, labels=labels)
        if step is not None and trainer.state.fn == "fit":
            self._fits.note(step)
        return Place(is_evaluation, self._labels())

    def note_checkpoint(self, path: str) -> None:
        """A checkpoint of the present fit was saved: one that resumes from it has its labels."""
        self._fits.fit_of[os.path.realpath(path)] = self._number or self._fits.number

    def __getstate__(self) -> dict[str, Any]:
        self._lags = True
        names = ("_prefix", "_run_id", "_fits", "_number")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["_prefix"])  # type: ignore[misc]  # of this class: it has no subclass
        vars(self).update(state, _lags=True)
        if self._run_id is not None:
            self._fits = _fits.setdefault((self._run_id, self._prefix), self._fits)

    def _labels(self) -> dict[str, str] | None:
        return fit_labels(self._number or self._fits.number)

    def _begin_fit(self, trainer: Any, first_step: int) -> None:
        # A trainer that fits again goes on where it was; so does one with a checkpoint.
        path = trainer.ckpt_path
        saved_by = None if path is None else self._fits.fit_of.get(os.path.realpath(path))
        own = self._fits.number_of(trainer)
        resumes = path is not None or (own is not None and first_step > 0)
        self._fits.begin(first_step, resumes=resumes, resumed_fit=saved_by or own or self._number)
        self._fits.note_owner(trainer)
        self._first_step = None


def _nobody() -> None:
    """What a weak reference to nobody would give."""


def _batches_that_stepped(trainer: Any) -> int:
    """The step that the trainer gives its loggers next."""
    return int(trainer.fit_loop.epoch_loop._batches_that_stepped)  # noqa: SLF001


def _gives_count_of_batches(trainer: Any) -> bool:
    """Whether the step that comes from an evaluating trainer is its count of batches.

    It is for what a batch logged with `on_step`, which the trainer gives its loggers after the
    batch's hooks: it has let go of the batch, and not come to the end of the epoch. The hooks' own
    calls of a logger have whatever step they give; the epoch's have that of the training.
    """
    connector, results = trainer._logger_connector, trainer._results  # noqa: SLF001
    is_within = connector._first_loop_iter is not None  # noqa: SLF001
    return is_within and results is not None and results.batch is None


def _is_trainer(candidate: object) -> bool:
    """Whether it is a trainer of Lightning; loops of one's own and Fabric's are called so, too."""
    # Not `isinstance`: proxies of trainers, of which nobody can have weak references, pass as one.
    return any(
        issubclass(type(candidate), getattr(sys.modules.get(name), "Trainer", ()))
        for name in PACKAGES
    )


def _calling_trainer(logger: object) -> Any:
    """The trainer that works with a logger and in one of whose calls this is; None if none is."""
    frame = sys._getframe(1)  # noqa: SLF001 - what `warnings` itself does
    candidate: Any
    for _ in range(_MOST_FRAMES):
        owner = getattr(frame.f_locals.get("self"), "__dict__", {})
        for candidate in (frame.f_locals.get("trainer"), owner.get("trainer")):
            if not _is_trainer(candidate) or candidate.state.stage is None:
                continue
            if any(each is logger for each in candidate.loggers):
                return candidate
        if frame.f_back is None:
            break
        frame = frame.f_back
    return None
