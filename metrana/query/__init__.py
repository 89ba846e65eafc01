"""Reading back what was logged (extra `query`; the embedded store needs extra `server`)."""

from metrana.query.client import Client
from metrana.query.run_info import RunInfo

__all__ = ["Client", "RunInfo"]
