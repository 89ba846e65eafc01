"""Which writer leads, and what status a run has."""

from __future__ import annotations

from typing import Any

import pytest

from metrana.server.catalog import LEASE_MS, Catalog, NotFoundError
from tests.integration.server.catalog.conftest import Clock
from tests.integration.server.catalog.requests import an_id, opened, writer


def close(catalog: Catalog, writer_no: int, status: str, at_ms: int = 900, seq: int = 1) -> None:
    catalog.apply_attributes(writer_no, [(seq, [("close", status, at_ms)])])


def leads(catalog: Catalog, run_no: int) -> list[bool]:
    return [record.is_lead for record in catalog.writers(run_no=run_no)]


@pytest.mark.parametrize("status", ["finished", "failed"])
def test_close_record_of_the_only_writer_decides(catalog: Catalog, status: str) -> None:
    run = opened(catalog, "a", "w")
    close(catalog, run.writer_no, status, at_ms=777)
    catalog.end_writer(run.writer_no, died=False)

    record = catalog.run("a")
    assert (record.status, record.finished_at_ms) == (status, 777)
    ended = catalog.writer(an_id("w"))
    assert ended is not None
    assert (ended.lives, ended.close_status, ended.closed_at_ms) == (False, status, 777)


def test_writer_that_died_without_a_record_loses_the_run(catalog: Catalog) -> None:
    run = opened(catalog, "a", "w")
    catalog.end_writer(run.writer_no, died=True)

    assert catalog.run("a").status == "lost"


def test_writer_that_died_after_its_record_does_not(catalog: Catalog) -> None:
    run = opened(catalog, "a", "w")
    close(catalog, run.writer_no, "finished")
    catalog.end_writer(run.writer_no, died=True)

    assert catalog.run("a").status == "finished"


def test_end_without_a_record_of_a_writer_that_did_not_die_is_finished(
    catalog: Catalog,
) -> None:
    run = opened(catalog, "a", "w")
    catalog.end_writer(run.writer_no, died=False)

    assert catalog.run("a").status == "finished"


def test_run_is_running_while_any_writer_lives(catalog: Catalog) -> None:
    first = opened(catalog, "a", "w0")
    second = opened(catalog, "a", writer("w1", 2))
    close(catalog, first.writer_no, "finished")

    assert catalog.run("a").status == "running"
    assert catalog.run("a").finished_at_ms is None
    close(catalog, second.writer_no, "failed", at_ms=950)
    # The lead closed as finished; that another rank failed is not the run's end.
    assert (catalog.run("a").status, catalog.run("a").finished_at_ms) == ("finished", 950)


def test_only_the_first_of_several_living_writers_leads(catalog: Catalog) -> None:
    run = opened(catalog, "a", "w0")
    for rank in range(1, 4):
        opened(catalog, "a", writer(f"w{rank}", rank + 1))

    assert leads(catalog, run.run_no) == [True, False, False, False]


def test_resume_is_running_again_and_its_end_decides(catalog: Catalog, clock: Clock) -> None:
    first = opened(catalog, "a", "w0")
    close(catalog, first.writer_no, "failed")
    clock.advance(1000)
    second = opened(catalog, "a", writer("w1", 2))

    assert (catalog.run("a").status, catalog.run("a").finished_at_ms) == ("running", None)
    assert leads(catalog, first.run_no) == [True, True]
    close(catalog, second.writer_no, "finished")
    assert catalog.run("a").status == "finished"


def test_lease_that_runs_out_loses_the_run(catalog: Catalog, clock: Clock) -> None:
    run = opened(catalog, "a", "w")
    clock.advance(LEASE_MS)
    assert catalog.expire_leases() == []
    clock.advance(1)
    assert catalog.expire_leases() == [run.writer_no]

    assert catalog.run("a").status == "lost"
    assert catalog.run("a").finished_at_ms == 1_000_000  # when it was last heard from
    assert catalog.expire_leases() == []


def test_renewed_lease_keeps_a_writer(catalog: Catalog, clock: Clock) -> None:
    run = opened(catalog, "a", "w")
    clock.advance(LEASE_MS)
    assert catalog.renew_leases([run.writer_no]) == []
    clock.advance(LEASE_MS)

    assert catalog.expire_leases() == []
    assert catalog.run("a").lease_until_ms == clock.now_ms
    assert catalog.run("a").updated_at_ms == clock.now_ms - LEASE_MS


def test_writer_given_up_lives_again_when_it_is_heard(catalog: Catalog, clock: Clock) -> None:
    run = opened(catalog, "a", "w")
    clock.advance(LEASE_MS + 1)
    catalog.expire_leases()
    catalog.renew_leases([run.writer_no])

    assert catalog.run("a").status == "running"
    clock.advance(LEASE_MS + 1)
    catalog.expire_leases()
    opened(catalog, "a", "w")
    assert catalog.run("a").status == "running"


def test_closed_writer_does_not_live_again(catalog: Catalog) -> None:
    run = opened(catalog, "a", "w")
    close(catalog, run.writer_no, "failed")
    catalog.renew_leases([run.writer_no])
    opened(catalog, "a", "w")

    assert catalog.run("a").status == "failed"


def test_late_close_record_of_a_lost_writer_decides(catalog: Catalog, clock: Clock) -> None:
    run = opened(catalog, "a", "w")
    clock.advance(LEASE_MS + 1)
    catalog.expire_leases()
    close(catalog, run.writer_no, "finished")

    assert catalog.run("a").status == "finished"


def test_starting_server_gives_everybody_time(catalog: Catalog, clock: Clock) -> None:
    opened(catalog, "a", "w")
    clock.advance(10 * LEASE_MS)
    catalog.renew_leases(None)

    assert catalog.expire_leases() == []


def test_restart_before_the_dead_ones_lease_ran_out_is_the_new_lead(
    catalog: Catalog, clock: Clock
) -> None:
    crashed = opened(catalog, "a", "w0")
    clock.advance(1000)
    restarted = opened(catalog, "a", writer("w1", 2))
    assert leads(catalog, crashed.run_no) == [True, False]  # nobody knows better yet
    clock.advance(LEASE_MS - 500)
    catalog.renew_leases([restarted.writer_no])
    assert catalog.expire_leases() == [crashed.writer_no]

    assert leads(catalog, crashed.run_no) == [True, True]
    close(catalog, restarted.writer_no, "finished")
    assert catalog.run("a").status == "finished"


def test_lead_that_dies_beside_a_sibling_loses_the_run(catalog: Catalog, clock: Clock) -> None:
    lead = opened(catalog, "a", "w0")
    clock.advance(1000)
    sibling = opened(catalog, "a", writer("w1", 2))
    clock.advance(1000)
    catalog.renew_leases([lead.writer_no])
    clock.advance(LEASE_MS)
    catalog.renew_leases([sibling.writer_no])
    clock.advance(1)
    catalog.expire_leases()
    close(catalog, sibling.writer_no, "finished")

    assert leads(catalog, lead.run_no) == [True, False]
    assert catalog.run("a").status == "lost"


DELIVERY: dict[str, Any] = {"name_conflict": "rename"}


def test_dead_writer_delivered_after_the_next_one_opened_is_not_the_lead(
    catalog: Catalog, clock: Clock
) -> None:
    dead = writer("w0", 1, opened_at_ms=100)
    resumed = opened(catalog, "a", writer("w1", 2, opened_at_ms=5000), earlier_writers=[dead])
    clock.advance(1000)
    first = opened(catalog, "a", dead, **DELIVERY)
    catalog.renew_leases([first.writer_no])
    catalog.end_writer(first.writer_no, died=True)
    close(catalog, resumed.writer_no, "finished", at_ms=9000)

    assert leads(catalog, resumed.run_no) == [True, True]
    assert catalog.run("a").status == "finished"


def test_writer_that_had_closed_before_the_next_one_opened_did_not_live_then(
    catalog: Catalog, clock: Clock
) -> None:
    earlier = writer("w0", 1, opened_at_ms=100)
    resumed = opened(catalog, "a", writer("w1", 2, opened_at_ms=5000), earlier_writers=[earlier])
    clock.advance(1000)
    first = opened(catalog, "a", earlier, **DELIVERY)
    close(catalog, first.writer_no, "finished", at_ms=3000)
    catalog.end_writer(first.writer_no, died=False)
    close(catalog, resumed.writer_no, "failed", at_ms=9000)

    assert leads(catalog, resumed.run_no) == [True, True]
    assert catalog.run("a").status == "failed"


def test_ranks_delivered_together_have_one_lead(catalog: Catalog, clock: Clock) -> None:
    ranks = [writer("w0", 1, opened_at_ms=100), writer("w1", 2, opened_at_ms=200)]
    numbers = [opened(catalog, "a", rank, **DELIVERY).writer_no for rank in ranks]
    close(catalog, numbers[0], "failed", at_ms=900)
    clock.advance(1000)
    close(catalog, numbers[1], "finished", at_ms=950)

    assert catalog.run("a").status == "failed"
    assert [w.is_lead for w in catalog.writers(writer_nos=numbers)] == [True, False]


def test_writer_known_to_be_dead_does_not_make_a_run_running(catalog: Catalog) -> None:
    run = opened(catalog, "a", writer("w", alive=False), **DELIVERY)

    assert catalog.run("a").status == "lost"
    close(catalog, run.writer_no, "finished")
    assert catalog.run("a").status == "finished"


def test_delivery_of_a_lost_writer_leaves_it_lost(catalog: Catalog, clock: Clock) -> None:
    run = opened(catalog, "a", "w")
    clock.advance(LEASE_MS + 1)
    catalog.expire_leases()
    opened(catalog, "a", "w", **DELIVERY)
    catalog.renew_leases([run.writer_no])

    assert catalog.run("a").status == "lost"


def test_live_spool_that_is_followed_keeps_the_run_running(catalog: Catalog, clock: Clock) -> None:
    run = opened(catalog, "a", writer("w", alive=True), **DELIVERY)
    clock.advance(LEASE_MS + 1)
    catalog.expire_leases()
    catalog.renew_leases([run.writer_no])

    assert catalog.run("a").status == "running"


def test_end_of_an_unknown_writer_is_not_found(catalog: Catalog) -> None:
    with pytest.raises(NotFoundError, match="99"):
        catalog.end_writer(99, died=True)


def test_a_thousand_writers_expire_at_once(catalog: Catalog, clock: Clock) -> None:
    crowd = [writer(f"w{rank}", rank) for rank in range(1, 1001)]
    run = opened(catalog, "a", writer("last", 1001), earlier_writers=crowd)
    clock.advance(LEASE_MS + 1)

    assert len(catalog.expire_leases()) == 1001
    assert catalog.run("a").status == "lost"
    assert len(catalog.writers(run_no=run.run_no)) == 1001
