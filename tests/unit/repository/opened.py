"""Files on disk, opened for reading as a store does."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from lgi.repository.local import LocalFile


def opened(path: Path) -> LocalFile:
    """This file."""
    return LocalFile(os.open(path, os.O_RDONLY))


def is_read_now(path: Path) -> bool:
    """Whether its file system says what can be read without waiting, and the beginning can."""
    with path.open("rb") as file, suppress(OSError):
        return os.preadv(file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT) == 1
    return False
