"""Where bodies of requests wait: on the file system that they are to end on, so that keeping one is a rename."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from lgi.durable import sync

PREFIX = "upload-"
# No transfer takes longer than this; what is older was left by a process that was killed.
LEFTOVER_SECONDS = 7 * 24 * 3600


class SpooledFile:
    """A file being received, 0600, which vanishes unless it is kept."""

    def __init__(self, directory: Path) -> None:
        descriptor, name = tempfile.mkstemp(dir=directory, prefix=PREFIX)
        self._path: Path | None = Path(name)
        self._stream: BinaryIO = os.fdopen(descriptor, "wb")
        self.size = 0

    def write(self, data: bytes) -> None:
        """Add to the file; raises OSError when the disk is full."""
        self._stream.write(data)
        self.size += len(data)

    def complete(self) -> None:
        """Close the file, so that a form with many files has one of them open at a time; raises OSError."""
        self._stream.close()

    def keep(self, target: Path) -> None:
        """Make the file durable as `target`, in place of an older one; call it in a thread.

        Raises OSError, upon which the file is still to be discarded and the older one is unchanged.
        """
        assert self._path is not None
        self._stream.close()
        sync((self._path,))
        self._path.chmod(0o640)
        self._path.replace(target)
        self._path = None
        sync((target.parent,))

    def discard(self) -> None:
        """Close and remove the file, unless it was kept; may be called more than once."""
        with suppress(OSError):
            # What is still to be written finds no room; it is not wanted.
            self._stream.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._path = None


class Spool:
    """The directory in which files are received."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def prepare(self) -> None:
        """Make the directory, and remove what killed processes left in it long ago."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        oldest = time.time() - LEFTOVER_SECONDS
        for path in self._directory.glob(f"{PREFIX}*"):
            if path.stat().st_mtime < oldest:
                path.unlink(missing_ok=True)

    def create(self) -> SpooledFile:
        """A new file to receive into; raises OSError."""
        return SpooledFile(self._directory)
