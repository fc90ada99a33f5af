"""Files on their way to clients: read a large piece ahead of what the connection takes, in a thread if that waits."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from lgi.repository.store import READ_NOW, OpenFile


@implementer(IPushProducer)
class FileSender:
    """Writes bytes of a file to a request as fast as its connection takes them; `done` fires at the end.

    A file that cannot be read on, or has become shorter, ends the connection: the answer has begun, and must be seen
    to be incomplete.
    """

    _log = Logger()

    def __init__(self, request: Any, file: OpenFile, start: int, size: int) -> None:
        self.done: Deferred[None] = Deferred()
        self._request = request
        self._file = file
        self._offset = start
        self._end = start + size
        self._ahead = b""
        self._paused = False
        self._reading = False
        self._stopped = False

    def start(self) -> None:
        """Begin; the file is closed when it is over, whatever happens."""
        self._request.notifyFinish().addErrback(lambda _failure: self.stopProducing())
        self._request.registerProducer(self, True)
        self._read()
        self._write()

    def pauseProducing(self) -> None:
        """Write nothing for now."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Go on."""
        self._paused = False
        self._write()

    def stopProducing(self) -> None:
        """The client is gone."""
        self._stopped = True
        self._ahead = b""
        if not self._reading:
            self._close()

    def _read(self) -> None:
        if self._reading or self._stopped or self._ahead or self._offset >= self._end:
            return
        size = min(READ_NOW, self._end - self._offset)
        self._ahead = self._file.read_now(self._offset, size)
        self._offset += len(self._ahead)
        if not self._ahead:
            self._reading = True
            deferToThread(self._file.read_at, self._offset, size).addBoth(self._have)

    def _have(self, result: bytes | Failure) -> None:
        self._reading = False
        if self._stopped:
            self._close()
        elif isinstance(result, Failure) or not result:
            self._log.error("a file cannot be read on: {problem}", problem=result or "it has become shorter")
            self._stopped = True
            self._close()
            self._request.channel.forceAbortClient()
        else:
            self._offset += len(result)
            self._ahead = result
            self._write()

    def _write(self) -> None:
        while self._ahead and not self._paused and not self._stopped:
            piece, self._ahead = self._ahead, b""
            self._read()
            self._request.write(piece)
        if not (self._stopped or self._ahead or self._reading or self._offset < self._end):
            self._stopped = True
            self._request.unregisterProducer()
            self._close()
            self._request.finish()

    def _close(self) -> None:
        if not self.done.called:
            deferToThread(self._file.close).addErrback(lambda _failure: None)
            self.done.callback(None)
