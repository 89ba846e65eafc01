"""Changes to one tree of attributes, collected in memory and written in a few statements.

The rules of `attribute_paths.py` are applied to what the changes say of each other here, and to
what the table holds when they are written.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import TypeAlias

import sqlalchemy as sa

from metrana.server.catalog.attribute_paths import ancestors, below, ended_if_list, fitting
from metrana.server.catalog.attribute_values import CONTAINERS, StoredValue
from metrana.server.catalog.engine import chunks, insert

Scope: TypeAlias = dict[str, int]
ScopeKey: TypeAlias = tuple[int, ...]
Setting: TypeAlias = tuple[str, StoredValue]


class PathChanges:
    """What a sequence of settings comes to.

    Args:
        stored_lists: Paths of the lists that the table holds, of those the settings may end.
    """

    def __init__(self, stored_lists: Iterable[str] = ()) -> None:
        self._values: dict[str, StoredValue] = {}
        self._touched: set[str] = set()
        # How many values are below each path, so that looking below one is rarely needed.
        self._below: Counter[str] = Counter()
        # Those that no setting has replaced so far.
        self._stored_lists = set(stored_lists)

    def set(self, path: str, value: StoredValue) -> None:
        """Set a path: what was below it goes, and so does a plain value above, or a list."""
        path = fitting(path)
        for ancestor in ended_if_list(path):
            if self._is_list(ancestor):
                self._remove(ancestor)
        self._remove(path)
        for ancestor in ancestors(path):
            above = self._values.get(ancestor)
            if above is not None and above.type not in CONTAINERS:
                self._drop(ancestor)
        self._below.update(ancestors(path))
        self._values[path] = value

    @property
    def values(self) -> dict[str, StoredValue]:
        """What the tree has of these changes in the end."""
        return self._values

    @property
    def touched(self) -> Set[str]:
        """Every path that was set or removed, if only for a while."""
        return self._touched

    def _is_list(self, path: str) -> bool:
        value = self._values.get(path)
        return path in self._stored_lists if value is None else value.type == "empty_list"

    def _remove(self, path: str) -> None:
        """Remove a path and all below it."""
        self._touched.add(path)
        low, high = below(path)
        if self._below[path]:
            for other in [other for other in self._values if low <= other < high]:
                self._drop(other)
        if path in self._values:
            self._drop(path)
        if self._stored_lists:
            gone = {p for p in self._stored_lists if p == path or low <= p < high}
            self._stored_lists -= gone

    def _drop(self, path: str) -> None:
        del self._values[path]
        self._below.subtract(ancestors(path))


def write_changes(
    connection: sa.Connection,
    table: sa.Table,
    scope_names: Sequence[str],
    settings: Mapping[ScopeKey, Sequence[Setting]],
) -> None:
    """Write what was set in many trees at once.

    Args:
        connection: In a write transaction.
        table: `attributes` or `env_attributes`.
        scope_names: The key columns beside `path`: whose tree it is.
        settings: Paths and values in the order they were set, by the values of these columns.
    """
    lists = _stored_lists(connection, table, scope_names, settings)
    trees: list[tuple[Scope, PathChanges]] = []
    for key, set_paths in settings.items():
        tree = PathChanges(lists[key])
        for path, value in set_paths:
            tree.set(path, value)
        trees.append((dict(zip(scope_names, key, strict=True)), tree))
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


def _stored_lists(
    connection: sa.Connection,
    table: sa.Table,
    scope_names: Sequence[str],
    settings: Mapping[ScopeKey, Sequence[Setting]],
) -> Mapping[ScopeKey, list[str]]:
    """The lists that the table holds and that a setting would end, by whose tree it is."""
    asked = {
        (*key, ancestor)
        for key, set_paths in settings.items()
        for path, _ in set_paths
        for ancestor in ended_if_list(fitting(path))
    }
    found: dict[ScopeKey, list[str]] = defaultdict(list)
    columns = [table.c[name] for name in (*scope_names, "path")]
    for chunk in chunks(asked):
        query = sa.select(*columns).where(
            sa.tuple_(*columns).in_(chunk), table.c.type == "empty_list"
        )
        for *key, path in connection.execute(query):
            found[tuple(key)].append(path)
    return found


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
