"""Sixteen CartPoles side by side: rewards in blocks, records of episodes, videos of some of them.

The agent is that of `reinforce_cartpole.py`. Every 20th episode of each environment is rendered:
its frames are given to `log_rendering` as they are drawn, those of all environments in turns, and
become one video for each episode. Encoding is done by a thread beside the training.

    pip install 'metrana[rendering]' 'gymnasium[classic-control]'
    python examples/vector_envs.py
    metrana episodes vector-envs --project cartpole --sort episode_return --limit 5
    metrana export vector-envs --project cartpole --renderings -o videos
"""

from __future__ import annotations

import argparse

import gymnasium as gym
import numpy as np
from reinforce_cartpole import Policy, discounted_returns

import metrana

NUM_ENVS = 16
STEPS_PER_UPDATE = 128
RENDER_EVERY = 20


class Rollout:
    """The environments, and where each of them is.

    Args:
        run: Gets what happens in them.
        seed: Of the environments.
    """

    def __init__(self, run: metrana.Run, seed: int) -> None:
        self.run = run
        self.envs = gym.vector.SyncVectorEnv(
            [lambda: gym.make("CartPole-v1", render_mode="rgb_array")] * NUM_ENVS,
            autoreset_mode=gym.vector.AutoresetMode.SAME_STEP,
        )
        self.env_ids = [f"cartpole-{index:02}" for index in range(NUM_ENVS)]
        self.observation, _ = self.envs.reset(seed=seed)
        self.episode = np.zeros(NUM_ENVS, dtype=np.int64)
        self.episode_return = np.zeros(NUM_ENVS)

    def collect(self, policy: Policy, rl_step: int) -> tuple[np.ndarray, ...]:
        """Play one block and log it.

        Returns:
            Observations, actions, rewards, and whether the episode ended there.
            Shape: (NUM_ENVS, STEPS_PER_UPDATE), of observations with 4 more.
        """
        shape = (NUM_ENVS, STEPS_PER_UPDATE)
        observations, actions = np.zeros((*shape, 4)), np.zeros(shape, dtype=np.int64)
        rewards, ended = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=bool)
        episodes = np.zeros(shape, dtype=np.int64)
        for t in range(STEPS_PER_UPDATE):
            self.render(rl_step)
            observations[:, t], episodes[:, t] = self.observation, self.episode
            actions[:, t] = policy.act(self.observation)
            step = self.envs.step(actions[:, t])
            self.observation, rewards[:, t], terminated, truncated, _ = step
            ended[:, t] = terminated | truncated
            self.episode_return += rewards[:, t]
            for index in np.flatnonzero(ended[:, t]):
                self.end_episode(index, rl_step, terminated[index], truncated[index])
        self.run.log_rl_environment_step(
            "reward", rewards, rl_step=rl_step, env_id=self.env_ids, episode=episodes
        )
        return observations, actions, rewards, ended

    def render(self, rl_step: int) -> None:
        """Draw the environments whose episode is to have a video."""
        for index in np.flatnonzero(self.episode % RENDER_EVERY == 0):
            self.run.log_rendering(
                self.envs.envs[index].render(),
                rl_step=rl_step,
                episode=int(self.episode[index]),
                env_id=self.env_ids[index],
            )

    def end_episode(self, index: int, rl_step: int, terminated: bool, truncated: bool) -> None:
        """Log an episode's record, and begin the next one."""
        for name, value in (
            ("episode_return", self.episode_return[index]),
            ("terminated", terminated),
            ("truncated", truncated),
        ):
            self.run.log_rl_episode(
                name,
                value,
                rl_step=rl_step,
                episode=int(self.episode[index]),
                env_id=self.env_ids[index],
            )
        self.episode_return[index] = 0.0
        self.episode[index] += 1


def main() -> None:
    """Train once, with what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--updates", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    with metrana.init(
        project_name="cartpole",
        run_name="vector-envs",
        resume_strategy="allow",
        config={**vars(arguments), "num_envs": NUM_ENVS},
    ) as run:
        rollout = Rollout(run, arguments.seed)
        policy = Policy(0.1, np.random.default_rng(arguments.seed))
        for update in range(arguments.updates):
            observations, actions, rewards, ended = rollout.collect(policy, update)
            returns = discounted_returns(rewards, ended, 0.99)
            advantages = (returns - returns.mean()) / (returns.std() + 1e-8)
            run.log(policy.update(observations, actions, advantages), step=update)
        rollout.envs.close()
        frame_count = run.get_metrics().rendering_frames_added
    print(f"{rollout.episode.sum():,} episodes, {frame_count:,} frames of some in videos")


if __name__ == "__main__":
    main()
