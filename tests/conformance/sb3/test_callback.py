"""`MetranaCallback`: its run, SB3's logger, config and checkpoints."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import A2C, DQN, PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

import metrana
from metrana.integrations.sb3 import MetranaCallback, MetranaOutputFormat
from metrana.query import Client
from tests.conformance.sb3.environments import Scripted
from tests.conformance.sb3.models import dqn, ppo, tiny
from tests.local_server import LocalServer

# ── What it is made with ─────────────────────────────────────────────────────────────────────────


def test_the_arguments_are_those_of_the_contract() -> None:
    arguments = inspect.signature(MetranaCallback).parameters.values()
    assert {argument.kind for argument in arguments} == {inspect.Parameter.KEYWORD_ONLY}
    assert {argument.name: argument.default for argument in arguments} == {
        **dict.fromkeys(["run_name", "project_name", "run", "eval_env"]),
        "eval_freq": 10_000,
        "n_eval_episodes": 5,
        "log_env_steps": True,
        "checkpoint_freq": 0,
        "checkpoint_dir": None,
        "init_args": None,
        "verbose": 0,
    }
    writer = inspect.signature(MetranaOutputFormat).parameters
    assert {name: argument.default for name, argument in writer.items()} == {
        "run": None,
        "init_args": None,
    }
    assert writer["init_args"].kind is inspect.Parameter.KEYWORD_ONLY


def test_without_the_framework_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "metrana.integrations.sb3")
    monkeypatch.setitem(sys.modules, "stable_baselines3.common.callbacks", None)
    with pytest.raises(ImportError, match=r"pip install 'metrana\[sb3\]'"):
        importlib.import_module("metrana.integrations.sb3")


# ── The run ──────────────────────────────────────────────────────────────────────────────────────


def test_the_run_is_made_at_training_start_and_stays_open(offline: dict[str, Any]) -> None:
    callback = MetranaCallback(run_name="a", project_name="p", init_args=offline)
    assert not Path(offline["data_dir"]).exists()
    assert callback.run is None
    ppo().learn(16, callback=callback)
    run = callback.run
    assert run is not None
    assert run.is_initialized()
    assert (run.run_name, run.project_name) == ("a", "p")
    assert metrana.is_initialized()
    ppo().learn(16, callback=callback)
    assert callback.run is run
    callback.close()
    callback.close()
    assert not metrana.is_initialized()
    with Client(data_dir=offline["data_dir"]) as client:
        assert client.run("a", project_name="p").status == "finished"


def test_a_run_that_cannot_be_made_raises_before_the_first_step(offline: dict[str, Any]) -> None:
    metrana.init(**offline, run_name="taken", orchestration_id="a").close()
    callback = MetranaCallback(run_name="taken", init_args={**offline, "orchestration_id": "b"})
    env = Scripted()
    with pytest.raises(metrana.MetranaRunAlreadyExistsError):
        ppo(env).learn(16, callback=callback)
    assert env.steps == 0
    assert callback.n_calls == 0


def test_an_open_run_is_used_and_left_open(offline: dict[str, Any]) -> None:
    run = metrana.init(**offline, run_name="mine")
    for callback in (MetranaCallback(), MetranaCallback(run=run)):
        ppo().learn(16, callback=callback)
        assert callback.run is run
        callback.close()
        assert run.is_initialized()


def test_each_run_begins_at_its_beginning(offline: dict[str, Any]) -> None:
    callback = MetranaCallback()
    for name in ("a", "b"):
        with metrana.init(**offline, run_name=name):
            for _ in range(2):
                ppo().learn(16, callback=callback)
    assert callback.faults.count == 0
    with Client(data_dir=offline["data_dir"]) as client:
        for name in ("a", "b"):
            found = client.points(name, "rollout/ep_len_mean")
            assert found["labels"].tolist() == [{}, {"fit": "2"}]
            rewards = client.points(name, "reward")
            assert rewards["rl_step"].tolist() == list(range(1, 33))


def test_a_run_that_is_closed_between_trainings_goes_on(offline: dict[str, Any]) -> None:
    callback = MetranaCallback(run_name="a", init_args=offline)
    for _ in range(2):
        ppo().learn(16, callback=callback)
        metrana.close()
    assert callback.faults.count == 0
    with Client(data_dir=offline["data_dir"]) as client:
        rewards = client.points("a", "reward")
    assert rewards["rl_step"].tolist() == list(range(1, 33))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"run": "a"}, "run: must be a metrana.Run"),
        ({"init_args": {"modus": 1}}, "init_args: must be arguments"),
        ({"eval_env": "CartPole-v1"}, "eval_env: must be an environment"),
        ({"eval_freq": 0}, "eval_freq: must be a whole number of at least 1"),
        ({"n_eval_episodes": 0}, "n_eval_episodes: must be"),
        ({"log_env_steps": -1}, "log_env_steps: must be"),
        ({"checkpoint_freq": -1}, "checkpoint_freq: must be"),
        ({"checkpoint_freq": 10}, "checkpoint_dir: must be given with checkpoint_freq"),
        ({"checkpoint_dir": 3}, "checkpoint_dir: must be a path"),
        ({"verbose": "yes"}, "verbose: must be"),
    ],
)
def test_bad_arguments_are_refused_at_once(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(metrana.MetranaValidationError, match=message):
        MetranaCallback(**arguments)


# ── SB3's logger ─────────────────────────────────────────────────────────────────────────────────


def test_what_the_logger_records_is_logged_once_with_the_last_update(
    offline: dict[str, Any],
) -> None:
    """The losses of the last update are in no dump of a training on policy."""
    callback = MetranaCallback(run_name="ppo", init_args=offline)
    model = ppo()
    model.learn(64, callback=callback)
    assert callback.faults.count == 0
    assert model.logger.output_formats == []
    callback.close()
    with Client(data_dir=offline["data_dir"]) as client:
        losses = client.points("ppo", "train/loss", duplicates="all")
        rewards = client.points("ppo", "rollout/ep_rew_mean", duplicates="all")
    # An update comes after the dump of its own round: its losses come with the next one.
    assert losses["step"].tolist() == [32, 48, 64, 65]
    assert rewards["step"].tolist() == [16, 32, 48, 64]


@pytest.mark.parametrize("reset", [True, False])
def test_a_logger_of_the_users_has_the_rest_in_its_next_dump(
    offline: dict[str, Any], reset: bool
) -> None:
    callback = MetranaCallback(run_name="ppo", init_args=offline)
    model = ppo()
    model.set_logger(Logger(None, []))
    for _ in range(2):
        model.learn(32, callback=callback, reset_num_timesteps=reset)
        assert model.logger.output_formats == []
        assert "train/loss" in model.logger.name_to_value
    callback.close()
    with Client(data_dir=offline["data_dir"]) as client:
        series = client.points("ppo", "train/loss", duplicates="all")
    updates = [
        (step, labels) for step, labels in zip(series["step"], series["labels"], strict=True)
    ]
    label = {"fit": "2"} if reset else {}
    later = (32, 33) if reset else (64, 65)
    assert updates == [(32, {}), (33, {}), *((step, label) for step in later)]


def test_a_value_that_never_changes_is_in_every_dump_of_the_next_training(
    offline: dict[str, Any],
) -> None:
    """It is the same object that was logged when the training before ended."""
    callback = MetranaCallback(run_name="dqn", init_args=offline)
    model = dqn(exploration_fraction=0.01)
    for _ in range(2):
        model.learn(20, callback=callback, reset_num_timesteps=False)
    callback.close()
    with Client(data_dir=offline["data_dir"]) as client:
        rates = client.points("dqn", "rollout/exploration_rate")
        lengths = client.points("dqn", "rollout/ep_len_mean")
    assert set(lengths["step"]) <= set(rates["step"])
    assert len(rates) == len(lengths) + 2


def test_a_writer_of_the_users_is_not_doubled(offline: dict[str, Any]) -> None:
    run = metrana.init(**offline, run_name="ppo")
    writer = MetranaOutputFormat()
    model = ppo()
    model.set_logger(Logger(None, [writer]))
    model.learn(32, callback=MetranaCallback())
    model.learn(32, callback=MetranaCallback(run=run))
    assert model.logger.output_formats == [writer]
    run.close()
    with Client(data_dir=offline["data_dir"]) as client:
        found = client.points("ppo", "train/loss", duplicates="all")
    assert found["step"].tolist() == [32, 33, 32, 33]
    assert found["labels"].tolist() == [{}, {}, {"fit": "2"}, {"fit": "2"}]


def test_it_says_where_the_run_and_the_models_are(
    offline: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    callback = MetranaCallback(
        run_name="a", checkpoint_dir=tmp_path / "models", verbose=1, init_args=offline
    )
    ppo(verbose=1).learn(16, callback=callback)
    printed = capsys.readouterr().out
    assert "metrana: logging to default/a" in printed
    assert f"metrana: saved {tmp_path / 'models' / 'rl_model_16_steps.zip'}" in printed


def test_a_second_callback_of_a_training_does_nothing(offline: dict[str, Any]) -> None:
    run = metrana.init(**offline, run_name="ppo")
    first, second = MetranaCallback(), MetranaCallback(run=run)
    with pytest.warns(metrana.MetranaWarning, match="another one logs this training"):
        ppo().learn(32, callback=[first, second])
    run.close()
    with Client(data_dir=offline["data_dir"]) as client:
        assert client.points("ppo", "train/loss", duplicates="all")["step"].tolist() == [32, 33]
        assert set(client.series("ppo")["env_id"].dropna()) == {"env-0"}


def test_two_callbacks_with_runs_of_their_own_both_log(offline: dict[str, Any]) -> None:
    callbacks = [MetranaCallback(run_name=name, init_args=offline) for name in ("a", "b")]
    ppo().learn(32, callback=CallbackList(list(callbacks)))
    for callback in callbacks:
        callback.close()
    with Client(data_dir=offline["data_dir"]) as client:
        counts = [client.series(name)["point_count"].tolist() for name in ("a", "b")]
    assert counts[0] == counts[1]


def test_evaluations_of_sb3s_own_callback_are_evaluations(offline: dict[str, Any]) -> None:
    callback = MetranaCallback(run_name="dqn", init_args=offline)
    evaluation = EvalCallback(Monitor(Scripted()), eval_freq=11, n_eval_episodes=1, verbose=0)
    dqn().learn(40, callback=[evaluation, callback], log_interval=1)
    callback.close()
    with Client(data_dir=offline["data_dir"]) as client:
        points = client.points("dqn", "eval/mean_reward")
    assert points["step"].tolist() == [11, 22, 33]
    assert points["labels"].tolist() == [{"evaluation": "true"}] * 3


# ── Config and checkpoints ───────────────────────────────────────────────────────────────────────


def test_algorithm_and_hyperparameters_are_config(offline: dict[str, Any]) -> None:
    env = VecNormalize(DummyVecEnv([Scripted, Scripted]), gamma=0.9)
    model = ppo(env, clip_range=0.3, learning_rate=lambda left: 1e-3 * left)
    callback = MetranaCallback(run_name="ppo", init_args={**offline, "config": {"mine": 1}})
    model.learn(32, callback=callback)
    callback.close()
    with Client(data_dir=offline["data_dir"]) as client:
        config = client.run("ppo").config
    assert config["mine"] == 1
    assert config["algorithm"] == "PPO"
    assert config["policy"] == "ActorCriticPolicy"
    assert (config["n_envs"], config["n_steps"], config["batch_size"]) == (2, 16, 16)
    assert (config["gamma"], config["clip_range"], config["seed"]) == (0.99, 0.3, 0)
    assert config["policy_kwargs"] == {"net_arch": [4]}
    assert config["vec_normalize"]["gamma"] == 0.9
    assert config["total_timesteps"] == 32
    assert "lambda" in config["learning_rate"]
    assert "tensorboard_log" not in config


def test_a_schedule_that_changes_is_not_taken_for_its_value(offline: dict[str, Any]) -> None:
    class Linear:
        def __init__(self, val: float) -> None:
            self.val = val

        def __call__(self, left: float) -> float:
            return self.val * left

        def __repr__(self) -> str:
            return f"Linear({self.val})"

    callback = MetranaCallback(run_name="ppo", init_args=offline)
    ppo(clip_range=Linear(0.3)).learn(16, callback=callback)
    callback.close()
    with Client(data_dir=offline["data_dir"]) as client:
        assert client.run("ppo").config["clip_range"] == "Linear(0.3)"


@pytest.mark.parametrize("kind", [A2C, DQN, SAC])
def test_each_algorithm_has_its_hyperparameters(offline: dict[str, Any], kind: Any) -> None:
    env = "Pendulum-v1" if kind is SAC else "CartPole-v1"
    arguments = {} if kind is A2C else {"learning_starts": 8, "buffer_size": 100}
    model = kind("MlpPolicy", env, **tiny(), **arguments)
    callback = MetranaCallback(run_name="run", init_args=offline)
    model.learn(20, callback=callback)
    assert callback.faults.count == 0
    callback.close()
    with Client(data_dir=offline["data_dir"]) as client:
        config = client.run("run").config
    assert config["algorithm"] == kind.__name__
    assert {name: config[name] for name in arguments} == arguments
    expected = {A2C: ("gae_lambda", "n_steps"), DQN: ("train_freq", "target_update_interval")}
    assert set(expected.get(kind, ("tau", "ent_coef"))) <= config.keys()


def test_models_are_saved_every_so_many_transitions_and_at_the_end(
    offline: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "models"
    callback = MetranaCallback(
        run_name="ppo", checkpoint_freq=20, checkpoint_dir=folder, init_args=offline
    )
    env = VecNormalize(DummyVecEnv([Scripted] * 3))
    model = ppo(env)
    model.learn(48, callback=callback)
    callback.close()
    steps = [21, 42, 48]
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        name
        for step in steps
        for name in (f"rl_model_{step}_steps.zip", f"rl_model_vecnormalize_{step}_steps.pkl")
    )
    loaded = PPO.load(folder / "rl_model_48_steps.zip", device="cpu")
    assert loaded.num_timesteps == 48
    statistics = VecNormalize.load(
        str(folder / "rl_model_vecnormalize_48_steps.pkl"), DummyVecEnv([Scripted] * 3)
    )
    assert np.array_equal(statistics.obs_rms.mean, env.obs_rms.mean)
    with Client(data_dir=offline["data_dir"]) as client:
        attributes = client.run("ppo").attributes
    assert {k: v for k, v in attributes.items() if k.startswith("checkpoint/")} == {
        "checkpoint/last": str(folder / "rl_model_48_steps.zip"),
        **{f"checkpoint/{s}_steps": str(folder / f"rl_model_{s}_steps.zip") for s in steps},
    }


def test_without_a_frequency_the_last_model_is_saved(
    offline: dict[str, Any], tmp_path: Path
) -> None:
    callback = MetranaCallback(checkpoint_dir=tmp_path / "models", init_args=offline)
    model = ppo()
    for _ in range(2):
        model.learn(16, callback=callback)
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["rl_model_16_steps.zip"]


# ── Against a server ─────────────────────────────────────────────────────────────────────────────


def test_a_training_streams_to_a_server(tmp_path: Path) -> None:
    with LocalServer(tmp_path / "server") as server:
        callback = MetranaCallback(
            run_name="served",
            eval_env=gym.make("CartPole-v1"),
            eval_freq=64,
            n_eval_episodes=2,
            init_args={"mode": "online", "data_dir": tmp_path / "server"},
        )
        ppo("CartPole-v1", n_steps=64, batch_size=64).learn(128, callback=callback)
        # Delivered by the end of the training, with the run still open.
        with Client(server.http_url, data_dir=tmp_path / "server") as client:
            names = set(client.series("served")["metric_name"])
            rewards = client.points("served", "reward", labels={})
            episodes = client.episodes("served")
        assert callback.faults.count == 0
        callback.close()
    assert {"train/loss", "eval/mean_reward", "episode_return", "reward"} <= names
    assert rewards["rl_step"].tolist() == list(range(1, 129))
    assert set(episodes["env_id"]) == {"CartPole-v1-0", "CartPole-v1-eval-0"}
    finished = episodes[episodes["end"] == "terminated"]
    assert (finished["episode_return"] == finished["episode_length"]).all()


def test_a_server_that_is_gone_does_not_hold_up_the_end_of_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metrana.integrations._common._FLUSH_TIMEOUT_S", 0.2)
    with LocalServer(tmp_path / "server") as server:
        run = metrana.init(
            mode="online", data_dir=tmp_path / "server", run_name="cut", error_strategy="silent"
        )

        class Killing(BaseCallback):
            def _on_step(self) -> bool:
                if self.n_calls == 8:
                    run.flush()
                    server.kill()
                return True

        callback = MetranaCallback()
        model = ppo()
        with pytest.warns(metrana.MetranaWarning, match="MetranaCallback goes on"):
            model.learn(16, callback=[callback, Killing()])
    assert model.num_timesteps == 16
    assert callback.faults.count == 0
    run.close(0.2)
    # What the server did not get is still there.
    with Client(data_dir=tmp_path / "server") as client:
        rewards = client.points("cut", "reward")
    assert rewards["rl_step"].tolist() == list(range(1, 17))
