"""Numbers of metrics and environments."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from metrana.server.catalog import Catalog, MalformedError, MetricRecord
from metrana.server.catalog.declarations import _metric
from tests.integration.server.catalog.requests import opened


@pytest.fixture
def project_id(catalog: Catalog) -> int:
    return opened(catalog, "a", "w").project_id


def metric(name: str, scale: str = "ML_STEP", **labels: str) -> tuple[Any, ...]:
    return ("metric", 1, scale, name, labels)


def env(env_id: str) -> tuple[Any, ...]:
    return ("environment", 1, env_id)


def test_declare_numbers_each_identity_once(catalog: Catalog, project_id: int) -> None:
    entries = [
        metric("loss"),
        metric("loss", "EPISODE"),
        metric("loss", evaluation="true"),
        metric("loss", evaluation="true", policy="greedy"),
        metric("Loss"),
        env("env-0"),
        env("env-1"),
    ]
    numbers = catalog.declare(project_id, entries)

    assert len(set(numbers[:5])) == 5
    assert len(set(numbers[5:])) == 2
    assert min(numbers) >= 1
    assert catalog.declare(project_id, list(reversed(entries))) == numbers[::-1]


def test_order_of_labels_does_not_matter(catalog: Catalog, project_id: int) -> None:
    one = ("metric", 1, "ML_STEP", "loss", {"a": "1", "b": "2"})
    other = ("metric", 2, "ML_STEP", "loss", {"b": "2", "a": "1"})

    first, second = catalog.declare(project_id, [one, other])
    assert first == second


def test_projects_number_by_themselves(catalog: Catalog, project_id: int) -> None:
    other = opened(catalog, "b", "w2", project_name="p").project_id
    entries = [metric("loss"), env("env-0")]

    mine, theirs = catalog.declare(project_id, entries), catalog.declare(other, entries)
    assert all(my != their for my, their in zip(mine, theirs, strict=True))
    assert [m.name for m in catalog.metrics(project_id=other)] == ["loss"]


def test_declaring_nothing_gives_nothing(catalog: Catalog, project_id: int) -> None:
    assert catalog.declare(project_id, []) == []


@pytest.mark.parametrize(
    "entry",
    [
        metric(""),
        metric("x" * 513),
        metric("x", "HOURS"),
        metric("x", **{"k" * 257: "v"}),
        metric("x", k="é" * 129),
        metric("x", **{f"k{i}": "v" for i in range(33)}),
        env(""),
        env("a/b"),
        env("x" * 129),
        ("hologram", 1, "x"),
    ],
)
def test_entries_outside_the_limits_are_malformed(
    catalog: Catalog, project_id: int, entry: tuple[Any, ...]
) -> None:
    with pytest.raises(MalformedError):
        catalog.declare(project_id, [metric("fine"), entry])
    assert catalog.metrics(project_id=project_id) == []


def test_largest_metric_is_taken(catalog: Catalog, project_id: int) -> None:
    labels = {f"{i:02}" + "k" * 254: "v" * 256 for i in range(32)}
    name = "名" * 170
    [number] = catalog.declare(project_id, [("metric", 1, "EPISODE", name, labels)])

    assert catalog.metrics(metric_nos=[number]) == [MetricRecord(number, name, "EPISODE", labels)]


def test_texts_that_engines_treat_differently_come_back(catalog: Catalog, project_id: int) -> None:
    labels = {"nul": "a\x00b", "sub": "\x1a0\x1a", "quote": '"\\', "line": "a\n\u2028b"}
    [number] = catalog.declare(project_id, [("metric", 1, "ML_STEP", "x", labels)])

    [found] = catalog.metrics(labels={"nul": "a\x00b"})
    assert (found.metric_no, found.labels) == (number, labels)


def test_many_declarations_at_once(catalog: Catalog, project_id: int) -> None:
    entries = [env(f"env-{i}") for i in range(4096)] + [metric(f"m{i}") for i in range(20)]
    numbers = catalog.declare(project_id, entries)

    assert len(set(numbers[:4096])) == 4096
    more = catalog.declare(project_id, [*entries, env("env-4096")])
    assert more[:-1] == numbers


def test_numbers_rise_with_the_order_of_the_declarations(catalog: Catalog, project_id: int) -> None:
    names = [f"m{i * 7 % 50}" for i in range(50)]
    entries = [metric(name) for name in names] + [env(name) for name in names]
    numbers = catalog.declare(project_id, entries)

    assert numbers == sorted(numbers[:50]) + sorted(numbers[50:])
    later = catalog.declare(project_id, [metric("z"), metric("m0"), metric("a")])
    assert max(numbers[:50]) < later[0] < later[2]


def test_concurrent_declarations_agree(catalog: Catalog, project_id: int) -> None:
    entries = [env(f"env-{i}") for i in range(200)] + [metric(f"m{i}", k="v") for i in range(50)]
    results: list[list[int]] = []

    def work(turn: int) -> None:
        mine = entries[turn * 20 :] + entries[: turn * 20]
        numbers = dict(zip(map(str, mine), catalog.declare(project_id, mine), strict=True))
        results.append([numbers[str(entry)] for entry in entries])

    threads = [threading.Thread(target=work, args=(turn,)) for turn in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    assert all(result == results[0] for result in results)


def test_identity_of_a_metric_never_changes() -> None:
    # These are on disks: another hash would number every metric anew.
    assert _metric("ML_STEP", "loss", {}).identity == "cd20fc97402f7029f80683b7c65e63e4"
    assert (
        _metric("EPISODE", "läuft", {"b": "2", "a": "ü"}).identity
        == "97d77a9b9c7222cec2d1c0ebb7fa0c1f"
    )


def test_metrics_are_found_by_name_scale_and_labels(catalog: Catalog, project_id: int) -> None:
    entries = [
        metric("loss"),
        metric("loss", evaluation="true"),
        metric("loss", evaluation="true", policy="greedy"),
        metric("reward", "ENVIRONMENT_STEP"),
    ]
    plain, evaluation, greedy, reward = catalog.declare(project_id, entries)

    def found(**wanted: Any) -> set[int]:
        return {m.metric_no for m in catalog.metrics(project_id=project_id, **wanted)}

    assert found() == {plain, evaluation, greedy, reward}
    assert found(name="loss") == {plain, evaluation, greedy}
    assert found(name="loss", labels={}) == {plain}
    assert found(labels={"evaluation": "true"}) == {evaluation, greedy}
    assert found(labels={"evaluation": "true", "policy": "greedy"}) == {greedy}
    assert found(labels={"evaluation": "false"}) == set()
    assert found(scale="ENVIRONMENT_STEP") == {reward}
    assert found(name="loss", metric_nos=[plain, reward]) == {plain}
    assert found(metric_nos=[]) == set()


def test_metrics_come_by_name_scale_and_labels(catalog: Catalog, project_id: int) -> None:
    catalog.declare(
        project_id, [metric("b"), metric("a", k="2"), metric("a", k="1"), metric("a", "EPISODE")]
    )

    assert [(m.name, m.scale, m.labels) for m in catalog.metrics()] == [
        ("a", "EPISODE", {}),
        ("a", "ML_STEP", {"k": "1"}),
        ("a", "ML_STEP", {"k": "2"}),
        ("b", "ML_STEP", {}),
    ]


def test_unknown_metric_has_nearest_names(catalog: Catalog, project_id: int) -> None:
    numbers = catalog.declare(project_id, [metric("train/loss"), metric("eval/loss")])

    assert catalog.nearest_metrics("train/los", project_id)[0] == "train/loss"
    assert catalog.nearest_metrics("train/los", project_id, numbers[1:]) == ["eval/loss"]
    assert catalog.nearest_metrics("zzzz", project_id) == []


def test_environments_resolve_both_ways(catalog: Catalog, project_id: int) -> None:
    first, second = catalog.declare(project_id, [env("env-0"), env("env-1")])

    assert catalog.env_ids([first, second, 0, 999_999]) == {first: "env-0", second: "env-1"}
    assert catalog.env_nos(project_id) == {"env-0": first, "env-1": second}
    assert catalog.env_nos(project_id, ["env-1", "nobody"]) == {"env-1": second}
