"""A network between clients and a server that fails as a test wants it to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

_CHUNK_BYTES = 64 * 1024
# Closing a socket with this option set sends a reset instead of an orderly end.
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Cut:
    """How a connection ends.

    Attributes:
        after_bytes: Once so many bytes have gone up; the last of them arrive.
        resets: Whether its ends see a reset or an orderly end.
        mute_s: How long before that nothing comes down any more, in seconds.
    """

    after_bytes: int
    resets: bool = True
    mute_s: float = 0.0


class Way:
    """One direction. What is changed holds for every connection, those that are open too.

    Attributes:
        delay_s: How much longer each piece takes, in seconds.
        loses: Whether everything is taken and nothing arrives.
        byte_count: What was taken so far.
    """

    def __init__(self) -> None:
        self.delay_s = 0.0
        self.loses = False
        self.byte_count = 0
        self.opened = asyncio.Event()
        self.opened.set()

    def heal(self) -> None:
        """Carries everything, at once."""
        self.delay_s, self.loses = 0.0, False
        self.opened.set()


@dataclass(eq=False)
class _Connection:
    client: asyncio.StreamWriter
    cut: Cut | None
    server: asyncio.StreamWriter | None = None
    up_count: int = 0
    is_mute: bool = False
    may_go_up: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self, *, resets: bool) -> None:
        for writer in filter(None, (self.client, self.server)):
            _end(writer, resets=resets)


class Proxy:
    """Carries connections from a free port of this machine to a server.

    Args:
        target_url: Where the server listens.

    Attributes:
        up: The way to the server.
        down: The way from it.
        plan: How the next connections end, the first of them first.
        cut_count: Connections that ended as planned so far.
        connection_count: Connections that were taken so far.
    """

    def __init__(self, target_url: str) -> None:
        self.up, self.down = Way(), Way()
        self.plan: list[Cut] = []
        self.cut_count = 0
        self.connection_count = 0
        self.retarget(target_url)
        self._held: list[asyncio.Event] | None = None
        self._open: set[_Connection] = set()
        self._orphans: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None
        self._port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")
        self._thread.start()
        self.accept()

    @property
    def url(self) -> str:
        """What clients take for the server."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def held_count(self) -> int:
        """Connections that wait to be released."""
        return len(self._held or [])

    def retarget(self, target_url: str) -> None:
        """Sends later connections to another server."""
        url = urlsplit(target_url)
        assert url.hostname is not None
        assert url.port is not None
        self._target = (url.hostname, url.port)

    # ── Faults ───────────────────────────────────────────────────────────────────────────────────

    def refuse(self) -> None:
        """Ends every connection and lets no new one come about."""

        def refuse() -> None:
            if self._listener is not None:
                self._listener.close()
                self._listener = None
            self._end_all(resets=True)

        self._call(refuse)

    def accept(self) -> None:
        """Listens again, at the same port as ever."""

        async def accept() -> None:
            if self._listener is None:
                self._listener = await asyncio.start_server(self._take, "127.0.0.1", self._port)
                self._port = self._listener.sockets[0].getsockname()[1]

        self._run(accept())

    def cut(self, *, resets: bool = True) -> None:
        """Ends every connection; new ones are taken."""
        self._call(lambda: self._end_all(resets=resets))

    def stall(self, *ways: Way) -> None:
        """Carries nothing more on these ways (default: both); what is sent waits."""
        self._call(lambda: [way.opened.clear() for way in ways or (self.up, self.down)])

    def heal(self) -> None:
        """Carries everything again, at once."""
        self._call(lambda: [way.heal() for way in (self.up, self.down)])

    def orphan(self) -> None:
        """Resets the clients' ends; the server's stay, and what waits on the way up still waits."""

        def orphan() -> None:
            self._orphans = set(self._open)
            for connection in self._orphans:
                connection.is_mute = True
                connection.may_go_up.clear()
                _end(connection.client, resets=True)

        self._call(orphan)

    def deliver_orphans(self) -> None:
        """Carries up what still waits of connections whose clients are gone, to its end.

        Blocks until the server, having read it all, has ended them too.
        """

        async def deliver() -> None:
            for connection in self._orphans:
                connection.may_go_up.set()
            async with asyncio.timeout(10):
                while self._orphans & self._open:
                    await asyncio.sleep(0.005)

        self._run(deliver())

    def hold(self) -> None:
        """Takes new connections and carries nothing on them until they are released."""
        self._call(lambda: setattr(self, "_held", []))

    def abandon_held(self) -> None:
        """Carries nothing on the held connections for ever, and takes new ones as usual."""
        self._call(lambda: setattr(self, "_held", None))

    def release(self, *order: int) -> None:
        """Lets the held connections go on, each once the one before it has been heard.

        Args:
            order: Their numbers, by their coming, from 0.
        """

        async def release() -> None:
            held, self._held = self._held or [], None
            assert sorted(order) == list(range(len(held)))
            for number in order:
                before = self.up.byte_count
                held[number].set()
                async with asyncio.timeout(10):
                    while self.up.byte_count == before:
                        await asyncio.sleep(0.005)

        self._run(release())

    # ── Life ─────────────────────────────────────────────────────────────────────────────────────

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends every connection and the thread."""

        async def end() -> None:
            if self._listener is not None:
                self._listener.close()
            self._end_all(resets=True)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        self._run(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    def _call(self, action: Callable[[], object]) -> None:
        async def call() -> None:
            action()

        self._run(call())

    # ── On the loop ──────────────────────────────────────────────────────────────────────────────

    def _end_all(self, *, resets: bool) -> None:
        for connection in self._open:
            connection.end(resets=resets)

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connection_count += 1
        connection = _Connection(writer, self.plan.pop(0) if self.plan else None)
        connection.may_go_up.set()
        task = self._loop.create_task(self._carry(connection, reader))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, connection: _Connection, requests: asyncio.StreamReader) -> None:
        self._open.add(connection)
        try:
            if self._held is not None:
                released = asyncio.Event()
                self._held.append(released)
                await released.wait()
            answers, connection.server = await asyncio.open_connection(*self._target)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry_up(connection, requests, connection.server))
                both.create_task(self._carry_down(connection, answers))
        except* OSError:
            pass  # one of its ends is gone
        finally:
            self._open.discard(connection)
            connection.end(resets=False)

    async def _carry_up(
        self,
        connection: _Connection,
        requests: asyncio.StreamReader,
        server: asyncio.StreamWriter,
    ) -> None:
        async for data in _pieces(requests, self.up):
            await connection.may_go_up.wait()
            connection.up_count += len(data)
            server.write(data)
            await server.drain()
            cut = connection.cut
            if cut is not None and connection.up_count >= cut.after_bytes:
                connection.cut, connection.is_mute = None, True
                self._loop.call_later(cut.mute_s, self._cut_as_planned, connection, cut)
        await connection.may_go_up.wait()
        server.write_eof()

    async def _carry_down(self, connection: _Connection, answers: asyncio.StreamReader) -> None:
        async for data in _pieces(answers, self.down):
            if not connection.is_mute:
                connection.client.write(data)
                await connection.client.drain()
        if not connection.is_mute:
            connection.client.write_eof()

    def _cut_as_planned(self, connection: _Connection, cut: Cut) -> None:
        self.cut_count += 1
        connection.end(resets=cut.resets)


async def _pieces(reader: asyncio.StreamReader, way: Way) -> AsyncIterator[bytes]:
    """What arrives on a way, as it arrives."""
    while data := await reader.read(_CHUNK_BYTES):
        way.byte_count += len(data)
        await way.opened.wait()
        if way.delay_s:
            await asyncio.sleep(way.delay_s)
        if not way.loses:
            yield data


def _end(writer: asyncio.StreamWriter, *, resets: bool) -> None:
    if resets:
        with contextlib.suppress(OSError):  # it has ended by itself
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()
    else:
        writer.close()
