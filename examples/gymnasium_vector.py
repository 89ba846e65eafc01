"""Random search on CartPole with Gymnasium's vector environments, logged by wrapping them.

Each environment plays one candidate policy per generation; the best of them make the next ones. The
wrapper logs every reward, a record of every episode, and videos of some episodes of two of the
environments; an evaluation of the mean policy has series of its own, at the same rl_step.

    pip install 'metrana[gymnasium,rendering]' 'gymnasium[classic-control]'
    python examples/gymnasium_vector.py
    metrana episodes gymnasium-vector --project cartpole --sort episode_return --limit 5
"""

from __future__ import annotations

import argparse

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import metrana
from metrana.integrations.gymnasium import MetranaEnvWrapper, MetranaVectorEnvWrapper

NUM_ENVS = 16
ELITE = 4
EPISODES_PER_VIDEO = 10


def make_env() -> gym.Env:
    """One environment, whose frames can be had."""
    return gym.make("CartPole-v1", render_mode="rgb_array")


def play_generation(envs: gym.vector.VectorEnv, policies: np.ndarray) -> np.ndarray:
    """Play an episode of each policy.

    Args:
        envs: An environment for each.
        policies: Weights of the observation; the sign is the action. Shape: (NUM_ENVS, 4).

    Returns:
        The returns. Shape: (NUM_ENVS,).
    """
    observations, _ = envs.reset()
    returns, plays = np.zeros(NUM_ENVS), np.ones(NUM_ENVS, dtype=bool)
    while plays.any():
        actions = (np.einsum("ij,ij->i", observations, policies) > 0).astype(np.int64)
        observations, rewards, terminated, truncated, _ = envs.step(actions)
        returns += rewards * plays
        plays &= ~(terminated | truncated)
    return returns


def evaluate(env: gym.Env, policy: np.ndarray) -> float:
    """Play one episode; returns its return."""
    observation, _ = env.reset()
    total, is_over = 0.0, False
    while not is_over:
        observation, reward, terminated, truncated, _ = env.step(int(observation @ policy > 0))
        total += float(reward)
        is_over = terminated or truncated
    return total


def main() -> None:
    """Train once, with what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--generations", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    with metrana.init(
        project_name="cartpole",
        run_name="gymnasium-vector",
        resume_strategy="allow",
        config={**vars(arguments), "num_envs": NUM_ENVS, "elite": ELITE},
    ) as run:
        envs = MetranaVectorEnvWrapper(
            SyncVectorEnv([make_env] * NUM_ENVS, autoreset_mode=AutoresetMode.SAME_STEP),
            episode_trigger=lambda episode: episode % EPISODES_PER_VIDEO == 0,
            video_envs=(0, 1),
        )
        evaluation = MetranaEnvWrapper(gym.make("CartPole-v1"), evaluation=True)
        envs.reset(seed=arguments.seed)
        mean, spread = np.zeros(4), np.ones(4)
        score = 0.0
        for generation in range(arguments.generations):
            policies = mean + spread * rng.normal(size=(NUM_ENVS, 4))
            returns = play_generation(envs, policies)
            elite = policies[np.argsort(returns)[-ELITE:]]
            mean, spread = elite.mean(axis=0), elite.std(axis=0) + 0.05
            score = evaluate(evaluation, mean)
            run.log({"search/spread": float(spread.mean())}, step=generation)
        evaluation.close()
        envs.close()
        frame_count = run.get_metrics().rendering_frames_added
    print(f"the mean policy's last return: {score:.0f}; {frame_count:,} frames in videos")


if __name__ == "__main__":
    main()
