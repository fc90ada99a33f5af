"""Our HTTP server: HTTP/1.1, client certificates, bodies that never sit in memory."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import RESPONSES, _GenericHTTPChannelProtocol, datetimeToString
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource
from twisted.web.server import Request as WebRequest
from twisted.web.server import Site as WebSite
from twisted.web.server import version

from lgi.errors import ErrorNumber, LGIError
from lgi.httpd.body import Body, MultipartBody, RefusedBody, UrlencodedBody, boundary_of
from lgi.httpd.channel import Channel
from lgi.httpd.filebody import FileBody, StreamBody
from lgi.httpd.peer import Caller
from lgi.httpd.record import GONE, Record, nobody_watches
from lgi.httpd.refusal import Refused
from lgi.httpd.spool import Spool
from lgi.httpd.transport import Transport
from lgi.httpd.writer import Line

FORM_TYPES = ("multipart/form-data", "application/x-www-form-urlencoded")
# Bytes of a body that are sooner read to their end, unwanted, than a new connection is made.
SMALL = 256 * 1024
# Seconds for which nobody asks again who makes a request.
FRESH = 1.0
UNEXPECTED = "an unexpected error, see the server's log"
_SECRET = re.compile(r"(JOB_[0-9a-f]{8})[0-9a-f]{24}")


@attrs.frozen(kw_only=True)
class BodyLimits:
    """Sizes in bytes: of a whole request, and of one file in it."""

    request: int
    file: int

    def of(self, body: Body) -> int:
        """How much a request with this body may announce."""
        return min(self.request, self.file) if isinstance(body, FileBody) else self.request


@attrs.frozen(kw_only=True)
class Announced:
    """A request of which the headers have come; `length` is what it says of its body in bytes, None if nothing."""

    method: bytes
    path: bytes
    headers: Headers
    caller: Caller
    length: int | None
    line: Line


class Admitted(Protocol):
    """A request that is welcome; `body` is where its body goes, None if that is nothing special."""

    @property
    def body(self) -> Body | None:
        """Where."""


Admit = Callable[[Announced], Coroutine[Any, Any, Admitted] | None]


class Request(WebRequest):
    """A request whose body is taken apart as it comes.

    `admitted` is what `Site.admit` said of it, None for a request without a body and where it has nothing to say.
    """

    channel: Channel
    site: Any
    record: Record
    _log = Logger()
    admitted: Admitted | None = None
    _caller: Caller | None = None
    _asked_who = 0.0
    _length: int | None = None
    _answered = False

    def gotLength(self, length: int | None) -> None:
        """Choose where the body goes, now that all headers are there; one that is not wanted goes nowhere."""
        site = self.site = self.channel.site
        # Twisted says so when the whole body has come, and that may never be.
        self.method, self.uri, self.clientproto = self.channel._command, self.channel._path, self.channel._version
        self.record = Record(began=site.clock())
        # Latin-1, since a client may send any bytes here.
        content_type = (self.requestHeaders.getRawHeaders(b"content-type") or [b""])[-1].decode("latin-1")
        body = site.body_for(content_type, self.channel)
        if isinstance(body, FileBody):
            body.hashed = self.requestHeaders.hasHeader(b"repr-digest")
        caller = None
        try:
            caller = site.identify(self.transport)
        except LGIError as problem:
            body = RefusedBody(problem)
        else:
            self.record.caller = caller.identity.name
            self._caller, self._asked_who = caller, self.record.began
        self._length = length
        self._maximum = site.limits.of(body)
        if length is not None and length > self._maximum:
            body = RefusedBody(LGIError(ErrorNumber.REQUEST_TOO_BIG))
            self._refuse(413, site.too_big)
            caller = None
        self.content = body
        if caller is not None and length != 0:
            self._ask(site, caller)

    def caller(self) -> Caller:
        """Who makes this request, looked at again after a body that took its time; raises LGIError."""
        if self._caller is None or self.site.clock() - self._asked_who > FRESH:
            self._caller, self._asked_who = self.site.identify(self.transport), self.site.clock()
        assert self._caller is not None
        return self._caller

    def _ask(self, site: Site, caller: Caller) -> None:
        """Find out whether the body is wanted before any of it is taken."""
        answering = site.admit(
            Announced(
                method=self.channel._command,
                path=self.channel._path.partition(b"?")[0],
                headers=self.requestHeaders,
                caller=caller,
                length=self._length,
                line=self.channel,
            )
        )
        if answering is not None:
            self.channel.hold()
            Deferred.fromCoroutine(answering).addBoth(self._asked)

    def _asked(self, result: Admitted | Failure) -> None:
        if isinstance(result, Failure):
            if not isinstance(result.value, Refused):
                self._log.failure("{path} failed", failure=result, path=_SECRET.sub(r"\1…", repr(self)))
            if self.channel is not None:
                self._decline(result.value)
        elif self.channel is None:
            # The client is gone, and nobody else lets go of what was opened for it.
            if result.body is not None:
                result.body.close()
        else:
            self.admitted = result
            if result.body is not None:
                self.content = result.body
        if self.channel is not None:
            self.channel.release()

    def _decline(self, problem: BaseException | None) -> None:
        refusal = problem if isinstance(problem, Refused) else Refused(500, UNEXPECTED)
        if self._length is None or self._length > SMALL:
            self._refuse(refusal.code, refusal.body, refusal.headers)
        else:
            # Its end comes with the next packets, and the connection can be used on.
            self.content = RefusedBody(refusal)

    def handleContentChunk(self, data: bytes) -> None:
        """Take the next piece of the body; one that was not announced is cut off where it passes the limit."""
        super().handleContentChunk(data)
        body: Any = self.content
        if body.tell() > self._maximum:
            body.close()
            self._refuse(413, self.channel.site.too_big)
        elif isinstance(body, StreamBody) and body.failure is not None:
            self._say_failure(body)

    def _say_failure(self, body: StreamBody) -> None:
        """Answer at once where much is still to come that finds no room."""
        if not self._answered and (self._length or 0) - body.tell() > SMALL:
            self._answered = True
            self.channel.hold()
            Deferred.fromCoroutine(body.refusal()).addCallback(self._cut_off)

    def _cut_off(self, refusal: Refused) -> None:
        if self.channel is not None:
            self._refuse(refusal.code, refusal.body, refusal.headers)
            self.channel.release()

    def _refuse(self, code: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        # Said at once, and the connection closed: nobody waits for the end of a body that is not wanted.
        lines = [f"HTTP/1.1 {code} {RESPONSES[code].decode()}", "Connection: close"]
        lines += ["Content-Type: text/xml; charset=UTF-8", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self.channel.refuse("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
        self.site.over(self, code, len(body))

    def connectionLost(self, reason: Failure) -> None:
        """The client is gone; a call that is being answered is carried through all the same, see `Router`."""
        super().connectionLost(reason)
        record = getattr(self, "record", None)
        # It has one when its headers have come.
        if record is not None and not record.is_call:
            self.site.over(self)

    def answer(self, body: bytes, content_type: bytes) -> None:
        """Answer with all of this body, headers and body in one piece."""
        head = [
            b"%s %d %s" % (self.clientproto, self.code, self.code_message),
            b"Content-Type: " + content_type,
            b"Content-Length: %d" % len(body),
        ]
        if not self.responseHeaders.hasHeader(b"Date"):
            head += [b"Server: " + version, b"Date: " + self.site.date()]
        head += [
            b"%s: %s" % (name, value) for name, values in self.responseHeaders.getAllRawHeaders() for value in values
        ]
        transport: Any = self.channel.transport
        transport.gathering = True
        try:
            # As Twisted's `write`, which takes each header apart and writes it by itself.
            self.startedWriting, self.sentLength = 1, len(body)
            self.channel.write(b"\r\n".join((*head, b"", body)))
            self.finish()
        finally:
            transport.gathering = False
            if isinstance(transport, Transport):
                transport.flush()

    def process(self) -> None:
        """Find the resource and let it answer."""
        resource = self.site.shortcuts.get(self.path) if self.method == b"POST" else None
        if resource is not None:
            self.prepath, self.postpath = [], self.path[1:].split(b"/")
            try:
                self.render(resource)
            except Exception:
                self.processingFailed(Failure())
            return
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

    `identify` is asked before a body is taken: what comes from a caller who is refused is stored nowhere. So is
    `admit`, which may take its time, and raises Refused; it gives None for requests that it has nothing to say of.
    `drain` ends what is under way, see `Router.drain`. `watch` is told of each request when it is over, with times by
    `clock`, in seconds. `shortcuts` are resources that are found by the whole path of a POST as it is sent, before
    any other; they use `Request.answer`.
    """

    noisy = False
    requestFactory = Request
    protocol = staticmethod(lambda: _GenericHTTPChannelProtocol(Channel()))

    def __init__(
        self,
        root: IResource,
        *,
        identify: Callable[[Any], Caller],
        admit: Admit = lambda _announced: None,
        drain: Callable[[], Awaitable[None]],
        spool: Spool,
        limits: BodyLimits,
        too_big: bytes,
        reactor: Any,
        idle_timeout: int,
        shortcuts: Mapping[bytes, IResource] | None = None,
        watch: Callable[[Any, Record], None] = nobody_watches,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__(
            root,
            requestFactory=Request,
            timeout=idle_timeout,
            reactor=reactor,
            parsePOSTFormSubmission=False,
        )
        self.idle_timeout = idle_timeout
        self.shortcuts = shortcuts or {}
        self.identify = identify
        self.admit = admit
        self.drain = drain
        self._spool = spool
        self.limits = limits
        self.too_big = too_big
        self.displayTracebacks = False
        self.watch = watch
        self.clock = clock
        self._second, self._date = 0, b""

    def date(self) -> bytes:
        """The present second, as answers have it."""
        now = int(time.time())
        if now != self._second:
            self._second, self._date = now, datetimeToString(now)
        return self._date

    def log(self, request: Any) -> None:
        """A request has been answered."""
        self.over(request, request.code, request.sentLength)

    def over(self, request: Any, status: int = GONE, size: int = 0) -> None:
        """Nothing more becomes of a request, which `watch` is told of once."""
        record = request.record
        if not record.over:
            record.over, record.status, record.size, record.ended = True, status, size, self.clock()
            record.name(request.method, request.uri)
            self.watch(request, record)

    # HTTP/2 would hide the peer's certificate from Twisted's request.
    def acceptableProtocols(self) -> list[bytes]:
        """Speak HTTP/1.1 alone."""
        return [b"http/1.1"]

    def body_for(self, content_type: str, line: Line | None = None) -> Body:
        """The receiver for a body of this type."""
        kind = content_type.partition(";")[0].strip().lower()
        if kind == FORM_TYPES[0] and (boundary := boundary_of(content_type)):
            return MultipartBody(self._spool, self.limits.request, self.limits.file, boundary)
        if kind == FORM_TYPES[1]:
            return UrlencodedBody(self.limits.request)
        return FileBody(self._spool, self.limits.file, line)
