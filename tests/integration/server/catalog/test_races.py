"""Processes that ask for the same thing at the same time."""

from __future__ import annotations

import multiprocessing
import threading
import time
from typing import Any

import pytest
import sqlalchemy as sa

from metrana.server.catalog import Catalog, OpenedRun
from tests.integration.server.catalog.racing import race_to_declare, race_to_open
from tests.integration.server.catalog.requests import an_id, opened, request, writer

NAMES = [f"run-{i}" for i in range(8)]
RACERS = 3


def race(url: sa.URL, **fields: Any) -> list[tuple[Any, ...]]:
    """For each name, the answers to the racers."""
    text = url.render_as_string(hide_password=False)
    context = multiprocessing.get_context("spawn")
    with context.Pool(RACERS) as pool:
        pool.map(an_id, ["the processes are up"] * RACERS)
        start_at = time.time() + 0.5
        asked = [(text, start_at, NAMES, racer, fields) for racer in range(RACERS)]
        answers = pool.starmap(race_to_open, asked, chunksize=1)
    return list(zip(*answers, strict=True))


def test_one_of_several_jobs_creates_and_the_others_are_refused(catalog_url: sa.URL) -> None:
    for answers in race(catalog_url):
        made = [answer for answer in answers if isinstance(answer, tuple)]
        assert [created for _, created, _ in made] == [True]
        assert answers.count("ORCHESTRATION_MISMATCH") == RACERS - 1


def test_one_process_of_a_job_creates_and_the_others_join(
    catalog_url: sa.URL, catalog: Catalog
) -> None:
    for answers in race(catalog_url, orchestration_id="one job"):
        assert len({run_id for run_id, _, _ in answers}) == 1
        assert sorted(created for _, created, _ in answers) == [False] * (RACERS - 1) + [True]
    for run in catalog.runs():
        writers = catalog.writers(run_no=run.run_no)
        assert [record.is_lead for record in writers] == [True] + [False] * (RACERS - 1)


def test_deliveries_of_one_name_are_all_stored(catalog_url: sa.URL) -> None:
    for name, answers in zip(NAMES, race(catalog_url, name_conflict="rename"), strict=True):
        assert all(created for _, created, _ in answers)
        stored = {run_name for _, _, run_name in answers}
        assert len(stored) == RACERS
        assert name in stored


def test_declarations_of_several_processes_agree(catalog_url: sa.URL, catalog: Catalog) -> None:
    project_id = opened(catalog, "a", "w").project_id
    text = catalog_url.render_as_string(hide_password=False)
    context = multiprocessing.get_context("spawn")
    with context.Pool(RACERS) as pool:
        pool.map(an_id, ["the processes are up"] * RACERS)
        start_at = time.time() + 0.5
        asked = [(text, start_at, project_id, racer) for racer in range(RACERS)]
        numbers = pool.starmap(race_to_declare, asked, chunksize=1)

    assert numbers[0] == numbers[1] == numbers[2]
    assert len(set(numbers[0].values())) >= 300


def test_threads_of_one_catalog_open_runs_side_by_side(catalog: Catalog) -> None:
    answers: list[object] = []

    def work(rank: int) -> None:
        answers.append(catalog.open_run(request("a", writer(f"w{rank}", rank + 1))))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made = [answer for answer in answers if isinstance(answer, OpenedRun)]
    assert len(made) == 8
    assert sum(answer.created for answer in made) == 1
    assert sum(record.is_lead for record in catalog.writers(run_no=made[0].run_no)) == 1


@pytest.mark.parametrize("attempt", range(3))
def test_same_writer_twice_at_once_gets_one_number(catalog: Catalog, attempt: int) -> None:
    answers: list[object] = []
    threads = [
        threading.Thread(
            target=lambda: answers.append(catalog.open_run(request("a", f"w{attempt}")))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = {answer.writer_no for answer in answers if isinstance(answer, OpenedRun)}
    assert len(numbers) == 1
    assert len(answers) == 4
