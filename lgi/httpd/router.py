"""From requests to handlers and back: identity, limits, and the one mapping of errors.

A handler gets a `Call` and returns the content of `<response>`. What it raises as LGIError is told by number with
status 200, as deployed clients expect; anything else is logged with its traceback and answered blandly.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from lgi.errors import ErrorNumber, LGIError
from lgi.httpd.body import FormBody, Upload
from lgi.httpd.peer import Caller
from lgi.httpd.record import CURRENT, Record
from lgi.httpd.site import Request
from lgi.wire.answers import Envelope
from lgi.wire.fields import PostedFields

R = TypeVar("R")


@attrs.frozen(kw_only=True)
class Call:
    """A posted call: who calls, the fields, and the files that came with them.

    `when_gone` has something called when the client hangs up before it is answered. While a call is `idle` it does
    not count among those under way.
    """

    caller: Caller
    fields: PostedFields
    uploads: tuple[Upload, ...] = ()
    when_gone: Callable[[Callable[[], None]], None] = lambda _action: None
    idle: Callable[[], AbstractContextManager[None]] = nullcontext


UNEXPECTED = "an unexpected error, see the server's log; whether this was done is not known, look before repeating it"

Handler = Callable[[Call], Awaitable[str]]


def shielded(coroutine: Coroutine[Any, Any, R]) -> Deferred[R]:
    """Run `coroutine` to its end, also when its client hangs up: half a change is none that anybody wants."""
    outer: Deferred[R] = Deferred(lambda _cancelled: None)
    abandoned = Logger()

    def deliver(result: R | Failure) -> None:
        if not outer.called:
            outer.callback(result)
        elif isinstance(result, Failure):
            abandoned.failure("a request whose client had gone failed", failure=result)

    ensureDeferred(coroutine).addBoth(deliver)
    return outer


def _when_gone(request: Request, action: Callable[[], None]) -> None:
    request.notifyFinish().addErrback(lambda _failure: action())


def refuse_browsers(request: Request) -> None:
    """Raise LGIError for a call that a web page had a browser make.

    A browser sends its owner's certificate with whatever any site lets it post. It also says who let it, in headers
    that a page cannot change and that programs do not send (Fetch Metadata, RFC 6454). No page of this server posts
    to the API.
    """
    headers = request.requestHeaders
    site = (headers.getRawHeaders(b"sec-fetch-site") or [b""])[-1].strip().lower()
    origin = (headers.getRawHeaders(b"origin") or [b""])[-1].strip().lower()
    if not site and not origin:
        return
    own = (headers.getRawHeaders(b"host") or [b""])[-1].strip().lower()
    if site in (b"", b"same-origin", b"none") and origin in (b"", b"https://" + own):
        raise LGIError(ErrorNumber.BROWSER_SESSION)
    raise LGIError(ErrorNumber.FORGED_REQUEST, origin.decode("utf-8", "replace"))


class Router(Resource):
    """The API: each of its calls is a POST on a path of its own."""

    isLeaf = True
    _log = Logger()

    def __init__(self, *, envelope: Envelope, max_requests: int, back_off: int) -> None:
        super().__init__()
        self._handlers: dict[bytes, tuple[str, Handler]] = {}
        self._envelope = envelope
        self._max_requests = max_requests
        self._back_off = back_off
        self._under_way = 0
        self._stopping: Deferred[None] | None = None

    @property
    def under_way(self) -> int:
        """How many calls are being answered, without those that wait on purpose."""
        return self._under_way

    @property
    def paths(self) -> Collection[bytes]:
        """Of all calls."""
        return self._handlers.keys()

    def add(self, path: str, handler: Handler) -> None:
        """Serve POST on `path` by `handler`."""
        name = path.rpartition("/")[2].removesuffix(".php")
        self._handlers[path.encode()] = (name, handler)

    def render(self, request: Request) -> int | bytes:
        """Answer a call, which is carried through also if its client hangs up: nobody wants half a change."""
        found = self._handlers.get(b"/" + b"/".join(request.postpath or ()))
        if found is None:
            return self._plain(request, 404, "there is nothing here: see the addresses of calls in the protocol")
        if request.method != b"POST":
            request.responseHeaders.setRawHeaders(b"Allow", [b"POST"])
            return self._plain(request, 405, "this is a call, which is made by POST")
        record = request.record
        record.call, handler = found
        record.is_call, record.began = True, request.site.clock()
        ensureDeferred(self._serve(request, handler)).addErrback(
            lambda failure: self._log.failure("an answer could not be given", failure)
        )
        return NOT_DONE_YET

    @staticmethod
    def _plain(request: Request, code: int, text: str) -> bytes:
        request.setResponseCode(code)
        request.responseHeaders.setRawHeaders(b"Content-Type", [b"text/plain; charset=UTF-8"])
        return f"{text}\n".encode()

    async def _serve(self, request: Request, handler: Handler) -> None:
        CURRENT.set(request.record)
        body = await self._answer(request, handler)
        if not request._disconnected:
            request.answer(body, b"text/xml; charset=UTF-8")
        else:
            request.site.over(request)

    async def drain(self) -> None:
        """Tell new calls to come back later, and return when those under way have been answered."""
        self._stopping = Deferred()
        if self._under_way:
            await self._stopping

    async def _answer(self, request: Request, handler: Handler) -> bytes:
        self._under_way += 1
        try:
            body = self._envelope.wrap(await self._handle(request, handler))
        except LGIError as problem:
            self._log.debug("{path}: {problem}", path=request.path.decode("utf-8", "replace"), problem=problem)
            request.record.error = int(problem.number)
            body = self._envelope.wrap_error(problem)
        except Exception:
            self._log.failure("{path} failed", path=request.path)
            request.setResponseCode(500)
            # No back-off, which would say that nothing was done and that the call may be repeated.
            body = self._envelope.wrap_error(LGIError(ErrorNumber.DATABASE_UNREACHABLE, UNEXPECTED))
        finally:
            self._under_way -= 1
            if not self._under_way and self._stopping is not None and not self._stopping.called:
                self._stopping.callback(None)
        return body

    @contextmanager
    def _idle(self, record: Record, clock: Callable[[], float]) -> Iterator[None]:
        self._under_way -= 1
        began, before = clock(), (record.database, record.transactions)
        try:
            yield
        finally:
            self._under_way += 1
            record.idle += clock() - began
            # What it looked up meanwhile is part of the wait.
            record.database, record.transactions = before

    async def _handle(self, request: Request, handler: Handler) -> str:
        if self._under_way > self._max_requests or self._stopping is not None:
            raise LGIError(ErrorNumber.OVERLOADED, timeout=self._back_off)
        caller = request.caller()
        refuse_browsers(request)
        form = request.content
        if not isinstance(form, FormBody):
            if form is not None and form.failure is not None:
                raise form.failure
            raise LGIError(ErrorNumber.UPLOAD_FAILED, "the request is not a posted form")
        form.finish()
        uploads = form.take_uploads()
        try:
            return await handler(
                Call(
                    caller=caller,
                    fields=PostedFields(values=form.fields),
                    uploads=tuple(uploads),
                    when_gone=partial(_when_gone, request),
                    idle=partial(self._idle, request.record, request.site.clock),
                )
            )
        finally:
            for upload in uploads:
                upload.file.discard()
