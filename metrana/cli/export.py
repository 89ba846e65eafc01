"""`metrana export RUN`: a run's points in one file."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from metrana.cli.output import DONE, note, plain
from metrana.cli.show import naming
from metrana.query import Client


def run(arguments: argparse.Namespace) -> int:
    """Writes the file: whole, or not at all."""
    with Client(arguments.url, data_dir=arguments.data_dir) as client, client.hold():
        info = client.run(**naming(arguments))
        table = client.points(run_id=info.run_id, as_="arrow")
    default = Path(f"{info.run_name.replace(os.sep, '-')}.{arguments.format}")
    path: Path = arguments.output or default
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _write(table, arguments.format, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    note(f"{table.num_rows:,} points written to {path}")
    return DONE


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
