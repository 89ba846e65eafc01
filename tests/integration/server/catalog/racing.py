"""What runs in the processes that race each other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from metrana.server.catalog import Catalog, OpenedRun
from tests.integration.server.catalog.requests import request, writer


def open_and_close(url: str) -> str:
    """Open a catalog; returns its id."""
    with Catalog.open(url) as catalog:
        return catalog.catalog_id


def race_to_open(
    url: str, start_at: float, names: Sequence[str], racer: int, fields: dict[str, Any]
) -> list[tuple[str, bool, str] | str]:
    """Open each run at the moment when the other processes do.

    Returns:
        Per name what was opened (run_id, whether created, name), or the code of the refusal.
    """
    answers: list[tuple[str, bool, str] | str] = []
    with Catalog.open(url) as catalog:
        time.sleep(max(0.0, start_at - time.time()))
        for name in names:
            own = {"orchestration_id": f"job {racer}", **fields}
            asked = request(name, writer(f"{name} {racer}"), run=f"{name} {racer}", **own)
            answer = catalog.open_run(asked)
            if isinstance(answer, OpenedRun):
                answers.append((answer.run_id, answer.created, answer.run_name))
            else:
                answers.append(answer.code.name)
    return answers


def race_to_declare(url: str, start_at: float, project_id: int, racer: int) -> dict[str, int]:
    """Declare the same things in another order than the others do, at the same moment."""
    entries: list[tuple[Any, ...]] = [("environment", 1, f"env-{i}") for i in range(300)]
    entries += [("metric", 1, "ML_STEP", f"m{i}", {"k": "v"}) for i in range(100)]
    entries = entries[racer * 50 :] + entries[: racer * 50]
    with Catalog.open(url) as catalog:
        time.sleep(max(0.0, start_at - time.time()))
        numbers = catalog.declare(project_id, entries)
    return {str(entry): number for entry, number in zip(entries, numbers, strict=True)}
