"""Many rows as one parameter.

A statement with a parameter a row costs a multiple of what the database does with it. So rows
travel as one JSON array, which both engines unfold by themselves.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from metrana.server.catalog.tables import escaped


def listed(
    connection: sa.Connection, rows: Iterable[Sequence[str]], width: int
) -> list[sa.ColumnElement[str]]:
    """Rows of texts as a table; select from its columns, which bring it along.

    Args:
        connection: Says which engine it is for.
        rows: `width` texts each.
        width: How many columns.
    """
    given = list(rows)
    text = json.dumps(given, ensure_ascii=False)
    if "\\u0000" in text or "\\u001a" in text:
        escaped_rows = [[escaped(value) for value in row] for row in given]
        text = json.dumps(escaped_rows, ensure_ascii=False)
    if connection.dialect.name == "sqlite":
        element = sa.func.json_each(text).table_valued("value").c.value
        return [sa.func.json_extract(element, f"$[{i}]") for i in range(width)]
    array = sa.cast(sa.literal(text, sa.Text), postgresql.JSON)
    element = sa.func.json_array_elements(array).table_valued("value").c.value
    return [element.op("->>", return_type=sa.Text())(i) for i in range(width)]
