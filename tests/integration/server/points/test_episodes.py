"""Which of an episode's points count, whatever their rl_steps."""

import math

from metrana.server.points import PointsStore
from tests.integration.server.points.reference import NONE, Point, columns

ENV_STEP, RL_EPISODE = 3, 4


def test_an_episode_that_a_batch_goes_back_to_shows_the_later_points(store: PointsStore) -> None:
    points = [
        Point(metric_no=metric, env_no=1, rl_step=rl, episode=e, step=step, value=10.0 * rl + e)
        for metric, step in ((ENV_STEP, 0), (RL_EPISODE, NONE))
        for rl, e in ((1, 0), (2, 1), (3, 0))
    ]
    store.insert(columns(points))
    assert store.env_steps(1, ENV_STEP, 1, 0)["value"].to_pylist() == [30.0]
    (row, _) = store.episode_sums(1, [ENV_STEP]).to_pylist()
    assert (row["first_rl_step"], row["point_count"], row["value_sum"]) == (3, 1, 30.0)
    (row, _) = store.episode_values(1, [RL_EPISODE]).to_pylist()
    assert (row["rl_step"], row["value"]) == (3, 30.0)


def test_episode_sums_are_of_finite_values(store: PointsStore) -> None:
    values = [1.0, math.nan, 3.0, math.inf]
    points = [
        Point(metric_no=ENV_STEP, env_no=1, rl_step=0, episode=0, step=step, value=value)
        for step, value in enumerate(values)
    ]
    store.insert(columns(points))
    (row,) = store.episode_sums(1, [ENV_STEP]).to_pylist()
    assert (row["point_count"], row["nonfinite_count"], row["value_sum"]) == (4, 2, 4.0)
