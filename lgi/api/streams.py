"""A file of a repository on its way here, taken piece by piece: what nobody takes is not fetched."""

from __future__ import annotations

import io
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone

from lgi.api import reactor as bridge
from lgi.api.errors import ClientClosed
from lgi.client.answers import ServerUnreachable
from lgi.client.exchange import field
from lgi.client.patience import Patience
from lgi.client.post import CALL_TIMEOUT
from lgi.client.transfer import TRANSPORT_FAILURES, Stall, explain, will_last
from lgi.client.wire import Wire

HELD = 1 << 20  # bytes that wait for their reader at most, beside what is in the kernel's buffers


class _Pieces(Protocol):
    """The body of one response."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._held = 0
        self._paused = False
        self._end: Failure | None = None
        self._waiting: Deferred[None] | None = None

    def dataReceived(self, data: bytes) -> None:
        self._pieces.append(data)
        self._held += len(data)
        if self._held > HELD and not self._paused:
            self._paused = True
            self.transport.pauseProducing()  # type: ignore[union-attr]
        self._wake()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._end = reason
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def _forget(self) -> None:
        self._waiting = None

    async def take(self, stall: Stall) -> bytes:
        """What has come, or what comes next; empty at the end. Raises one of TRANSPORT_FAILURES."""
        while not self._pieces:
            if self._end is not None:
                if self._end.check(ResponseDone):
                    return b""
                problem = self._end.value
                assert problem is not None
                raise problem
            self._waiting = Deferred(lambda _: self._forget())
            await stall.watch(self._waiting)
        taken = b"".join(self._pieces)
        self._pieces.clear()
        self._held = 0
        if self._paused and self._end is None:
            self._paused = False
            self.transport.resumeProducing()  # type: ignore[union-attr]
        return taken

    def hang_up(self) -> None:
        if self._end is None and self.transport is not None:
            self.transport.loseConnection()


class Download:
    """The file `name` of a repository; a connection that is lost is made anew where it was.

    Raises ServerRefused with an HTTP status as its number, and ServerUnreachable where the server has been out of
    reach for as long as `patience` has, or the file is another one than before.
    """

    def __init__(self, wire: Wire, name: str, patience: Patience) -> None:
        self._wire = wire
        self._name = name
        self._patience = patience
        self._pieces: _Pieces | None = None
        self._offset = 0
        self._mark = ""
        self._closed = False

    async def read(self) -> bytes:
        """The next bytes, as many as have come; empty at the end."""
        if self._closed:
            raise ClientClosed("the file has been closed")
        data = await self._patience.ask(self._take)
        self._offset += len(data)
        return data

    async def _take(self) -> bytes:
        stall = Stall(self._wire.reactor, CALL_TIMEOUT)
        try:
            if self._pieces is None:
                self._pieces = await self._begin()
            return await self._pieces.take(stall)
        except ServerUnreachable as problem:
            raise self._lost(str(problem), problem.lasting) from problem
        except TRANSPORT_FAILURES as problem:
            raise self._lost(f"{self._name}: {explain(problem)}", will_last(problem)) from problem

    def _lost(self, text: str, lasting: bool) -> ServerUnreachable:
        self._drop()
        # Where the server gives no mark of the content, what follows might belong to another file.
        return ServerUnreachable(text, lasting=lasting or (self._offset > 0 and not self._mark))

    async def _begin(self) -> _Pieces:
        headers = {"Range": f"bytes={self._offset}-", "If-Range": self._mark} if self._offset else {}
        exchange = self._wire.exchange(self._wire.file(self._name))
        response = await exchange.begin("GET", headers)
        if response.code not in (200, 206):
            raise await exchange.refusal(response)
        if self._offset and response.code != 206:
            exchange.drop(response)
            raise ServerUnreachable(f"{self._name}: the file has changed while it was being read", lasting=True)
        if not self._offset:
            mark = field(response, "ETag")
            self._mark = mark if mark.startswith('"') else ""
        pieces = _Pieces()
        response.deliverBody(pieces)
        return pieces

    def _drop(self) -> None:
        if self._pieces is not None:
            self._pieces.hang_up()
            self._pieces = None

    async def close(self) -> None:
        """Let go of the connection."""
        self._closed = True
        self._drop()


class RemoteFile(io.RawIOBase):
    """A Download as a binary file to read; it cannot seek."""

    def __init__(self, download: Download, name: str, first: bytes) -> None:
        super().__init__()
        self._download = download
        self._rest = memoryview(first)
        self.name = name

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with what has come; waits where nothing has."""
        if not self._rest:
            self._rest = memoryview(bridge.block(self._download.read))
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def close(self) -> None:
        """Fetch no more."""
        if not self.closed:
            super().close()
            bridge.release(self._download.close)
