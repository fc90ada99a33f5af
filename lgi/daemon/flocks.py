"""Locks on files, which say that a process lives, also to a daemon that did not start it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from lgi.durable import open_regular


def open_or_make(path: Path | str, flags: int, *, owner: int | None = None) -> int:
    """A descriptor of a regular file that is made where it is not there; raises OSError as `open_regular` does.

    A file that is there is not opened with O_CREAT: in a directory with the sticky bit Linux may refuse that.
    """
    try:
        return open_regular(path, flags, owner=owner)
    except FileNotFoundError:
        return open_regular(path, flags | os.O_CREAT)


@contextlib.contextmanager
def _opened(path: Path | str) -> Iterator[int]:
    descriptor = open_or_make(path, os.O_RDWR)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def flocked(path: Path | str) -> Iterator[int]:
    """A descriptor that holds the lock on the file, for a process to inherit; raises BlockingIOError if it is held.

    The lock lasts until the last process that has the descriptor has ended.
    """
    with _opened(path) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor


def is_flocked(path: Path | str) -> bool:
    """Whether a living process holds the lock on the file."""
    if not os.path.lexists(path):
        return False
    try:
        with flocked(path):
            return False
    except BlockingIOError:
        return True
