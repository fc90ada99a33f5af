"""Where files from a server go: directories held open, so that no link planted in them leads elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import attrs

from lgi.client.wire import checked_name

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@attrs.frozen(kw_only=True)
class Place:
    """A name in the directory that the descriptor `folder` is open on; `shown` is for people."""

    folder: int
    name: str
    shown: str


@contextmanager
def place_of(path: Path) -> Iterator[Place]:
    """The place at `path`, whose directory the caller vouches for; raises OSError."""
    folder = os.open(path.parent, _DIRECTORY)
    try:
        yield Place(folder=folder, name=path.name, shown=str(path))
    finally:
        os.close(folder)


@cache
def plain_mode() -> int:
    """The mode of a new file, as the umask has it."""
    umask = os.umask(0o077)  # for an instant, and for that on the safe side
    os.umask(umask)
    return 0o666 & ~umask


class Target:
    """The directory `path` for files from a server; with `reserved`, names that begin so are refused at its top."""

    def __init__(self, path: Path, *, reserved: str = "") -> None:
        self._path = path
        self._reserved = reserved
        path.mkdir(parents=True, exist_ok=True)
        self._root = os.open(path, _DIRECTORY)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._root)

    def checked(self, name: str) -> str:
        """`name` if it may be written here; raises ValueError."""
        checked_name(name)
        if self._reserved and name.startswith(self._reserved):
            raise ValueError(
                f"{self._path} is a job directory, where files named {self._reserved}… are the daemon's own"
            )
        return name

    @contextmanager
    def place(self, name: str) -> Iterator[Place]:
        """The place of a file, in directories that are made where they are missing.

        Raises ValueError, and OSError where a link or a file is in the way.
        """
        *folders, last = self.checked(name).split("/")
        current = os.dup(self._root)
        try:
            way = self._path
            for folder in folders:
                way /= folder
                below = _entered(current, folder, way)
                os.close(current)
                current = below
            yield Place(folder=current, name=last, shown=str(self._path / name))
        finally:
            os.close(current)


def _entered(folder: int, name: str, shown: Path) -> int:
    try:
        return os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError:
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=folder)
        return os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
    except NotADirectoryError:
        # What the system says of a link, too.
        raise NotADirectoryError(f"{shown} is a symbolic link or a file, which nothing is written through") from None
