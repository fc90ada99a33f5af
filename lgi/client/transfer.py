"""Bytes on their way to and from a server: sent in pieces, read to the end, given up when nothing moves any more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar, cast

from OpenSSL.SSL import Error as TLSError
from service_identity import VerificationError
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import (
    FileBodyProducer,
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseDone,
    ResponseFailed,
    ResponseNeverReceived,
)
from twisted.web.http import PotentialDataLoss

T = TypeVar("T")

Progress = Callable[[int], None]
"""Called with the number of bytes that have just gone over the wire, negative where some have to go again."""

_READ_SIZE = 1 << 18

# CancelledError is not among them: who cancels a call has no interest in an explanation. Nor is OSError, which is
# what this side's own files fail with.
TRANSPORT_FAILURES = (
    error.ConnectError,
    error.ConnectionClosed,
    error.DNSLookupError,
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseFailed,
    ResponseNeverReceived,
    PotentialDataLoss,
    TLSError,
    VerificationError,
    TimeoutError,
)

_NEVER_SENT = (error.ConnectError, error.DNSLookupError, TLSError, VerificationError)

# The end of the message of a TLS alert, in OpenSSL's words, and what it means here.
_ALERTS = {
    "certificate verify failed": "the server's certificate is not of the authority trusted here",
    "certificate revoked": "the server refuses the certificate: it has been revoked",
    "certificate expired": "the server refuses the certificate: it has expired",
    "unknown ca": "the server refuses the certificate: it is not of the server's authority",
    "bad certificate": "the server refuses the certificate",
    "certificate unknown": "the server refuses the certificate",
    "certificate required": "the server asks for a certificate",
    "handshake failure": "the server refuses the handshake",
    "wrong version number": "the other side does not speak TLS",
}


def no_progress(_bytes: int) -> None:
    """Report to nobody."""


def _causes(problem: BaseException) -> list[BaseException]:
    reasons = getattr(problem, "reasons", None)
    return [cause for reason in reasons for cause in _causes(reason.value)] if reasons else [problem]


def explain(problem: BaseException) -> str:
    """One line for people about why a connection or request failed."""
    causes = _causes(problem)
    # A handshake that failed ends the connection too, which then is not the news.
    cause = next((one for one in causes if isinstance(one, (TLSError, VerificationError))), causes[0])
    match cause:
        case TimeoutError() | CancelledError() | error.TimeoutError():
            return "no answer in time"
        case VerificationError():
            return "TLS: the server's certificate is not for this host name or address"
        case TLSError():
            return "TLS: " + (_alert(cause) or "the connection was closed")
        case error.ConnectionRefusedError():
            return "connection refused"
        case error.DNSLookupError():
            return "the host name is not known"
        case error.ConnectionClosed():
            return "the connection was closed before the answer had come"
        case PotentialDataLoss():
            return "the answer has no end"
    if isinstance(problem, RequestGenerationFailed):
        return f"the file could not be read, or changed while it was being sent: {cause}"
    return str(cause) or type(cause).__name__


def _alert(problem: TLSError) -> str:
    reasons = [item[-1] for item in (problem.args[0] if problem.args else []) if item and item[-1]]
    for reason in reasons:
        for ending, meaning in _ALERTS.items():
            if reason.endswith(ending):
                return meaning
    return "; ".join(reasons)


def never_sent(problem: BaseException) -> bool:
    """Whether the request certainly did not get as far as the server's application."""
    return any(isinstance(cause, _NEVER_SENT) for cause in _causes(problem))


def will_last(problem: BaseException) -> bool:
    """Whether asking again in a moment is bound to fail in the same way: a certificate is not as it has to be."""
    return any(
        isinstance(cause, VerificationError) or (isinstance(cause, TLSError) and bool(_alert(cause)))
        for cause in _causes(problem)
    )


class Stall:
    """Gives up what is awaited when nothing has moved for `seconds`."""

    def __init__(self, reactor: Any, seconds: float) -> None:
        self._reactor = reactor
        self._seconds = seconds
        self._end: Any = None

    def moved(self, _bytes: int = 0) -> None:
        """Something has: the time starts anew."""
        if self._end is not None and self._end.active():
            self._end.reset(self._seconds)

    async def watch(self, deferred: Deferred[T]) -> T:
        """Its result; raises TimeoutError on a stall, and CancelledError when it is the caller who gives up.

        Without this the two look alike: a cancelled request fails with whatever its connection ended with.
        """
        given_up: list[type[Exception]] = []

        def give_up(reason: type[Exception]) -> None:
            given_up.append(reason)
            deferred.cancel()

        waiter: Deferred[T] = Deferred(lambda _: give_up(CancelledError))
        deferred.addCallbacks(waiter.callback, waiter.errback)
        self._end = self._reactor.callLater(self._seconds, give_up, TimeoutError)
        try:
            return await waiter
        except Exception:
            if given_up:
                raise given_up[0]() from None
            raise
        finally:
            if self._end.active():
                self._end.cancel()


class _Body(Protocol):
    def __init__(self, sink: Callable[[bytes], Deferred[None] | None]) -> None:
        self.done: Deferred[None] = Deferred(lambda _: self._hang_up())
        self._sink = sink

    def _hang_up(self) -> None:
        if self.transport is not None:
            self._go_on()
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        if self.done.called:
            return
        try:
            taken = self._sink(data)
        except Exception:
            self._fail(Failure())
            return
        if taken is not None and not taken.called:
            # Bytes on their way inside this process may still come; no more are read from the network.
            cast(Any, self.transport).pauseProducing()
            taken.addCallback(self._go_on)
        if taken is not None:
            taken.addErrback(self._fail)

    def _go_on(self, _result: object = None) -> None:
        cast(Any, self.transport).resumeProducing()

    def _fail(self, failure: Failure) -> None:
        if not self.done.called:
            self.done.errback(failure)
            self._hang_up()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        if reason.check(ResponseDone):
            self.done.callback(None)
        else:
            self.done.errback(reason)


def read_body(response: Any, sink: Callable[[bytes], Deferred[None] | None]) -> Deferred[None]:
    """Give a response's body to `sink` piece by piece; fires when it has come whole.

    A sink that returns a Deferred gets little more until that has fired.

    Fails with what `sink` raises, with one of TRANSPORT_FAILURES, and with PotentialDataLoss where the answer does
    not say how long it is. Cancelling hangs up.
    """
    body = _Body(sink)
    response.deliverBody(body)
    return body.done


class _Counted:
    """A file being sent, which reports what is read from it."""

    def __init__(self, stream: BinaryIO, progress: Progress) -> None:
        self._stream = stream
        self._progress = progress

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        if data:
            self._progress(len(data))
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def file_body(stream: BinaryIO, progress: Progress) -> FileBodyProducer:
    """A request body that reads `stream` in pieces, as fast as they can be sent."""
    return FileBodyProducer(_Counted(stream, progress), readSize=_READ_SIZE)
