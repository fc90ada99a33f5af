"""Bodies that are one file, written in a thread while they come."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial

from twisted.internet.defer import Deferred

from lgi.errors import ErrorNumber, LGIError
from lgi.httpd.body import Body
from lgi.httpd.refusal import Refused, of_upload
from lgi.httpd.spool import Spool, SpooledFile
from lgi.httpd.writer import Line, Writer


class StreamBody(Body):
    """The body of a PUT, written in a thread while it comes. If `hashed` is set, `digest` is the SHA-256 of it."""

    def __init__(self, maximum: int, line: Line | None) -> None:
        super().__init__(maximum)
        self._line = line
        self._writer: Writer | None = None
        self._taken = False
        self.hashed = False
        self._sum = hashlib.sha256()
        self._full: OSError | None = None

    def start(self) -> SpooledFile:
        """The file to write to; raises OSError."""
        raise NotImplementedError

    def end(self) -> None:
        """Let go of the file, at which no thread is any more."""
        raise NotImplementedError

    def store(self, file: SpooledFile, pieces: Sequence[bytes]) -> None:
        """Write these pieces, in a thread, and sum up what is written while it is in memory."""
        file.write_pieces(pieces)
        if self.hashed:
            for piece in pieces:
                self._sum.update(piece)

    @property
    def digest(self) -> bytes | None:
        """The SHA-256 of what has come, if it was to be known."""
        return self._sum.digest() if self.hashed else None

    def take(self, data: bytes) -> None:
        """Store the next piece; a disk that was found full is said with the next one."""
        if self._writer is None:
            self._writer = Writer(partial(self.store, self.start()), self._line)
        self._writer.write(data)

    def _fail(self, problem: LGIError) -> None:
        self.failure = problem
        self.give_up()

    def give_up(self) -> None:
        """What is to be done when it cannot go on."""
        self.close()

    async def settle(self) -> None:
        """Wait until all that came is written; raises LGIError where it could not be."""
        self._taken = True
        if self._writer is not None:
            try:
                await self._writer.flush()
            except OSError as problem:
                self.failure = LGIError(ErrorNumber.UPLOAD_FAILED, f"it cannot be stored here: {problem.strerror}")
        if self.failure is not None:
            raise self.failure

    async def refusal(self) -> Refused:
        """What to answer after a failure."""
        assert self.failure is not None
        return of_upload(self.failure)

    def close(self) -> None:
        """Let go of what nobody took, as soon as no thread is at it."""
        if not self._taken:
            self._taken = True
            if self._writer is None:
                self.end()
            else:
                self.drop(self._writer)
                Deferred.fromCoroutine(self._writer.settle()).addCallback(lambda _none: self.end())

    def drop(self, writer: Writer) -> None:
        """What becomes of pieces that are not written yet."""
        writer.drop()


class FileBody(StreamBody):
    """The body of a PUT: one file."""

    def __init__(self, spool: Spool, maximum: int, line: Line | None = None) -> None:
        super().__init__(maximum, line)
        self._spool = spool
        self.file: SpooledFile | None = None

    def start(self) -> SpooledFile:
        """A new file in the spool."""
        self.file = self._spool.create()
        return self.file

    async def take_file(self) -> SpooledFile:
        """The file (an empty one if nothing came), which is the caller's to keep or discard.

        Raises LGIError where it could not be stored, OSError.
        """
        try:
            await self.settle()
        except LGIError:
            self.end()
            raise
        file = self.file or self._spool.create()
        self.file = None
        return file

    def drop(self, writer: Writer) -> None:
        """Nothing is left of it at once."""
        writer.drop()
        if self.file is not None:
            self.file.vanish()

    def end(self) -> None:
        """Drop the file."""
        if self.file is not None:
            self.file.discard()
            self.file = None
