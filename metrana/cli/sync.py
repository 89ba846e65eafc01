"""`metrana sync`: brings what lies in the spools to the local store, or to a server elsewhere."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

from metrana import _native
from metrana.cli.output import DONE, FAILED, complain, note
from metrana.settings import default_api_key, default_data_dir

_LOCAL_PROBE_S = 0.2


def run(arguments: argparse.Namespace) -> int:
    """Delivers everything that can be delivered."""
    data_dir = arguments.path or default_data_dir()
    if arguments.url is not None:
        return _to_server(data_dir, arguments.url, arguments.api_key or default_api_key())
    if _native.find_local_server(data_dir, _LOCAL_PROBE_S) is not None:
        return _to_server(data_dir, None, None)
    return _to_store(data_dir)


def _to_store(data_dir: Path) -> int:
    from metrana.server.embedded import deliver_spools, open_stores  # a URL needs no extra

    # What it would log is in the report.
    logging.getLogger("metrana.server.spools").addHandler(logging.NullHandler())
    with open_stores(data_dir) as stores:
        report = deliver_spools(data_dir, stores)
    for name, number in report.delivered:
        note(f"delivered {name}, writer {number}")
    return _summary(report.batch_count, len(report.delivered), report.problems)


def _to_server(data_dir: Path, url: str | None, token: str | None) -> int:
    def delivered(event: dict[str, Any]) -> None:
        note(f"delivered {event['project_name']}/{event['run_name']}, writer {event['number']}")
        if event["warning"] is not None:
            complain(event["warning"])

    report = _native.deliver_spools(data_dir, url, token, on_delivered=delivered)
    return _summary(report["batch_count"], report["writer_count"], report["problems"])


def _summary(batch_count: int, writer_count: int, problems: list[str]) -> int:
    for problem in problems:
        complain(problem)
    note(f"{batch_count:,} batches of {writer_count:,} writers delivered")
    return FAILED if problems else DONE
