"""`metrana status`: what is not delivered yet. Reads spools and rings, so it needs no extra."""

from __future__ import annotations

import argparse
import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from metrana import _native
from metrana.cli.output import DONE, FAILED, complain, note, print_json, show
from metrana.settings import checked_data_dir, default_data_dir
from metrana.spool_damage import damage_sentences
from metrana.spool_folders import has_writers, put_aside

_READ_BYTES = 8 << 20
# Finished, and being encoded.
_VIDEOS = (".mp4", ".part")


def run(arguments: argparse.Namespace) -> int:
    """Lists writers with something undelivered, and memory that dead ones left for good."""
    data_dir = checked_data_dir(arguments.data_dir or default_data_dir())
    rows, unreadable = _undelivered(data_dir)
    for sentence in unreadable:
        complain(sentence)
    if arguments.json:
        print_json(rows)
    elif not rows and not unreadable:
        note(f"everything under {data_dir} is delivered")
    for row in () if arguments.json else rows:
        show(
            f"{_place(row)}  writer {row['writer']} ({row['state']}) "
            f"for {row['destination']}: {_in_spool(row)}, {_in_memory(row['ring_bytes'])}"
            f"{_in_renderings(row['rendering_bytes'])}"
        )
        for problem in row["problems"]:
            show(f"  {problem}")
    for sentence in orphaned_rings({row["writer_id"] for row in rows}):
        note(sentence)
    is_known = not unreadable and all(row["writer_id"] is not None for row in rows)
    return DONE if is_known else FAILED


def _undelivered(data_dir: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Gives a row for every writer that has something its destination did not acknowledge.

    One whose folder is kept for another store has a row too. The sentences are on folders of which
    that cannot be told.
    """
    unreadable: list[str] = []
    rows = [_row(run, writer) for run, writer in _writers(data_dir, unreadable, kept=True)]
    return rows, unreadable


def states(data_dir: Path) -> Counter[str]:
    """Counts those writers by state: `live`, `dead`, `foreign`. Reads no spool.

    Those whose folder is kept for another store are left out: nothing more is done about them here.
    """
    return Counter(writer.state for _, writer in _writers(data_dir, []))


def _writers(
    data_dir: Path, unreadable: list[str], *, kept: bool = False
) -> Iterator[tuple[dict[str, Any], Any]]:
    spool_dir = data_dir / "spool"
    for path in sorted(spool_dir.iterdir()) if spool_dir.is_dir() else ():
        unreadable += [_put_aside(folder) for folder in put_aside(path)]
        try:
            folder = _native.RunFolder(path)
            writers = folder.writers()
        except (RuntimeError, OSError) as error:
            if has_writers(path):
                unreadable.append(f"cannot read {path}: {error}")
            continue
        for writer in writers:
            if kept if writer.kept is not None else writer.undelivered:
                yield folder.run, writer


def orphaned_rings(writer_ids: set[str]) -> list[str]:
    """Says what dead writers left in memory, but for those of these ids, whose folders were moved.

    Nobody deletes it by himself: a folder that is not there now may be somewhere else.
    """
    try:
        rings = _native.orphaned_rings()
    except OSError as error:
        return [f"cannot tell what dead writers left in memory: {error}"]
    return [_orphaned(ring) for ring in rings if ring["writer_id"] not in writer_ids]


def _orphaned(ring: dict[str, Any]) -> str:
    left = f"{ring['bytes']:,} bytes of memory in {ring['path']} are a dead writer's whose folder"
    if ring["unsealed_bytes"] == 0:
        what = "nothing undelivered is in it: delete it to have them back"
    else:
        what = (
            f"{ring['unsealed_bytes']:,} bytes of points in it are delivered once the folder is "
            "back, or from where it is now; delete it to give them up"
        )
    return f"{left} {ring['folder']} is gone; {what}"


def _in_spool(row: dict[str, Any]) -> str:
    spooled, undelivered = row["spooled_bytes"], row["undelivered_bytes"]
    if undelivered is None:
        return f"{spooled:,} bytes in the spool"
    return f"{spooled:,} bytes in the spool, of which {undelivered:,} are undelivered"


def _in_memory(ring_bytes: int | None) -> str:
    if ring_bytes is None:
        return "those in memory are not known"
    return f"{ring_bytes:,} bytes in memory"


def _in_renderings(rendering_bytes: int) -> str:
    if rendering_bytes == 0:
        return ""
    return f", {rendering_bytes:,} bytes of renderings that are not in the spool yet"


def _place(row: dict[str, Any]) -> str:
    names = [row["project_name"], row["run_name"]]
    if row["workspace_name"] != "default":
        names.insert(0, row["workspace_name"])
    return "/".join(names)


def _row(run: dict[str, Any], writer: Any) -> dict[str, Any]:
    undelivered_bytes, problems = _read_on(writer)
    return {
        "workspace_name": run["workspace_name"],
        "project_name": run["project_name"],
        "run_name": run["run_name"],
        "run_id": run["run_id"],
        "destination": run["destination"],
        "writer": writer.number,
        "writer_id": writer.writer_id,
        "state": writer.state,
        "sender": writer.sender,
        "spooled_bytes": _spooled_bytes(Path(writer.path)),
        "undelivered_bytes": undelivered_bytes,
        "ring_bytes": writer.ring_bytes,
        "rendering_bytes": _rendering_bytes(Path(writer.path)),
        "problems": problems,
    }


def _put_aside(folder: Path) -> str:
    left = _spooled_bytes(folder) + _rendering_bytes(folder)
    return (
        f"cannot read what a delivered writer left: {left:,} bytes in {folder}, "
        "kept until you remove it"
    )


def _spooled_bytes(folder: Path) -> int:
    return _bytes_of(folder.glob("*.spool"))


def _rendering_bytes(folder: Path) -> int:
    return _bytes_of(file for end in _VIDEOS for file in folder.glob(f"renderings/*{end}"))


def _bytes_of(files: Iterable[Path]) -> int:
    total = 0
    for file in files:
        # A writer that lives deletes what is acknowledged, or in the spool.
        with contextlib.suppress(FileNotFoundError):
            total += file.stat().st_size
    return total


def _read_on(writer: Any) -> tuple[int | None, list[str]]:
    """Reads what is undelivered of a spool.

    Returns:
        Bytes of its batches, None if nothing is delivered, so that all of the spool is undelivered,
        or if that is not known; and what is wrong with it.
    """
    known = [problem for problem in (writer.kept, writer.problem) if problem is not None]
    batch_bytes = 0
    try:
        follower = _native.SpoolFollower(writer.path)
        if writer.state == "dead":
            follower.writer_has_ended()
        while messages := follower.read(_READ_BYTES):
            batch_bytes += sum(len(m.payload) for m in messages if m.kind != "declarations")
    except (RuntimeError, OSError) as error:
        return None, [*known, str(error)]
    undelivered_bytes = batch_bytes if follower.acknowledged else None
    return undelivered_bytes, [*known, *damage_sentences(follower)]
