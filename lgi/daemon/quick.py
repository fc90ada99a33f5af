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


def make(
    path: str, content: bytes, mode: int, *, owner: int = -1, group: int | None = None, former: str = ""
) -> None:
    """Write a file that must not be there yet, over the inode of the file `former`, if that can be; raises OSError.

    Making and removing tens of files for each of thousands of short jobs has ext4 search ever longer for an inode
    that was not removed in the last minutes. A file that has other names too, or is none, is not used again.
    """
    if former and _can_be_used(former):
        os.rename(former, path)
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC)
    else:
        descriptor = os.open(path, _NEW, _OWN & mode)
    try:
        if group is not None:
            os.fchown(descriptor, owner, group)
        if mode != _OWN or former:
            os.fchmod(descriptor, mode)
        if content and os.write(descriptor, content) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
    except BaseException:
        os.unlink(path)
        raise
    finally:
        os.close(descriptor)


def _can_be_used(path: str) -> bool:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid == os.geteuid()


def put(path: str, content: bytes, mode: int, *, group: int | None = None) -> None:
    """Write a file beside the old one and put it in its place: who looks finds one of them, whole; raises OSError.

    With `group` others may write in the directory, and nothing that they put there is in the way.
    """
    folder, _, name = path.rpartition("/")
    new = f"{folder}/.{name}{'' if group is None else '.' + secrets.token_hex(8)}.new"
    if group is None:
        with _Gone():
            os.unlink(new)
    make(new, content, mode, group=group)
    try:
        os.rename(new, path)
    except OSError:
        os.unlink(new)
        raise


class _Gone:
    """As contextlib.suppress, which costs more than what is done in it."""

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, FileNotFoundError)


def keep_only(path: str, names: Collection[str]) -> None:
    """Remove all other files of a directory that has nothing but files in it; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for name in os.listdir(descriptor):
            if name not in names:
                os.unlink(name, dir_fd=descriptor)
    finally:
        os.close(descriptor)


def remove(path: str) -> None:
    """Remove a directory that has nothing but files in it; raises OSError, and may leave some of it then."""
    keep_only(path, ())
    os.rmdir(path)
