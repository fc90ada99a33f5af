"""Files that are either as before or as wanted, whenever the power goes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

PRIVATE = 0o600
EXECUTABLE = 0o700


def write_atomically(path: Path, content: bytes, mode: int = PRIVATE) -> None:
    """Write a file beside the old one, on disk, and put it in its place; raises OSError and then changes nothing."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    try:
        write_new(new, content, mode)
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    sync((path.parent,))


def write_new(path: Path, content: bytes, mode: int = PRIVATE, *, now: bool = True) -> None:
    """Write a file that must not be there yet; with `now` it is on disk afterwards, but its name need not be."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(content)
        file.flush()
        if now:
            os.fsync(descriptor)


def sync(paths: Iterable[Path]) -> None:
    """Have files and directories on disk."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_regular(path: Path, most: int = -1, *, end: bool = False) -> bytes:
    """The first `most` bytes of a regular file, with `end` the last ones; all of them by default.

    Raises OSError, also for links, pipes and devices: a job may put such things where the daemon looks for a file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{path} is not a regular file")
        if end and most >= 0:
            file.seek(max(0, status.st_size - most))
        return file.read(most)
