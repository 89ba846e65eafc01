"""Calls larger than a record, a batch or a message: complete, each point once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import metrana
from metrana.query import Client


@pytest.mark.parametrize(
    ("env_count", "step_count", "max_msg_size"),
    [
        pytest.param(3, 350_000, 1 << 20, id="more points than a batch holds"),
        pytest.param(66_000, 2, 1 << 20, id="more environments than a record holds"),
        pytest.param(64, 500, 16 << 10, id="the smallest message"),
        pytest.param(64, 5000, 4 << 20, id="the largest message"),
    ],
)
def test_a_call_beyond_every_limit_is_read_back_complete_and_once(
    tmp_path: Path, env_count: int, step_count: int, max_msg_size: int
) -> None:
    values = np.random.default_rng(7).random((env_count, step_count))
    env_ids = [f"e-{number:05}" for number in range(env_count)]
    with metrana.init(
        mode="offline",
        data_dir=tmp_path,
        run_name="large",
        max_msg_size=max_msg_size,
        # A disk that is busy may not make it drop what finds no room in time.
        backpressure_strategy="block",
    ) as run:
        run.log_rl_environment_step("reward", values, rl_step=5, env_id=env_ids, episode=2)
        assert run.get_metrics().rl_float_points_dropped == 0
    with Client(data_dir=tmp_path) as client:
        table = client.points("large", "reward", duplicates="all", as_="arrow")
    assert table.num_rows == values.size
    env_at = np.array(table["env_id"].cast("string").to_numpy(zero_copy_only=False), "U7")
    order = np.lexsort((table["step"].to_numpy(), env_at))
    assert np.array_equal(env_at[order], np.repeat(env_ids, step_count))
    assert np.array_equal(
        table["step"].to_numpy()[order], np.tile(np.arange(step_count), env_count)
    )
    assert np.array_equal(table["value"].to_numpy()[order], values.ravel())
    assert table["rl_step"].unique().to_pylist() == [5]
    assert table["episode"].unique().to_pylist() == [2]
