"""Uploads: whether one is welcome, before any of it has come; and putting in place what has come."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Coroutine
from typing import Any, ClassVar
from urllib.parse import unquote_to_bytes

import attrs
from twisted.internet.threads import deferToThread
from twisted.web.http_headers import Headers

from lgi.errors import LGIError
from lgi.httpd.body import Body, RefusedBody
from lgi.httpd.filebody import FileBody
from lgi.httpd.peer import Caller
from lgi.httpd.refusal import Refused, of_error, of_storage, of_upload
from lgi.httpd.site import FORM_TYPES, Announced
from lgi.repository.address import Address, address_of, below, text_of
from lgi.repository.conditions import Conditions
from lgi.repository.digest import announced_digest, check_digest, digest_of_path
from lgi.repository.files import Repositories
from lgi.repository.keeper import Keeper, check
from lgi.repository.names import NameRefused
from lgi.repository.partbody import OFFSET, PartBody
from lgi.repository.unfinished import InUse, Part, Upload
from lgi.repository.unmade import Unmade

_CONTENT_RANGE = re.compile(r"bytes\s+(?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18})", re.ASCII | re.IGNORECASE)
_KEY = re.compile(r"[!-~](?:[ -~]{0,126}[!-~])?")
# From this size on an upload is not begun that has no room.
_PROBED = 64 * 1024 * 1024


@attrs.frozen(kw_only=True)
class Span:
    """Which bytes of an upload a request carries, `first` and `size` None where it only asks."""

    upload: Upload
    first: int | None
    size: int | None


@attrs.frozen(kw_only=True)
class Admission:
    """An upload that is welcome: of which file, under which conditions, whole or in parts, and where it goes."""

    address: Address
    conditions: Conditions
    digest: bytes | None
    span: Span | None = None
    body: Body | None = None


def refused(problem: Exception) -> Refused:
    """What is answered to a name that is none, and to a file that is not there; raises what is neither."""
    match problem:
        case Refused():
            return problem
        case NameRefused():
            return Refused(400, str(problem))
        case FileNotFoundError():
            return Refused(404, "there is no such file")
    raise problem


class Receiver:
    """Takes uploads."""

    FORMS: ClassVar = FORM_TYPES

    def __init__(
        self, repositories: Repositories, keeper: Keeper, *, max_file_size: int, prefix: list[bytes]
    ) -> None:
        self._repositories = repositories
        self._keeper = keeper
        self._max_file_size = max_file_size
        self._prefix = prefix

    def admit(self, announced: Announced) -> Coroutine[Any, Any, Admission] | None:
        """Whether a request with a body is welcome; None for those that are not for here. Raises Refused."""
        if announced.method != b"PUT":
            return None
        segments = below(self._prefix, list(map(unquote_to_bytes, announced.path.split(b"/"))))
        return None if segments is None else self._admit(announced, segments)

    async def _admit(self, announced: Announced, segments: list[bytes]) -> Admission:
        try:
            address = address_of(text_of(segments))
        except (NameRefused, FileNotFoundError) as problem:
            raise refused(problem) from None
        try:
            return await self.welcome(announced, address)
        except OSError as problem:
            raise of_storage(problem) from None

    async def authorise(self, caller: Caller, address: Address) -> Unmade | None:
        """Raise Refused for who may not change the repository; returns what it is to be like if it is yet to be made.

        Raises LGIError where that cannot be found out.
        """
        writers, unmade = await self._keeper.writers(address.repository)
        if not await deferToThread(self._repositories.may_change, caller.identity, writers):
            # The same answer whether or not the repository exists.
            raise Refused(403, f"{caller.identity.name} may not change files in this repository")
        return unmade

    async def welcome(self, announced: Announced, address: Address) -> Admission:
        """Say whether an upload to this file is taken, and open what it goes to; raises Refused."""
        try:
            unmade = await self.authorise(announced.caller, address)
        except LGIError as problem:
            raise of_error(problem) from None
        headers = announced.headers
        kind = (headers.getRawHeaders(b"content-type") or [b""])[-1].decode("latin-1")
        if kind.partition(";")[0].strip().lower() in self.FORMS:
            raise Refused(415, "send the file itself as the body, not a form")
        admission = Admission(address=address, conditions=Conditions.of(headers), digest=announced_digest(headers))
        if admission.conditions:
            check(admission.conditions, await self._keeper.state(address.repository, address.name))
        span = self._span(headers, address, announced)
        size = announced.length if span is None else span.upload.total
        try:
            if unmade is not None:
                await self._keeper.make(address.repository, unmade)
            if size is not None and size >= _PROBED:
                await self._keeper.check_room(address.repository, address.name, size)
            if span is None:
                return admission
            if span.first is None:
                await deferToThread(self._check_there, span)
                return attrs.evolve(admission, span=span)
            part = await deferToThread(self._part, span)
        except LGIError as problem:
            raise of_error(problem) from None
        body = PartBody(part, span.size or 0, announced.line)
        body.hashed = admission.digest is not None and span.first == 0
        return attrs.evolve(admission, span=span, body=body)

    def _span(self, headers: Headers, address: Address, announced: Announced) -> Span | None:
        values = headers.getRawHeaders(b"content-range")
        if not values:
            return None
        found = _CONTENT_RANGE.fullmatch(b", ".join(values).decode("latin-1").strip())
        if found is None:
            raise Refused(400, "Content-Range is bytes FIRST-LAST/TOTAL, or bytes */TOTAL to ask how much has come")
        total = int(found[3])
        if total > self._max_file_size:
            raise Refused(413, f"max_file_size: a file may have at most {self._max_file_size} bytes")
        key = (headers.getRawHeaders(b"upload-key") or [b""])[-1].decode("latin-1").strip()
        if key and not _KEY.fullmatch(key):
            raise Refused(400, "Upload-Key is 1 to 128 printable ASCII characters")
        upload = Upload(
            repository=address.repository,
            name=address.name,
            total=total,
            uploader=announced.caller.identity.name,
            key=key,
        )
        if found[1] is None:
            if announced.length:
                raise Refused(400, "a request with bytes */TOTAL only asks, and has no body")
            return Span(upload=upload, first=None, size=None)
        first, last = int(found[1]), int(found[2])
        size = last - first + 1
        if not 0 < size <= total - first or announced.length not in (None, size):
            raise Refused(400, f"the body has not the bytes {first} to {last} of {total}")
        return Span(upload=upload, first=first, size=size)

    def _check_there(self, span: Span) -> None:
        # Resources may change what is not there, too: they would fill the disk with parts of it.
        repository = span.upload.repository
        if self._repositories.writers(repository) is None:
            raise Refused(404, "there is no such repository")

    def _part(self, span: Span) -> Part:
        try:
            part = self._repositories.unfinished.open(span.upload)
        except InUse:
            raise Refused(409, "another connection is sending this upload; wait and try again") from None
        try:
            try:
                # Only now: what is removed from here on forgets this part too.
                self._check_there(span)
            except Refused:
                part.discard()
                raise
            if span.first == 0:
                part.cut(0)
            elif span.first != part.size:
                raise Refused(416, f"of this upload {part.size} bytes are here", {OFFSET: str(part.size)})
        except BaseException:
            part.leave()
            raise
        return part

    async def receive(self, admission: Admission, body: object) -> tuple[int, str, dict[str, str]]:
        """Put in place what has come: status, message, headers.

        Raises Refused, LGIError, NameRefused or OSError, and leaves the file as it was then.
        """
        if isinstance(body, RefusedBody):
            raise body.answer
        if admission.span is not None and admission.span.first is None:
            size = await deferToThread(self._repositories.unfinished.size, admission.span.upload)
            return 202, f"{size} bytes are here", {OFFSET: str(size)}
        if isinstance(body, PartBody):
            return await self._receive_part(admission, body)
        if not isinstance(body, FileBody):
            raise Refused(415, "send the file itself as the body, not a form")
        try:
            file = await body.take_file()
        except LGIError as problem:
            raise of_upload(problem) from None
        try:
            check_digest(body.digest, admission.digest)
            await self._keep(admission, file)
        finally:
            file.discard()
        return 200, f"uploaded {admission.address.name} ({file.size} bytes)", {}

    async def _receive_part(self, admission: Admission, body: PartBody) -> tuple[int, str, dict[str, str]]:
        assert admission.span is not None
        total = admission.span.upload.total
        part = await body.take_part()
        try:
            if part.size < total:
                return 202, f"{part.size} of {total} bytes are here", {OFFSET: str(part.size)}
            try:
                if admission.digest is not None:
                    known = body.digest if admission.span.first == 0 else None
                    check_digest(known or await deferToThread(digest_of_path, part.path), admission.digest)
            except Refused as refusal:
                # None of it is of use: it begins anew.
                part.discard()
                raise Refused(refusal.code, refusal.message, {OFFSET: "0"}) from None
            try:
                await self._keep(admission, part)
            except BaseException:
                part.held_back(total)
                raise
            part.discard()
        finally:
            part.leave()
        return 200, f"uploaded {admission.address.name} ({total} bytes)", {OFFSET: str(total)}

    def _keep(self, admission: Admission, file: Part | Any) -> Awaitable[None]:
        address = admission.address
        return self._keeper.keep(address.repository, address.name, file, admission.conditions)
