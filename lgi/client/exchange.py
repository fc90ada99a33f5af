"""One request to a repository and its answer, whose head is seen before its body is taken."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.web.client import FileBodyProducer
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IResponse

from lgi.client.answers import AnswerMalformed, ServerRefused, ServerUnreachable, read_whole
from lgi.client.transfer import TRANSPORT_FAILURES, Stall, explain, never_sent, read_body, will_last
from lgi.wire.dialect import text_of

Sink = Callable[[bytes], Deferred[None] | None]

_ANSWER_LIMIT = 1 << 26
_DIGITS = re.compile(r"[0-9]{1,19}")
_SHA256 = re.compile(r"(?:^|[,\s])sha-256=:([A-Za-z0-9+/]{43}=):")
SUCCESS = (200, 201, 204)


class Refusal(ServerRefused):
    """An answer with a status that is no success; `offset` is what it says about an upload in the making."""

    def __init__(self, number: int, message: str, *, timeout: int | None = None, offset: int | None = None) -> None:
        super().__init__(number, message, timeout)
        self.offset = offset


def field(response: IResponse, name: str) -> str:
    """A header of an answer, empty where there is none."""
    values = response.headers.getRawHeaders(name.encode())
    return values[-1].decode("latin-1").strip() if values else ""


def number(text: str) -> int | None:
    """What a header says in digits, None for anything else."""
    return int(text) if _DIGITS.fullmatch(text) else None


def digest_field(digest: bytes) -> str:
    """A SHA-256 as `Repr-Digest` has it (RFC 9530)."""
    return f"sha-256=:{base64.b64encode(digest).decode()}:"


def read_digest(text: str) -> bytes | None:
    """The SHA-256 in a `Repr-Digest`, None where it has none."""
    found = _SHA256.search(text)
    try:
        return base64.b64decode(found[1], validate=True) if found else None
    except binascii.Error:
        return None


@attrs.frozen(kw_only=True)
class Reply:
    """An answer with its whole body."""

    code: int
    headers: Headers
    body: bytes

    def field(self, name: str) -> str:
        """A header, empty where there is none."""
        values = self.headers.getRawHeaders(name.encode())
        return values[-1].decode("latin-1").strip() if values else ""


class Exchange:
    """One request at `url`, given up when nothing has moved for `seconds`.

    Raises ServerUnreachable; a success is what the caller says is one.
    """

    def __init__(self, agent: Any, reactor: Any, url: str, seconds: float) -> None:
        self._agent = agent
        self._url = url
        self.stall = Stall(reactor, seconds)

    async def begin(
        self, method: str, headers: Mapping[str, str], body: IBodyProducer | FileBodyProducer | None = None
    ) -> IResponse:
        """Send the request; the answer's head is there, its body waits for `take` or `drop`."""
        sent = Headers({name: [value] for name, value in headers.items()})
        try:
            request = self._agent.request(method.encode(), self._url.encode("ascii"), sent, body)
            response: IResponse = await self.stall.watch(request)
        except UnicodeEncodeError:
            raise ServerUnreachable(f"{self._url} is no address", lasting=True) from None
        except TRANSPORT_FAILURES as problem:
            raise self._unreachable(problem) from problem
        return response

    async def take(self, response: IResponse, sink: Sink, *, unending: bool = False) -> None:
        """Give the body to `sink`; `unending` takes one of unknown length."""

        def write(data: bytes) -> Deferred[None] | None:
            self.stall.moved()
            return sink(data)

        try:
            await self.stall.watch(read_body(response, write))
        except PotentialDataLoss as problem:
            if not unending:
                raise self._unreachable(problem) from problem
        except TRANSPORT_FAILURES as problem:
            raise self._unreachable(problem) from problem

    async def whole(self, response: IResponse) -> Reply:
        """The answer with its body, which is not a file's."""
        body = bytearray()

        def keep(data: bytes) -> None:
            body.extend(data)
            if len(body) > _ANSWER_LIMIT:
                raise AnswerMalformed("the server's answer does not end")

        await self.take(response, keep, unending=True)
        return Reply(code=response.code, headers=response.headers, body=bytes(body))

    async def refusal(self, response: IResponse) -> Refusal:
        """What an answer says that is no success."""
        reply = await self.whole(response)
        try:
            text = text_of(read_whole(reply.body, "status"), "message")
        except AnswerMalformed:
            text = ""
        return Refusal(
            reply.code,
            text or f"HTTP status {reply.code} {response.phrase.decode('latin-1')}",
            timeout=number(field(response, "Retry-After")),
            offset=number(field(response, "Upload-Offset")),
        )

    @staticmethod
    def drop(response: IResponse) -> None:
        """Hang up: the body is not wanted."""

        def ignore(_data: bytes) -> None:
            return

        unread = read_body(response, ignore)
        unread.addErrback(lambda _: None)
        with suppress(Exception):
            unread.cancel()

    def _unreachable(self, problem: BaseException) -> ServerUnreachable:
        return ServerUnreachable(
            f"{self._url}: {explain(problem)}", maybe_done=not never_sent(problem), lasting=will_last(problem)
        )
