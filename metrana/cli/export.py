"""`metrana export RUN`: a run's points in one file, or its videos in a folder."""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from metrana.cli.output import DONE, FAILED, complain, note, plain
from metrana.cli.reading import find_run, reading
from metrana.errors import MetranaError
from metrana.query import RunInfo
from metrana.query.downloads import is_saved, is_special
from metrana.rendering.names import canonical_name, numbered

# What file systems take as a name.
_MAX_NAME_BYTES: Final = 255


def run(arguments: argparse.Namespace) -> int:
    """Writes the file: whole, or not at all; of videos each."""
    return _export_videos(arguments) if arguments.renderings else _export_points(arguments)


def _export_points(arguments: argparse.Namespace) -> int:
    with reading(arguments) as client:
        info = find_run(client, arguments)
        table = client.points(run_id=info.run_id, as_="arrow")
    path: Path = arguments.output or Path(_file_name(info, arguments.format))
    if not path.parent.is_dir():
        raise NotADirectoryError(f"cannot write {path}: there is no folder {path.parent}")
    if is_special(path):
        raise FileExistsError(f"cannot write {path}: it is no file, and would be replaced by one")
    if path.is_symlink():
        path = path.resolve()
    temporary = path.with_name(f".metrana-export-{os.getpid()}.tmp")
    try:
        _write(table, arguments.format, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    note(f"{table.num_rows:,} points written to {path}")
    return DONE


def _export_videos(arguments: argparse.Namespace) -> int:
    """Writes the videos that are not in the folder yet; one that cannot be is no reason to stop."""
    failed = written = kept = 0
    with reading(arguments) as client:
        info = find_run(client, arguments)
        rows = client.renderings(run_id=info.run_id, as_="arrow").to_pylist()
        folder: Path = arguments.output or Path(_file_name(info, ""))
        if rows:
            _make_folder(folder)
        for row, name in zip(rows, _video_names(rows), strict=True):
            path = folder / name
            if is_saved(path, row["size_bytes"], row["sha256"]):
                kept += 1
                continue
            try:
                client.download_rendering(row["rendering_id"], path)
            except MetranaError as error:
                complain(str(error))
                failed += 1
            else:
                written += 1
    note(f"{_videos(written)} written to {folder}" + (f", {kept:,} were there" if kept else ""))
    return FAILED if failed else DONE


def _video_names(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Gives each video a name of its own; where several want one, in their order."""
    wanted: Counter[str] = Counter()
    for row in rows:
        name = canonical_name(row["env_id"], row["episode"], row["part"])
        wanted[name] += 1
        yield numbered(name, wanted[name])


def _videos(count: int) -> str:
    return f"{count:,} video" if count == 1 else f"{count:,} videos"


def _make_folder(folder: Path) -> None:
    if not folder.parent.is_dir():
        raise NotADirectoryError(f"cannot write {folder}: there is no folder {folder.parent}")
    folder.mkdir(exist_ok=True)


def _file_name(info: RunInfo, suffix: str) -> str:
    """Names the file by the run; of a name too long its beginning and some of the run_id."""
    name, ending = info.run_name.replace(os.sep, "-"), f".{suffix}" if suffix else ""
    if len(f"{name}{ending}".encode()) > _MAX_NAME_BYTES:
        end = f"-{info.run_id[:6]}"
        room = _MAX_NAME_BYTES - len(f"{end}{ending}")
        name = name.encode()[:room].decode(errors="ignore") + end
    # Names of runs, but of no folder that could be made.
    return info.run_id if not suffix and name in (".", "..") else f"{name}{ending}"


def _write(table: Any, kind: str, path: Path) -> None:
    if kind == "parquet":
        pyarrow.parquet.write_table(table, path)
        return
    texts = [json.dumps(dict(labels)) for labels in table["labels"].to_pylist()]
    index = table.column_names.index("labels")
    table = table.set_column(index, "labels", pa.array(texts, pa.string()))
    if kind == "csv":
        decoded = [pa.field(field.name, _value_type(field.type)) for field in table.schema]
        pyarrow.csv.write_csv(table.cast(pa.schema(decoded)), path)
        return
    with path.open("w", encoding="utf-8") as file:
        for batch in table.to_batches(max_chunksize=10_000):
            for row in batch.to_pylist():
                row["labels"] = json.loads(row["labels"])
                file.write(json.dumps(plain(row), ensure_ascii=False) + "\n")


def _value_type(kind: Any) -> Any:
    """Gives the type of a column's values: CSV has no dictionaries."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind
