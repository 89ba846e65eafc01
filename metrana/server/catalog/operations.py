"""Applies a writer's attribute operations, each batch once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from metrana.server.catalog import gaps
from metrana.server.catalog.attribute_changes import ScopeKey, Setting, write_changes
from metrana.server.catalog.attribute_paths import fitting
from metrana.server.catalog.attribute_values import store
from metrana.server.catalog.errors import MalformedError, RunDeletedError
from metrana.server.catalog.status import lock_run, refresh
from metrana.server.catalog.tables import attributes, env_attributes, runs, tags, writers
from metrana.server.catalog.writers import close_writer, run_of

GIT_SHA_PATH = "metrana/git_sha"


def apply_attributes(
    connection: sa.Connection,
    writer_no: int,
    batches: Sequence[tuple[int, Sequence[tuple[Any, ...]]]],
    now_ms: int,
    first_seq: int,
) -> int:
    """Apply batches of operations and note how far the writer is, in one transaction.

    Args:
        connection: In a write transaction.
        writer_no: Whose they are.
        batches: `(seq, operations)` by rising seq, the operations as `_native.decode_attributes`
            gives them but with the catalog's `env_no`. Batches applied before are passed over,
            but for those behind one that fills a gap: they count after it.
        now_ms: The server's time.
        first_seq: All of the writer from here to the last of these is stored with them.

    Returns:
        The writer's `attr_seq` now.

    Raises:
        RunDeletedError: If the run was deleted.
        MalformedError: For an operation nobody knows.
        NotFoundError: If there is no such writer.
    """
    run = lock_run(connection, run_of(connection, writer_no))
    if run.deleted_at is not None:
        raise RunDeletedError(run.run_no)
    writer = connection.execute(
        sa.select(
            *writers.c["writer_no", "writer_id", "run_no"],
            *writers.c["created_run", "alias_run_id", "attr_seq"],
        ).where(writers.c.writer_no == writer_no)
    ).one()
    missing = gaps.of(connection, writer_no)
    attr_seq = int(writer.attr_seq)
    application = None
    for seq, operations in batches:
        if seq <= attr_seq and not gaps.contain(missing, seq):
            continue
        application = application or _Application(connection, writer, now_ms)
        for operation in operations:
            application.add(operation)
        attr_seq = seq
    if application is None:
        return attr_seq
    application.write()
    connection.execute(
        sa.update(writers).where(writers.c.writer_no == writer_no).values(attr_seq=attr_seq)
    )
    if missing:
        gaps.fill(connection, writer_no, first_seq, attr_seq)
    return attr_seq


class _Application:
    """Operations of one writer on their way into the tables."""

    def __init__(self, connection: sa.Connection, writer: sa.Row[Any], now_ms: int) -> None:
        self._connection = connection
        self._writer = writer
        self._now_ms = now_ms
        self._settings: list[Setting] = []
        self._env_settings: dict[ScopeKey, list[Setting]] = defaultdict(list)
        self._tags: set[str] | None = None
        self._run_values: dict[str, Any] = {"updated_at": now_ms}
        self._closed = False

    def add(self, operation: tuple[Any, ...]) -> None:
        match operation:
            case ("set", path, kind, value, initial):
                self._set(path, kind, value, initial=initial)
            case ("set_env", env_no, episode, path, kind, value):
                scope = (self._writer.run_no, env_no, -1 if episode is None else episode)
                self._env_settings[scope].append((path, store(kind, value)))
            case ("set_tags" | "add_tags" | "remove_tags" as verb, given, initial):
                self._change_tags(verb, given, initial=initial)
            case ("set_description", text, initial):
                self._describe(text, initial=initial)
            case ("close", "finished" | "failed" as status, timestamp_ms):
                number = self._writer.writer_no
                close_writer(self._connection, number, status, timestamp_ms, self._now_ms)
                self._closed = True
            case _:
                raise MalformedError(f"no operation this server knows: {operation!r:.200}")

    def write(self) -> None:
        run_no, connection = self._writer.run_no, self._connection
        write_changes(connection, attributes, ("run_no",), {(run_no,): self._settings})
        names = ("run_no", "env_no", "episode")
        write_changes(connection, env_attributes, names, self._env_settings)
        if self._tags is not None:
            _replace_tags(connection, run_no, self._tags)
        connection.execute(sa.update(runs).where(runs.c.run_no == run_no).values(self._run_values))
        if self._closed:
            refresh(connection, run_no, self._now_ms)

    def _set(self, path: str, kind: str, value: object, *, initial: bool) -> None:
        stored = store(kind, value)
        if initial and not self._writer.created_run:
            self._keep_aside(path, kind, value)
            return
        self._settings.append((path, stored))
        if path == GIT_SHA_PATH:
            self._run_values["git_sha"] = stored.text

    def _change_tags(self, verb: str, given: Iterable[str], *, initial: bool) -> None:
        if initial and not self._writer.created_run:
            self._keep_aside("tags", "string_list", list(given))
            return
        named = {fitting(tag) for tag in given}
        if verb == "set_tags":
            self._tags = named
            return
        if self._tags is None:
            current = sa.select(tags.c.tag).where(tags.c.run_no == self._writer.run_no)
            self._tags = set(self._connection.scalars(current))
        self._tags = self._tags | named if verb == "add_tags" else self._tags - named

    def _describe(self, text: str, *, initial: bool) -> None:
        if initial and not self._writer.created_run:
            self._keep_aside("description", "string", text)
        else:
            self._run_values["description"] = text

    def _keep_aside(self, path: str, kind: str, value: object) -> None:
        """Keep what an alias gave to `init()`; that of a sibling that joined is let go."""
        if self._writer.alias_run_id is not None:
            aside = f"metrana/writers/{self._writer.writer_id}/{path}"
            self._settings.append((aside, store(kind, value)))


def _replace_tags(connection: sa.Connection, run_no: int, wanted: set[str]) -> None:
    current = set(connection.scalars(sa.select(tags.c.tag).where(tags.c.run_no == run_no)))
    if gone := current - wanted:
        connection.execute(
            sa.delete(tags).where(tags.c.run_no == run_no, tags.c.tag.in_(sorted(gone)))
        )
    if added := wanted - current:
        connection.execute(tags.insert(), [{"run_no": run_no, "tag": t} for t in sorted(added)])
