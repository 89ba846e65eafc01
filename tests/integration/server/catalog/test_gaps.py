"""Gaps in what is stored of a writer, and attributes that come late to fill them."""

from __future__ import annotations

from typing import Any

import pytest

from metrana.server.catalog import Catalog, NotFoundError
from metrana.server.catalog.gaps import without
from tests.integration.server.catalog.requests import an_id, opened


def put(path: str, value: int) -> tuple[Any, ...]:
    return ("set", path, "int", str(value), False)


@pytest.mark.parametrize(
    ("first", "last", "left"),
    [
        (1, 1, ((2, 4), (8, 9))),
        (4, 8, ((2, 3), (9, 9))),
        (3, 3, ((2, 2), (4, 4), (8, 9))),
        (2, 4, ((8, 9),)),
        (5, 7, ((2, 4), (8, 9))),
        (1, 99, ()),
        (5, 4, ((2, 4), (8, 9))),
    ],
)
def test_what_is_left_of_ranges(first: int, last: int, left: tuple[tuple[int, int], ...]) -> None:
    assert without(((2, 4), (8, 9)), first, last) == left


def test_gaps_are_each_writers_own_and_filled_in_part(catalog: Catalog) -> None:
    run, other = opened(catalog, "r", "w"), opened(catalog, "other", "x")
    catalog.add_gap(run.writer_no, 1, 9)
    catalog.add_gap(other.writer_no, 3, 3)
    assert catalog.gaps(run.writer_no) == ((1, 9),)
    catalog.fill_gaps(run.writer_no, 4, 6)
    catalog.add_gap(run.writer_no, 20, 29)
    assert catalog.gaps(run.writer_no) == ((1, 3), (7, 9), (20, 29))
    catalog.add_gap(run.writer_no, 8, 12)
    assert catalog.gaps(run.writer_no) == ((1, 3), (7, 7), (8, 12), (20, 29))
    catalog.fill_gaps(run.writer_no, 1, 99)
    assert catalog.gaps(run.writer_no) == ()
    assert catalog.gaps(other.writer_no) == ((3, 3),)
    for change in (catalog.add_gap, catalog.fill_gaps):
        with pytest.raises(NotFoundError):
            change(77, 1, 2)


def test_attributes_of_a_gap_count_and_those_behind_them_once_more(catalog: Catalog) -> None:
    run = opened(catalog, "r", "w")
    catalog.add_gap(run.writer_no, 1, 5)
    late = (9, [put("x", 9)])
    assert catalog.apply_attributes(run.writer_no, [late], first_seq=6) == 9
    assert catalog.gaps(run.writer_no) == ((1, 5),)
    # What is behind the gap is not applied for itself.
    assert catalog.apply_attributes(run.writer_no, [(9, [put("x", 0)])], first_seq=6) == 9

    assert catalog.apply_attributes(run.writer_no, [(2, [put("x", 2), put("y", 2)])]) == 2
    assert catalog.gaps(run.writer_no) == ((3, 5),)
    writer = catalog.writer(an_id("w"))
    assert writer is not None
    assert writer.attr_seq == 2
    assert catalog.apply_attributes(run.writer_no, [(2, [put("x", 0)]), late]) == 9
    assert catalog.attributes(run.run_no) == {"x": 9, "y": 2}
    assert catalog.gaps(run.writer_no) == ()


def test_attributes_of_a_gap_leave_what_lies_before_their_session(catalog: Catalog) -> None:
    run = opened(catalog, "r", "w")
    catalog.add_gap(run.writer_no, 1, 5)
    catalog.apply_attributes(run.writer_no, [(9, [put("x", 9)])], first_seq=6)
    assert catalog.apply_attributes(run.writer_no, [(4, [])], first_seq=3) == 4
    assert catalog.gaps(run.writer_no) == ((1, 2), (5, 5))
