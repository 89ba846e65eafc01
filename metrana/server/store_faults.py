"""What an error of the stores means: whose fault it is, and whether to try again.

| verdict | example | what follows |
|---|---|---|
| `PASSING` | a full disk, a lock, a connection gone | the same again, until it works |
| `REFUSED` | a value or key that the store will never take | the writer that sent it is refused |
| `UNKNOWN` | a broken database file, a defect of ours | the writer gets it back and comes again |

Only the first may keep everybody waiting: then nobody's data could be stored.
"""

from __future__ import annotations

import sqlite3
from enum import Enum, auto
from typing import Final

from sqlalchemy import exc

from metrana.server.catalog import CatalogFailedError, MalformedError, RunDeletedError
from metrana.server.points import PointsError, PointsRefusedError
from metrana.server.sessions import IngestRefusedError

# PostgreSQL's classes: no connection, a transaction that cannot be had now (a standby is
# read-only), rolled back, out of resources, an object in use, stopped by an operator, a fault of
# its system.
_PASSING_SQLSTATES: Final = frozenset({"08", "25", "40", "53", "55", "57", "58"})
# A table, column or right that the server lacks: nothing that a writer could have sent.
_SCHEMA_SQLSTATES: Final = frozenset({"42P01", "42703", "42501"})
# SQLite's codes for a file that is damaged, and for one that is no database at all.
_SQLITE_DAMAGED: Final = frozenset({11, 26})
# SQLite's code for a statement that makes no sense, the least of a code's eight bits.
_SQLITE_ERROR: Final = 1


class Verdict(Enum):
    """What follows from an error."""

    PASSING = auto()
    REFUSED = auto()
    UNKNOWN = auto()


def judge(error: Exception) -> Verdict:
    """Says what an error of the catalog or the points store means."""
    if isinstance(error, PointsRefusedError | MalformedError | RunDeletedError):
        return Verdict.REFUSED
    if isinstance(error, IngestRefusedError):
        return Verdict.UNKNOWN if error.retryable else Verdict.REFUSED
    if isinstance(error, exc.IntegrityError | exc.DataError | exc.ProgrammingError):
        lacking = getattr(error.orig, "sqlstate", None) in _SCHEMA_SQLSTATES
        return Verdict.UNKNOWN if lacking else Verdict.REFUSED
    # Numbers and texts that the driver cannot even hand over.
    if isinstance(error, OverflowError | UnicodeError):
        return Verdict.REFUSED
    if isinstance(error, exc.DBAPIError):
        return _judge_database(error)
    passing = isinstance(error, PointsError | OSError | exc.TimeoutError)
    return Verdict.PASSING if passing else Verdict.UNKNOWN


def refusal_of(error: Exception) -> IngestRefusedError:
    """Gives what a writer is told whose data met an error."""
    if isinstance(error, IngestRefusedError):
        return error
    if isinstance(error, RunDeletedError):
        return IngestRefusedError("RUN_DELETED", str(error))
    if judge(error) is Verdict.REFUSED:
        return IngestRefusedError("MALFORMED", f"the server cannot store this: {reason(error)}")
    return IngestRefusedError(
        "UNAVAILABLE", f"the server could not commit: {reason(error)}", retryable=True
    )


def catalog_failure(error: exc.SQLAlchemyError) -> CatalogFailedError:
    """Gives what whoever reads is told when the catalog's database fails."""
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", None)
    damaged = code is not None and code & 0xFF in _SQLITE_DAMAGED
    advice = "; its file is damaged: put back a copy of it" if damaged else ""
    return CatalogFailedError(f"the catalog failed: {reason(error)}{advice}")


def _judge_database(error: exc.DBAPIError) -> Verdict:
    if error.connection_invalidated:
        return Verdict.PASSING
    sqlstate: str | None = getattr(error.orig, "sqlstate", None)
    if sqlstate is not None:
        return Verdict.PASSING if sqlstate[:2] in _PASSING_SQLSTATES else Verdict.UNKNOWN
    if not isinstance(error, exc.OperationalError | exc.InterfaceError):
        return Verdict.UNKNOWN
    # SQLite gives this class to everything from a full disk to a statement too long.
    code = getattr(error.orig, "sqlite_errorcode", None)
    if isinstance(error.orig, sqlite3.Error) and code is not None and code & 0xFF == _SQLITE_ERROR:
        return Verdict.UNKNOWN
    return Verdict.PASSING


def reason(error: BaseException) -> str:
    """Gives the database's own words, without the statement that SQLAlchemy adds."""
    cause = error.orig if isinstance(error, exc.DBAPIError) and error.orig else error
    return str(cause).strip()
