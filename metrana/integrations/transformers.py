"""Transformers' Trainer, and the trainers that inherit from it: `MetranaCallback`.

Importing this module makes `report_to="metrana"` known, so import it before `Trainer(...)`.

    from metrana.integrations.transformers import MetranaCallback

    trainer = Trainer(..., callbacks=[MetranaCallback()])
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from metrana.errors import (
    MetranaLoggerInitError,
    MetranaValidationError,
)
from metrana.integrations import _transformers
from metrana.integrations._common import (
    Faults,
    RunHandle,
    claim,
    keeps_training,
    log_config,
    missing,
    numbers,
    release,
)
from metrana.integrations._fits import Fits, fit_labels
from metrana.run import Run

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
    from transformers.trainer_callback import ExportableState
except ImportError as error:
    raise missing("transformers", "transformers") from error

__all__ = ["MetranaCallback"]


# By run id: the fits of a run are told apart whichever callback logs them.
_fits: dict[str, Fits] = {}


class MetranaCallback(TrainerCallback, ExportableState):
    """Logs what a Trainer logs to a run, at the global step: `callbacks=[MetranaCallback()]`.

    Training metrics are `train/<key>`, evaluations `<metric_key_prefix>/<key>` with
    `evaluation=True`, predictions likewise, `test/<key>` by default; what a training came to at its
    end is `summary/<key>`. Arguments (no tokens), model and PEFT configuration and the number of
    parameters are the run's config. A training that begins at or below the last step has the label
    `fit="2"` and so on, and so have later evaluations of its Trainer; one that resumes from a
    checkpoint goes on in the checkpoint's run. Each trial of a hyperparameter search is a run of
    its own; one whose name an earlier trial had has `-trial-<n>` behind it.

    The run is found or made when a training, evaluation or prediction begins, on global rank zero
    alone. If it cannot be made that event raises; afterwards nothing does: faults are counted,
    warned of once, and passed over. It is closed by `close`, by `metrana.close()` or at the end of
    the process. Of several callbacks of one Trainer one logs: one that names a run, if any does.
    Not thread-safe, as trainers are not.

    Args:
        run_name: Name of the run. Default: the trial's, else `TrainingArguments.run_name`, else a
            generated one, where a new run is made.
        project_name: Its project. Default: as for `metrana.init`.
        run: The run. Default: with any of the other arguments, this process's open run of that name
            or a new one; without, the current run, else a new one.
        init_args: Further arguments of `metrana.init` for a new one.

    Attributes:
        faults: What went wrong; `faults.count` says how often.

    Raises:
        MetranaValidationError: If `run` is no `Run`, `init_args` no mapping of what `init` takes,
            or a name is not allowed or given twice.
    """

    # Set by a Trainer in a callback that it makes from a checkpoint.
    metrana_run: Mapping[str, Any] | None = None

    def __init__(
        self,
        *,
        run_name: str | None = None,
        project_name: str | None = None,
        run: Run | None = None,
        init_args: Mapping[str, Any] | None = None,
    ) -> None:
        self.faults = Faults("transformers.MetranaCallback")
        self._handle = RunHandle(
            run, run_name=run_name, project_name=project_name, init_args=init_args
        )
        self._given = self._wanted = self._handle.names
        self._gives_way = False
        self._in_search = False
        self._trial_count = 0
        self._trial_names: dict[str, str] = {}  # and the number of the first that had it
        self._now = _Now()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_now"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _now=_Now())

    @property
    def run(self) -> Run | None:
        """The run, if there is one yet and it is open."""
        return self._handle.run

    def close(self) -> None:
        """Close the run if it was made here, else deliver what it has. Blocks as `Run.close`.

        Raises:
            MetranaError: As `Run.close`.
        """
        self._handle.close()

    # ── Events ───────────────────────────────────────────────────────────────────────────────────

    @keeps_training
    def on_init_end(
        self,
        args: TrainingArguments,
        state: TrainerState,  # noqa: ARG002 - the event's arguments
        control: TrainerControl,
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Find out which callbacks there are; opens nothing."""
        self._gives_way = False
        _take_seat(args, control, self)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **kwargs: Any,
    ) -> None:
        """Find or make the run, and log the config.

        Raises:
            MetranaError: If there was no run before, and it cannot be made.
        """
        self._now.has_given_up = self._now.is_training = False
        with self.faults:
            self._keep_exported(state)
            self._take_over(args)
        if not self._is_logger(state):
            return
        kept = None
        with self.faults:
            self._renew(args, state)
            kept = self._checkpointed(state)
        run = self._open(args, state, kept)
        if run is not None:
            with self.faults:
                self._begin_fit(run, args, state, kept)
                self._describe(run, args, state, kwargs.get("model"))

    @keeps_training
    def on_step_end(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Note that it trains: from here on nothing is raised."""
        self._now.is_training = True
        self._keep_exported(state)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Log what the Trainer logs, its evaluations included.

        Raises:
            MetranaError: If nothing was trained yet, there was no run, and it cannot be made.
        """
        history = getattr(state, "log_history", None) or []
        self._log(args, state, kwargs.get("model"), _transformers.logged(logs or {}, history))

    def on_predict(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        metrics: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Log what a prediction came to.

        Raises:
            MetranaError: If nothing was trained yet, there was no run, and it cannot be made.
        """
        self._log(args, state, kwargs.get("model"), _transformers.predicted(metrics or {}))

    @keeps_training
    def on_save(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Keep the checkpoints of several callbacks from growing with each save."""
        self._keep_exported(state)

    @keeps_training
    def on_train_end(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Deliver what is logged; the run stays open. Blocks, at most 15 seconds."""
        self._now.is_training = False
        if self._is_logger(state):
            self._handle.deliver(self.faults)

    # ── Checkpoints ──────────────────────────────────────────────────────────────────────────────

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: the run's id and names, as plain JSON; opens nothing."""
        found = self.metrana_run
        with self.faults:
            found = self._exported() or found
        return {"args": {}, "attributes": {_transformers.EXPORTED: found}}

    def _exported(self) -> dict[str, Any] | None:
        run = self._handle.run
        if run is None or run.mode == "disabled":
            return None
        fits = self._now.fits
        number = 1 if fits is None else fits.number_of(self._now.state) or fits.number
        return {
            "run_id": run.run_id,
            "run_name": run.run_name,
            "project_name": run.project_name,
            **({"fit": number} if number > 1 else {}),
        }

    def _keep_exported(self, state: TrainerState) -> None:
        """See that the Trainer can save, and that what it saves does not grow."""
        exported, name = _transformers.exports(state), type(self).__name__
        if name not in exported:
            # As in a checkpoint made without this callback: the Trainer looks it up.
            exported[name] = self.state()
        elif isinstance(exported[name], list):
            # The Trainer appends to what was there.
            kept = exported[name]
            kept[:] = [one for i, one in enumerate(kept) if one not in kept[i + 1 :]]

    def _checkpointed(self, state: TrainerState) -> Mapping[str, Any] | None:
        """What a checkpoint that is resumed says of its run, if it is this one."""
        if state.global_step <= 0:
            return None
        found = [kept for kept in _transformers.exported_in(state) if kept.get("run_id")]
        if not found:
            return None
        newest = found[-1]
        wanted = {name: value for name, value in self._wanted.items() if value is not None}
        is_wanted = all(newest.get(name) == value for name, value in wanted.items())
        return newest if is_wanted else None

    def _take_over(self, args: TrainingArguments) -> None:
        """Go on with the run of the callback in whose place this one was made by the Trainer."""
        if (
            _transformers.EXPORTED not in vars(self)
            or self._now.has_opened
            or self._handle.names_one
        ):
            return
        seat = _seats.get(id(args))
        if seat is not None and seat.args() is args:
            self._handle = seat.handle
            self._given = self._wanted = seat.handle.names

    # ── The run ──────────────────────────────────────────────────────────────────────────────────

    def _is_logger(self, state: TrainerState) -> bool:
        """Whether this is the process and the callback that logs for the trainer of a state."""
        now = self._now
        if state is now.state:
            return True
        if not state.is_world_process_zero:
            return False
        if self._gives_way and now.waited_for is not state:
            now.waited_for = state  # the one that it gives way to comes after it
            return False
        if not claim(None, _source(state), self):
            self._say_passive()
            return False
        if now.state is not None:
            release(None, _source(now.state), self)
        now.state = state
        return True

    def _say_passive(self) -> None:
        if self._handle.names_one:
            self.faults.warn_once(
                "passive",
                "another MetranaCallback of this Trainer logs already; the arguments of this one "
                "have no effect",
            )

    def _renew(self, args: TrainingArguments, state: TrainerState) -> None:
        """See to it that a trial has a run of its own, and what comes after the last one too."""
        was_in_search = self._in_search
        self._in_search = getattr(state, "is_hyper_param_search", False)
        if not self._in_search and not was_in_search:
            return
        self._wanted = dict(self._given)
        if self._in_search:
            base = self._given["run_name"] or args.run_name
            number = self._trial_number()
            name = state.trial_name or (base and f"{base}-trial-{number}")
            # Names are often made of what a trial tries, and that may come again.
            if name and self._trial_names.setdefault(name, number) != number:
                name = f"{name}-trial-{number}"
            self._wanted["run_name"] = name
        names = dict(self._wanted)
        if names["project_name"] is None:
            del names["project_name"]  # that of the run before
        self._handle.renew(**names)

    def _trial_number(self) -> str:
        number, self._trial_count = self._trial_count, self._trial_count + 1
        return _transformers.ray_trial_id() or str(number)

    def _logging_run(self, args: TrainingArguments, state: TrainerState, model: Any) -> Run | None:
        """The run, if this callback logs to one."""
        if not self._is_logger(state):
            return None
        if self._now.has_given_up:
            self.faults.count += 1
            return None
        run = self._handle.run or self._open(args, state, None)
        if run is not None and self._now.described != run.run_id:
            self._describe(run, args, state, model)
        return run

    def _open(
        self, args: TrainingArguments, state: TrainerState, kept: Mapping[str, Any] | None
    ) -> Run | None:
        now = self._now
        if now.has_opened or now.is_training:
            now.has_given_up = True
            with self.faults:
                run = self._found_or_made(args, state, kept)
                now.has_given_up = False
                return run
            return None
        run = self._found_or_made(args, state, kept)
        now.has_opened = True
        return run

    def _found_or_made(
        self, args: TrainingArguments, state: TrainerState, kept: Mapping[str, Any] | None
    ) -> Run:
        if kept is not None:
            try:
                return self._handle.open(run_id=kept["run_id"])
            except (MetranaLoggerInitError, MetranaValidationError) as error:
                self.faults.warn_once(
                    f"resume {kept['run_id']}",
                    f"the run {kept.get('run_name')!r} of the checkpoint cannot be continued here, "
                    f"so what follows is logged to another one: {error}",
                )
        names = (getattr(state, "trial_name", None), getattr(args, "run_name", None))
        return self._handle.open(next(filter(None, names), None))

    # ── What is logged ───────────────────────────────────────────────────────────────────────────

    def _begin_fit(
        self,
        run: Run,
        args: TrainingArguments,
        state: TrainerState,
        kept: Mapping[str, Any] | None,
    ) -> None:
        step = state.global_step
        is_same = kept is not None and kept["run_id"] == run.run_id
        self._now.fits = fits = _fits.setdefault(run.run_id, Fits())
        fits.begin(
            step if getattr(args, "eval_on_start", False) else step + 1,
            resumes=step > 0,
            resumed_fit=kept.get("fit", 1) if kept is not None and is_same else None,
        )
        fits.note_owner(state)
        self._now.labels = fits.labels

    def _describe(self, run: Run, args: TrainingArguments, state: TrainerState, model: Any) -> None:
        self._now.described = run.run_id
        trial = getattr(state, "trial_params", None)
        parts: list[Callable[[], dict[str, Any]]] = [
            lambda: _transformers.arguments_config(args),
            lambda: _transformers.model_config(model),
            lambda: _transformers.parameter_counts(model),
            lambda: {"trial": trial} if trial else {},
        ]
        for part in parts:
            with self.faults:
                log_config(run, part(), self.faults)

    def _log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        model: Any,
        groups: Iterable[tuple[Mapping[str, Any], bool]],
    ) -> None:
        run = self._logging_run(args, state, model)
        if run is None:
            return
        step = state.global_step
        with self.faults:
            fits = _fits.get(run.run_id)
            own = None if fits is None else fits.number_of(state)
            present = self._now.labels if fits is self._now.fits else None
            labels = present if own is None else fit_labels(own)
            for metrics, evaluation in groups:
                found = numbers(metrics, self.faults)
                if found:
                    run.log(found, step=step, labels=labels, evaluation=evaluation)
            if fits is not None:
                fits.note(step)


@dataclasses.dataclass
class _Now:
    """What of a callback only holds in its process."""

    # The trainer's state that it logs for. While it is held no other one can have its id.
    state: TrainerState | None = None
    waited_for: TrainerState | None = None
    fits: Fits | None = None
    labels: dict[str, str] | None = None
    described: str | None = None
    """The id of the run whose config is logged."""
    has_opened: bool = False
    has_given_up: bool = False
    is_training: bool = False


class _Seat(NamedTuple):
    """A callback that a Trainer was built with."""

    args: weakref.ref[TrainingArguments]
    control: weakref.ref[TrainerControl]
    callback: weakref.ref[MetranaCallback]
    handle: RunHandle


# By the id of the arguments of their Trainer, for as long as these live.
_seats: dict[int, _Seat] = {}


def _take_seat(args: TrainingArguments, control: TrainerControl, callback: MetranaCallback) -> None:
    """Make a callback the one of its Trainer, unless there is one that names a run or came first.

    `report_to="metrana"` puts a callback without arguments before those that the user gives.
    """
    key = id(args)

    def forget(_: object) -> None:
        _seats.pop(key, None)

    seat = _seats.get(key)
    first = seat.callback() if seat is not None and seat.control() is control else None
    if first is not None and first is not callback:
        if first._handle.names_one or not callback._handle.names_one:  # noqa: SLF001 - its sibling
            return
        first._gives_way = True  # noqa: SLF001
    _seats[key] = _Seat(
        weakref.ref(args, forget),
        weakref.ref(control),
        weakref.ref(callback),
        callback._handle,  # noqa: SLF001
    )


def _source(state: TrainerState) -> str:
    return f"transformers/{id(state)}"


INTEGRATION_TO_CALLBACK["metrana"] = MetranaCallback
