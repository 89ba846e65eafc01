"""The HTTP face: `/healthz`, everything that reads under `/api/v1`, and the page at `/`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse

from metrana.server.api import add_routes, error_response
from metrana.server.auth import TokenAuth
from metrana.server.embedded import Stores
from metrana.server.errors import UnauthenticatedError
from metrana.server.ingest import Ingestor
from metrana.server.page import add_page
from metrana.server.reads import Reads
from metrana.server.version import SERVER_VERSION


class Worker(Protocol):
    """What works in the background and may be unable to."""

    @property
    def fault(self) -> str | None:
        """Why it cannot work at present, in a sentence; None if all is well."""


def create_app(
    stores: Stores, ingestor: Ingestor, auth: TokenAuth, workers: Sequence[Worker] = ()
) -> FastAPI:
    """Builds the application.

    Args:
        stores: What is read.
        ingestor: Asked for its health.
        auth: Who may read.
        workers: Asked for theirs.
    """
    app = FastAPI(
        title="metrana",
        version=SERVER_VERSION,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
    )

    @app.get("/healthz")
    def healthz() -> JSONResponse:
        """Says whether the server can store what it is sent; open to everyone."""
        if ingestor.fault is not None:
            return JSONResponse({"status": "failing"}, status_code=503)
        if problems := [worker.fault for worker in workers if worker.fault is not None]:
            # It can: only what goes on beside it does not.
            return JSONResponse({"status": "degraded", "problems": problems})
        return JSONResponse({"status": "ok"})

    @app.exception_handler(UnauthenticatedError)
    def unauthenticated(_: Request, error: UnauthenticatedError) -> JSONResponse:
        return error_response(401, "unauthenticated", str(error))

    add_routes(
        app, Reads(stores.catalog, stores.points, stores.media), dependencies=[Depends(auth)]
    )
    add_page(app, stores.catalog, auth)
    return app
