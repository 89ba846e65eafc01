"""Stable-Baselines3: one callback that logs a whole training, and a writer for its logger.

model.learn(100_000, callback=MetranaCallback(eval_env=gym.make("CartPole-v1")))
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from metrana import checks
from metrana.errors import MetranaValidationError
from metrana.integrations._common import Faults, RunHandle, claim, log_config, missing, release
from metrana.run import Run

try:
    import gymnasium as gym
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize
except ImportError as error:
    raise missing("stable-baselines3", "sb3") from error

from metrana.integrations import _sb3
from metrana.integrations._episode_settings import EpisodeSettings
from metrana.integrations._episodes import training_clock
from metrana.integrations._sb3_envs import (
    EvaluationEnv,
    TrainingEnv,
    as_vec_env,
    share_environments,
)

__all__ = ["MetranaCallback", "MetranaOutputFormat"]

_SKIPPED: Final = (
    "MetranaCallback was not called at every step, as inside of EveryNTimesteps: rewards of the "
    "steps between are missing, and ends of episodes; give it to learn() itself"
)


class MetranaOutputFormat(_sb3.Writer):
    """A writer for SB3's logger: everything that it records, under the same keys.

    ```python
    model.set_logger(Logger(None, [HumanOutputFormat(sys.stdout), MetranaOutputFormat()]))
    ```

    For whoever does not want the episodes and steps that `MetranaCallback` logs beside it. Metrics
    have the scale ML_STEP and the step of the dump; those whose key begins with `eval/` are logged
    with `evaluation=True`. Keys excluded for `tensorboard` or `metrana` are left out, and so is
    what is no number: the first text or histogram of a key with a warning, pictures without. Where
    SB3's counters begin again, because `learn()` was called again, a label `fit` is added.

    The run is found or made at the first dump. Not to be used from several threads at once.

    Args:
        run: The run. Default: that of `init_args`, else the current one, else a new one.
        init_args: Arguments of `metrana.init`.

    Attributes:
        faults: What could not be logged once the run was open: counted, the first one warned of.

    Raises:
        MetranaValidationError: For an argument that is not allowed.
    """

    def __init__(
        self, run: Run | None = None, *, init_args: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(RunHandle(run, init_args=init_args), Faults("MetranaOutputFormat"))

    def close(self) -> None:
        """Close the run if it was made here, else deliver what was logged. Blocks as `Run.close`.

        Raises:
            MetranaError: As `Run.close`.
        """
        self.handle.close()


class MetranaCallback(BaseCallback):
    """Logs a training of Stable-Baselines3: one argument of `learn()`.

    ```python
    model.learn(100_000, callback=MetranaCallback())
    ```

    Logged are

    - everything that SB3's logger records, as by `MetranaOutputFormat`, and what it would dump no
      more, the losses of the last update, one step after the last;
    - algorithm and hyperparameters, as config;
    - `reward` of every step of every environment, as it was before `VecNormalize`
      (ENVIRONMENT_STEP), and of every episode `episode_return`, `episode_length`,
      `episode_duration` in seconds, `terminated`, `truncated`, and `success` if its info says so
      (EPISODE). With a `Monitor` they end, and count, as it says. `rl_step` is the model's
      `num_timesteps`; where that is less than the last one of the run in this process, because
      `learn()` begins again at 0 or another model learns, it goes on from there;
    - with `eval_env` evaluations, as SB3's `EvalCallback` does them: their mean in SB3's logger
      (`eval/mean_reward`, `eval/mean_ep_length`, `eval/success_rate`), and their steps and episodes
      with `evaluation=True` under env ids of their own;
    - with `checkpoint_dir` the paths of the models that are saved there, as attributes of the run
      under `checkpoint`.

    For videos, wrap environments in `metrana.integrations.gymnasium.MetranaEnvWrapper` and give it
    a trigger, `eval_env` too: inside of what this callback logs such a wrapper logs nothing but
    them, under the callback's env ids, episodes and `num_timesteps`.

    The run is found or made when the first training starts, which raises if it cannot be made. From
    then on nothing is raised; what goes wrong is counted in `faults` and warned of once. At the end
    of a training everything is delivered (that may take as long as 15 s); the run stays open for
    the next `learn()`, until `close`, `metrana.close()` or the end of the process.

    Args:
        run_name: Name of the run. Default: the current run, else a new one of a generated name.
        project_name: Its project.
        run: The run itself.
        eval_env: Environment for evaluations, one of Gymnasium or of SB3; if the model learns with
            `VecNormalize`, wrapped in one too. Default: no evaluations.
        eval_freq: Transitions of the training between two evaluations.
        n_eval_episodes: Episodes of an evaluation.
        log_env_steps: Whether steps are logged; an int N: of whole episodes 0, N, 2N, … only.
        checkpoint_freq: Transitions between two saved models; 0: only at the end of a training.
        checkpoint_dir: Folder of models, made if missing. Default: none is saved. Beside a model
            are the statistics of its `VecNormalize`.
        init_args: Further arguments of `metrana.init`.
        verbose: 1: say in SB3's log where the run is, and what was saved.

    Attributes:
        faults: What could not be logged or saved: counted, the first one warned of.

    Raises:
        MetranaValidationError: For an argument that is not allowed.
    """

    def __init__(
        self,
        *,
        run_name: str | None = None,
        project_name: str | None = None,
        run: Run | None = None,
        eval_env: gym.Env[Any, Any] | VecEnv | None = None,
        eval_freq: int = 10_000,
        n_eval_episodes: int = 5,
        log_env_steps: bool | int = True,
        checkpoint_freq: int = 0,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        init_args: Mapping[str, Any] | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(checks.whole_number("verbose", verbose, maximum=2))
        if eval_env is not None and not isinstance(eval_env, (gym.Env, VecEnv)):
            raise checks.refusal("eval_env", eval_env, "an environment of Gymnasium or SB3")
        self.eval_freq = checks.whole_number("eval_freq", eval_freq, minimum=1)
        self.n_eval_episodes = checks.whole_number("n_eval_episodes", n_eval_episodes, minimum=1)
        self.eval_env = eval_env
        self.faults = Faults("MetranaCallback")
        self._handle = RunHandle(
            run, run_name=run_name, project_name=project_name, init_args=init_args
        )
        self._training_settings = EpisodeSettings.of(log_env_steps=log_env_steps)
        self._evaluation_settings = EpisodeSettings.of(evaluation=True, log_env_steps=log_env_steps)
        frequency = checks.whole_number("checkpoint_freq", checkpoint_freq)
        if frequency and checkpoint_dir is None:
            raise MetranaValidationError(
                "checkpoint_dir: must be given with checkpoint_freq: a folder for the models"
            )
        self._checkpoints = _sb3.Checkpoints(_folder(checkpoint_dir), frequency)
        # The logger's dumps go to one of its own, or to one that the user has put there.
        self._own_writer = self._writer = _sb3.Writer(self._handle, self.faults)
        self._training: TrainingEnv | None = None
        self._evaluation: EvaluationEnv | None = None
        self._is_active = False
        # What `rl_step` is ahead of `num_timesteps`, in which run, and how far it came there.
        self._offset = self._rl_step = 0
        self._run_id: str | None = None
        # `num_timesteps` at the last call.
        self._seen_timesteps = 0

    @property
    def run(self) -> Run | None:
        """The run, if there is one yet and it is open."""
        return self._handle.run

    def close(self) -> None:
        """Close the run if it was made here, else deliver what was logged. Blocks as `Run.close`.

        Raises:
            MetranaError: As `Run.close`.
        """
        for env in (self._training, self._evaluation):
            if env is not None:
                env.release()
        self._training = self._evaluation = None
        self._handle.close()

    # ── Events ───────────────────────────────────────────────────────────────────────────────────

    def _init_callback(self) -> None:
        with self.faults:
            self._log_interrupted_step()
        self._is_active = False
        # A training that ended with an exception has left its writer in a logger of the user's.
        logger = self.logger
        logger.output_formats[:] = [f for f in logger.output_formats if type(f) is not _sb3.Writer]

    def _on_training_start(self) -> None:
        try:
            run = self._handle.open()
        except Exception as error:
            if self._run_id is None:
                raise
            self.faults.note(error)  # there was a run: this is the middle of a script
            return
        self._seen_timesteps = self.num_timesteps
        self._is_active = claim(run, self._source, self)
        if not self._is_active:
            self.faults.warn_once(
                "passive",
                "MetranaCallback: another one logs this training to the same run; this one does "
                "nothing",
            )
            return
        self._begin_evaluations(run)
        with self.faults:
            self._attach_writer(run)
        with self.faults:
            self._begin_training(run)
        with self.faults:
            config = _sb3.hyperparameters(self.model)
            config["total_timesteps"] = self.locals.get("total_timesteps")
            log_config(run, config, self.faults)
            self._say(f"metrana: logging to {run.project_name}/{run.run_name}")

    def _on_step(self) -> bool:
        if self._is_active:
            # Called at each step, so it is written to take little where nothing is due.
            try:
                self._log_step()
            except Exception as error:  # noqa: BLE001 - training goes on
                self.faults.note(error)
            now = self.num_timesteps
            before = now - self.model.n_envs
            if before > self._seen_timesteps:
                self.faults.warn_once("skipped", _SKIPPED)
            self._seen_timesteps = now
            if _sb3.is_due(self.eval_freq, before, now):
                with self.faults:
                    self._evaluate()
            if self._checkpoints.are_due(before, now):
                self._save()
        return True

    def _on_training_end(self) -> None:
        if not self._is_active:
            return
        if self._training is not None:
            # Which it was not called at, inside of EveryNTimesteps say.
            self._training.last_obs = self.model._last_obs  # noqa: SLF001 - SB3 says it nowhere else
        if self._checkpoints.are_missing(self.num_timesteps):
            self._save()
        with self.faults:
            self._writer.write_rest(
                self.logger.name_to_value, self.logger.name_to_excluded, self.num_timesteps + 1
            )
            if self._own_writer in self.logger.output_formats:
                self.logger.output_formats.remove(self._own_writer)
        with self.faults:
            release(self._handle.open(), self._source, self)
            self._handle.deliver(self.faults)

    # ── Parts of them ────────────────────────────────────────────────────────────────────────────

    @property
    def _source(self) -> str:
        # Of this `learn()`: one that an exception has ended leaves its claim behind.
        return f"sb3/{id(self.model)}/{self.model.start_time}"

    def _begin_evaluations(self, run: Run) -> None:
        if self.eval_env is None:
            return
        env = self._evaluation.env if self._evaluation is not None else as_vec_env(self.eval_env)
        if share_environments(env, self.training_env):
            raise MetranaValidationError(
                "eval_env: must be another environment than the one that the model learns from, "
                "which an evaluation would reset"
            )
        if self.model.get_vec_normalize_env() is not None and unwrap_vec_normalize(env) is None:
            raise MetranaValidationError(
                "eval_env: must be wrapped in VecNormalize, as the environment that the model "
                "learns from is: VecNormalize(DummyVecEnv([...]), training=False)"
            )
        if self._evaluation is None or not self._evaluation.is_of(run, env):
            if self._evaluation is not None:
                self._evaluation.release()
                self._evaluation = None
            with self.faults:
                self._evaluation = EvaluationEnv(run, env, self._evaluation_settings, self.faults)

    def _attach_writer(self, run: Run) -> None:
        """Have the logger's dumps; another writer of ours may have them already."""
        formats = self.logger.output_formats
        present = [
            writer
            for writer in formats
            if isinstance(writer, MetranaOutputFormat) and writer.handle.open() is run
        ]
        self._writer = present[0] if present else self._own_writer
        if not present:
            formats.append(self._own_writer)
        self._writer.begin_fit(run, self.num_timesteps + 1, self.logger.name_to_value)

    def _begin_training(self, run: Run) -> None:
        """Go on with the environment, or take a new one."""
        env = self.training_env
        if self._training is not None and not self._training.is_of(run, env):
            self._training.release()
            self._training = None
            self._offset = 0  # that of another model, it may be
        self._training = TrainingEnv.begun(
            self.model, run, env, self._training_settings, self.faults
        )
        if run.run_id != self._run_id:
            self._run_id, self._offset, self._rl_step = run.run_id, 0, 0
        # Other callbacks of this process may have come further.
        last = max(training_clock(run).rl_step or 0, self._rl_step)
        if self.num_timesteps + self._offset < last:
            self._offset = last - self.num_timesteps
        self._checkpoints.begin()

    def _log_step(self) -> None:
        training = self._training
        if training is not None:
            given, rl_step = self.locals, self.num_timesteps + self._offset
            self._rl_step = rl_step
            # What tells whether the next training goes on from here.
            training.last_obs = self.model._last_obs  # noqa: SLF001 - as above
            training.new_obs = given.get("new_obs")
            training.step(given["rewards"], given["dones"], given["infos"], rl_step)

    def _log_interrupted_step(self) -> None:
        """Log the step at which an exception in a callback before this one ended a training."""
        training, model, new_obs = self._training, self.model, self.locals.get("new_obs")
        if not self._is_active or training is None or self._handle.run is not training.run:
            return
        # The model stands where the last step led to, but has counted one more.
        is_one_more = model.num_timesteps == self._seen_timesteps + model.n_envs
        if is_one_more and model._last_obs is training.new_obs is not new_obs:  # noqa: SLF001
            self.num_timesteps = model.num_timesteps
            self._log_step()

    def _evaluate(self) -> None:
        if self._evaluation is None:
            return
        found = self._evaluation.evaluate(self.model, self.n_eval_episodes, self._rl_step)
        for key, value in found.items():
            self.logger.record(key, value)
        # As EvalCallback does it, for the results to have the step that they are of.
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.dump(self.num_timesteps)

    def _save(self) -> None:
        with self.faults:
            self._say(f"metrana: saved {self._checkpoints.save(self._handle.open(), self.model)}")

    def _say(self, text: str) -> None:
        if self.verbose >= 1:
            self.logger.info(text)


def _folder(checkpoint_dir: str | os.PathLike[str] | None) -> Path | None:
    return None if checkpoint_dir is None else checks.directory("checkpoint_dir", checkpoint_dir)
