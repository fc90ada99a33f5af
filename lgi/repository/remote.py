"""Repositories on another machine, over SFTP (LGI 1.41, Repositories: an external repository server).

`DIR/<last three digits>/JOB_<32 digits>/<files>` as on the local file system. What is received waits in
`DIR/.incoming` and is renamed into place when it is on disk there; what is removed goes through `DIR/.trash`.

SFTP tells dates in seconds, and no inode, but two contents of a name must differ in what it tells. So a file gets a
date later than that of the one it replaces, and than that of the access file, which is the date of the latest file
that was deleted, or later. This holds as long as one server uses the directory.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TypeVar
from weakref import WeakValueDictionary

from asyncssh import SFTPAttrs

from lgi.httpd.spool import MODE, SpooledFile
from lgi.model import RepositoryFile
from lgi.repository.access import ACCESS_FILE, RESOURCE_LIST, encode_access
from lgi.repository.names import NameRefused, checked_repository, fan_out, segments_of
from lgi.repository.remotefile import RemoteFile, opened
from lgi.repository.remotestaging import Left, Staging
from lgi.repository.remotewalk import (
    DIRECTORY,
    above,
    absent,
    build,
    clear,
    content,
    copy,
    is_there,
    joined,
    look,
    look_for_room,
    names_in,
    note_change,
    prune,
    put,
    write,
)
from lgi.repository.sftp import Session, date_of, is_directory, is_file, name_of
from lgi.repository.ssh import CONNECT_SECONDS, PATIENCE_SECONDS, Connection, Server
from lgi.repository.store import NotAFile

_FOLDERS = 256  # looked into at once for repositories that nobody touched

_T = TypeVar("_T")
_Operation = Callable[[Session], Awaitable[_T]]


class RemoteStore:
    """All repositories of a server, kept by user `user` of `host` in `directory` (relative to that user's home).

    Every failure is an OSError with a message that names the host; each wait for an answer is bounded by `patience`
    seconds. What is cut by a lost connection is done once more over a new one.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        user: str,
        directory: PurePosixPath,
        private_key: Path,
        known_hosts: Path,
        patience: float = PATIENCE_SECONDS,
        connect_seconds: float = CONNECT_SECONDS,
    ) -> None:
        server = Server(host=host, port=port, user=user, private_key=private_key, known_hosts=known_hosts)
        self._connection = Connection(server, patience=patience, connect_seconds=connect_seconds)
        self._root = os.fsencode(directory)
        self._staging = Staging(server=str(server), root=self._root)
        self._resources = joined(self._root, (RESOURCE_LIST,))
        # Used in the connection's thread alone.
        self._changing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def close(self) -> None:
        """End the connection; the next use opens another."""
        self._connection.close()

    def prepare(self) -> None:
        """Make the directories, look whether the server can do what is needed, finish what was begun."""
        self._run(self._staging.prepare)

    def create(self, repository: str, write_access: Iterable[str], files: Sequence[tuple[str, SpooledFile]]) -> None:
        """Make a repository with its access file and files: it appears when all of it is on disk.

        Raises NameRefused, FileExistsError where it is there already, NotAFile, or OSError.
        """
        path, access = self._path(repository), encode_access(write_access)
        folder = above(path)
        names = [segments_of(name) for name, _ in files]
        if len(set(names)) != len(names):
            raise NameRefused("two uploaded files have the same name")
        if any(name[:depth] in names for name in names for depth in range(1, len(name))):
            raise NotAFile(errno.ENOTDIR, "an uploaded file has the name of a directory of another one")
        for _, file in files:
            file.complete()
        contents = list(zip(names, (file.path for _, file in files), strict=True))

        async def create(session: Session, left: Left) -> None:
            if not (left and await session.look(left[-1]) is None and await is_there(session, path)):
                if await session.look(path) is not None:
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
                staged = await self._staging.place(session, left)
                await build(session, staged, access, contents)
                await session.make(folder, DIRECTORY)
                await session.rename(staged, path)
            await session.together(map(session.sync_directory, (folder, self._root)))

        self._store(create)
        for _, file in files:
            file.discard()

    def remove(self, repository: str) -> None:
        """Rename a repository away, and then remove its files; `prepare` removes what is left of them."""
        path, doomed = self._path(repository), joined(self._staging.trash, (f"{repository}.{secrets.token_hex(8)}",))

        async def remove(session: Session) -> None:
            with suppress(FileNotFoundError):
                await session.rename(path, doomed)
                await session.sync_directory(above(path))
            await clear(session, doomed)

        self._run(remove)

    def list(self, repository: str) -> tuple[RepositoryFile, ...]:
        """The files in order of their names, with the access file; none if there is no such repository."""
        path = self._path(repository)

        async def files(session: Session) -> tuple[RepositoryFile, ...]:
            if not await is_there(session, path):
                return ()
            found = [
                RepositoryFile(name=name, size=entry.attrs.size or 0, date=float(date_of(entry.attrs)))
                async for directory, entries in session.tree(path)
                for entry in entries
                if is_file(entry.attrs)
                and _is_named(name := os.fsdecode(directory + b"/" + name_of(entry))[len(os.fsdecode(path)) + 1 :])
            ]
            return tuple(sorted(found, key=lambda file: file.name))

        return self._run(files)

    def writers(self, repository: str) -> tuple[str, ...]:
        """The names in the repository's access file; none if there is no such repository."""
        path = self._path(repository)

        async def names(session: Session) -> tuple[str, ...]:
            if not await is_there(session, path):
                return ()
            return await names_in(session, joined(path, (ACCESS_FILE,)))

        return self._run(names)

    def resources(self) -> tuple[str, ...]:
        """The names in the list of resources that may change all repositories; none until it is written."""
        return self._run(lambda session: names_in(session, self._resources))

    def write_resources(self, names: Iterable[str]) -> None:
        """Replace that list, unless it says so already."""
        wanted = encode_access(names)

        async def replace(session: Session, left: Left) -> None:
            if await content(session, self._resources) != wanted:
                staged = await self._staging.place(session, left)
                await write(session, staged, wanted)
                await session.rename(staged, self._resources)
            await session.sync_directory(self._root)

        self._store(replace)

    def keep(self, repository: str, name: str, file: SpooledFile) -> None:
        """Put a received file in place; the old one is there until the new one is on disk.

        Raises NameRefused, FileNotFoundError for an unknown repository, NotAFile, or OSError.
        """
        path, segments = self._path(repository), segments_of(name)
        file.complete()
        source = file.path

        async def keep(session: Session, left: Left) -> None:
            await look_for_room(session, path, segments)
            staged = await self._staging.place(session, left)
            async with session.writing(staged, MODE) as target:
                date = await copy(session, source, target)
                async with self._alone(repository):
                    found = await look_for_room(session, path, segments)
                    later = max(date, date_of(found.access) + 1, date_of(found.last) + 1)
                    if later != date:
                        await session.ask("set a date", target.setstat(SFTPAttrs(atime=later, mtime=later)))
                        await session.sync(target)
                    await put(session, staged, path, segments)
                    await note_change(session, path, segments)

        self._store(keep)
        file.discard()

    def open(self, repository: str, name: str) -> RemoteFile:
        """Open a file for reading; raises FileNotFoundError, also where it is no regular file."""
        path, segments = self._path(repository), segments_of(name)

        async def open_file(session: Session) -> RemoteFile:
            if not (await look(session, path, segments)).is_file:
                raise absent()
            whole = joined(path, segments)
            return RemoteFile(self._connection, whole, session, *await opened(session, whole))

        return self._run(open_file)

    def delete(self, repository: str, name: str) -> None:
        """Delete a file, and the directories that it was the last one in; raises FileNotFoundError."""
        path, segments = self._path(repository), segments_of(name)
        begun = False

        async def delete(session: Session) -> None:
            nonlocal begun
            async with self._alone(repository):
                found = await look(session, path, segments)
                if found.is_file:
                    if is_file(found.access) and date_of(found.access) < date_of(found.last):
                        await session.touch(joined(path, (ACCESS_FILE,)), date_of(found.last))
                    begun = True
                    await session.unlink(joined(path, segments))
                elif not begun:  # by the attempt before this one
                    raise absent()
                await prune(session, path, segments[:-1])
                await note_change(session, path, segments)

        self._run(delete)

    def untouched(self, since: float) -> Iterator[str]:
        """The repositories in which no file has come or gone since then, in Unix seconds; in no order."""
        folders = [
            joined(self._root, (os.fsdecode(name_of(entry)),))
            for entry in self._run(lambda session: session.entries(self._root))
            if is_directory(entry.attrs) and not name_of(entry).startswith(b".")
        ]
        for first in range(0, len(folders), _FOLDERS):
            some = folders[first : first + _FOLDERS]

            async def inside(session: Session, some: Sequence[bytes] = some) -> Sequence[Sequence[tuple[str, float]]]:
                return [
                    [(os.fsdecode(name_of(one)), date_of(one.attrs)) for one in entries if is_directory(one.attrs)]
                    for entries in await session.together(map(session.entries, some))
                ]

            for folder, directories in zip(some, self._run(inside), strict=True):
                for name, date in directories:
                    with suppress(NameRefused):
                        if self._path(name) == joined(folder, (name,)) and date < since:
                            yield name

    def _path(self, repository: str) -> bytes:
        return joined(self._root, (fan_out(checked_repository(repository)), repository))

    def _alone(self, repository: str) -> asyncio.Lock:
        # Dates are compared and set under this.
        return self._changing.setdefault(repository, self._changing.get(repository) or asyncio.Lock())

    def _run(self, operation: _Operation[_T]) -> _T:
        return self._connection.run(operation)

    def _store(self, operation: Callable[[Session, Left], Awaitable[None]]) -> None:
        """Do what needs room; it notes what would be left of it, and that is removed."""
        left: Left = []
        self._run(lambda session: self._staging.store(session, operation, left))


def _is_named(name: str) -> bool:
    try:
        return name == ACCESS_FILE or bool(segments_of(name))
    except (NameRefused, UnicodeEncodeError):
        return False
