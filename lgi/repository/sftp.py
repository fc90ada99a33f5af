"""What the external storage asks of an SFTP server: each request bounded in time, each failure an OSError."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from asyncssh import (
    FXF_CREAT,
    FXF_EXCL,
    FXF_READ,
    FXF_WRITE,
    ChannelOpenError,
    DisconnectError,
    SFTPAttrs,
    SFTPClient,
    SFTPClientFile,
    SFTPConnectionLost,
    SFTPError,
    SFTPName,
    SFTPNoConnection,
    SFTPNoSuchFile,
    SFTPNoSuchPath,
    SFTPOpUnsupported,
    SFTPPermissionDenied,
    SSHClientConnection,
)

_T = TypeVar("_T")
PIECE = 1 << 20  # bytes; asyncssh divides it into requests as large as the server takes, all sent at once
_PIECES = 3  # on their way at once, so that the line is never idle while the disk is read
_AT_ONCE = 64  # small requests
_SENDERS = 4  # uploads at once; with three other channels fewer than sshd's MaxSessions, which is 10
_SYNC_PATIENCE = 10  # times as long as others: having a big file on disk takes as long as the disk does


class Lost(ConnectionError):
    """The connection ended; what was asked may have been done or not."""


class Session:
    """The channels of one connection.

    A server works through the requests of a channel one after the other: uploads have channels of their own, so that
    nobody waits for the disk that an upload waits for.
    """

    def __init__(self, connection: SSHClientConnection, server: str, patience: float) -> None:
        self.lost = False
        self._connection = connection
        self._server = server
        self._patience = patience
        self._sending = asyncio.Semaphore(_SENDERS)
        self._idle: list[SFTPClient] = []
        self._general: SFTPClient
        self._reading: SFTPClient
        self._syncing: SFTPClient

    @classmethod
    async def begin(cls, connection: SSHClientConnection, server: str, patience: float) -> Session:
        """Open the channels; raises OSError."""
        session = cls(connection, server, patience)
        try:
            session._general = await session._channel()
            session._reading = await session._channel()
            session._syncing = await session._channel()
        except BaseException:
            connection.abort()
            raise
        return session

    async def close(self) -> None:
        """End the connection."""
        self.lost = True
        self._connection.close()
        try:
            async with asyncio.timeout(1):
                await self._connection.wait_closed()
        except TimeoutError:
            self._connection.abort()

    async def ask(self, what: str, answer: Awaitable[_T], patience: float = 1) -> _T:
        """Wait for an answer, so many times longer than usual; `what` fails is in the message of the OSError."""
        failed = f"{self._server}: {what}"
        seconds = self._patience * patience
        try:
            async with asyncio.timeout(seconds) as limit:
                return await answer
        except TimeoutError as error:
            if not limit.expired():
                raise Lost(errno.ECONNRESET, f"{failed}: connection lost: {error}") from None
            # Whatever else is under way over this connection waits in vain, too.
            self._abort()
            raise TimeoutError(errno.ETIMEDOUT, f"{failed}: no answer within {seconds:g} s") from None
        except (SFTPConnectionLost, SFTPNoConnection, DisconnectError, ChannelOpenError, ConnectionError) as error:
            self._abort()
            raise Lost(errno.ECONNRESET, f"{failed}: connection lost: {error}") from None
        except (SFTPNoSuchFile, SFTPNoSuchPath):
            raise FileNotFoundError(errno.ENOENT, f"{failed}: no such file or directory") from None
        except SFTPPermissionDenied:
            raise PermissionError(errno.EACCES, f"{failed}: permission denied") from None
        except SFTPOpUnsupported as error:
            raise OSError(errno.EOPNOTSUPP, f"{failed}: the server cannot do this: {error.reason}") from None
        except SFTPError as error:
            raise OSError(errno.EIO, f"{failed}: {error.reason}") from None

    async def together(self, what: Iterable[Awaitable[_T]]) -> list[_T]:
        """Wait for many, not too many of them at once, and for all of them also where one fails."""
        limit = asyncio.Semaphore(_AT_ONCE)

        async def one(awaitable: Awaitable[_T]) -> _T:
            async with limit:
                return await awaitable

        results = await asyncio.gather(*map(one, what), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [result for result in results if not isinstance(result, BaseException)]

    async def look(self, path: bytes) -> SFTPAttrs | None:
        """What is there, itself and not what a link leads to; None if there is nothing."""
        try:
            return await self.ask("look at a file", self._general.lstat(path))
        except FileNotFoundError:
            return None

    async def make(self, path: bytes, mode: int) -> bool:
        """Make a directory; False if there is one."""
        try:
            await self.ask("make a directory", self._general.mkdir(path, SFTPAttrs(permissions=mode)))
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno == errno.EIO and is_directory(await self.look(path)):
                return False
            raise
        return True

    async def rename(self, old: bytes, new: bytes) -> None:
        """Rename as POSIX does it: in place of a file, or of an empty directory by a directory."""
        await self.ask("rename", self._general.posix_rename(old, new))

    async def unlink(self, path: bytes) -> None:
        """Remove a file."""
        await self.ask("remove a file", self._general.remove(path))

    async def rmdir(self, path: bytes) -> None:
        """Remove an empty directory."""
        await self.ask("remove a directory", self._general.rmdir(path))

    async def touch(self, path: bytes, date: int) -> None:
        """Set the date of a file or directory, in seconds."""
        await self.ask("set a date", self._general.setstat(path, SFTPAttrs(atime=date, mtime=date)))

    async def entries(self, path: bytes) -> list[SFTPName]:
        """What is in a directory; nothing if there is none."""
        found: list[SFTPName] = []
        scan = self._general.scandir(path)
        try:
            while (entry := await self.ask("list a directory", anext(scan, None))) is not None:
                if entry.filename not in (b".", b".."):
                    found.append(entry)
        except FileNotFoundError:
            return []
        return found

    async def tree(self, path: bytes) -> AsyncIterator[tuple[bytes, Sequence[SFTPName]]]:
        """The directories below a directory and what is in them, from the top; links are not followed."""
        level = [path]
        while level:
            contents = await self.together(map(self.entries, level))
            below: list[bytes] = []
            for directory, entries in zip(level, contents, strict=True):
                yield directory, entries
                below += [directory + b"/" + name_of(entry) for entry in entries if is_directory(entry.attrs)]
            level = below

    async def clear(self, path: bytes) -> None:
        """Remove a file, or a directory with all that is in it, as far as it is there."""
        if not is_directory(await self.look(path)):
            await self._gone(path)
            return
        directories: list[bytes] = []
        async for directory, entries in self.tree(path):
            directories.append(directory)
            files = [directory + b"/" + name_of(entry) for entry in entries if not is_directory(entry.attrs)]
            await self.together(map(self._gone, files))
        for directory in reversed(directories):
            with suppress(FileNotFoundError):
                await self.rmdir(directory)

    async def sync_directory(self, path: bytes) -> None:
        """Have a directory's names on disk."""
        file = await self.ask("open a directory", self._syncing.open(path, FXF_READ, encoding=None))
        try:
            await self.sync(file)
        finally:
            await self.shut(file)

    async def sync(self, file: SFTPClientFile) -> None:
        """Have a file on disk."""
        await self.ask("have a file on disk", file.fsync(), _SYNC_PATIENCE)

    async def shut(self, file: SFTPClientFile) -> None:
        """Close a file; one of a connection that is gone is closed."""
        with suppress(Lost):
            await self.ask("close a file", file.close())

    async def open(self, path: bytes) -> SFTPClientFile:
        """Open a file for reading."""
        return await self.ask("open a file", self._reading.open(path, FXF_READ, encoding=None))

    async def state(self, file: SFTPClientFile) -> SFTPAttrs:
        """What an open file is."""
        return await self.ask("look at a file", file.stat())

    async def read(self, file: SFTPClientFile, offset: int, size: int) -> bytes:
        """At most so many bytes; fewer at the end only."""
        data: bytes = await self.ask("read a file", file.read(size, offset))
        return data

    @asynccontextmanager
    async def writing(self, path: bytes, mode: int) -> AsyncIterator[SFTPClientFile]:
        """Make a file to write into, over a channel that nobody else uses."""
        async with self._sending:
            channel = self._idle.pop() if self._idle else await self._channel()
            try:
                file = await self.ask(
                    "make a file",
                    channel.open(path, FXF_WRITE | FXF_CREAT | FXF_EXCL, SFTPAttrs(permissions=mode), encoding=None),
                )
                try:
                    yield file
                finally:
                    await self.shut(file)
            finally:
                self._idle.append(channel)

    async def write(self, file: SFTPClientFile, data: bytes, offset: int = 0) -> None:
        """Write a piece."""
        await self.ask("write a file", file.write(data, offset))

    async def copy(self, descriptor: int, file: SFTPClientFile) -> int:
        """Write a file of this machine into one there, some pieces at a time; returns how many bytes it has."""
        offset, waiting = 0, deque[asyncio.Task[None]]()
        try:
            while data := await asyncio.to_thread(os.pread, descriptor, PIECE, offset):
                if len(waiting) == _PIECES:
                    await waiting.popleft()
                waiting.append(asyncio.create_task(self.write(file, data, offset)))
                offset += len(data)
            while waiting:
                await waiting.popleft()
        finally:
            await asyncio.gather(*waiting, return_exceptions=True)
        return offset

    async def is_full(self, path: bytes) -> bool:
        """Whether there is no room for another piece, or no other file."""
        space = await self.ask("look for free space", self._general.statvfs(path))
        return space.bavail * space.frsize < PIECE or (space.files > 0 and space.favail == 0)

    async def _channel(self) -> SFTPClient:
        return await self.ask("begin sftp", self._connection.start_sftp_client(path_encoding=None))

    async def _gone(self, path: bytes) -> None:
        with suppress(FileNotFoundError):
            await self.unlink(path)

    def _abort(self) -> None:
        self.lost = True
        self._connection.abort()


def name_of(entry: SFTPName) -> bytes:
    """The name in an entry of a directory."""
    assert isinstance(entry.filename, bytes)
    return entry.filename


def is_directory(found: SFTPAttrs | None) -> bool:
    """Whether it is a directory."""
    return found is not None and stat.S_ISDIR(found.permissions or 0)


def is_file(found: SFTPAttrs | None) -> bool:
    """Whether it is a regular file."""
    return found is not None and stat.S_ISREG(found.permissions or 0)


def date_of(found: SFTPAttrs | None) -> int:
    """The date of the last change, in seconds; 0 of nothing."""
    return 0 if found is None else found.mtime or 0
