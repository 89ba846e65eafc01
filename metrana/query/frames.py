"""Arrow tables as the frames that users asked for.

| column          | pandas                                   | Arrow             | polars        |
|-----------------|------------------------------------------|-------------------|---------------|
| repeated text   | category                                 | dictionary        | Categorical   |
| labels          | dict                                     | map               | map           |
| whole number    | Int64 where it may be missing, else int64| int64             | Int64         |
| time            | datetime64[ms, UTC]                      | timestamp, UTC    | Datetime, UTC |
| value           | float64                                  | double            | Float64       |

The types are those of the column, never of the values that happen to be in it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np
import pyarrow as pa

from metrana import integers
from metrana.errors import MetranaError, MetranaValidationError

if TYPE_CHECKING:
    import pandas as pd

FrameKind: TypeAlias = Literal["pandas", "arrow", "polars"]

_KINDS: Final = ("pandas", "arrow", "polars")
_LABELS: Final = "labels"
_LABELS_TYPE: Final = pa.map_(pa.string(), pa.string())
_ATTRIBUTES: Final = pa.schema(
    [
        pa.field("env_id", pa.string(), nullable=False),
        pa.field("episode", pa.int64()),
        pa.field("path", pa.string(), nullable=False),
        pa.field("value", pa.string()),
    ]
)


def check_kind(kind: str) -> None:
    """Refuses a kind of frame that there is not, before anything is asked.

    Raises:
        MetranaValidationError: Naming the kinds there are.
    """
    if kind not in _KINDS:
        raise MetranaValidationError(f"as_: must be one of {', '.join(_KINDS)}, not {kind!r}")


def convert(table: Any, kind: FrameKind) -> Any:
    """Gives a table as another kind of frame; `labels` travel as JSON and become mappings."""
    # Each record batch came with dictionaries of its own.
    table = table.unify_dictionaries()
    if kind == "pandas":
        return _to_pandas(table)
    table = _with_label_maps(table)
    return table if kind == "arrow" else _to_polars(table)


def attribute_frame(rows: list[dict[str, Any]], kind: FrameKind) -> Any:
    """Builds the frame of `env_attributes` from its rows."""
    if kind != "pandas":
        texts = [{**row, "value": _as_text(row["value"])} for row in rows]
        return convert(pa.Table.from_pylist(texts, _ATTRIBUTES), kind)
    empty = [{**row, "value": None} for row in rows]
    import pandas as pd

    frame = convert(pa.Table.from_pylist(empty, _ATTRIBUTES), kind)
    values = np.empty(len(rows), object)  # filled one by one: lists are values here, not rows
    for index, row in enumerate(rows):
        values[index] = row["value"]
    # Of the dtype by name: pandas 2 would make numbers of an array of them.
    frame["value"] = pd.Series(values, index=frame.index, dtype=object)
    return frame


def _to_pandas(table: Any) -> pd.DataFrame:
    import pandas as pd

    columns = {field.name: _column(table[field.name], field, pd) for field in table.schema}
    return pd.DataFrame(columns, columns=table.column_names, copy=False)


def _column(column: Any, field: Any, pd: Any) -> Any:
    if field.name == _LABELS:
        return _label_dicts(column)
    if pa.types.is_list(field.type):
        lists = np.empty(len(column), object)
        lists[:] = column.to_pylist()
        return lists
    if pa.types.is_integer(field.type) and field.nullable:
        return column.to_pandas(types_mapper={field.type: pd.Int64Dtype()}.get)
    return column.to_pandas()


def _label_dicts(column: Any) -> Any:
    """Gives a column's labels as dicts; rows of equal labels share one, so it is not to be changed.

    Millions of points have a few sets of labels: a dict for each would be most of the frame.
    """
    encoded = _one_dictionary(column)
    parsed = np.array([None, *map(json.loads, encoded.dictionary.to_pylist())], object)[1:]
    return parsed[encoded.indices.to_numpy(zero_copy_only=False)]


def _with_label_maps(table: Any) -> Any:
    if _LABELS not in table.column_names:
        return table
    encoded = _one_dictionary(table[_LABELS])
    pairs = [list(json.loads(text).items()) for text in encoded.dictionary.to_pylist()]
    maps = pa.array(pairs, _LABELS_TYPE).take(encoded.indices)
    index = table.column_names.index(_LABELS)
    return table.set_column(index, pa.field(_LABELS, _LABELS_TYPE, nullable=False), maps)


def _one_dictionary(column: Any) -> Any:
    """Gives a chunked column of one dictionary as one array."""
    return pa.chunked_array(column.chunks, column.type).combine_chunks()


def _to_polars(table: Any) -> Any:
    try:
        import polars as pl
    except ImportError as error:
        raise MetranaError("as_='polars' needs polars: pip install polars") from error
    return pl.from_arrow(table)


def _as_text(value: Any) -> str | None:
    """Writes an attribute for a column of text: text as it is, the rest as Python's JSON."""
    if value is None or isinstance(value, str):
        return value
    if integers.is_long(value):
        return integers.digits(value)
    return json.dumps(value, ensure_ascii=False, default=str)
