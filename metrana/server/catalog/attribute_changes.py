"""Changes to one tree of attributes, collected in memory and written in a few statements.

The rules of `attribute_paths.py` are applied to what the changes say of each other here, and to
what the table holds when they are written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import sqlalchemy as sa

from metrana.server.catalog.attribute_paths import ancestors, below, fitting
from metrana.server.catalog.attribute_values import CONTAINERS, StoredValue
from metrana.server.catalog.engine import insert


class PathChanges:
    """What a sequence of settings comes to."""

    def __init__(self) -> None:
        self._values: dict[str, StoredValue] = {}
        self._touched: set[str] = set()
        # How many values are below each path, so that looking below one is rarely needed.
        self._below: Counter[str] = Counter()

    def set(self, path: str, value: StoredValue) -> None:
        """Set a path: what was below it goes, and so does a plain value above it."""
        path = fitting(path)
        self._touched.add(path)
        if self._below[path]:
            low, high = below(path)
            for other in [other for other in self._values if low <= other < high]:
                self._drop(other)
        for ancestor in ancestors(path):
            above = self._values.get(ancestor)
            if above is not None and above.type not in CONTAINERS:
                self._drop(ancestor)
        if path not in self._values:
            self._below.update(ancestors(path))
        self._values[path] = value

    def write(self, connection: sa.Connection, table: sa.Table, scope: Mapping[str, int]) -> None:
        """Write them for one run, or one episode of one environment.

        Args:
            connection: In a write transaction.
            table: `attributes` or `env_attributes`.
            scope: The key columns beside `path`.
        """
        if not self._touched:
            return
        here = sa.and_(*(table.c[name] == number for name, number in scope.items()))
        ranges = [dict(zip(("low", "high"), below(path), strict=True)) for path in self._touched]
        path_column = table.c.path
        connection.execute(
            sa.delete(table).where(
                here, path_column >= sa.bindparam("low"), path_column < sa.bindparam("high")
            ),
            ranges,
        )
        plain = {ancestor for path in self._touched for ancestor in ancestors(path)}
        exact = here & (path_column == sa.bindparam("at"))
        if plain:
            connection.execute(
                sa.delete(table).where(exact, *(table.c.type != kind for kind in CONTAINERS)),
                [{"at": path} for path in sorted(plain)],
            )
        if overwritten := self._touched - self._values.keys():
            connection.execute(
                sa.delete(table).where(exact), [{"at": path} for path in sorted(overwritten)]
            )
        upsert = insert(connection, table)
        connection.execute(
            upsert.on_conflict_do_update(
                index_elements=list(table.primary_key),
                set_={name: upsert.excluded[name] for name in StoredValue._fields},
            ),
            [
                {**scope, "path": path, **value._asdict()}
                for path, value in sorted(self._values.items())
            ],
        )

    def _drop(self, path: str) -> None:
        del self._values[path]
        self._below.subtract(ancestors(path))
