"""What is refused, and with which words, the same from both backends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

import metrana
from metrana.errors import (
    MetranaNotFoundError,
    MetranaQueryError,
    MetranaValidationError,
    NoMetranaApiKeyError,
)
from metrana.query import Client
from tests.integration.query.recorded import PROJECT, RUN
from tests.local_server import LocalServer

Ask = Callable[[Client], Any]

UNKNOWN: list[tuple[Ask, str]] = [
    (lambda c: c.run("ppo-2", project_name=PROJECT), "no run 'ppo-2'.*did you mean 'ppo-1'"),
    (lambda c: c.run(RUN, project_name="atary"), "no project 'atary'.*'atari'"),
    (lambda c: c.run(run_id="0" * 32), "run_id"),
    (lambda c: c.points(RUN, "lose", project_name=PROJECT), "metric 'lose'; did you mean 'loss'"),
    (lambda c: c.series(RUN, metric_name="lose", project_name=PROJECT), "did you mean 'loss'"),
    (lambda c: c.buckets(RUN, "lose", project_name=PROJECT), "did you mean 'loss'"),
    (lambda c: c.env_steps(RUN, "rewards", "e-0", 0, project_name=PROJECT), "mean 'reward'"),
    (
        lambda c: c.points(RUN, "reward", env_id="e0", project_name=PROJECT),
        "environment 'e0'.*'e-0'",
    ),
    (lambda c: c.episodes(RUN, env_id="e0", project_name=PROJECT), "environment 'e0'.*'e-0'"),
    (lambda c: c.aggregate(RUN, "rewards", project_name=PROJECT), "mean 'reward'"),
    (
        lambda c: c.aggregate(RUN, "reward", labels={"k": "v"}, project_name=PROJECT),
        "no metric 'reward' with labels {'k': 'v'}",
    ),
    (
        lambda c: c.points(RUN, "accuracy", labels={"split": "dev"}, project_name=PROJECT),
        "no metric 'accuracy' with labels {'split': 'dev'}",
    ),
    (
        lambda c: c.points(RUN, "loss", scale="EPISODE", project_name=PROJECT),
        "no metric 'loss' of scale EPISODE",
    ),
    (
        lambda c: c.points(RUN, "loss", env_id="e-0", project_name=PROJECT),
        "no metric 'loss' in environment 'e-0'",
    ),
]

BAD: list[tuple[Ask, str]] = [
    (lambda c: c.run(), "run_name"),
    (lambda c: c.run(7), "run_name"),  # type: ignore[arg-type]
    (lambda c: c.runs(tags="a"), "tags"),
    (lambda c: c.runs(status="done"), "status"),
    (lambda c: c.runs(as_="numpy"), "as_"),  # type: ignore[arg-type]
    (lambda c: c.points(RUN, 3), "metric_name"),  # type: ignore[arg-type]
    (lambda c: c.points(RUN, scale="EPOCH"), "scale"),
    (lambda c: c.points(RUN, labels=["a"]), "labels"),  # type: ignore[arg-type]
    (lambda c: c.points(RUN, labels={"a": 1}), "labels"),  # type: ignore[dict-item]
    (lambda c: c.points(RUN, duplicates="first"), "duplicates"),
    (lambda c: c.points(RUN, limit=-1), "limit"),
    (lambda c: c.points(RUN, start=-1), "start"),
    (lambda c: c.points(RUN, end=1.5), "end"),  # type: ignore[arg-type]
    (lambda c: c.points(RUN, episode=True), "episode"),
    (lambda c: c.buckets(RUN, "loss", x="epoch"), "x"),
    (lambda c: c.buckets(RUN, "loss", bucket_count=0), "bucket_count"),
    (lambda c: c.buckets(RUN, "loss", bucket_count=10**9), "bucket_count"),
    (lambda c: c.buckets(RUN, "loss", loggers="median"), "loggers"),
    (lambda c: c.aggregate(RUN), "metric_name"),
    (lambda c: c.aggregate(RUN, "reward", by="timestamp"), "by"),
    (lambda c: c.aggregate(RUN, "reward", over="episode"), "over"),
    (lambda c: c.aggregate(RUN, "reward", stats="mean"), "stats"),
    (lambda c: c.aggregate(RUN, "reward", stats=["mode"]), "stats"),
    (lambda c: c.aggregate(RUN, "reward", quantiles=0.5), "quantiles"),  # type: ignore[arg-type]
    (lambda c: c.aggregate(RUN, "reward", quantiles=[1.5]), "quantiles"),
    (lambda c: c.aggregate(RUN, "reward", quantiles=[float("nan")]), "quantiles"),
    (lambda c: c.aggregate(RUN, "reward", start=-1), "start"),
    (lambda c: c.aggregate(RUN, "loss", project_name=PROJECT), "by"),
    (lambda c: c.aggregate(RUN, "accuracy", by="rl_step", project_name=PROJECT), "by"),
    (lambda c: c.episodes(RUN, env_id=1.5), "env_id"),  # type: ignore[arg-type]
    (lambda c: c.env_steps(RUN, "reward", "e-0", -1), "episode"),
    (lambda c: c.env_steps(RUN, None, "e-0", 0), "metric_name"),  # type: ignore[arg-type]
    (lambda c: c.env_steps(RUN, "reward", None, 0), "env_id"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("ask", "words"), UNKNOWN)
def test_unknown_names_are_not_found_with_the_nearest(client: Client, ask: Ask, words: str) -> None:
    with pytest.raises(MetranaNotFoundError, match=words) as caught:
        ask(client)
    assert isinstance(caught.value, LookupError)


@pytest.mark.parametrize(("ask", "argument"), BAD)
def test_bad_arguments_are_refused_by_name(client: Client, ask: Ask, argument: str) -> None:
    with pytest.raises(MetranaValidationError, match=rf"^{argument}\b"):
        ask(client)


def test_nothing_chosen_by_kind_alone_is_an_empty_frame(client: Client) -> None:
    assert len(client.points(RUN, labels={"no": "such"}, project_name=PROJECT)) == 0
    assert len(client.env_steps(RUN, "reward", "e-0", 99, project_name=PROJECT)) == 0


def test_a_server_asks_for_its_token(server: LocalServer, tmp_path: Path) -> None:
    with (
        Client(server.http_url, api_key="wrong", data_dir=tmp_path) as stranger,
        pytest.raises(NoMetranaApiKeyError, match="token"),
    ):
        stranger.runs()


def test_the_url_of_the_local_server_needs_no_key(server: LocalServer) -> None:
    with Client(server.http_url, data_dir=server.data_dir) as client:
        assert len(client.runs()) == 3


def test_no_server_at_the_url_is_a_query_error(tmp_path: Path) -> None:
    with (
        Client("http://127.0.0.1:1", data_dir=tmp_path) as client,
        pytest.raises(MetranaQueryError, match=r"127\.0\.0\.1:1"),
    ):
        client.runs()


@pytest.mark.parametrize("url", ["ftp://somewhere", "http://"])
def test_a_url_of_no_server_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(MetranaValidationError, match="url"):
        Client(url, data_dir=tmp_path)


def test_a_store_that_another_process_owns_is_a_query_error(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the server could not be found: its lock is what remains to be met.
    monkeypatch.setattr("metrana._native.find_local_server", lambda *_: None)
    with pytest.raises(MetranaQueryError, match=str(server.process.pid)):
        Client(data_dir=server.data_dir).runs()


@pytest.mark.parametrize(
    ("query", "argument"),
    [
        ("points", "run_name"),
        (f"points?run_name={RUN}&start=-1", "start"),
        (f"points?run_name={RUN}&labels=[]", "labels"),
        (f"points?run_name={RUN}&scale=EPOCH", "scale"),
        (f"env_steps?run_name={RUN}&metric_name=reward&episode=0", "env_id"),
        (f"buckets?run_name={RUN}&bucket_count=0", "bucket_count"),
        (f"aggregate?run_name={RUN}", "metric_name"),
        (f"aggregate?run_name={RUN}&metric_name=reward&by=timestamp", "by"),
        (f"aggregate?run_name={RUN}&metric_name=reward&stats=mean,mode", "stats"),
        (f"aggregate?run_name={RUN}&metric_name=reward&quantiles=0.5,x", "quantiles"),
        (f"aggregate?run_name={RUN}&metric_name=reward&quantiles=2", "quantiles"),
    ],
)
def test_http_refuses_bad_arguments_in_one_form(
    server: LocalServer, query: str, argument: str
) -> None:
    local = metrana._native.find_local_server(server.data_dir)
    assert local is not None
    answer = httpx.get(
        f"{server.http_url}/api/v1/{query}", headers={"authorization": f"Bearer {local['token']}"}
    )
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["code"] == "invalid"
    assert error["message"].startswith(argument)


def test_http_refuses_strangers_in_the_same_form(server: LocalServer) -> None:
    answer = httpx.get(f"{server.http_url}/api/v1/runs")
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "unauthenticated"
