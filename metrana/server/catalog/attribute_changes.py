"""Changes to one tree of attributes, collected in memory and written in a few statements.

The rules of `attribute_paths.py` are applied to what the changes say of each other here, and to
what the table holds when they are written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from typing import TypeAlias

import sqlalchemy as sa

from metrana.server.catalog.attribute_paths import ancestors, below, fitting
from metrana.server.catalog.attribute_values import CONTAINERS, StoredValue
from metrana.server.catalog.engine import insert

Scope: TypeAlias = dict[str, int]


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

    @property
    def values(self) -> dict[str, StoredValue]:
        """What the tree has of these changes in the end."""
        return self._values

    @property
    def touched(self) -> Set[str]:
        """Every path that was set, if only for a while."""
        return self._touched

    def _drop(self, path: str) -> None:
        del self._values[path]
        self._below.subtract(ancestors(path))


def write_changes(
    connection: sa.Connection,
    table: sa.Table,
    scope_names: Sequence[str],
    changes: Mapping[tuple[int, ...], PathChanges],
) -> None:
    """Write the changes of many trees at once.

    Args:
        connection: In a write transaction.
        table: `attributes` or `env_attributes`.
        scope_names: The key columns beside `path`: whose tree it is.
        changes: By the values of these columns.
    """
    trees = [(dict(zip(scope_names, key, strict=True)), tree) for key, tree in changes.items()]
    _clear(connection, table, scope_names, trees)
    rows = [
        {**scope, "path": path, **value._asdict()}
        for scope, tree in trees
        for path, value in tree.values.items()
    ]
    if rows:
        upsert = insert(connection, table)
        updated = {name: upsert.excluded[name] for name in StoredValue._fields}
        connection.execute(
            upsert.on_conflict_do_update(index_elements=list(table.primary_key), set_=updated),
            rows,
        )


def _clear(
    connection: sa.Connection,
    table: sa.Table,
    scope_names: Sequence[str],
    trees: Sequence[tuple[Scope, PathChanges]],
) -> None:
    """Delete what the changes replace: below what was set, plain values above it, passing ones."""
    here = sa.and_(*(table.c[name] == sa.bindparam(f"of_{name}") for name in scope_names))
    path, at = table.c.path, table.c.path == sa.bindparam("at")
    is_plain = sa.and_(*(table.c.type != kind for kind in sorted(CONTAINERS)))
    under: list[dict[str, str | int]] = []
    above: list[dict[str, str | int]] = []
    passing: list[dict[str, str | int]] = []
    for scope, tree in trees:
        of = {f"of_{name}": number for name, number in scope.items()}
        under += ({**of, "low": low, "high": high} for low, high in map(below, tree.touched))
        parents = {parent for touched in tree.touched for parent in ancestors(touched)}
        above += ({**of, "at": parent} for parent in parents)
        passing += ({**of, "at": gone} for gone in tree.touched - tree.values.keys())
    for where, keys in (
        ((path >= sa.bindparam("low")) & (path < sa.bindparam("high")), under),
        (at & is_plain, above),
        (at, passing),
    ):
        if keys:
            connection.execute(sa.delete(table).where(here, where), keys)
