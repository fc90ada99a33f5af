"""Our HTTP server: HTTP/1.1, client certificates, bodies that never sit in memory."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote_to_bytes

import attrs
from twisted.web.http import combinedLogFormatter
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


class Request(WebRequest):
    """A request whose body is taken apart as it comes."""

    def gotLength(self, length: int | None) -> None:
        """Choose where the body goes, now that all headers are there; one that is not wanted goes nowhere."""
        channel: Any = self.channel
        site: Site = channel.site
        # Latin-1, since a client may send any bytes here.
        content_type = (self.requestHeaders.getRawHeaders(b"content-type") or [b""])[-1].decode("latin-1")
        body = site.body_for(content_type)
        try:
            site.identify(self.transport)
        except LGIError as problem:
            body = RefusedBody(problem)
        if length is not None and length > site.limits.of(body):
            body = RefusedBody(LGIError(ErrorNumber.REQUEST_TOO_BIG))
            self._refuse(channel, site.too_big)
        self.content = body

    def _refuse(self, channel: Any, body: bytes) -> None:
        # Said at once, and the connection closed: nobody waits for the end of a body that is not wanted.
        channel.transport.write(
            b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Type: text/xml; charset=UTF-8\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        # What still comes is not looked at, also by the idle timer, which ends a client that goes on sending.
        channel.dataReceived = lambda _data: None
        channel.loseConnection()

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
    """Serves `root`; `too_big` is the answer to a request that announces more than it may have.

    `identify` is asked before a body is taken: what comes from a caller who is refused is stored nowhere. `drain`
    ends what is under way, see `Router.drain`.
    """

    requestFactory = Request

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
