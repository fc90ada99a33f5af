"""Files that are either as before or as wanted, whenever the power goes, and whoever else writes beside them."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PRIVATE = 0o600
EXECUTABLE = 0o700
_AT_ONCE = 8
_PIECE = 1 << 16


def write_atomically(path: Path, content: bytes, mode: int = PRIVATE, *, group: int | None = None) -> None:
    """Write a file beside the old one, on disk, and put it in its place; raises OSError and then changes nothing.

    With `group` the file is that group's, whose members can write in the directory too: nothing that they put there
    is in the way, as far as the sticky bit keeps them from what is not theirs.
    """
    chance = "" if group is None else f".{secrets.token_hex(8)}"
    new = path.with_name(f".{path.name}{chance}.new")
    new.unlink(missing_ok=True)
    try:
        write_new(new, content, mode, group=group)
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    sync((path.parent,))


def write_new(
    path: Path, content: bytes, mode: int = PRIVATE, *, now: bool = True, owner: int = -1, group: int | None = None
) -> None:
    """Write a file that must not be there yet; with `now` it is on disk afterwards, but its name need not be."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE & mode)
    with os.fdopen(descriptor, "wb") as file:
        if group is not None:
            os.fchown(descriptor, owner, group)
        os.fchmod(descriptor, mode)
        file.write(content)
        file.flush()
        if now:
            os.fsync(descriptor)


def sync(paths: Iterable[Path]) -> None:
    """Have files and directories on disk."""
    for path in paths:
        _sync(path)


def sync_at_once(paths: Iterable[Path]) -> None:
    """Have many files on disk: together, since file systems write what is asked for at the same time in one go."""
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        for _ in threads.map(_sync, paths):
            pass


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_regular(path: Path | str, flags: int, *, owner: int | None = None) -> int:
    """A descriptor of a regular file, which with `owner` has to be that uid's.

    Raises OSError, also for links, pipes and devices: a job may put such things where the daemon looks for a file.
    The owner tells a file that the job can read itself from a hard link to one that it cannot.
    """
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, PRIVATE)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{path} is not a regular file")
        if owner is not None and status.st_uid != owner:
            raise OSError(f"{path} belongs to uid {status.st_uid}, not to {owner}")
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def reading(path: Path | str, *, owner: int | None = None) -> Iterator[BinaryIO]:
    """A regular file to read from; raises OSError as `open_regular` does."""
    with os.fdopen(open_regular(path, os.O_RDONLY, owner=owner), "rb") as file:
        yield file


def read_regular(path: Path | str, most: int = -1, *, end: bool = False, owner: int | None = None) -> bytes:
    """The first `most` bytes of a regular file, with `end` the last ones; all of them by default.

    Raises OSError as `open_regular` does.
    """
    descriptor = open_regular(path, os.O_RDONLY, owner=owner)
    try:
        size = os.fstat(descriptor).st_size
        if end and most >= 0:
            os.lseek(descriptor, max(0, size - most), os.SEEK_SET)
        # A file object takes longer to be made than most files take to be read.
        pieces = []
        left = most if most >= 0 else max(size, _PIECE)
        while left > 0 and (piece := os.read(descriptor, min(left, _PIECE))):
            pieces.append(piece)
            if most >= 0:
                left -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
    finally:
        os.close(descriptor)
