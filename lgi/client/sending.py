"""A local file on its way to a server: read and hashed in threads, a little ahead of what is sent."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.internet.threads import deferToThread
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from lgi.client.transfer import Progress, no_progress

PIECE = 1 << 18


class FileChanged(OSError):
    """The file is not what it was when its transfer began."""


class Source:
    """A file that is being sent; `total` is its size in bytes. Close it. Raises OSError, for what is no file too."""

    def __init__(self, path: Path) -> None:
        # O_NONBLOCK: a pipe that nobody writes to is to be refused, not waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        self._status = os.fstat(descriptor)
        if not stat.S_ISREG(self._status.st_mode):
            os.close(descriptor)
            raise OSError(f"{path}: it is not a regular file")
        self._stream: BinaryIO = os.fdopen(descriptor, "rb")
        self._path = path
        self._hash = hashlib.sha256()
        self._hashed = 0
        self.total = self._status.st_size

    @property
    def key(self) -> str:
        """What says which content this is, to the next process too."""
        status = self._status
        text = f"{os.path.realpath(self._path)}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ino}"
        return hashlib.sha256(os.fsencode(text)).hexdigest()

    def close(self) -> None:
        """Let go of it; waits for a thread that reads."""
        self._stream.close()

    def check(self) -> None:
        """Raise FileChanged if it has, or another one has taken its place; FileNotFoundError if it has gone."""
        now = self._path.stat()
        same = os.fstat(self._stream.fileno())
        for one in (now, same):
            if (one.st_ino, one.st_dev, one.st_size, one.st_mtime_ns) != (
                self._status.st_ino,
                self._status.st_dev,
                self._status.st_size,
                self._status.st_mtime_ns,
            ):
                raise self._changed()

    def _changed(self) -> FileChanged:
        return FileChanged(f"{self._path}: it was changed while it was being sent; send it when it is complete")

    def read(self, offset: int, most: int) -> bytes:
        """The bytes from `offset`, hashed where they follow what has been hashed; raises FileChanged at the end."""
        self._stream.seek(offset)
        data = self._stream.read(min(most, PIECE))
        if not data:
            raise self._changed()
        skip = self._hashed - offset
        if 0 <= skip < len(data):
            self._hash.update(memoryview(data)[skip:])
            self._hashed = offset + len(data)
        return data

    def hash_to(self, end: int) -> None:
        """Read what has not been hashed up to `end`; in a thread."""
        while self._hashed < end:
            self.read(self._hashed, end - self._hashed)

    def digest(self) -> bytes:
        """SHA-256 of the whole; in a thread."""
        self.hash_to(self.total)
        return self._hash.digest()

    def small(self) -> bytes:
        """All of it; for small files."""
        data = self._stream.read(self.total + 1)
        if len(data) != self.total:
            raise self._changed()
        return data


class Tally:
    """What of a file has been reported as sent; `moved` hears of every piece."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.bytes = 0
        self.moved: Progress = no_progress

    def __call__(self, count: int) -> None:
        """So many more bytes have gone."""
        self.bytes += count
        self.moved(count)
        self._progress(count)

    def at(self, position: int) -> None:
        """So many bytes are there, however they came."""
        if position != self.bytes:
            self(position - self.bytes)


@implementer(IBodyProducer)
class Bytes:
    """A small body."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Send it."""
        consumer.write(self._data)
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    def pauseProducing(self) -> None:
        """It has been sent."""

    def resumeProducing(self) -> None:
        """It has been sent."""

    def stopProducing(self) -> None:
        """It has been sent."""


@implementer(IBodyProducer)
class Slice:
    """The bytes `start` to `end` of a source as a body; `failure` is what reading them raised."""

    def __init__(self, source: Source, start: int, end: int, progress: Progress) -> None:
        self._source = source
        self._at = start
        self._end = end
        self._progress = progress
        self._resumed: Deferred[None] | None = None
        self._stopped = False
        self._reading: Deferred[bytes] | None = None
        self.length = end - start
        self.failure: OSError | None = None

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Send it piece by piece."""
        # As an IBodyProducer has it: does not fire once it has been stopped.
        done: Deferred[None] = Deferred()
        sending = Deferred.fromCoroutine(self._send(consumer))
        sending.addCallbacks(
            lambda _: None if self._stopped else done.callback(None),
            lambda failure: None if self._stopped else done.errback(failure),
        )
        return done

    def _read(self, offset: int) -> Deferred[bytes] | None:
        if offset >= self._end:
            return None
        reading: Deferred[bytes] = deferToThread(self._source.read, offset, self._end - offset)
        # Who stops does not ask for what is being read.
        reading.addErrback(lambda failure: failure if not self._stopped else b"")
        return reading

    async def _send(self, consumer: Any) -> None:
        self._reading = self._read(self._at)
        while self._reading is not None:
            try:
                data = await self._reading
            except OSError as problem:
                self.failure = problem
                raise
            self._at += len(data)
            self._reading = self._read(self._at)
            if self._resumed is not None:
                await self._resumed
            if self._stopped:
                break
            consumer.write(data)
            self._progress(len(data))

    def pauseProducing(self) -> None:
        """The other side is behind."""
        if self._resumed is None:
            self._resumed = Deferred()

    def resumeProducing(self) -> None:
        """It takes more."""
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            resumed.callback(None)

    def stopProducing(self) -> None:
        """Nobody takes any more."""
        self._stopped = True
        self.resumeProducing()
