"""Parts of the Stable-Baselines3 adapter: its writer, hyperparameters, and checkpoints."""

from __future__ import annotations

import inspect
import types
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from stable_baselines3.common.logger import Figure, HParam, Image, KVWriter, Video
from stable_baselines3.common.vec_env import VecNormalize

from metrana.integrations._common import Faults, RunHandle, log_config, numbers
from metrana.integrations._fits import Fits

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm

    from metrana.run import Run

# Names of the formats for which a key may be excluded here: what is not for curves elsewhere is not
# for ours.
_FORMATS: Final = ("tensorboard", "metrana")
_EVALUATION: Final = "eval/"
_TIMESTEPS: Final = "time/total_timesteps"
# SB3 counts these from the beginning of each `learn()`: one on-policy, the other off-policy.
_ROUNDS: Final = ("time/iterations", "time/episodes")
# Arguments of algorithms that say nothing of how they learn.
_OTHER_ARGUMENTS: Final = frozenset({"self", "env", "verbose", "tensorboard_log"})
_NORMALIZATION: Final = ("norm_obs", "norm_reward", "clip_obs", "clip_reward", "gamma", "epsilon")


class Writer(KVWriter):
    """Logs what SB3's logger dumps. One for all fits of an adapter.

    Args:
        handle: Has the run.
        faults: What goes wrong once the run was open is counted there.
    """

    def __init__(self, handle: RunHandle, faults: Faults) -> None:
        self.handle = handle
        self.faults = faults
        self._run_id: str | None = None
        # What was logged of the dump that a training did not come to.
        self._logged_early: dict[str, Any] = {}
        self._fits = Fits()
        # SB3's counters at the last dump that had them.
        self._timesteps: float | None = None
        self._round: float | None = None

    def write(
        self,
        key_values: dict[str, Any],
        key_excluded: dict[str, tuple[str, ...]],
        step: int = 0,
    ) -> None:
        """Log what was recorded since the last dump; called by `Logger.dump`. Does not block.

        Only numbers can be logged: a text or histogram is left out with a warning, a `Video`,
        `Figure` or `Image` without; the hyperparameters of an `HParam` are logged as config.

        Args:
            key_values: Values by key; copied, never kept.
            key_excluded: Formats that do not get a key; of `tensorboard` or `metrana` count here.
            step: The ML step.

        Raises:
            MetranaError: If there was no run yet and none could be made; never later.
        """
        if self._run_id is None:
            self._follow(self.handle.open())
        early, self._logged_early = self._logged_early, {}
        values = {k: v for k, v in key_values.items() if k not in early or v is not early[k]}
        with self.faults:
            run = self.handle.open()
            self._follow(run)
            self._note_counters(key_values)
            self._fits.note(int(step))
            self._log(run, values, key_excluded, step)

    def write_rest(
        self,
        key_values: Mapping[str, Any],
        key_excluded: Mapping[str, tuple[str, ...]],
        step: int,
    ) -> None:
        """Log what no dump will take before a training ends; a dump after it takes the rest."""
        self._logged_early = dict(key_values)
        with self.faults:
            self._log(self.handle.open(), self._logged_early, key_excluded, step)

    def begin_fit(self, run: Run, first_step: int, recorded: Mapping[str, Any]) -> None:
        """A training begins.

        Args:
            run: The run.
            first_step: The first at which it may log.
            recorded: What its logger holds already: of a new one nothing, so that nothing of it
                was logged early.
        """
        early = self._logged_early.items()
        self._logged_early = {k: v for k, v in early if k in recorded and recorded[k] is v}
        self._follow(run)
        self._fits.begin(first_step)
        self._timesteps = self._round = None

    def close(self) -> None:
        """Deliver what was logged; the run is that of the adapter."""
        self.handle.flush()

    def _follow(self, run: Run) -> None:
        """Begin anew if the run is another one than before."""
        if run.run_id != self._run_id:
            self._run_id = run.run_id
            self._fits = Fits()
            self._timesteps = self._round = None

    def _log(
        self,
        run: Run,
        key_values: Mapping[str, Any],
        key_excluded: Mapping[str, Any],
        step: int,
    ) -> None:
        found: dict[bool, dict[str, Any]] = {False: {}, True: {}}
        for key, value in key_values.items():
            excluded = key_excluded.get(key) or ()
            if any(name in excluded for name in _FORMATS):
                continue
            if isinstance(value, HParam):
                log_config(run, value.hparam_dict, self.faults)
            elif not isinstance(value, (Video, Figure, Image)):
                found[str(key).startswith(_EVALUATION)][key] = value
        for evaluation, values in found.items():
            metrics = numbers(values, self.faults)
            if metrics:
                run.log(metrics, step=step, labels=self._fits.labels, evaluation=evaluation)

    def _note_counters(self, key_values: Mapping[str, Any]) -> None:
        """Begin a fit where SB3's counters fell, or did not move: `learn()` was called again."""
        timesteps = key_values.get(_TIMESTEPS)
        if timesteps is None:
            return
        round_ = next((key_values[key] for key in _ROUNDS if key in key_values), None)
        if self._timesteps is not None and (
            timesteps < self._timesteps
            or (timesteps == self._timesteps and _is_repeated(round_, self._round))
        ):
            self._fits.begin(int(timesteps))
            self._round = None
        self._timesteps = timesteps
        self._round = self._round if round_ is None else round_


def _is_repeated(round_: float | None, last: float | None) -> bool:
    return round_ is not None and last is not None and round_ <= last


def hyperparameters(model: BaseAlgorithm) -> dict[str, Any]:
    """What an algorithm was made with, by the names of its constructor's arguments."""
    found: dict[str, Any] = {
        "algorithm": type(model).__name__,
        "policy": model.policy_class.__name__,
        "n_envs": model.n_envs,
    }
    for kind in type(model).__mro__:
        made_by = vars(kind).get("__init__")
        for name in () if made_by is None else inspect.signature(made_by).parameters:
            # Some are kept under a private name.
            kept = next((n for n in (name, f"_{name}") if hasattr(model, n)), None)
            if kept is not None and name not in found and name not in _OTHER_ARGUMENTS:
                found[name] = _constant(getattr(model, kept))
    normalization = model.get_vec_normalize_env()
    if normalization is not None:
        found["vec_normalize"] = {name: getattr(normalization, name) for name in _NORMALIZATION}
    return found


def _constant(value: Any) -> Any:
    """What a schedule of SB3 was made of: its number, if it never changes."""
    schedule = _held(value, "value_schedule")
    if schedule is None:
        return value
    name = getattr(schedule, "__qualname__", type(schedule).__name__)
    is_constant = name == "ConstantSchedule" or name.startswith("constant_fn.")
    return _held(schedule, "val") if is_constant else schedule


def _held(schedule: Any, name: str) -> Any:
    """What a schedule keeps under a name; None if it has none."""
    if isinstance(schedule, types.FunctionType):  # those of SB3 before 2.7
        return inspect.getclosurevars(schedule).nonlocals.get(name)
    return getattr(schedule, name, None)


class Checkpoints:
    """Saves a model, and the statistics of its `VecNormalize`, at regular transitions.

    Args:
        directory: Folder of the files, made if missing; None: nothing is saved.
        frequency: Transitions between two of them; 0: only at the end.
    """

    def __init__(self, directory: Path | None, frequency: int) -> None:
        self._directory = directory
        self._frequency = frequency
        self._saved_at: int | None = None

    def begin(self) -> None:
        """A training begins: what was saved at a step before is not what it comes to."""
        self._saved_at = None

    def are_due(self, before: int, now: int) -> bool:
        """Whether one is due by a step, as `is_due` says it."""
        return is_due(self._frequency, before, now)

    def are_missing(self, num_timesteps: int) -> bool:
        """Whether what a training ended with has not been saved yet."""
        return self._directory is not None and self._saved_at != num_timesteps

    def save(self, run: Run, model: BaseAlgorithm) -> Path:
        """Save a model and log where; returns its path.

        Raises:
            OSError: If that is not possible.
        """
        directory = self._directory
        assert directory is not None, "nothing is due without one"
        # The names that SB3's own CheckpointCallback gives.
        path = directory / f"rl_model_{model.num_timesteps}_steps.zip"
        directory.mkdir(parents=True, exist_ok=True)
        model.save(path)
        normalization: VecNormalize | None = model.get_vec_normalize_env()
        if normalization is not None:
            # Without them the model does not know the observations it learned from.
            normalization.save(
                str(directory / f"rl_model_vecnormalize_{model.num_timesteps}_steps.pkl")
            )
        self._saved_at = model.num_timesteps
        paths = {"last": str(path), f"{model.num_timesteps}_steps": str(path)}
        run.log_attributes("checkpoint", paths)
        return path


def is_due(frequency: int, before: int, now: int) -> bool:
    """Whether a step comes to a multiple of a frequency, or past it; never of frequency 0.

    Args:
        frequency: In transitions.
        before: Transitions before the step.
        now: Transitions with it.
    """
    return frequency != 0 and now // frequency > before // frequency
