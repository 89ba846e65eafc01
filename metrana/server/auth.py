"""Who may talk to the server: whoever shows its token.

Loopback is open to every user of a shared machine, so a local server asks for a random token that
lies in a file only its owner can read. Clients, command and page send it by themselves.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import grpc
from fastapi import Request

from metrana.server.errors import UnauthenticatedError

_Asked = TypeVar("_Asked")
_Told = TypeVar("_Told")

COOKIE: Final = "metrana_token"
_MESSAGE: Final = (
    "the server asks for a token that was not sent or is wrong: pass api_key (METRANA_API_KEY), or "
    "for a local server use the same METRANA_DIR as the user who started it"
)


def new_token() -> str:
    """Makes a token that nobody guesses."""
    return secrets.token_urlsafe(32)


class TokenAuth:
    """Checks tokens.

    Args:
        token: What is asked for; None lets everyone in.
    """

    def __init__(self, token: str | None) -> None:
        self._token = token

    def admits(self, offered: str | None) -> bool:
        """Says whether what was offered is the token, in time that does not tell how much of it."""
        if self._token is None:
            return True
        return offered is not None and hmac.compare_digest(self._token.encode(), offered.encode())

    async def __call__(self, request: Request) -> None:
        """Guards HTTP routes, as a FastAPI dependency.

        Raises:
            UnauthenticatedError: Neither header nor cookie shows the token.
        """
        offered = _bearer(request.headers.get("authorization"))
        if not self.admits(offered or request.cookies.get(COOKIE)):
            raise UnauthenticatedError(_MESSAGE)


class TokenInterceptor(grpc.aio.ServerInterceptor):
    """Guards gRPC calls.

    Args:
        auth: Who is let in.
    """

    def __init__(self, auth: TokenAuth) -> None:
        self._auth = auth

        async def deny(_: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, _MESSAGE)

        # Both calls of the service answer with streams; one of them is asked by one message.
        self._deny_unary_stream: Any = grpc.unary_stream_rpc_method_handler(deny)
        self._deny_stream_stream: Any = grpc.stream_stream_rpc_method_handler(deny)

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[_Asked, _Told] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Lets a call through, or answers UNAUTHENTICATED."""
        handler = await continuation(handler_call_details)
        metadata = dict(handler_call_details.invocation_metadata or ())
        if handler is None or self._auth.admits(_bearer(metadata.get("authorization"))):
            return handler
        denied: grpc.RpcMethodHandler[Any, Any] = (
            self._deny_stream_stream if handler.request_streaming else self._deny_unary_stream
        )
        return denied


def _bearer(header: str | bytes | None) -> str | None:
    text = header.decode(errors="replace") if isinstance(header, bytes) else header
    if text is None:
        return None
    scheme, _, token = text.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
