"""A file on the repository server that is being read here."""

from __future__ import annotations

import errno
from asyncio import CancelledError, Task, create_task
from threading import Lock

from asyncssh import SFTPClientFile

from lgi.repository.sftp import PIECE, Lost, Session, date_of, is_file
from lgi.repository.ssh import Connection
from lgi.repository.store import FileState

# For who reads on where he stopped: as much at once as keeps a line of 1 Gbit/s busy over some tens of milliseconds.
AHEAD = 2 * PIECE


class RemoteFile:
    """Reads what is asked for; where that goes on from the last time, more of it, and what follows meanwhile.

    Holds at most two times `AHEAD` bytes. Where the connection is lost the file is opened again by its name, and is
    the same one or fails.
    """

    def __init__(self, connection: Connection, path: bytes, session: Session, file: SFTPClientFile, state: FileState):
        self._connection = connection
        self._path = path
        self._session = session
        self._file: SFTPClientFile | None = file
        self._state = state
        self._lock = Lock()
        self._piece = b""
        self._start = 0
        self._next: tuple[int, Task[bytes]] | None = None

    @property
    def state(self) -> FileState:
        """What it is."""
        return self._state

    def read_at(self, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset`, all of them if they are there; empty at the end. Raises OSError."""
        with self._lock:
            if self._file is None:
                raise ValueError("the file is closed")
            size = min(size, self._state.size - offset)
            if size <= 0:
                return b""
            found = self._held(offset, size)
            if len(found) < size:
                found += self._fetched(offset + len(found), size - len(found))
            return found

    def read_now(self, _offset: int, _size: int) -> bytes:
        """Nothing comes from another machine without waiting."""
        return b""

    def close(self) -> None:
        """Let go of it; may be called more than once."""
        with self._lock:
            file, self._file = self._file, None
            if file is not None and not self._session.lost:
                self._connection.run(lambda _: self._session.shut(file))

    def _held(self, offset: int, size: int) -> bytes:
        begin = offset - self._start
        return self._piece[begin : begin + size] if 0 <= begin < len(self._piece) else b""

    def _fetched(self, offset: int, size: int) -> bytes:
        goes_on = offset == self._start + len(self._piece)
        wanted = max(size, AHEAD if goes_on else 0)
        self._piece = self._connection.run(lambda session: self._fetch(session, offset, wanted, ahead=goes_on))
        self._start = offset
        if len(self._piece) < min(size, self._state.size - offset):
            raise OSError(errno.EIO, f"{self._connection.server}: read a file: it has become shorter")
        return self._piece[:size]

    async def _fetch(self, session: Session, offset: int, size: int, *, ahead: bool) -> bytes:
        file = await self._at(session)
        following, self._next = self._next, None
        data = await following[1] if following is not None and following[0] == offset else b""
        if rest := min(size, self._state.size - offset) - len(data):
            data += await session.read(file, offset + len(data), rest)
        end = offset + len(data)
        if ahead and end < self._state.size:
            task = create_task(session.read(file, end, min(AHEAD, self._state.size - end)))
            task.add_done_callback(_seen)
            self._next = end, task
        return data

    async def _at(self, session: Session) -> SFTPClientFile:
        assert self._file is not None
        if session is self._session:
            return self._file
        self._next = None
        again, state = await opened(session, self._path)
        if state != self._state:
            await session.shut(again)
            raise OSError(
                errno.ESTALE, f"{self._connection.server}: read a file: it was replaced while the connection was lost"
            )
        self._session, self._file = session, again
        return again


async def opened(session: Session, path: bytes) -> tuple[SFTPClientFile, FileState]:
    """Open a file; raises FileNotFoundError also where it is no regular one."""
    file = await session.open(path)
    try:
        found = await session.state(file)
        if not is_file(found):
            raise FileNotFoundError(errno.ENOENT, "no regular file")
    except BaseException:
        await session.shut(file)
        raise
    return file, state_of(found.size or 0, date_of(found))


def state_of(size: int, date: int) -> FileState:
    """The state of a file; its date is in whole seconds, which `RemoteStore` sets so that they tell files apart."""
    return FileState(size=size, date=date * 1_000_000_000, mark=f"{date:x}-{size:x}")


def _seen(task: Task[bytes]) -> None:
    # Who waits for it gets its error; if nobody does, nobody misses it.
    try:
        task.exception()
    except (CancelledError, Lost):
        return
