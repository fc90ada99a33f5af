"""Where bodies of requests wait: on the file system that they are to end on, so that keeping one is a rename."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from lgi.durable import sync

PREFIX = "upload-"
MODE = 0o640
# No transfer takes longer than this; what is older was left by a process that was killed.
LEFTOVER_SECONDS = 7 * 24 * 3600
# So much is left to be written at the end of a large file, when somebody waits for it to be on disk.
_AHEAD = 32 * 1024 * 1024
# What one call of the system takes.
_MOST_PIECES = 1024


class SpooledFile:
    """A file being received, 0600, which vanishes unless it is kept."""

    def __init__(self, directory: Path) -> None:
        descriptor, name = tempfile.mkstemp(dir=directory, prefix=PREFIX)
        self._take(Path(name), descriptor)

    def _take(self, path: Path, descriptor: int) -> None:
        self._path: Path | None = path
        self._stream: BinaryIO = os.fdopen(descriptor, "wb")
        self._begun = 0
        self.size = 0

    @property
    def path(self) -> Path:
        """Where it is until it is kept: complete it, and read it there."""
        assert self._path is not None
        return self._path

    def write(self, data: bytes) -> None:
        """Add to the file; raises OSError when the disk is full."""
        self._stream.write(data)
        self.size += len(data)

    def write_pieces(self, pieces: Sequence[bytes]) -> None:
        """Add much at once, without a copy of it, and have the disk begin with what is there; call it in a thread.

        Raises OSError when the disk is full; what found room is in the file, and is counted.
        """
        self._stream.flush()
        descriptor = self._stream.fileno()
        left = [memoryview(piece) for piece in pieces if piece]
        while left:
            written = os.writev(descriptor, left[:_MOST_PIECES])
            self.size += written
            while left and written >= len(left[0]):
                written -= len(left.pop(0))
            if written:
                left[0] = left[0][written:]
        if self.size - self._begun >= _AHEAD:
            # Linux starts to write these pages, and keeps them, since they are not on disk yet.
            os.posix_fadvise(descriptor, self._begun, self.size - self._begun, os.POSIX_FADV_DONTNEED)
            self._begun = self.size

    def complete(self) -> None:
        """Close the file, so that a form with many files has one of them open at a time; raises OSError."""
        self._stream.close()

    def keep(self, target: Path | str, *, directory: int | None = None) -> None:
        """Make the file durable as `target`, in place of an older one; call it in a thread.

        With `directory`, a descriptor, `target` is a name in it. Raises OSError, upon which the file is still to be
        discarded and the older one is unchanged.
        """
        self.complete()
        path = self.path
        path.chmod(MODE)
        # The system's own time stamps are as coarse as its timer: contents that replace each other quickly are told
        # apart by this.
        now = time.time_ns()
        os.utime(path, ns=(now, now))
        sync((path,))
        os.rename(path, target, dst_dir_fd=directory)
        self._path = None
        if directory is None:
            sync((Path(target).parent,))
        else:
            os.fsync(directory)

    def vanish(self) -> None:
        """Remove its name, while somebody may still be writing to it."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._path = None

    def discard(self) -> None:
        """Close and remove the file, unless it was kept; may be called more than once."""
        with suppress(OSError):
            # What is still to be written finds no room; it is not wanted.
            self._stream.close()
        self.vanish()


class Spool:
    """The directory in which files are received."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def prepare(self) -> None:
        """Make the directory, and remove what killed processes left in it long ago."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        oldest = time.time() - LEFTOVER_SECONDS
        for path in self._directory.glob(f"{PREFIX}*"):
            with suppress(FileNotFoundError):
                # Another process may be at it too.
                if path.stat().st_mtime < oldest:
                    path.unlink()

    def create(self) -> SpooledFile:
        """A new file to receive into; raises OSError."""
        return SpooledFile(self._directory)
