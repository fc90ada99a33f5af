"""Our HTTP server: HTTP/1.1, client certificates, bodies that never sit in memory."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote_to_bytes

import attrs
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, _GenericHTTPChannelProtocol, combinedLogFormatter
from twisted.web.iweb import IAccessLogFormatter
from twisted.web.resource import IResource
from twisted.web.server import Request as WebRequest
from twisted.web.server import Site as WebSite
from zope.interface import provider

from lgi.errors import ErrorNumber, LGIError
from lgi.httpd.body import Body, FileBody, MultipartBody, RefusedBody, UrlencodedBody, boundary_of
from lgi.httpd.peer import Caller
from lgi.httpd.spool import Spool

FORM_TYPES = ("multipart/form-data", "application/x-www-form-urlencoded")
# Bytes a second: what comes slower than this, after the idle time-out, is not waited for.
SLOWEST = 1000
# What a client that was cut off has to read why: seconds, and bytes that it may still send.
LINGER = 5
LINGER_SIZE = 16 * 1024 * 1024

_SECRET = re.compile(r"(JOB_[0-9a-f]{8})[0-9a-f]{24}")


@provider(IAccessLogFormatter)
def access_line(timestamp: str, request: WebRequest) -> str:
    """A line of the access log, without what gives the right to read: whole names of repositories."""
    return _SECRET.sub(r"\1…", combinedLogFormatter(timestamp, request))


@attrs.frozen(kw_only=True)
class BodyLimits:
    """Sizes in bytes: of a whole request, and of one file in it."""

    request: int
    file: int

    def of(self, body: Body) -> int:
        """How much a request with this body may announce."""
        return min(self.request, self.file) if isinstance(body, FileBody) else self.request


class Channel(HTTPChannel):
    """A connection on which a request comes in bounded time, or is cut off.

    A request may take `Site.idle_timeout` seconds and one more for each SLOWEST bytes of it; between its pieces, and
    between two requests, at most `idle_timeout` seconds pass, and between two pieces of an answer that the client
    reads. A connection that is being closed is closed in bounded time too, whatever its other side does.
    """

    site: Site
    _began: float | None = None
    _received = 0
    _closing = False
    _stalled: Any = None

    def pauseProducing(self) -> None:
        """Wait for a client that does not read what it asked for, at most `idle_timeout` seconds."""
        super().pauseProducing()
        if self._stalled is None:
            self._stalled = self.site.reactor.callLater(self.site.idle_timeout, self.forceAbortClient)

    def resumeProducing(self) -> None:
        """It has read something."""
        self._reads()
        super().resumeProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is gone."""
        self._reads()
        super().connectionLost(reason)

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
        if not self._closing:
            super()._send100Continue()


class Request(WebRequest):
    """A request whose body is taken apart as it comes."""

    channel: Channel

    def gotLength(self, length: int | None) -> None:
        """Choose where the body goes, now that all headers are there; one that is not wanted goes nowhere."""
        site = self.channel.site
        # Latin-1, since a client may send any bytes here.
        content_type = (self.requestHeaders.getRawHeaders(b"content-type") or [b""])[-1].decode("latin-1")
        body = site.body_for(content_type)
        try:
            site.identify(self.transport)
        except LGIError as problem:
            body = RefusedBody(problem)
        self._maximum = site.limits.of(body)
        if length is not None and length > self._maximum:
            body = RefusedBody(LGIError(ErrorNumber.REQUEST_TOO_BIG))
            self._refuse(site.too_big)
        self.content = body

    def handleContentChunk(self, data: bytes) -> None:
        """Take the next piece of the body; one that was not announced is cut off where it passes the limit."""
        super().handleContentChunk(data)
        body: Any = self.content
        if body.tell() > self._maximum:
            body.close()
            self._refuse(self.channel.site.too_big)

    def _refuse(self, body: bytes) -> None:
        # Said at once, and the connection closed: nobody waits for the end of a body that is not wanted.
        self.channel.refuse(
            b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Type: text/xml; charset=UTF-8\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )

    def process(self) -> None:
        """Find the resource and let it answer."""
        try:
            for part in (unquote_to_bytes(self.path), *self.requestHeaders.getRawHeaders(b"host", ())):
                part.decode("utf-8")
        except UnicodeDecodeError:
            # Nothing here has such a name, and what routes requests would log it as an error of its own.
            self.setResponseCode(400)
            self.setHeader(b"Content-Length", b"0")
            self.finish()
        else:
            super().process()


class Site(WebSite):
    """Serves `root`; `too_big` is the answer to a request that announces or sends more than it may have.

    `identify` is asked before a body is taken: what comes from a caller who is refused is stored nowhere. `drain`
    ends what is under way, see `Router.drain`.
    """

    requestFactory = Request
    protocol = staticmethod(lambda: _GenericHTTPChannelProtocol(Channel()))

    def __init__(
        self,
        root: IResource,
        *,
        identify: Callable[[Any], Caller],
        drain: Callable[[], Awaitable[None]],
        spool: Spool,
        limits: BodyLimits,
        too_big: bytes,
        reactor: Any,
        idle_timeout: int,
    ) -> None:
        super().__init__(
            root,
            requestFactory=Request,
            timeout=idle_timeout,
            reactor=reactor,
            parsePOSTFormSubmission=False,
            logFormatter=access_line,
        )
        self.idle_timeout = idle_timeout
        self.identify = identify
        self.drain = drain
        self._spool = spool
        self.limits = limits
        self.too_big = too_big
        self.displayTracebacks = False

    # HTTP/2 would hide the peer's certificate from Twisted's request.
    def acceptableProtocols(self) -> list[bytes]:
        """Speak HTTP/1.1 alone."""
        return [b"http/1.1"]

    def body_for(self, content_type: str) -> Body:
        """The receiver for a body of this type."""
        kind = content_type.partition(";")[0].strip().lower()
        if kind == FORM_TYPES[0] and (boundary := boundary_of(content_type)):
            return MultipartBody(self._spool, self.limits.request, self.limits.file, boundary)
        if kind == FORM_TYPES[1]:
            return UrlencodedBody(self.limits.request)
        return FileBody(self._spool, self.limits.file)
