"""Files on their way to clients, with a client that can be told when to wait and when to go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import attrs
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from lgi.repository.local import LocalFile
from lgi.repository.send import FileSender
from lgi.repository.store import READ_NOW, FileState
from tests.unit.repository.opened import is_read_now, opened

CONTENT = bytes(range(256)) * (5 * READ_NOW // 512) + b"the end"


class Client:
    """A request, its channel and its connection in one; takes `room` pieces before it says that it is full."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.pieces: list[bytes] = []
        self.producer: Any = None
        self.finished = self.aborted = False
        self.channel = self
        self._gone: Deferred[None] = Deferred()

    def notifyFinish(self) -> Deferred[None]:
        return self._gone

    def registerProducer(self, producer: Any, _streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def write(self, data: bytes) -> None:
        assert not self.finished
        self.pieces.append(data)
        self.room -= 1
        if self.room <= 0:
            self.producer.pauseProducing()

    def take(self, pieces: int = 1) -> None:
        self.room = pieces
        self.producer.resumeProducing()

    def finish(self) -> None:
        self.finished = True

    def hang_up(self) -> None:
        self._gone.errback(Failure(ConnectionError()))

    def forceAbortClient(self) -> None:
        self.aborted = True


@attrs.define
class File:
    """A file of which nothing, or all, is had without waiting; reading can be made to take as long as is wanted."""

    content: bytes
    at_once: bool = False
    reads: int = 0
    closed: bool = False
    goes: Event = attrs.field(factory=Event)

    @property
    def state(self) -> FileState:
        return FileState(size=len(self.content), date=0, mark="")

    def read_at(self, offset: int, size: int) -> bytes:
        assert self.goes.wait(10) and not self.closed
        self.reads += 1
        return self.content[offset : offset + size]

    def read_now(self, offset: int, size: int) -> bytes:
        found = self.content[offset : offset + size] if self.at_once else b""
        return found if len(found) == size else b""

    def close(self) -> None:
        self.closed = True


class SendTests(TestCase):
    """One file to one client."""

    timeout = 20

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await deferLater(reactor, 0.001)

    def send(self, file: Any, *, room: int = 1, start: int = 0, size: int = len(CONTENT)) -> Client:
        client = Client(room)
        self.sender = FileSender(client, file, start, size)
        self.sender.start()
        return client

    async def test_waited_for(self) -> None:
        """Read in threads, and at most a piece ahead of what the client takes."""
        file = File(CONTENT)
        file.goes.set()
        client = self.send(file)
        taken = 1
        while not client.finished:
            await self.until(lambda taken=taken: len(client.pieces) >= taken)  # type: ignore[misc]
            await deferLater(reactor, 0.01)
            self.assertEqual(len(client.pieces), taken)
            self.assertLessEqual(file.reads, taken + 1)
            taken += 1
            if client.producer is not None:
                client.take()
        self.assertEqual(b"".join(client.pieces), CONTENT)
        await self.until(lambda: file.closed)
        self.assertTrue(self.sender.done.called)

    async def test_not_waited_for(self) -> None:
        """Without any thread; a client that waits has what it has."""
        file = File(CONTENT, at_once=True)
        client = self.send(file, start=3, size=2 * READ_NOW)
        self.assertEqual(client.pieces, [CONTENT[3 : READ_NOW + 3]])
        self.assertFalse(client.finished)
        client.take()
        self.assertEqual(b"".join(client.pieces), CONTENT[3 : 2 * READ_NOW + 3])
        self.assertTrue(client.finished)
        await self.until(lambda: file.closed)
        self.assertEqual(file.reads, 0)

    async def test_in_turns(self) -> None:
        """What is had at once, and what is not, in any order, is all there once."""
        file = File(CONTENT)
        file.goes.set()
        client = self.send(file, room=2)
        while not client.finished:
            await self.until(lambda: client.room <= 0 or client.finished)
            file.at_once = not file.at_once
            if client.producer is not None:
                client.take(2)
        self.assertEqual(b"".join(client.pieces), CONTENT)

    async def test_shorter(self) -> None:
        """A client is cut off, and nothing made up, where a file has become shorter than was said; it is closed."""
        for at_once in (False, True):
            file = File(CONTENT[: READ_NOW + 5], at_once=at_once)
            file.goes.set()
            client = self.send(file, room=9)
            await self.until(lambda client=client: client.aborted)  # type: ignore[misc]
            self.assertEqual(b"".join(client.pieces), file.content)
            self.assertFalse(client.finished)
            await self.until(lambda file=file: file.closed)  # type: ignore[misc]
        self.assertEqual(len(self.flushLoggedErrors()), 0)

    async def test_hang_up(self) -> None:
        """The file is closed, though not before the thread that reads it is done, and nothing more is written."""
        file = File(CONTENT)
        client = self.send(file)
        client.hang_up()
        await deferLater(reactor, 0.01)
        self.assertFalse(file.closed)
        file.goes.set()
        await self.until(lambda: file.closed)
        self.assertEqual(client.pieces, [])
        file = File(CONTENT, at_once=True)
        client = self.send(file)
        client.hang_up()
        await self.until(lambda: file.closed)
        self.assertEqual(len(client.pieces), 1)

    async def test_real_file(self) -> None:
        """One on disk."""
        path = Path(self.mktemp())
        path.write_bytes(CONTENT)
        client = self.send(opened(path), room=99)
        await self.until(lambda: client.finished)
        self.assertEqual(b"".join(client.pieces), CONTENT)
        await self.sender.done


class ReadNowTests(TestCase):
    """What of a file on disk is had without waiting."""

    def file(self, content: bytes) -> LocalFile:
        self.path = Path(self.mktemp())
        self.path.write_bytes(content)
        file = opened(self.path)
        self.addCleanup(file.close)
        return file

    def test_all_or_nothing(self) -> None:
        """All that was asked for, if it is there at all; on some file systems nothing ever is."""
        file = self.file(CONTENT)
        for offset, size in ((0, READ_NOW), (5, 10), (len(CONTENT) - 10, 10)):
            there = CONTENT[offset : offset + size] if is_read_now(self.path) else b""
            self.assertEqual(file.read_now(offset, size), there)
        self.assertEqual(file.read_now(len(CONTENT) - 10, 11), b"")
        self.assertEqual(file.read_now(len(CONTENT), 1), b"")
        self.assertEqual(file.read_now(0, READ_NOW + 1), b"")

    def test_pieces_stay(self) -> None:
        """A piece is not changed by the next one."""
        file = self.file(b"a" * 1000 + b"b" * 1000)
        pieces = [
            file.read_now(0, 1000) or file.read_at(0, 1000),
            file.read_now(1000, 1000) or file.read_at(1000, 1000),
        ]
        self.assertEqual(pieces, [b"a" * 1000, b"b" * 1000])

    def test_closed(self) -> None:
        file = self.file(b"content")
        file.close()
        self.assertEqual(file.read_now(0, 7), b"")
