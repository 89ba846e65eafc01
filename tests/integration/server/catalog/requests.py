"""Short ways to ask a catalog for runs."""

from __future__ import annotations

import hashlib
from typing import Any

from metrana.server.catalog import Catalog, OpenedRun, OpenRun, RunRefusal, WriterOpening


def an_id(name: str) -> str:
    """The same 32 hex digits for the same name."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def writer(name: str, number: int = 1, **fields: Any) -> WriterOpening:
    """A writer by a name of the test's."""
    return WriterOpening(
        **{"writer_id": an_id(name), "number": number, "opened_at_ms": 500, **fields}
    )


def request(name: str, by: WriterOpening | str, **fields: Any) -> OpenRun:
    """A request for the run of a name, whose run_id follows from it unless `run` names another."""
    given = {
        "run_id": an_id(fields.pop("run", name)),
        "run_name": name,
        "writer": writer(by) if isinstance(by, str) else by,
        "created_at_ms": 400,
        "orchestration_id": "job-1",
    }
    return OpenRun(**{**given, **fields})


def opened(catalog: Catalog, name: str, by: WriterOpening | str, **fields: Any) -> OpenedRun:
    """Open a run, which must work."""
    answer = catalog.open_run(request(name, by, **fields))
    assert isinstance(answer, OpenedRun), answer
    return answer


def refused(catalog: Catalog, name: str, by: WriterOpening | str, **fields: Any) -> RunRefusal:
    """Ask for a run, which must be refused."""
    answer = catalog.open_run(request(name, by, **fields))
    assert isinstance(answer, RunRefusal), answer
    return answer
