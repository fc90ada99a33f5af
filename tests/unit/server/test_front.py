"""The front without real processes: who is given a connection, and when another process is started."""

from __future__ import annotations

import socket
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from lgi.server.front import (
    FIRST_PAUSE,
    LEAVE,
    LONGEST_PAUSE,
    READY,
    RETRY_SECONDS,
    START_SECONDS,
    TAKE,
    Front,
    Worker,
)


@attrs.define
class Transport:
    """What the process is ended by."""

    signals: list[str] = attrs.Factory(list)

    def signalProcess(self, name: str) -> None:
        self.signals.append(name)


@attrs.define(eq=False)
class Child:
    """A process that is none: what the front has of it, and its end of the channel."""

    worker: Worker
    command: list[str]
    transport: Transport
    channel: socket.socket

    def ready(self) -> None:
        self.worker.outReceived(READY + b"\n")

    def end(self, problem: Exception | None = None) -> None:
        reason = Failure(problem or ProcessDone(0))
        self.worker.processExited(reason)
        self.worker.processEnded(reason)
        self.channel.close()

    def given(self) -> list[bytes]:
        """The messages on the channel; what came with them is closed."""
        messages: list[bytes] = []
        while True:
            try:
                data, files, _, _ = socket.recv_fds(self.channel, 10, 1)
            except BlockingIOError:
                return messages
            for file in files:
                socket.socket(fileno=file).close()
            messages.append(data)


class Reactor(Clock):
    """Time, processes and a listening socket in the hands of the test."""

    def __init__(self) -> None:
        super().__init__()
        self.children: list[Child] = []
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        if reader not in self.readers:
            self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        if reader in self.readers:
            self.readers.remove(reader)

    def spawnProcess(self, worker: Worker, _file: str, command: list[str], **_more: Any) -> None:
        channel = worker.theirs.dup()
        channel.setblocking(False)
        child = Child(worker, command, Transport(), channel)
        self.children.append(child)
        worker.makeConnection(child.transport)


class FrontTests(SynchronousTestCase):
    """Two processes."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        self.front = Front(self.reactor, listener, 2, lambda number: ["serve", str(number)])
        self.started = self.spawned(self.front.start())

    def spawned(self, coroutine: Any) -> Any:
        """The deferred of what the front does."""
        return Deferred.fromCoroutine(coroutine)

    def connect(self) -> None:
        """A client comes; the front sees it if it looks."""
        client = socket.create_connection(("127.0.0.1", self.front.port))
        self.addCleanup(client.close)
        if self.front in self.reactor.readers:
            self.front.doRead()

    def test_in_turn(self) -> None:
        """Who is ready is given connections, one after the other."""
        first, second = self.reactor.children
        self.assertEqual([child.command for child in (first, second)], [["serve", "1"], ["serve", "2"]])
        self.assertNoResult(self.started)
        first.ready()
        self.assertEqual(self.reactor.readers, [])
        second.ready()
        self.assertEqual(self.successResultOf(self.started), "")
        for _ in range(4):
            self.connect()
        self.assertEqual([first.given(), second.given()], [[TAKE] * 2, [TAKE] * 2])

    def test_none_starts(self) -> None:
        """The last words of one say why."""
        for child in self.reactor.children:
            child.worker.errReceived(b"[a#info] begin\n[b#critical] lgi-server cannot start: no")
            child.worker.errReceived(b" disk\n")
            child.end(ProcessTerminated(1))
        self.assertIn("cannot start: no disk", self.successResultOf(self.started))

    def test_dies(self) -> None:
        """The other one is given all; another is started, later and later while it does not stay."""
        first, second = self.reactor.children
        first.ready()
        second.ready()
        first.end(ProcessTerminated(None, 9))
        self.connect()
        self.connect()
        self.assertEqual(second.given(), [TAKE] * 2)
        pause = FIRST_PAUSE
        for _ in range(8):
            self.reactor.advance(pause - 0.01)
            started = len(self.reactor.children)
            self.reactor.advance(0.01)
            self.assertEqual(len(self.reactor.children), started + 1)
            self.assertEqual(self.reactor.children[-1].command, ["serve", "1"])
            self.reactor.children[-1].end(ProcessTerminated(1))
            pause = min(2 * pause, LONGEST_PAUSE)
        self.reactor.advance(LONGEST_PAUSE)
        # One that has served for long is started anew at once.
        self.reactor.children[-1].ready()
        self.reactor.advance(LONGEST_PAUSE + 1)
        started = len(self.reactor.children)
        self.reactor.children[-1].end(ProcessTerminated(None, 9))
        self.reactor.advance(FIRST_PAUSE)
        self.assertEqual(len(self.reactor.children), started + 1)

    def test_nobody_takes(self) -> None:
        """Connections wait while there is no process."""
        first, second = self.reactor.children
        first.ready()
        second.end(ProcessTerminated(1))
        self.successResultOf(self.started)
        first.end(ProcessTerminated(None, 9))
        self.connect()
        self.connect()
        self.reactor.advance(RETRY_SECONDS)
        self.reactor.advance(FIRST_PAUSE)
        again = self.reactor.children[-1]
        again.ready()
        self.reactor.advance(RETRY_SECONDS)
        self.front.doRead()
        self.assertEqual(again.given(), [TAKE] * 2)

    def test_renewed(self) -> None:
        """Each is replaced when its successor is ready, and ends when it wants to; a second time is not forgotten."""
        old = list(self.reactor.children)
        for child in old:
            child.ready()
        self.spawned(self.front.renew())
        self.assertEqual(len(self.reactor.children), 3)
        self.connect()
        self.assertEqual(old[0].given(), [TAKE])
        self.spawned(self.front.renew())
        self.reactor.children[2].ready()
        self.assertEqual(old[0].given(), [LEAVE])
        self.assertEqual(len(self.reactor.children), 4)
        self.reactor.children[3].ready()
        self.assertEqual(old[1].given(), [LEAVE])
        self.assertEqual(len(self.reactor.children), 5)
        old[0].end()
        self.reactor.advance(LONGEST_PAUSE)
        self.assertEqual(len(self.reactor.children), 5)

    def test_not_renewed(self) -> None:
        """A new one that does not start, or not in time, leaves all as it is."""
        old = list(self.reactor.children)
        for child in old:
            child.ready()
        renewed = self.spawned(self.front.renew())
        self.reactor.advance(START_SECONDS)
        self.assertEqual(self.reactor.children[-1].transport.signals, ["KILL"])
        self.reactor.children[-1].end(ProcessTerminated(None, 9))
        self.successResultOf(renewed)
        self.assertEqual((len(self.reactor.children), old[0].given()), (3, []))
        self.connect()
        self.assertEqual(old[0].given(), [TAKE])

    def test_stopped(self) -> None:
        """All are ended and waited for, also those that leave, and none is started any more."""
        children = list(self.reactor.children)
        for child in children:
            child.ready()
        stopped = self.spawned(self.front.stop())
        self.assertEqual([child.transport.signals for child in children], [["TERM"], ["TERM"]])
        children[0].end()
        self.assertNoResult(stopped)
        children[1].end()
        self.successResultOf(stopped)
        self.reactor.advance(LONGEST_PAUSE)
        self.assertEqual((len(self.reactor.children), self.reactor.readers), (2, []))
