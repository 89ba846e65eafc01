"""`metrana export RUN`: a run's points in one file."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from metrana.cli.output import DONE, note, plain
from metrana.cli.reading import find_run, reading
from metrana.query import RunInfo

# What file systems take as a name.
_MAX_NAME_BYTES: Final = 255


def run(arguments: argparse.Namespace) -> int:
    """Writes the file: whole, or not at all."""
    with reading(arguments) as client:
        info = find_run(client, arguments)
        table = client.points(run_id=info.run_id, as_="arrow")
    path: Path = arguments.output or Path(_file_name(info, arguments.format))
    if not path.parent.is_dir():
        raise NotADirectoryError(f"cannot write {path}: there is no folder {path.parent}")
    temporary = path.with_name(f".metrana-export-{os.getpid()}.tmp")
    try:
        _write(table, arguments.format, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    note(f"{table.num_rows:,} points written to {path}")
    return DONE


def _file_name(info: RunInfo, suffix: str) -> str:
    """Names the file by the run; of a name too long its beginning and some of the run_id."""
    name = info.run_name.replace(os.sep, "-")
    if len(f"{name}.{suffix}".encode()) > _MAX_NAME_BYTES:
        end = f"-{info.run_id[:6]}"
        room = _MAX_NAME_BYTES - len(f"{end}.{suffix}")
        name = name.encode()[:room].decode(errors="ignore") + end
    return f"{name}.{suffix}"


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
