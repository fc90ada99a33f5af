"""The hidden directories of a store on the repository server: what is on its way in, and on its way out."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress

import attrs

from lgi.httpd.spool import LEFTOVER_SECONDS
from lgi.repository.remotewalk import DIRECTORY, clear, joined, write
from lgi.repository.sftp import Lost, Session, date_of, name_of

_PRIVATE = 0o700
Left = list[bytes]  # what an attempt to store something would leave behind


@attrs.frozen(kw_only=True)
class Staging:
    """`.incoming` and `.trash` in `root`; `server` is how messages call the server."""

    server: str
    root: bytes

    @property
    def incoming(self) -> bytes:
        """Where files are until they are on disk and go into place."""
        return joined(self.root, (".incoming",))

    @property
    def trash(self) -> bytes:
        """Where repositories are while they are removed."""
        return joined(self.root, (".trash",))

    async def prepare(self, session: Session) -> None:
        """Make the directories, try what is needed, and clear away what killed processes left."""
        parts = self.root.split(b"/")
        for depth in range(1, len(parts) + 1):
            path = b"/".join(parts[:depth])
            if path and await session.look(path) is None:
                await session.make(path, DIRECTORY)
        for path in (self.incoming, self.trash):
            await session.make(path, _PRIVATE)
        now = await self._try(session)
        for entry in await session.entries(self.incoming):
            if date_of(entry.attrs) < now - LEFTOVER_SECONDS:
                await clear(session, self.incoming + b"/" + name_of(entry))
        for entry in await session.entries(self.trash):
            await clear(session, self.trash + b"/" + name_of(entry))

    async def place(self, session: Session, left: Left) -> bytes:
        """A new path to store something at, noted in `left`."""
        # What is there of an attempt that was cut goes first, so that no request of it undoes later what follows.
        for path in left:
            await session.clear(path)
        left[:] = [joined(self.incoming, (secrets.token_hex(16),))]
        return left[0]

    async def store(
        self, session: Session, operation: Callable[[Session, Left], Awaitable[None]], left: Left
    ) -> None:
        """Do what needs room; where it fails nothing of it is left, and no room is ENOSPC.

        Where the connection is lost `left` says what may be left, for the next attempt.
        """
        try:
            await operation(session, left)
        except Lost:
            raise
        except OSError as problem:
            with suppress(OSError):
                # The protocol has no word for it.
                if problem.errno == errno.EIO and await session.is_full(self.root):
                    problem = OSError(errno.ENOSPC, f"{self.server}: {os.strerror(errno.ENOSPC)}")
                for path in left:
                    await session.clear(path)
            raise problem from None

    async def _try(self, session: Session) -> int:
        """Make and replace a file as all files are; raises OSError where the server cannot. Returns its date."""
        left: Left = []
        first = await self.place(session, left)
        second = first + b".again"
        await write(session, first, b"")
        await write(session, second, b"")
        await session.rename(second, first)
        now = date_of(await session.look(first))
        await session.sync_directory(self.incoming)
        await session.is_full(self.root)
        await session.unlink(first)
        return now
