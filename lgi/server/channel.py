"""A process of the server behind its front: where its connections come from, and how it lets go of them."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.protocols.policies import WrappingFactory
from zope.interface import implementer

from lgi.server.front import AT_ONCE, CHANNEL, LEAVE, READY, TAKE

LINGER = 5.0
"""Seconds in which a client may still ask something on an idle connection, before a leaving process closes it."""
GRACE = 600.0
"""Seconds after which a leaving process waits no longer for what is under way: large files are resumed elsewhere."""
LOOK_SECONDS = 0.1

_log = Logger()


@implementer(IReadDescriptor)
class Channel:
    """Takes connections from the front and serves them with `factory`.

    `leave` is called after the last one when the process is to be replaced, `lost` when the front is gone.
    """

    def __init__(
        self, reactor: Any, factory: WrappingFactory[Any], *, leave: Callable[[], None], lost: Callable[[], None]
    ) -> None:
        self._reactor = reactor
        self._factory = factory
        self._leave = leave
        self._lost = lost
        self._socket = socket.socket(fileno=CHANNEL)
        self._socket.setblocking(False)
        os.set_inheritable(CHANNEL, False)

    def open(self) -> None:
        """Tell the front that connections may come."""
        # As a port does, which this stands for.
        self._factory.doStart()
        self._reactor.addReader(self)
        os.write(sys.__stdout__.fileno(), READY + b"\n")  # type: ignore[union-attr]

    def close(self) -> None:
        """Take none any more."""
        self._reactor.removeReader(self)

    def fileno(self) -> int:
        """The socket that the reactor watches."""
        return self._socket.fileno()

    def doRead(self) -> None:
        """Take what has come."""
        for _ in range(AT_ONCE):
            try:
                data, descriptors, _flags, _address = socket.recv_fds(self._socket, 1, 1, socket.MSG_CMSG_CLOEXEC)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as problem:
                _log.error("no connections come any more: {problem}", problem=problem.strerror)
                data, descriptors = b"", []
            for descriptor in descriptors:
                self._adopt(descriptor)
            if not data:
                self.close()
                self._lost()
                return
            if data == LEAVE:
                self._leave()
            elif data == TAKE and not descriptors:
                _log.error("a connection is lost, since this process may open no more files")

    def _adopt(self, descriptor: int) -> None:
        # The reactor makes a copy of its own.
        try:
            with socket.socket(fileno=descriptor) as connection:
                connection.setblocking(False)
                self._reactor.adoptStreamConnection(descriptor, connection.family, self._factory)
        except OSError as problem:
            _log.debug("a connection was gone before it could be served: {problem}", problem=problem.strerror)

    def connectionLost(self, _reason: object) -> None:
        """The reactor watches it no longer."""

    def logPrefix(self) -> str:
        """What the reactor calls it in the log."""
        return "channel"


def _channels(factory: WrappingFactory[Any]) -> dict[Any, Any]:
    """The HTTP side of all connections, by their TLS side."""
    return {wrapper: wrapper.wrappedProtocol._channel for wrapper in factory.protocols}


def _last_answer(channel: Any) -> None:
    """Close the connection after the answer to the request that is under way, or to the next one, which says so."""

    def no_more(request: Any, _version: bytes) -> bool:
        request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        return False

    channel.checkPersistence = no_more
    for request in channel.requests:
        channel.persistent = no_more(request, b"")


async def finish(reactor: Any, factory: WrappingFactory[Any]) -> None:
    """Return when all connections have ended: each with its next answer, or when nothing was asked on it for LINGER.

    After GRACE it waits no more.
    """
    for channel in _channels(factory).values():
        _last_answer(channel)
    begun = reactor.seconds()
    closed: set[Any] = set()
    while factory.protocols and reactor.seconds() < begun + GRACE:
        await deferLater(reactor, LOOK_SECONDS)
        if reactor.seconds() < begun + LINGER:
            continue
        for wrapper, channel in _channels(factory).items():
            if not channel.requests and wrapper not in closed:
                closed.add(wrapper)
                channel.loseConnection()
