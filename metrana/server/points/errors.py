"""What can go wrong in the points store.

PointsError(RuntimeError)          the engine refused or failed; its message is in ours
├── PointsClosedError              a call after `close`
├── PointsInUseError               another store is open here, or another process has this one
├── PointsRefusedError             the engine will never take these rows
└── PointsVersionError             the store was written by a newer metrana
"""


class PointsError(RuntimeError):
    """The engine refused or failed a statement."""


class PointsClosedError(PointsError):
    """The store was closed before or during the call."""


class PointsInUseError(PointsError):
    """The embedded engine serves one store a process, and one process a store."""


class PointsRefusedError(PointsError):
    """The rows themselves are the reason: the same insert fails whenever it is tried."""


class PointsVersionError(PointsError):
    """The store has a schema that this version cannot read."""
