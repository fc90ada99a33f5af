"""A file from a repository: what has come stays, and only the rest is asked for again."""

from __future__ import annotations

import errno
import os
import re
import stat

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.web.iweb import IResponse

from lgi.client.answers import AnswerMalformed, ServerRefused, ServerUnreachable
from lgi.client.attempts import Attempts
from lgi.client.exchange import Exchange, field
from lgi.client.landing import Arrived
from lgi.client.part import Part, Small, remove_stale
from lgi.client.places import Place, plain_mode
from lgi.client.sending import Tally
from lgi.client.transfer import Progress
from lgi.client.wire import Wire

_SMALL = 1 << 17
_WORTH_KEEPING = 8 << 20  # bytes above which the part of a file stays for the next process
_SPAN = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})")
_UNSATISFIED = re.compile(r"bytes \*/([0-9]{1,19})")


class Download:
    """The file `name`, to be put at `place` by who gets it from `fetch`."""

    def __init__(self, wire: Wire, name: str, place: Place, progress: Progress, *, verify: bool) -> None:
        plain_mode()
        self._wire = wire
        self._name = name
        self._url = wire.file(name)
        self._place = place
        self._got = Tally(progress)
        self._verify = verify
        self._part: Part | None = None
        self._expected = 0
        self._found = False  # the part is an earlier process's

    async def fetch(self) -> Arrived:
        """The whole file, not yet in its place. Raises OSError, AnswerMalformed and what requests raise."""
        self._check_place()
        attempts = Attempts(self._wire.reactor, self._wire.patience)
        try:
            while True:
                try:
                    arrived = await self._once()
                    if arrived is not None and await self._is_right(arrived):
                        if arrived is self._part:
                            self._part = None
                        return arrived
                except (ServerUnreachable, ServerRefused) as problem:
                    await attempts.wait(problem, self._part.size if self._part and self._part.mark else 0)
        finally:
            if self._part is not None:
                self._part.close(remove=self._expected <= _WORTH_KEEPING)

    def _check_place(self) -> None:
        try:
            status = os.stat(self._place.name, dir_fd=self._place.folder, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), self._place.shown)

    async def _once(self) -> Arrived | None:
        """One request; None where another one is needed."""
        part = self._part
        exchange = self._wire.exchange(self._url)
        if part is None or not part.mark or not part.size:
            response = await exchange.begin("GET", {})
            if response.code != 200:
                raise await exchange.refusal(response)
            return await self._anew(exchange, response)
        response = await exchange.begin("GET", {"Range": f"bytes={part.size}-", "If-Range": part.mark})
        match response.code:
            case 206:
                return await self._rest(exchange, response, part)
            case 200:
                # Another version, or a server that knows no ranges.
                part.restart()
                return await self._anew(exchange, response)
            case 416:
                return await self._beyond(exchange, response, part)
            case _:
                raise await exchange.refusal(response)

    async def _anew(self, exchange: Exchange, response: IResponse) -> Arrived | None:
        mark = field(response, "ETag")
        mark = mark if mark.startswith('"') else ""  # weak ones do not say that bytes are the same
        length = response.length if isinstance(response.length, int) else None
        self._expected = length or 0
        if length is not None and length <= _SMALL:
            return await self._small(exchange, response)
        part = self._part
        if part is not None and part.mark != mark:
            part.close(remove=True)
            part = self._part = None
        if part is None:
            part = self._part = Part(self._place, self._url, mark)
            if mark and self._expected > _WORTH_KEEPING:
                remove_stale(self._place, part.name)
            if part.size and length is not None and part.size <= length:
                exchange.drop(response)
                self._found = True
                self._got.at(part.size)
                return part if part.size == length else None
        part.restart()
        self._got.at(0)
        await self._receive(exchange, response, part)
        return part

    async def _small(self, exchange: Exchange, response: IResponse) -> Arrived:
        self._got.at(0)
        pieces: list[bytes] = []

        def keep(data: bytes) -> None:
            pieces.append(data)
            self._got(len(data))

        await exchange.take(response, keep)
        return Small(self._place, b"".join(pieces))

    async def _rest(self, exchange: Exchange, response: IResponse, part: Part) -> Arrived:
        span = _SPAN.fullmatch(field(response, "Content-Range"))
        if span is None or int(span[1]) != part.size or int(span[2]) + 1 != int(span[3]):
            exchange.drop(response)
            part.restart()
            raise AnswerMalformed(f"{self._name}: the server sends other bytes than were asked for")
        self._expected = int(span[3])
        self._got.at(part.size)
        await self._receive(exchange, response, part)
        if part.size != self._expected:
            raise ServerUnreachable(f"{self._name}: the server sends less than it said")
        return part

    async def _beyond(self, exchange: Exchange, response: IResponse, part: Part) -> Arrived | None:
        whole = _UNSATISFIED.fullmatch(field(response, "Content-Range"))
        await exchange.whole(response)
        if whole is not None and int(whole[1]) == part.size:
            return part
        part.restart()
        self._got.at(0)
        return None

    async def _receive(self, exchange: Exchange, response: IResponse, part: Part) -> None:
        def write(data: bytes) -> Deferred[None] | None:
            self._got(len(data))
            return part.write(data)

        try:
            await exchange.take(response, write)
        finally:
            await part.flush()

    async def _is_right(self, arrived: Arrived) -> bool:
        """Whether it is what the server has, where that was asked for or other hands may have been at it."""
        if not (self._verify or self._found):
            return True
        mark = arrived.mark if isinstance(arrived, Part) else ""
        try:
            told = await self._wire.digest(self._name, mark=mark, size=arrived.size)
        except ServerRefused as problem:
            if problem.number != 412:
                raise
            # Replaced meanwhile: what has come is whole, and cannot be compared any more.
            raise ServerUnreachable(f"{self._name}: it was replaced on the server meanwhile") from problem
        if told is None:
            if self._verify:
                raise AnswerMalformed(f"{self._name}: this server gives no digest to verify a file by")
            return True
        if told == await deferToThread(arrived.digest):
            return True
        if self._found and isinstance(arrived, Part):
            self._found = False
            arrived.restart()
            return False
        arrived.close(remove=True)
        if arrived is self._part:
            self._part = None
        raise AnswerMalformed(f"{self._name}: what has come is not what the server has; try again")
