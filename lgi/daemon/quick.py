"""Files made and removed with few calls of the system, and no word to the disk: that is for others to see to."""

# pathlib takes longer than the calls themselves
# ruff: noqa: PTH104, PTH106, PTH108, PTH208

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Collection

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OWN = 0o600


def make(path: str, content: bytes, mode: int, *, owner: int = -1, group: int | None = None) -> None:
    """Write a file that must not be there yet; raises OSError."""
    descriptor = os.open(path, _NEW, _OWN & mode)
    try:
        if group is not None:
            os.fchown(descriptor, owner, group)
        if mode != _OWN:
            os.fchmod(descriptor, mode)
        _write(descriptor, content, path)
    except BaseException:
        os.unlink(path)
        raise
    finally:
        os.close(descriptor)


def write_over(path: str, content: bytes, mode: int) -> None:
    """Write a file that is of no use any more, in the place of what is in it; raises OSError.

    One that has other names too, or is no file of ours, is made anew. It is not emptied first: ext4 would have it on
    its way to the disk when it is closed.
    """
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1 or status.st_uid != os.geteuid():
        os.unlink(path)
        make(path, content, mode)
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if stat.S_IMODE(status.st_mode) != mode:
            os.fchmod(descriptor, mode)
        _write(descriptor, content, path)
        if status.st_size > len(content):
            os.ftruncate(descriptor, len(content))
    finally:
        os.close(descriptor)


def _write(descriptor: int, content: bytes, path: str) -> None:
    if content and os.write(descriptor, content) != len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def put(path: str, content: bytes, mode: int, *, group: int | None = None) -> None:
    """Write a file beside the old one and put it in its place: who looks finds one of them, whole; raises OSError.

    With `group` others may write in the directory, and nothing that they put there is in the way.
    """
    if group is None:
        new = new_of(path)
        try:
            # It may have been left by whoever was interrupted, or be there to be used.
            write_over(new, content, mode)
        except FileNotFoundError:
            make(new, content, mode)
    else:
        folder, _, name = path.rpartition("/")
        new = f"{folder}/.{name}.{secrets.token_hex(8)}.new"
        make(new, content, mode, group=group)
    try:
        os.rename(new, path)
    except OSError:
        os.unlink(new)
        raise


def new_of(path: str) -> str:
    """Where `put` writes a file before it is in its place, when nobody else writes in the directory."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/.{name}.new"


def take_away(path: str) -> None:
    """Have no such file, and its inode where the next `put` uses it; raises OSError."""
    try:
        os.rename(path, new_of(path))
    except FileNotFoundError:
        return


def keep_only(path: str, names: Collection[str]) -> set[str]:
    """Remove all other files of a directory that has nothing but files in it, and return which are left.

    Raises OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    kept: set[str] = set()
    try:
        for name in os.listdir(descriptor):
            if name in names:
                kept.add(name)
            else:
                os.unlink(name, dir_fd=descriptor)
    finally:
        os.close(descriptor)
    return kept


def remove(path: str) -> None:
    """Remove a directory that has nothing but files in it; raises OSError, and may leave some of it then."""
    keep_only(path, ())
    os.rmdir(path)
