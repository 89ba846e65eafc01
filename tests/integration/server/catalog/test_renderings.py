"""Renderings in the catalog: registered once, listed in order, gone with their run."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from metrana.server.catalog import Catalog, NewRendering, NotFoundError, RunDeletedError
from tests.integration.server.catalog.conftest import Clock
from tests.integration.server.catalog.requests import an_id, opened


def rendering(name: str, **fields: Any) -> NewRendering:
    given = {
        "rendering_id": an_id(name),
        "env_id": "env",
        "episode": 3,
        "rl_step": 70,
        "part": 1,
        "frame_count": 12,
        "width": 64,
        "height": 48,
        "fps": 29.97,
        "size_bytes": 5_000_000_000,
        "sha256": an_id(name) * 2,
    }
    return NewRendering(**{**given, **fields})


def test_a_rendering_is_registered_once_whatever_comes_again(
    catalog: Catalog, clock: Clock
) -> None:
    run = opened(catalog, "r", "w")
    catalog.add_renderings(run.writer_no, 5, [rendering("a")])
    registered_at = clock.now_ms
    clock.advance(10)
    catalog.add_renderings(run.writer_no, 9, [rendering("a", episode=4), rendering("b")])
    found = {each.rendering_id: each for each in catalog.renderings(run.run_no)}
    assert found.keys() == {an_id("a"), an_id("b")}
    first = found[an_id("a")]
    assert (first.run_no, first.run_id, first.created_at_ms) == (
        run.run_no,
        run.run_id,
        registered_at,
    )
    names = [field.name for field in dataclasses.fields(NewRendering)]
    assert {name: getattr(first, name) for name in names} == dataclasses.asdict(rendering("a"))
    assert catalog.rendering(an_id("a")) == first


def test_what_is_stored_of_a_writer_is_known_and_never_goes_back(catalog: Catalog) -> None:
    run = opened(catalog, "r", "w")
    seqs = []
    for seq in (7, 3, 9):
        catalog.add_renderings(run.writer_no, seq, [])
        (writer,) = catalog.writers(run_no=run.run_no)
        seqs.append(writer.rendering_seq)
    assert seqs == [7, 7, 9]


def test_renderings_are_in_the_order_of_environment_episode_and_part(catalog: Catalog) -> None:
    run, other = opened(catalog, "r", "w"), opened(catalog, "other", "x")
    places = [("B", 1, 1), ("a", 2, 2), ("a", 2, 1), ("a", 10, 1), ("a", 1, 1), ("B", 0, 1)]
    videos = [
        rendering(str(place), env_id=place[0], episode=place[1], part=place[2], frame_count=None)
        for place in places
    ]
    catalog.add_renderings(run.writer_no, 1, videos)
    catalog.add_renderings(other.writer_no, 1, [rendering("of another run")])
    # By bytes, on every engine.
    found = catalog.renderings(run.run_no)
    assert [(each.env_id, each.episode, each.part) for each in found] == sorted(places)
    assert {each.frame_count for each in found} == {None}
    assert [each.episode for each in catalog.renderings(run.run_no, env_id="B")] == [0, 1]
    assert catalog.renderings(run.run_no, env_id="nobody") == []


def test_a_rendering_of_an_alias_belongs_to_the_run_that_holds_the_name(catalog: Catalog) -> None:
    run = opened(catalog, "r", "w")
    joined = opened(catalog, "r", "x", run="another id")
    assert joined.run_no == run.run_no
    catalog.add_renderings(joined.writer_no, 1, [rendering("a")])
    assert catalog.rendering(an_id("a")).run_id == run.run_id


def test_nobody_knows_the_renderings_of_a_deleted_run(catalog: Catalog) -> None:
    run = opened(catalog, "r", "w")
    catalog.add_renderings(run.writer_no, 1, [rendering("a")])
    catalog.delete_run(run.run_no)
    with pytest.raises(NotFoundError, match=an_id("a")):
        catalog.rendering(an_id("a"))
    with pytest.raises(RunDeletedError):
        catalog.add_renderings(run.writer_no, 2, [rendering("b")])
    assert catalog.has_rendering(an_id("a"))
    catalog.purge_run(run.run_no)
    assert not catalog.has_rendering(an_id("a"))
    with pytest.raises(NotFoundError, match="no rendering has the rendering_id 'x'"):
        catalog.rendering("x")


def test_a_writer_that_nobody_opened_has_no_renderings(catalog: Catalog) -> None:
    with pytest.raises(NotFoundError):
        catalog.add_renderings(77, 1, [rendering("a")])
