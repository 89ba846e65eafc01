"""Attribute paths: a tree written down as its leaves.

A path is a value or a mapping, never both: setting `a` removes what is below `a`, setting `a/b`
removes a value at `a`. The exception is a container marker (`empty_mapping`, `empty_list`) at `a`:
it stays, and says what the entries below it are entries of. Without one, entries named by the
numbers from 0 are a list. A list has entries by number only: setting one by another name removes
the list, so that a mapping logged over a list is that mapping.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from metrana.attributes import is_index
from metrana.server.catalog.attribute_values import CONTAINERS, load

MAX_PATH_BYTES = 1024
_DIGEST_CHARACTERS = 32


def fitting(path: str) -> str:
    """The path as it is stored: itself, or, too long for an index, its head and a digest.

    `~` occurs in no user's path, so a shortened one meets no other.
    """
    encoded = path.encode()
    if len(encoded) <= MAX_PATH_BYTES:
        return path
    head = encoded[: MAX_PATH_BYTES - _DIGEST_CHARACTERS - 1].decode(errors="ignore")
    return f"{head}~{hashlib.sha256(encoded).hexdigest()[:_DIGEST_CHARACTERS]}"


def ancestors(path: str) -> Iterator[str]:
    """Every proper prefix that is a path: `a`, `a/b` for `a/b/c`."""
    end = path.find("/")
    while end != -1:
        yield path[:end]
        end = path.find("/", end + 1)


def ended_if_list(path: str) -> Iterator[str]:
    """Every proper prefix that is no list any more once `path` is set, the shortest first."""
    for ancestor in ancestors(path):
        if not is_index(path[len(ancestor) + 1 :].partition("/")[0]):
            yield ancestor


def below(path: str) -> tuple[str, str]:
    """The half-open range, in byte order, of the paths below `path`."""
    return f"{path}/", f"{path}0"  # "0" follows "/"


def flat(rows: Mapping[str, tuple[str, str | None]]) -> dict[str, object]:
    """Path to value, without the markers of containers that have entries."""
    filled = {ancestor for path in rows for ancestor in ancestors(path)}
    return {path: load(*row) for path, row in rows.items() if path not in filled}


def nested(rows: Mapping[str, tuple[str, str | None]], root: str) -> dict[str, object]:
    """The tree below `root` as it was logged.

    Args:
        rows: `(type, text)` by path.
        root: For instance `config`; paths elsewhere are left out.
    """
    top = _Node()
    for path, (kind, text) in rows.items():
        if not path.startswith(f"{root}/"):
            continue
        *parents, last = path[len(root) + 1 :].split("/")
        node = top
        for part in parents:
            node = node.child(part)
        if kind in CONTAINERS:
            node.child(last).marker = kind
        else:
            node.entries[last] = load(kind, text)
    return top.mapping()


@dataclass(slots=True)
class _Node:
    """A mapping or list under construction."""

    marker: str | None = None
    entries: dict[str, object] = field(default_factory=dict)

    def child(self, name: str) -> _Node:
        existing = self.entries.get(name)
        if not isinstance(existing, _Node):
            existing = self.entries[name] = _Node()
        return existing

    def mapping(self) -> dict[str, object]:
        return {k: v.value() if isinstance(v, _Node) else v for k, v in self.entries.items()}

    def value(self) -> dict[str, object] | list[object]:
        entries = self.mapping()
        indices = [str(i) for i in range(len(entries))]
        listed = self.marker == "empty_list" or (self.marker is None and bool(entries))
        if listed and entries.keys() == set(indices):
            return [entries[i] for i in indices]
        return entries
