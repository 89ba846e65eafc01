"""The catalog of runs: everything that is not a point, on SQLite or PostgreSQL.

```
catalog.py         the facade: one method, one transaction
engine.py          connections, transactions that try again when they lose a race
schema.py          upgrades under a lock; migrations/: the versions, tables.py: what they amount to
opening.py         who a run is: create, join, resume, refuse (naming.py, registration.py)
status.py          which writer leads, and what status follows; writers.py: leases and ends
declarations.py    numbers for metrics and environments
operations.py      attribute operations, once each (attribute_*.py)
renderings.py      videos, each once
gaps.py            which batches are missing in the midst of others
run_reads.py, series_reads.py, deletion.py
```
"""

from metrana.server.catalog.catalog import LEASE_MS, Catalog
from metrana.server.catalog.errors import (
    CatalogError,
    CatalogFailedError,
    CatalogVersionError,
    MalformedError,
    NotFoundError,
    RunDeletedError,
)
from metrana.server.catalog.gaps import SeqRanges
from metrana.server.catalog.records import (
    EndStatus,
    EnvAttribute,
    MetricRecord,
    NewRendering,
    OpenedRun,
    OpenRun,
    ProjectRecord,
    RefusalCode,
    RenderingRecord,
    RunFilter,
    RunRecord,
    RunRefusal,
    RunStatus,
    Scale,
    WriterOpening,
    WriterRecord,
)

__all__ = [
    "LEASE_MS",
    "Catalog",
    "CatalogError",
    "CatalogFailedError",
    "CatalogVersionError",
    "EndStatus",
    "EnvAttribute",
    "MalformedError",
    "MetricRecord",
    "NewRendering",
    "NotFoundError",
    "OpenRun",
    "OpenedRun",
    "ProjectRecord",
    "RefusalCode",
    "RenderingRecord",
    "RunDeletedError",
    "RunFilter",
    "RunRecord",
    "RunRefusal",
    "RunStatus",
    "Scale",
    "SeqRanges",
    "WriterOpening",
    "WriterRecord",
]
