"""What the catalog refuses, beside the refusals of `open_run`, which are answers and not errors.

```
CatalogError
├── CatalogFailedError(RuntimeError)    the database is damaged, full, locked or gone
├── CatalogVersionError(RuntimeError)   the schema is newer than this metrana
├── NotFoundError(LookupError)          a run or project nobody knows; `nearest`: the likely ones
├── RunDeletedError(LookupError)        the run was deleted: its writers have to stop
└── MalformedError(ValueError)          declarations or operations that no engine of ours writes
```
"""

from __future__ import annotations

from collections.abc import Sequence


class CatalogError(Exception):
    """The base of what the catalog raises on purpose."""


class CatalogFailedError(CatalogError, RuntimeError):
    """The database cannot be used; the message says which and why, without the statement."""


class CatalogVersionError(CatalogError, RuntimeError):
    """The catalog cannot be used by this version of metrana; the message says what to upgrade."""


class NotFoundError(CatalogError, LookupError):
    """Nothing has that name or id.

    Args:
        message: What was looked for, without the suggestions.
        nearest: Names that come closest, best first; the message is completed with them.
    """

    def __init__(self, message: str, nearest: Sequence[str] = ()) -> None:
        suggestions = " or ".join(repr(name) for name in nearest)
        super().__init__(f"{message}; did you mean {suggestions}?" if suggestions else message)
        self.nearest = tuple(nearest)


class RunDeletedError(CatalogError, LookupError):
    """The run was deleted, so nothing more is taken for it."""

    def __init__(self, run_no: int) -> None:
        super().__init__(f"run {run_no} was deleted")
        self.run_no = run_no


class MalformedError(CatalogError, ValueError):
    """What came from a writer breaks a limit that its engine keeps."""
