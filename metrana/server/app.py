"""The HTTP face: `/healthz`, everything that reads under `/api/v1`, and the page at `/`."""

from __future__ import annotations

from typing import Any

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


def create_app(stores: Stores, ingestor: Ingestor, auth: TokenAuth) -> FastAPI:
    """Builds the application.

    Args:
        stores: What is read.
        ingestor: Asked for its health.
        auth: Who may read.
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
        fault = ingestor.fault
        body: dict[str, Any] = {"status": "ok" if fault is None else "failing"}
        return JSONResponse(body, status_code=200 if fault is None else 503)

    @app.exception_handler(UnauthenticatedError)
    def unauthenticated(_: Request, error: UnauthenticatedError) -> JSONResponse:
        return error_response(401, "unauthenticated", str(error))

    add_routes(app, Reads(stores.catalog, stores.points), dependencies=[Depends(auth)])
    add_page(app, stores.catalog, auth)
    return app
