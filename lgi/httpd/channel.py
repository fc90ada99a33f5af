"""A connection to our HTTP server: in bounded time, and held up while what it sends cannot be taken."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel

# Bytes a second: what comes slower than this, after the idle time-out, is not waited for.
SLOWEST = 1000
# What a client that was cut off has to read why: seconds, and bytes that it may still send.
LINGER = 5
LINGER_SIZE = 16 * 1024 * 1024


class Channel(HTTPChannel):
    """A connection on which a request comes in bounded time, or is cut off.

    A request may take `Site.idle_timeout` seconds and one more for each SLOWEST bytes of it; between its pieces, and
    between two requests, at most `idle_timeout` seconds pass, and between two pieces of an answer that the client
    reads. A connection that is being closed is closed in bounded time too, whatever its other side does.
    """

    # The Site that accepted it.
    site: Any
    _began: float | None = None
    _received = 0
    _closing = False
    _stalled: Any = None
    _gone = False
    _held = False
    _owes_continue = False
    _address: Any = None
    _due: float | None = None
    _alarm: Any = None

    def getHost(self) -> Any:
        """The address of this side, which is asked for with each request and stays the same."""
        if self._address is None:
            self._address = super().getHost()
        return self._address

    def setTimeout(self, period: int | None) -> int | None:
        """End the connection after so many seconds without anything, or not at all; returns what was before.

        Each request sets this several times: one timer stays for all of them, and goes on when it comes too early.
        """
        before, self.timeOut = self.timeOut, period
        self.resetTimeout()
        if period is not None:
            if self._alarm is None:
                self._alarm = self.site.reactor.callLater(period, self._wake)
            elif self._alarm.getTime() > self._due:
                self._alarm.reset(period)
        return before

    def resetTimeout(self) -> None:
        """Something has come."""
        self._due = None if self.timeOut is None else self.site.reactor.seconds() + self.timeOut

    def _wake(self) -> None:
        self._alarm = None
        if self._due is None:
            # It is armed again when there is something to wait for.
            return
        left = self._due - self.site.reactor.seconds()
        if left > 0:
            self._alarm = self.site.reactor.callLater(left, self._wake)
        else:
            self.timeoutConnection()

    def pauseProducing(self) -> None:
        """Wait for a client that does not read what it asked for, at most `idle_timeout` seconds."""
        super().pauseProducing()
        if self._stalled is None:
            self._stalled = self.site.reactor.callLater(self.site.idle_timeout, self.forceAbortClient)

    def resumeProducing(self) -> None:
        """It has read something."""
        self._reads()
        super().resumeProducing()
        if self._held:
            self._networkProducer.pauseProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is gone."""
        self._gone = True
        self._reads()
        super().connectionLost(reason)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _reads(self) -> None:
        if self._stalled is not None and self._stalled.active():
            self._stalled.cancel()
        self._stalled = None

    def dataReceived(self, data: bytes) -> None:
        """Take the next piece, unless it comes too late or nothing more is wanted."""
        if self._closing or not self._handlingRequest:
            now = self.site.reactor.seconds()
            if self._began is None:
                self._began, self._received = now, 0
            self._received += len(data)
            if not self._closing and now - self._began > self.site.idle_timeout + self._received / SLOWEST:
                self._closing = True
                self.forceAbortClient()
        if not self._closing:
            super().dataReceived(data)
        elif self._received > LINGER_SIZE:
            self.forceAbortClient()

    def allContentReceived(self) -> None:
        """Let the request be answered, unless it was cut off."""
        self._began = None
        if not self._closing:
            super().allContentReceived()

    def refuse(self, answer: bytes) -> None:
        """Send the answer to a request that has not come whole, and wait for no more of it; twice is once."""
        if not self._closing:
            self._owes_continue, self._closing = False, True
            # What still comes is read and dropped, or the client would not read why.
            self.release()
            self.write(answer)
            self.loseConnection()
            self.setTimeout(LINGER)

    def lineLengthExceeded(self, _line: bytes) -> None:
        """Wait for no more of a line that is too long."""
        self.loseConnection()

    def loseConnection(self) -> None:
        """Close when all is written; what still comes is not looked at, also by the timer."""
        self._closing, self._began = True, None
        self.setTimeout(self.site.idle_timeout)
        super().loseConnection()

    def timeoutConnection(self) -> None:
        """End a connection on which nothing came in time."""
        if self._closing:
            self.forceAbortClient()
        else:
            super().timeoutConnection()

    def _send100Continue(self) -> None:
        if self._held:
            # Whether its body is wanted is not known yet.
            self._owes_continue = True
        elif not self._closing:
            super()._send100Continue()

    def hold(self) -> None:
        """Take nothing from the client for now; what has come already waits. It is in no hurry meanwhile."""
        if self._held or self._closing or self._handlingRequest:
            return
        self._held = self.paused = True
        self.setTimeout(None)
        self._networkProducer.pauseProducing()

    def release(self) -> None:
        """Go on after `hold`."""
        if not self._held:
            return
        self._held = self.paused = False
        owed, self._owes_continue = self._owes_continue, False
        if self.transport is None or self._gone:
            return
        if owed:
            self._send100Continue()
        if not self._closing:
            self.setTimeout(self.site.idle_timeout)
        if not self._waitingForTransport:
            self._networkProducer.resumeProducing()
        if self._closing:
            self.clearLineBuffer()
        else:
            LineReceiver.dataReceived(self, b"")
