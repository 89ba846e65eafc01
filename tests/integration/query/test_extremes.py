"""The greatest and the least floats, and integers beyond what Python reads: nothing overflows."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import metrana
from metrana.query import Client
from tests.local_server import LocalServer, wait_until

RUN = "extreme"
GREATEST = sys.float_info.max
LEAST = 5e-324
LONG = -(10**20_000 + 7)


def record_extremes(data_dir: Path) -> None:
    """Logs the run."""
    config = {"long": LONG, "plain": 7}
    with metrana.init(run_name=RUN, data_dir=data_dir, mode="offline", config=config) as run:
        run.log("huge", np.tile([1.6e308, 1.7e308], 150))
        run.log("greatest", np.full(30, GREATEST))
        run.log("wide", np.tile([-GREATEST, GREATEST], 60))
        run.log("tiny", np.tile([0.0, LEAST], 150))
        run.log_env_attributes("e-0", {"long": LONG})
    for rank in range(3):
        logger = metrana.init(
            run_name=RUN,
            data_dir=data_dir,
            mode="offline",
            resume_strategy="allow",
            logger_id=f"rank-{rank}",
        )
        with logger as run:
            run.log_distributed("ranks", GREATEST, step=0)


@pytest.fixture(scope="module", params=["embedded", "remote"])
def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    """Reads the run, without a server and with one."""
    data_dir = tmp_path_factory.mktemp(request.param)
    record_extremes(data_dir)
    if request.param == "embedded":
        yield Client(data_dir=data_dir)
        return
    with LocalServer(data_dir), Client(data_dir=data_dir) as remote:
        wait_until(lambda: list(remote.runs()["status"]) == ["finished"], what="delivery")
        wait_until(lambda: remote.run(RUN).point_count == 753, what="the points")
        yield remote


@pytest.mark.parametrize(
    ("metric", "mean"),
    [("huge", 1.65e308), ("greatest", GREATEST), ("wide", 0.0), ("ranks", GREATEST)],
)
def test_a_mean_does_not_overflow(client: Client, metric: str, mean: float) -> None:
    (series,) = client.series(RUN, metric_name=metric, as_="arrow").to_pylist()
    assert series["mean_value"] == pytest.approx(mean)
    (bucket,) = client.buckets(RUN, metric, bucket_count=1, as_="arrow").to_pylist()
    assert bucket["mean"] == pytest.approx(mean)
    assert bucket["nonfinite_count"] == series["nonfinite_count"] == 0
    assert (bucket["min"], bucket["max"]) == (series["min_value"], series["max_value"])
    assert math.isfinite(series["last_value"])


def test_a_mean_of_the_least_is_not_rounded_away(client: Client) -> None:
    (bucket,) = client.buckets(RUN, "tiny", bucket_count=1, as_="arrow").to_pylist()
    assert (bucket["min"], bucket["max"]) == (0.0, LEAST)
    assert 0.0 <= bucket["mean"] <= LEAST


def test_integers_are_exact_at_any_size(client: Client) -> None:
    info = client.run(RUN)
    assert info.config["long"] == LONG
    assert info.config["plain"] == 7
    assert info.attributes["config/long"] == LONG
    assert client.env_attributes(RUN)["value"].item() == LONG


@pytest.mark.parametrize("kind", ["arrow", "polars"])
def test_a_long_integer_is_its_digits_in_a_column_of_text(client: Client, kind: str) -> None:
    table = client.env_attributes(RUN, as_=kind)  # type: ignore[arg-type]
    (row,) = table.to_pylist() if kind == "arrow" else table.to_dicts()
    assert row["value"] == "-1" + "0" * 19_999 + "7"
