"""Walking directories on this machine by descriptors: no link that anybody planted is ever followed.

Each function takes the descriptor of a directory and one plain name in it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Without O_NONBLOCK a pipe would be waited for.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
MODE = 0o750
# What opening a link, a file or nothing as a directory comes back with.
_NO_DIRECTORY = (errno.ENOTDIR, errno.ELOOP)


@contextmanager
def root_directory(path: Path) -> Iterator[int]:
    """The directory in which a walk begins, whose own path is the administrator's."""
    descriptor = os.open(path, _DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def is_no_directory(problem: OSError) -> bool:
    """Whether something other than a directory was there."""
    return problem.errno in _NO_DIRECTORY


def step(directory: int, name: str) -> int:
    """The directory of this name, to be closed; raises FileNotFoundError, or OSError where it is none."""
    return os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)


@contextmanager
def descended(directory: int, names: Sequence[str], *, make: bool = False) -> Iterator[list[int]]:
    """The directories along these names, the one that it begins in first.

    With `make` those that are not there are made, durably. Raises FileNotFoundError, or OSError where one is none.
    """
    with ExitStack() as opened:
        found = [directory]
        for name in names:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(name, MODE, dir_fd=found[-1])
                    os.fsync(found[-1])
            found.append(step(found[-1], name))
            opened.callback(os.close, found[-1])
        yield found


def open_file(directory: int, name: str) -> int:
    """A regular file to read, to be closed; raises FileNotFoundError, also for whatever else has the name."""
    try:
        descriptor = os.open(name, _FILE, dir_fd=directory)
    except OSError as problem:
        # ENXIO is a socket, or a device without a driver.
        if problem.errno in (*_NO_DIRECTORY, errno.ENXIO, errno.ENODEV):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    return descriptor


def read_file(directory: int, name: str) -> bytes:
    """The content of a small file."""
    with os.fdopen(open_file(directory, name), "rb") as file:
        return file.read()


def prune(directories: Sequence[int], names: Sequence[str]) -> None:
    """Remove those of the directories along these names that are empty, from the last on."""
    for parent, name in reversed(list(zip(directories, names, strict=False))):
        try:
            os.rmdir(name, dir_fd=parent)
        except OSError:
            # Something is in it, has come this moment, or somebody else was faster.
            return
        os.fsync(parent)


def entries(
    directory: int, depth: int, above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], os.stat_result]]:
    """Everything below a directory down to so many levels, directories included, with what it is."""
    with os.scandir(directory) as found:
        for entry in found:
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                # Deleted or replaced at this moment.
                continue
            names = (*above, entry.name)
            yield names, status
            if depth > 1 and stat.S_ISDIR(status.st_mode):
                try:
                    below = step(directory, entry.name)
                except OSError:
                    continue
                try:
                    yield from entries(below, depth - 1, names)
                finally:
                    os.close(below)
