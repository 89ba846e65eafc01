"""REINFORCE on CartPole in NumPy, logged as RL data is shaped.

Shows the four kinds of calls an RL script makes: one loss per update (`log`), one return per
episode (`log_rl_episode`), rewards of all environments as one block per update
(`log_rl_environment_step`), and the run's config and tags (`init`).

    python examples/reinforce_cartpole.py
    metrana show reinforce-0 --project cartpole
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass

import gymnasium as gym
import numpy as np

import metrana


@dataclass(frozen=True)
class Config:
    """What defines the training: everything here is the run's config."""

    seed: int = 0
    num_envs: int = 8
    steps_per_update: int = 128
    updates: int = 100
    learning_rate: float = 0.1
    discount: float = 0.99


class Policy:
    """A linear policy over two actions: p(right) = sigmoid(w · [observation, 1])."""

    def __init__(self, learning_rate: float, rng: np.random.Generator) -> None:
        self.rng = rng
        self.learning_rate = learning_rate
        self.weights = np.zeros(5)
        self.first_moment = np.zeros(5)
        self.second_moment = np.zeros(5)
        self.updates = 0

    @staticmethod
    def features(observations: np.ndarray) -> np.ndarray:
        """Append the constant feature. Shape: (..., 4) → (..., 5)."""
        return np.concatenate([observations, np.ones((*observations.shape[:-1], 1))], axis=-1)

    def probability_right(self, features: np.ndarray) -> np.ndarray:
        """Shape: (..., 5) → (...)."""
        return 1.0 / (1.0 + np.exp(-np.clip(features @ self.weights, -30.0, 30.0)))

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Sample one action per environment. Shape: (num_envs, 4) → (num_envs,)."""
        right = self.probability_right(self.features(observations))
        return (self.rng.random(right.shape) < right).astype(np.int64)

    def update(
        self, observations: np.ndarray, actions: np.ndarray, advantages: np.ndarray
    ) -> dict[str, float]:
        """One step up the policy gradient; returns the metrics of the update."""
        features = self.features(observations)
        right = self.probability_right(features)
        log_likelihood = np.log(np.where(actions == 1, right, 1.0 - right) + 1e-12)
        gradient = np.mean((advantages * (right - actions))[..., None] * features, axis=(0, 1))

        self.updates += 1
        self.first_moment = 0.9 * self.first_moment + 0.1 * gradient
        self.second_moment = 0.999 * self.second_moment + 0.001 * gradient**2
        first = self.first_moment / (1.0 - 0.9**self.updates)
        second = self.second_moment / (1.0 - 0.999**self.updates)
        self.weights -= self.learning_rate * first / (np.sqrt(second) + 1e-8)
        entropy = -(right * np.log(right + 1e-12) + (1 - right) * np.log(1 - right + 1e-12))
        return {
            "policy/loss": float(-np.mean(advantages * log_likelihood)),
            "policy/entropy": float(np.mean(entropy)),
            "policy/gradient_norm": float(np.linalg.norm(gradient)),
        }


def discounted_returns(rewards: np.ndarray, ended: np.ndarray, discount: float) -> np.ndarray:
    """Return-to-go of every step, cut where an episode ended. Shape: (num_envs, steps)."""
    returns = np.zeros_like(rewards)
    running = np.zeros(rewards.shape[0])
    for t in reversed(range(rewards.shape[1])):
        running = rewards[:, t] + discount * running * ~ended[:, t]
        returns[:, t] = running
    return returns


def train(run: metrana.Run, config: Config) -> float:
    """Train and log to `run`; returns the mean return of the last 20 episodes."""
    envs = gym.vector.SyncVectorEnv(
        [lambda: gym.make("CartPole-v1")] * config.num_envs,
        autoreset_mode=gym.vector.AutoresetMode.SAME_STEP,
    )
    policy = Policy(config.learning_rate, np.random.default_rng(config.seed))
    env_ids = [f"cartpole-{index}" for index in range(config.num_envs)]
    shape = (config.num_envs, config.steps_per_update)
    episode = np.zeros(config.num_envs, dtype=np.int64)
    episode_return = np.zeros(config.num_envs)
    finished: list[float] = []

    observation, _ = envs.reset(seed=config.seed)
    for update in range(config.updates):
        observations = np.zeros((*shape, 4))
        actions = np.zeros(shape, dtype=np.int64)
        rewards = np.zeros(shape, dtype=np.float32)
        episodes = np.zeros(shape, dtype=np.int64)
        ended = np.zeros(shape, dtype=bool)
        for t in range(config.steps_per_update):
            observations[:, t], episodes[:, t] = observation, episode
            actions[:, t] = policy.act(observation)
            observation, rewards[:, t], terminated, truncated, _ = envs.step(actions[:, t])
            ended[:, t] = terminated | truncated
            episode_return += rewards[:, t]
            for index in np.flatnonzero(ended[:, t]):
                run.log_rl_episode(
                    "episode_return",
                    episode_return[index],
                    rl_step=update,
                    episode=int(episode[index]),
                    env_id=env_ids[index],
                )
                finished.append(float(episode_return[index]))
            episode_return[ended[:, t]] = 0.0
            episode += ended[:, t]

        run.log_rl_environment_step(
            "reward", rewards, rl_step=update, env_id=env_ids, episode=episodes
        )
        returns = discounted_returns(rewards, ended, config.discount)
        advantages = (returns - returns.mean()) / (returns.std() + 1e-8)
        metrics = policy.update(observations, actions, advantages)
        run.log({**metrics, "episodes_finished": len(finished)}, step=update)
    envs.close()
    return float(np.mean(finished[-20:]))


def main() -> None:
    """Train once, with what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--updates", type=int, default=Config.updates)
    arguments = parser.parse_args()
    config = Config(seed=arguments.seed, updates=arguments.updates)
    with metrana.init(
        project_name="cartpole",
        run_name=f"reinforce-{config.seed}",
        resume_strategy="allow",
        config=asdict(config),
        tags=["reinforce", "numpy"],
    ) as run:
        mean_return = train(run, config)
    print(f"mean return of the last 20 episodes: {mean_return:.1f}")


if __name__ == "__main__":
    main()
