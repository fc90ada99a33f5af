"""Repositories on the local file system: `DIR/<last three digits>/JOB_<32 digits>/<directories>/<file>`.

Every walk goes from the root along descriptors and follows no link, see `lgi.repository.walk`. What is created is
durable before a job that refers to it is acknowledged. All methods block: call them in a thread.
"""

from __future__ import annotations

import errno
import mmap
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs

from lgi.httpd.spool import Spool, SpooledFile
from lgi.lists import decode_list
from lgi.model import RepositoryFile
from lgi.repository.access import ACCESS_FILE, RESOURCE_LIST, encode_access
from lgi.repository.names import MAX_SEGMENTS, NameRefused, checked_repository, fan_out, segments_of
from lgi.repository.store import READ_NOW, FileState, NotAFile, OpenFile
from lgi.repository.walk import (
    MODE,
    descended,
    entries,
    is_no_directory,
    open_file,
    prune,
    read_file,
    root_directory,
    step,
)

_TRASH = ".trash"
# A directory may be removed, being empty, between its being made and the file's coming into it.
_ATTEMPTS = 10
# Where `read_now` reads to: always the same memory, and whole pages. On many a processor the kernel copies several
# times more slowly to what begins where a large bytearray does, 16 bytes into a page.
_NOW = memoryview(mmap.mmap(-1, READ_NOW))
_WITHOUT_WAITING = getattr(os, "RWF_NOWAIT", None)


class LocalFile:
    """A file on this machine, being read."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        status = os.fstat(descriptor)
        mark = f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"
        self.state = FileState(size=status.st_size, date=status.st_mtime_ns, mark=mark)

    def read_at(self, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset`; empty at the end. Raises OSError."""
        return os.pread(self._descriptor, size, offset)

    def read_now(self, offset: int, size: int) -> bytes:
        """From the kernel's memory; a system that cannot say what is there is always waited for."""
        found = 0
        if _WITHOUT_WAITING is not None:
            with suppress(OSError):
                found = os.preadv(self._descriptor, [_NOW[:size]], offset, _WITHOUT_WAITING)
        return bytes(_NOW[:size]) if found == size else b""

    def close(self) -> None:
        """Let go of it; may be called more than once."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


@attrs.frozen(kw_only=True)
class LocalStore:
    """All repositories below `root`; small files of its own are made in `spool`, on the same file system."""

    root: Path
    spool: Spool

    def prepare(self) -> None:
        """Make the directories, and finish removing what a killed process began to remove; raises OSError."""
        self.root.mkdir(mode=MODE, parents=True, exist_ok=True)
        trash = self.root / _TRASH
        trash.mkdir(mode=0o700, exist_ok=True)
        for doomed in trash.iterdir():
            _remove_tree(doomed)
        self.spool.prepare()

    @contextmanager
    def _directory(self, repository: str) -> Iterator[int]:
        """The directory of a repository; raises NameRefused, FileNotFoundError."""
        names = (fan_out(checked_repository(repository)), repository)
        with root_directory(self.root) as root:
            try:
                with descended(root, names) as found:
                    directory = os.dup(found[-1])
            except OSError as problem:
                if is_no_directory(problem):
                    raise _absent(repository) from None
                raise
            try:
                yield directory
            finally:
                os.close(directory)

    def create(self, repository: str, write_access: Iterable[str], files: Sequence[tuple[str, SpooledFile]]) -> None:
        """Make a repository with its access file and files, durably; leaves nothing behind when it fails.

        Raises NameRefused, FileExistsError where it is there already, NotAFile, or OSError.
        """
        folder = fan_out(checked_repository(repository))
        for name, _file in files:
            segments_of(name)
        with root_directory(self.root) as root, descended(root, (folder,), make=True) as (_, parent):
            os.mkdir(repository, MODE, dir_fd=parent)
            try:
                directory = step(parent, repository)
                try:
                    self._write(directory, ACCESS_FILE, encode_access(write_access))
                    for name, file in files:
                        _put(directory, name, file)
                finally:
                    os.close(directory)
                os.fsync(parent)
            except BaseException:
                shutil.rmtree(repository, ignore_errors=True, dir_fd=parent)
                raise

    def remove(self, repository: str) -> None:
        """Remove a repository at once, as far as clients can see, and then its files; nothing if there is none."""
        folder = fan_out(checked_repository(repository))
        doomed = f"{repository}.{secrets.token_hex(8)}"
        with root_directory(self.root) as root:
            try:
                with descended(root, (folder,)) as (_, parent), descended(root, (_TRASH,)) as (_, trash):
                    os.rename(repository, doomed, src_dir_fd=parent, dst_dir_fd=trash)
                    os.fsync(parent)
            except FileNotFoundError:
                return
        _remove_tree(self.root / _TRASH / doomed)

    def list(self, repository: str) -> tuple[RepositoryFile, ...]:
        """The files in a repository in order of their names, with its access file; none if there is no such."""
        try:
            with self._directory(repository) as directory:
                found = [
                    RepositoryFile(name="/".join(names), size=status.st_size, date=status.st_mtime_ns / 1e9)
                    for names, status in entries(directory, MAX_SEGMENTS)
                    if stat.S_ISREG(status.st_mode) and _is_named(names)
                ]
        except FileNotFoundError:
            return ()
        return tuple(sorted(found, key=lambda file: file.name))

    def writers(self, repository: str) -> tuple[str, ...]:
        """The names in the repository's access file; none if there is no such repository."""
        try:
            with self._directory(repository) as directory:
                return decode_list(read_file(directory, ACCESS_FILE).decode("utf-8"))
        except FileNotFoundError:
            return ()

    def resources(self) -> tuple[str, ...]:
        """The names in the list of resources that may change all repositories; none until it is written."""
        try:
            with root_directory(self.root) as root:
                return decode_list(read_file(root, RESOURCE_LIST).decode("utf-8"))
        except FileNotFoundError:
            return ()

    def write_resources(self, names: Iterable[str]) -> None:
        """Replace that list, unless it says so already."""
        content = encode_access(names)
        with root_directory(self.root) as root:
            with suppress(FileNotFoundError):
                if read_file(root, RESOURCE_LIST) == content:
                    return
            self._write(root, RESOURCE_LIST, content)

    def keep(self, repository: str, name: str, file: SpooledFile) -> None:
        """Put a received file in place, durably, whole or not at all, in place of an older one.

        Raises NameRefused, FileNotFoundError for an unknown repository, NotAFile, or OSError.
        """
        segments_of(name)
        with self._directory(repository) as directory:
            _put(directory, name, file)

    def open(self, repository: str, name: str) -> OpenFile:
        """Open a file for reading; raises FileNotFoundError, also where it is no regular file."""
        *folders, last = segments_of(name)
        with self._directory(repository) as directory:
            try:
                with descended(directory, folders) as found:
                    return LocalFile(open_file(found[-1], last))
            except OSError as problem:
                if is_no_directory(problem):
                    raise _absent(name) from None
                raise

    def delete(self, repository: str, name: str) -> None:
        """Delete a file, and the directories that it was the last one in; raises FileNotFoundError."""
        *folders, last = segments_of(name)
        with self._directory(repository) as directory:
            try:
                with descended(directory, folders) as found:
                    os.unlink(last, dir_fd=found[-1])
                    os.fsync(found[-1])
                    prune(found, folders)
            except OSError as problem:
                if is_no_directory(problem) or problem.errno == errno.EISDIR:
                    raise _absent(name) from None
                raise

    def untouched(self, since: float) -> Iterator[str]:
        """The repositories in which no file has come or gone since then, in Unix seconds; in no order."""
        with root_directory(self.root) as root:
            for (folder, *rest), status in entries(root, 2):
                if folder.startswith(".") or not rest or not stat.S_ISDIR(status.st_mode):
                    continue
                [name] = rest
                try:
                    if fan_out(checked_repository(name)) == folder and status.st_mtime < since:
                        with self._directory(name) as directory:
                            if all(below.st_mtime < since for below in _directories(directory)):
                                yield name
                except (NameRefused, FileNotFoundError):
                    # Not one of ours, or removed at this moment.
                    continue

    def _write(self, directory: int, name: str, data: bytes) -> None:
        file = self.spool.create()
        try:
            file.write(data)
            file.keep(name, directory=directory)
        finally:
            file.discard()


def _put(directory: int, name: str, file: SpooledFile) -> None:
    *folders, last = segments_of(name)
    for attempt in range(_ATTEMPTS):
        try:
            with descended(directory, folders, make=True) as found:
                try:
                    file.keep(last, directory=found[-1])
                except BaseException:
                    prune(found, folders)
                    raise
                return
        except IsADirectoryError:
            raise NotAFile(errno.EISDIR, f"{name} is a directory") from None
        except FileNotFoundError:
            if not folders or attempt == _ATTEMPTS - 1 or not file.path.exists():
                raise
        except OSError as problem:
            if is_no_directory(problem):
                raise NotAFile(errno.ENOTDIR, f"a directory in {name} is none") from None
            raise


def _is_named(names: tuple[str, ...]) -> bool:
    if names == (ACCESS_FILE,):
        return True
    try:
        return bool(segments_of("/".join(names)))
    except NameRefused:
        return False


def _directories(directory: int) -> Iterator[os.stat_result]:
    return (status for _names, status in entries(directory, MAX_SEGMENTS) if stat.S_ISDIR(status.st_mode))


def _remove_tree(doomed: Path) -> None:
    # Follows no link, and what another process removes at the same time is gone as well.
    if doomed.is_dir() and not doomed.is_symlink():
        shutil.rmtree(doomed, ignore_errors=True)
    else:
        doomed.unlink(missing_ok=True)


def _absent(name: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
