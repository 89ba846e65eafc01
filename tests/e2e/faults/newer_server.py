"""A real gRPC server of a protocol that today's clients do not speak yet."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc

from metrana.server._proto import ingestion_pb2 as pb
from metrana.server._proto import ingestion_pb2_grpc as pb_grpc

MESSAGE = "the client speaks protocol 1 to 1, this server (9.0) 2: upgrade the client"


class NewerServer(pb_grpc.IngestionServicer):
    """Refuses every client, in the words in which servers do.

    Attributes:
        call_count: How often it was asked.
    """

    def __init__(self) -> None:
        self.call_count = 0
        self._server = grpc.server(ThreadPoolExecutor(4))
        pb_grpc.add_IngestionServicer_to_server(self, self._server)
        port = self._server.add_insecure_port("127.0.0.1:0")
        self.url = f"http://127.0.0.1:{port}"
        self._server.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()

    def OpenRun(  # noqa: N802 - the name is the contract's
        self, _request: pb.OpenRunRequest, _context: Any
    ) -> Iterator[pb.OpenRunResponse]:
        """Refuses to open a run."""
        yield pb.OpenRunResponse(refused=self._refused())

    def StreamBatches(  # noqa: N802 - the name is the contract's
        self, requests: Iterator[pb.ClientMessage], _context: Any
    ) -> Iterator[pb.ServerMessage]:
        """Refuses the first message of a stream."""
        next(requests)
        yield pb.ServerMessage(refused=self._refused())

    def _refused(self) -> pb.Refused:
        self.call_count += 1
        return pb.Refused(code=pb.REFUSAL_CODE_VERSION, message=MESSAGE)
