"""Arrow tables as the frames that users asked for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import pyarrow as pa

from metrana.errors import MetranaError, MetranaValidationError

if TYPE_CHECKING:
    import pandas as pd

FrameKind: TypeAlias = Literal["pandas", "arrow", "polars"]

_KINDS: Final = ("pandas", "arrow", "polars")
_LABELS: Final = pa.map_(pa.string(), pa.string())


def check_kind(kind: str) -> None:
    """Refuses a kind of frame that there is not, before anything is asked.

    Raises:
        MetranaValidationError: Naming the kinds there are.
    """
    if kind not in _KINDS:
        raise MetranaValidationError(f"as_: must be one of {', '.join(_KINDS)}, not {kind!r}")


def convert(table: Any, kind: FrameKind) -> Any:
    """Gives a table as pandas (text columns categorical, labels dicts), Arrow or polars frame.

    Labels travel as JSON text; in Arrow and polars they become maps (lists of key and value).
    """
    if kind == "pandas":
        return _to_pandas(table)
    if "labels" in table.column_names:
        index = table.column_names.index("labels")
        table = table.set_column(index, "labels", _label_maps(table["labels"]))
    if kind == "arrow":
        return table
    try:
        import polars as pl
    except ImportError as error:
        raise MetranaError("as_='polars' needs polars: pip install polars") from error
    return pl.from_arrow(table)


def _to_pandas(table: Any) -> pd.DataFrame:
    integers = {pa.int64(): "Int64"}
    nullable = {
        field.name: integers[field.type]
        for field in table.schema
        if field.type in integers and table[field.name].null_count
    }
    plain = table.select([name for name in table.column_names if name not in nullable])
    frame = plain.to_pandas(timestamp_as_object=False)
    for name, dtype in nullable.items():
        frame[name] = (
            table[name].to_pandas(types_mapper=None, integer_object_nulls=True).astype(dtype)
        )
    frame = frame[table.column_names]
    if "labels" in table.column_names:
        parsed = {text: json.loads(text) for text in table["labels"].unique().to_pylist()}
        frame["labels"] = [dict(parsed[text]) for text in table["labels"].to_pylist()]
    return frame


def _label_maps(labels: Any) -> Any:
    texts = labels.to_pylist()
    parsed = {text: list(json.loads(text).items()) for text in set(texts)}
    return pa.array([parsed[text] for text in texts], _LABELS)
