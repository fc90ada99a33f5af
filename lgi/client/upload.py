"""A file to a repository: in one request if it is small, else in pieces that survive a cut connection."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path

import attrs
from twisted.internet.defer import DeferredLock
from twisted.internet.threads import deferToThread
from twisted.web.iweb import IBodyProducer

from lgi.client.answers import ServerRefused, ServerUnreachable
from lgi.client.attempts import Attempts
from lgi.client.exchange import Refusal, Reply, digest_field, number
from lgi.client.sending import Bytes, FileChanged, Slice, Source, Tally
from lgi.client.transfer import Progress
from lgi.client.wire import Wire

RESUMABLE = 8 << 20  # bytes above which a file goes in pieces
_SMALL = 1 << 18
_LAST_PIECE = 1 << 16
# Bytes a second that a server at least hashes and brings to its disk, once everything is there.
_SLOW_DISK = 20_000_000
# A connection that was cut off is not known to be there, for its while: it still holds the upload.
_BUSY = (409, 416)
# What is told by any request, and would be told after the whole file too.
_FINAL = (401, 403, 413, 507)


class Abilities:
    """Whether the server keeps parts of files, which is asked once."""

    def __init__(self) -> None:
        self._lock = DeferredLock()
        self._resumes: bool | None = None

    async def resumes(self, wire: Wire, total: int) -> bool:
        """Raises what other requests raise, and Refusal where the server takes no file of `total` bytes from us.

        A server that does not know the question may take it for an empty file. It is therefore put with a name that
        nobody else uses, and what has come of it is removed.
        """
        await self._lock.acquire()
        try:
            if self._resumes is None:
                self._resumes = await self._ask(wire, total)
        finally:
            self._lock.release()
        return self._resumes

    @staticmethod
    async def _ask(wire: Wire, total: int) -> bool:
        probe = f"lgi-probe-{secrets.token_hex(8)}"
        try:
            reply = await wire.ask("PUT", probe, {"Content-Range": f"bytes */{total}"}, success=(200, 201, 202, 204))
        except Refusal as problem:
            if problem.offset is None and problem.number in (*_FINAL, 429, 502, 503, 504):
                raise
            return problem.offset is not None
        if number(reply.field("Upload-Offset")) is not None:
            return True
        try:
            await wire.ask("DELETE", probe)
        except ServerRefused as problem:
            if problem.number != 404:
                raise
        return False


@attrs.frozen(kw_only=True)
class Upload:
    """The file `path` to the repository's `name`."""

    wire: Wire
    path: Path
    name: str
    progress: Progress
    abilities: Abilities

    async def run(self) -> bytes:
        """Send it; returns its SHA-256. Raises FileChanged, OSError and what requests raise."""
        source = Source(self.path)
        try:
            if source.total > RESUMABLE:
                return await _Pieces(self, source).run()
            return await self._at_once(source)
        finally:
            source.close()

    async def _at_once(self, source: Source) -> bytes:
        attempts = Attempts(self.wire.reactor, self.wire.patience)
        small = source.small() if source.total <= _SMALL else None
        digest = await deferToThread(source.digest) if small is None else hashlib.sha256(small).digest()
        while True:
            sent = Tally(self.progress)
            try:
                headers = {"Repr-Digest": digest_field(digest)}
                body = Bytes(small) if small is not None else Slice(source, 0, source.total, sent)
                await send(self.wire, self.name, headers, body, sent)
                if small is not None:
                    sent(len(small))
            except (ServerUnreachable, ServerRefused) as problem:
                sent.at(0)
                source.check()
                await attempts.wait(problem, 0)
            else:
                source.check()
                return digest


async def send(
    wire: Wire, name: str, headers: dict[str, str], body: IBodyProducer, sent: Tally, *, more_time: float = 0
) -> Reply:
    """PUT a body; raises FileChanged or OSError where reading it failed."""
    try:
        return await wire.ask(
            "PUT", name, headers, body=body, tally=sent, success=(200, 201, 202, 204), more_time=more_time
        )
    except (ServerUnreachable, ServerRefused):
        if isinstance(body, Slice) and body.failure is not None:
            raise body.failure from None
        raise


class _Pieces:
    """A large file: what the server has of it stays there when the connection, the server or this process ends."""

    def __init__(self, upload: Upload, source: Source) -> None:
        self._wire = upload.wire
        self._name = upload.name
        self._abilities = upload.abilities
        self._source = source
        self._key = source.key
        self._sent = Tally(upload.progress)
        self._there = 0  # what the server is known to have
        self._last_sent = False
        self._damaged = False
        self._anew = False
        self._more_time = source.total / _SLOW_DISK

    async def run(self) -> bytes:
        """Send it; returns its SHA-256."""
        attempts = Attempts(self._wire.reactor, self._wire.patience)
        while True:
            try:
                if not await self._abilities.resumes(self._wire, self._source.total):
                    return await self._whole()
                return await self._rest()
            except (ServerUnreachable, ServerRefused) as problem:
                self._source.check()
                if getattr(problem, "number", 0) == 422 and not self._damaged:
                    # What an earlier attempt has left there is not what it should be.
                    self._damaged = self._anew = True
                    self._last_sent = False
                    continue
                if getattr(problem, "number", 0) == 409 and not self._last_sent:
                    await attempts.wait_for_other(problem)
                else:
                    await attempts.wait(problem, self._there, _BUSY)

    async def _whole(self) -> bytes:
        """All of it in one request, to servers that know no other way."""
        self._sent.at(0)
        await send(
            self._wire,
            self._name,
            {},
            Slice(self._source, 0, self._source.total, self._sent),
            self._sent,
            more_time=self._more_time,
        )
        self._source.check()
        return await deferToThread(self._source.digest)

    async def _rest(self) -> bytes:
        source, total = self._source, self._source.total
        offset = 0 if self._anew else await self._held()
        if self._last_sent and offset == 0 and await self._arrived():
            self._sent.at(total)
            return await deferToThread(source.digest)
        # Where all bytes are there and the file is not, the last of them did not end well.
        offset = 0 if offset >= total else offset
        self._anew = False
        self._there = offset
        self._sent.at(offset)
        last = max(total - _LAST_PIECE, offset)
        if offset < last:
            await deferToThread(source.hash_to, offset)
            await self._send(offset, last, {})
            self._there = last
        digest = await deferToThread(source.digest)
        source.check()
        self._last_sent = True
        reply = await self._send(last, total, {"Repr-Digest": digest_field(digest)})
        if reply.code == 202:
            raise ServerUnreachable(f"{self._name}: the server has not taken the end of the file", maybe_done=True)
        return digest

    def _headers(self, span: str) -> dict[str, str]:
        return {"Content-Range": f"bytes {span}/{self._source.total}", "Upload-Key": self._key}

    async def _held(self) -> int:
        """How much of it the server has."""
        reply = await self._wire.ask("PUT", self._name, self._headers("*"), success=(200, 201, 202, 204))
        offset = number(reply.field("Upload-Offset"))
        if offset is None:
            raise ServerUnreachable(f"{self._name}: the server does not say how much it has", lasting=True)
        return offset

    async def _arrived(self) -> bool:
        """Whether the answer to the last piece was all that got lost."""
        try:
            found = await self._wire.digest(self._name, size=self._source.total)
        except ServerRefused as problem:
            if problem.number != 404:
                raise
            return False
        return found is not None and found == await deferToThread(self._source.digest)

    async def _send(self, start: int, end: int, more: dict[str, str]) -> Reply:
        body = Slice(self._source, start, end, self._sent)
        return await send(
            self._wire,
            self._name,
            self._headers(f"{start}-{end - 1}") | more,
            body,
            self._sent,
            more_time=self._more_time if more else 0,
        )


__all__ = ["Abilities", "FileChanged", "Upload"]
