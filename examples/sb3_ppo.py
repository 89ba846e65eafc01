"""PPO of Stable-Baselines3 on CartPole: losses, episodes, evaluations and videos by one callback.

The callback logs what SB3's logger records, the hyperparameters, every reward and a record of every
episode of the four environments, and evaluates the policy every so many transitions. The wrapper
around the environment of the evaluations records the first episode of each, under the callback's
names.

    pip install 'metrana[sb3,rendering]' 'gymnasium[classic-control]'
    python examples/sb3_ppo.py
    metrana show sb3-ppo --project cartpole
    metrana episodes sb3-ppo --project cartpole --sort episode_return --limit 5
    metrana export sb3-ppo --project cartpole --renderings -o videos
"""

from __future__ import annotations

import argparse

import gymnasium as gym
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

import metrana
from metrana.integrations.gymnasium import MetranaEnvWrapper
from metrana.integrations.sb3 import MetranaCallback

NUM_ENVS = 4
EVALUATION_EPISODES = 5


def main() -> None:
    """Train once, with what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--timesteps", type=int, default=20_000)
    parser.add_argument("--eval-freq", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    torch.set_num_threads(1)  # the network is so small that threads would only wait
    with metrana.init(project_name="cartpole", run_name="sb3-ppo", resume_strategy="allow") as run:
        eval_env = MetranaEnvWrapper(
            gym.make("CartPole-v1", render_mode="rgb_array"),
            episode_trigger=lambda episode: episode % EVALUATION_EPISODES == 0,
            evaluation=True,
        )
        callback = MetranaCallback(
            eval_env=eval_env,
            eval_freq=arguments.eval_freq,
            n_eval_episodes=EVALUATION_EPISODES,
        )
        model = PPO(
            "MlpPolicy",
            make_vec_env("CartPole-v1", NUM_ENVS, seed=arguments.seed),
            n_steps=256,
            batch_size=256,
            learning_rate=1e-3,
            seed=arguments.seed,
            device="cpu",
        )
        model.learn(arguments.timesteps, callback=callback)
        eval_env.close()
        frame_count = run.get_metrics().rendering_frames_added
    print(f"{model.num_timesteps:,} transitions, {frame_count:,} frames of evaluations in videos")


if __name__ == "__main__":
    main()
