"""`metrana sync`: brings what lies in the spools to the local store, or to a server elsewhere."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import quote

from metrana import _native, checks
from metrana.cli.output import DONE, FAILED, complain, note
from metrana.cli.status import states
from metrana.settings import (
    checked_data_dir,
    default_api_key,
    default_data_dir,
    normalise_url,
)

_LOCAL_PROBE_S = 0.2


def run(arguments: argparse.Namespace) -> int:
    """Delivers everything that can be delivered.

    The spools are those of PATH, the store or running server that of `--data-dir`, so that what
    was copied from another machine arrives beside what was logged on this one.
    """
    url = None if arguments.url is None else normalise_url(arguments.url, "--url")
    data_dir = checked_data_dir(arguments.data_dir or default_data_dir())
    source = _source(arguments, data_dir)
    if not (source / "spool").is_dir():
        note(f"nothing to deliver: {source} has no spool")
        if url is not None:
            _tell_of_store(data_dir)
        return DONE
    if url is not None:
        token = arguments.api_key or default_api_key()
        return _to_server(source, data_dir, force=arguments.force, url=url, token=token)
    if _native.find_local_server(data_dir, _LOCAL_PROBE_S) is not None:
        return _to_server(source, data_dir, force=arguments.force, server_dir=data_dir)
    return _to_store(source, data_dir, force=arguments.force)


def _source(arguments: argparse.Namespace, data_dir: Path) -> Path:
    """Gives the directory that has the spools; one that was named has to be there."""
    for name, path in (("PATH", arguments.path), ("--data-dir", arguments.data_dir)):
        if path is not None:
            if not path.is_dir():
                raise checks.path_refusal(name, str(path), "a directory that exists")
            return Path(path)
    return data_dir


def _to_store(source: Path, data_dir: Path, *, force: bool) -> int:
    from metrana.server.embedded import deliver_spools, open_stores  # a URL needs no extra

    # What it would log is in the report.
    logging.getLogger("metrana.server.spools").addHandler(logging.NullHandler())
    with open_stores(data_dir) as stores:
        report = deliver_spools(source, stores, force=force)
    for name, number in report.delivered:
        note(f"delivered {name}, writer {number}")
    for name, number in report.following:
        note(f"followed {name}, writer {number}, so far: it is still written")
    for warning in report.warnings:
        complain(warning)
    if not report.problems:
        _tell_of_machines(states(source))
    writer_count = len(report.delivered) + len(report.following)
    return _summary(report.batch_count, writer_count, report.problems)


def _to_server(source: Path, data_dir: Path, **server: Any) -> int:
    def delivered(event: dict[str, Any]) -> None:
        note(f"delivered {event['project_name']}/{event['run_name']}, writer {event['number']}")
        if event["warning"] is not None:
            complain(event["warning"])

    def retrying(error: str) -> None:
        note(f"{error}; trying again for about 20 s")

    report = _native.deliver_spools(source, on_delivered=delivered, on_retry=retrying, **server)
    if not report["problems"]:
        left = states(source)
        _tell_of_machines(left)
        if "url" in server and not report["writer_count"]:
            _tell_why_nothing(left, source)
            _tell_of_store(data_dir)
    return _summary(report["batch_count"], report["writer_count"], report["problems"])


def _tell_of_machines(left: Counter[str]) -> None:
    """Says how what other machines left is delivered."""
    if left["foreign"]:
        note(
            f"left alone, because another machine's: {left['foreign']:,} (metrana status); once "
            "none of its processes writes any more, metrana sync --force delivers them"
        )


def _tell_why_nothing(left: Counter[str], source: Path) -> None:
    if left["live"]:
        note(f"left alone, because they are still written: {left['live']:,} (metrana status)")
    elif not left:
        note(f"nothing is undelivered in {source}")


def _tell_of_store(data_dir: Path) -> None:
    """Says of runs in the local store that they stay there: one might expect them at the server."""
    catalog = data_dir / "server" / "catalog.sqlite"
    if not catalog.exists():
        return
    import sqlite3  # no other way of delivering needs it

    try:
        # A reader never waits for the store's owner, nor the owner for it.
        reader = sqlite3.connect(f"file:{quote(os.fsencode(catalog))}?mode=ro", uri=True)
        with contextlib.closing(reader):
            query = "SELECT count(*) FROM runs WHERE deleted_at IS NULL"
            (count,) = reader.execute(query).fetchone()
    except Exception:  # noqa: BLE001 - a number in a note is not worth a failure, whatever it is
        runs = ""
    else:
        runs = f": {_counted(count, 'run')}"
    note(f"sync does not copy what is in the local store of {data_dir}{runs}")


def _summary(batch_count: int, writer_count: int, problems: list[str]) -> int:
    for problem in problems:
        complain(problem)
    batches = _counted(batch_count, "batch", "batches")
    note(f"{batches} of {_counted(writer_count, 'writer')} delivered")
    return FAILED if problems else DONE


def _counted(count: int, one: str, many: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"
