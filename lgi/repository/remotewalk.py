"""Walking the directories of a repository on the repository server, name by name: links are refused, not followed.

`repository` is the path of the repository's directory there.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs
from asyncssh import SFTPAttrs, SFTPClientFile

from lgi.durable import reading
from lgi.httpd.spool import MODE
from lgi.lists import decode_list
from lgi.repository.access import ACCESS_FILE
from lgi.repository.remotefile import opened
from lgi.repository.sftp import Lost, Session, date_of, is_directory, is_file
from lgi.repository.store import NotAFile

DIRECTORY = 0o750
_ACCESS = ACCESS_FILE.encode()
_MOST_CONTENT = 1 << 20  # bytes of an access file or a list of resources
# Deleting the last file of a directory removes it before the eyes of who is about to put another one there.
_TRIES = 10


@attrs.frozen(kw_only=True)
class Found:
    """What is at a name, along the way to it, and in the repository's access file; None where there is nothing."""

    access: SFTPAttrs | None
    way: Sequence[SFTPAttrs | None]
    last: SFTPAttrs | None

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return is_file(self.last) and all(map(is_directory, self.way))


def joined(directory: bytes, segments: Iterable[str]) -> bytes:
    """The path of a name in a directory."""
    return b"/".join((directory, *map(os.fsencode, segments)))


def above(path: bytes) -> bytes:
    """The directory that a path is in."""
    return path.rpartition(b"/")[0]


def absent() -> FileNotFoundError:
    """What is raised where there is no such file or repository."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


async def is_there(session: Session, repository: bytes) -> bool:
    """Whether there is such a repository."""
    found = await session.together(map(session.look, (above(repository), repository)))
    return all(map(is_directory, found))


async def look(session: Session, repository: bytes, segments: Sequence[str]) -> Found:
    """What is at a name; raises FileNotFoundError where there is no such repository. One round trip."""
    steps = [joined(repository, segments[:depth]) for depth in range(1, len(segments) + 1)]
    parent, itself, access, *way, last = await session.together(
        map(session.look, (above(repository), repository, repository + b"/" + _ACCESS, *steps))
    )
    if not is_directory(parent) or not is_directory(itself):
        raise absent()
    return Found(access=access, way=way, last=last)


async def look_for_room(session: Session, repository: bytes, segments: Sequence[str]) -> Found:
    """The same, for a file that is to come there; raises NotAFile where it cannot."""
    found = await look(session, repository, segments)
    for step in found.way:
        if step is not None and not is_directory(step):
            raise NotAFile(errno.ENOTDIR, f"a directory in {'/'.join(segments)} is none")
    if found.last is not None and not is_file(found.last):
        raise NotAFile(errno.EISDIR, f"{'/'.join(segments)} is a directory")
    return found


async def copy(session: Session, source: Path, target: SFTPClientFile) -> int:
    """Write a file of this machine into one there, and have it on disk; returns its date there."""
    with reading(source) as stream:
        size = await session.copy(stream.fileno(), target)
    await session.sync(target)
    found = await session.state(target)
    if found.size != size:
        raise OSError(errno.EIO, f"write a file: {found.size} of {size} bytes have arrived")
    return date_of(found)


async def build(
    session: Session, directory: bytes, access: bytes, files: Sequence[tuple[Sequence[str], Path]]
) -> None:
    """Make a new directory with an access file and files in it, all of it on disk."""
    below = sorted({joined(directory, names[:depth]) for names, _ in files for depth in range(1, len(names))})
    for path in (directory, *below):
        await session.make(path, DIRECTORY)
    await write(session, directory + b"/" + _ACCESS, access)

    async def one(names: Sequence[str], source: Path) -> None:
        async with session.writing(joined(directory, names), MODE) as file:
            await copy(session, source, file)

    await session.together(one(names, source) for names, source in files)
    await session.together(map(session.sync_directory, (directory, *below)))


async def write(session: Session, path: bytes, content: bytes) -> None:
    """Write a small file that is not there yet, and have it on disk."""
    async with session.writing(path, MODE) as file:
        await session.write(file, content)
        await session.sync(file)


async def put(session: Session, staged: bytes, repository: bytes, segments: Sequence[str]) -> None:
    """Rename a file into place and have that on disk; the directories on the way are made."""
    target, folders = joined(repository, segments), segments[:-1]
    for attempt in range(_TRIES):
        changed = [above(target)]
        try:
            for depth in range(1, len(segments)):
                if await session.make(joined(repository, segments[:depth]), DIRECTORY):
                    changed.append(joined(repository, segments[: depth - 1]))
            await session.rename(staged, target)
            await session.together(map(session.sync_directory, dict.fromkeys(changed)))
            return
        except Lost:
            raise
        except FileNotFoundError:
            await look(session, repository, segments)  # raises where the repository has gone
            if not folders or attempt == _TRIES - 1:
                raise
        except OSError:
            await prune(session, repository, folders)
            await look_for_room(session, repository, segments)  # raises where that is the cause
            raise


async def prune(session: Session, repository: bytes, folders: Sequence[str]) -> None:
    """Remove those of the directories along these names that are empty; have on disk what is gone."""
    for depth in range(len(folders), 0, -1):
        try:
            await session.rmdir(joined(repository, folders[:depth]))
        except FileNotFoundError:
            continue
        except Lost:
            raise
        except OSError:
            # Something is in it.
            await session.sync_directory(joined(repository, folders[:depth]))
            return
    await session.sync_directory(repository)


async def clear(session: Session, doomed: bytes) -> None:
    """Remove what clients do not see any more: if not now, then another time."""
    try:
        await session.clear(doomed)
    except Lost:
        raise
    except OSError:
        return


async def note_change(session: Session, repository: bytes, segments: Sequence[str]) -> None:
    """A file further down does not change the date of the repository's own directory by itself."""
    if len(segments) > 1:
        await session.touch(repository, int(time.time()))


async def names_in(session: Session, path: bytes) -> tuple[str, ...]:
    """The names in an access file or a list of resources; none if there is none."""
    return decode_list((await content(session, path) or b"").decode("utf-8"))


async def content(session: Session, path: bytes) -> bytes | None:
    """The content of a small file; None if there is none."""
    if not is_file(await session.look(path)):
        return None
    try:
        file, state = await opened(session, path)
    except FileNotFoundError:
        return None
    try:
        if state.size > _MOST_CONTENT:
            raise OSError(errno.EFBIG, f"{os.fsdecode(path)} has {state.size} bytes")
        return await session.read(file, 0, state.size) if state.size else b""
    finally:
        await session.shut(file)
