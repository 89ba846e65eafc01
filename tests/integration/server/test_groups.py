"""Group commit: when what waits is taken."""

from __future__ import annotations

import threading

import pytest

from metrana.server.groups import Backlog


@pytest.mark.parametrize(
    ("commit_s", "age_s"), [(0.0, 0.25), (0.1, 0.25), (0.3, 0.6), (0.5, 1.0), (60.0, 1.0)]
)
def test_groups_wait_twice_as_long_as_a_commit_takes_within_bounds(
    commit_s: float, age_s: float
) -> None:
    backlog = Backlog(threading.Condition())
    assert backlog.age_s == 0.25
    backlog.pace(commit_s)
    assert backlog.age_s == pytest.approx(age_s)
    backlog.pace(0.02)
    assert backlog.age_s == 0.25
