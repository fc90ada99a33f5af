"""Uploads in the making: what has come of a file that a client sends in several requests.

`DIR/JOB_<32 digits>.<digest>`, one file for each upload, and its size is how far the upload has come. Whoever adds
to it holds a lock on it, which ends with the process. All functions block: call them in a thread.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path

import attrs

from lgi.httpd.spool import LEFTOVER_SECONDS, SpooledFile
from lgi.repository.names import checked_repository

_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
SWEEP_SECONDS = 3600


class InUse(Exception):
    """Another connection is adding to the upload."""


@attrs.frozen(kw_only=True)
class Upload:
    """Which upload it is: of what, of which size in bytes, whose, and its client's word for the content."""

    repository: str
    name: str
    total: int
    uploader: str
    key: str = ""

    @property
    def file_name(self) -> str:
        """What it is called in the directory, from which nobody sees whose it is."""
        rest = "\0".join((self.name, str(self.total), self.uploader, self.key))
        return f"{checked_repository(self.repository)}.{hashlib.sha256(rest.encode()).hexdigest()}"


class Part(SpooledFile):
    """The part of an upload that has come, locked; what is left of it when nobody keeps or discards it stays."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._take(path, descriptor)
        # Of the same open file, so that the lock outlives the stream.
        self._lock = os.dup(descriptor)
        self.size = self._begun = os.lseek(descriptor, 0, os.SEEK_END)

    def cut(self, size: int) -> None:
        """Go back to so many bytes; raises OSError."""
        os.truncate(self._lock, size)
        if not self._stream.closed:
            os.lseek(self._stream.fileno(), size, os.SEEK_SET)
        self.size = self._begun = size

    def held_back(self, total: int) -> int:
        """How much of it counts: a whole upload that is not in place has its last byte sent again, to be tried again.

        One that is in place is not touched any more, whatever failed after that. Raises OSError.
        """
        if self.size >= total and self._path is not None:
            self.cut(max(0, total - 1))
        return self.size

    def leave(self) -> None:
        """Let go of what has come, for a later request."""
        with suppress(OSError):
            self._stream.close()
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def discard(self) -> None:
        """Let go of it and remove it, unless it was kept; may be called more than once."""
        self.vanish()
        self.leave()


class Unfinished:
    """The directory of uploads in the making."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._swept = 0.0

    def prepare(self) -> None:
        """Make the directory, and remove what nobody has touched for long."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sweep()

    def _sweep(self) -> None:
        self._swept = time.time()
        for path in self._directory.iterdir():
            with suppress(FileNotFoundError):
                if path.lstat().st_mtime < self._swept - LEFTOVER_SECONDS:
                    path.unlink()

    def size(self, upload: Upload) -> int:
        """How many bytes of it have come, as `Part.held_back` counts; raises OSError."""
        try:
            size = (self._directory / upload.file_name).lstat().st_size
        except FileNotFoundError:
            return 0
        return min(size, max(0, upload.total - 1))

    def open(self, upload: Upload) -> Part:
        """What has come of it, to be added to; raises InUse, OSError."""
        if time.time() - self._swept > SWEEP_SECONDS:
            self._sweep()
        path = self._directory / upload.file_name
        while True:
            descriptor = os.open(path, _FLAGS | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                current = False
                with suppress(FileNotFoundError):
                    current = os.path.samestat(path.lstat(), os.fstat(descriptor))
            except BlockingIOError:
                os.close(descriptor)
                raise InUse from None
            except BaseException:
                os.close(descriptor)
                raise
            if current:
                part = Part(path, descriptor)
                try:
                    part.held_back(upload.total)
                except BaseException:
                    part.leave()
                    raise
                return part
            # Kept or removed between its being opened and locked.
            os.close(descriptor)

    def forget(self, repository: str) -> None:
        """Remove all uploads to a repository, which has been removed."""
        for path in self._directory.glob(f"{checked_repository(repository)}.*"):
            path.unlink(missing_ok=True)
