"""Locks between the processes of one server: one of them at a time has a name, and lets go of it when it dies.

Each name is a byte, far out, of one file that stays empty. Nobody waits in a thread: who finds a name taken asks
again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from twisted.internet.task import deferLater

FIRST_PAUSE, LONGEST_PAUSE = 0.005, 0.1

# struct flock: kind, whence, first byte, length, and a process that has to be 0.
_FLOCK = "hhqqi0q"


class FileLocks:
    """Locks on names, between processes alone: within this one, two that hold a name at once do not notice."""

    def __init__(self, reactor: Any, file: Path) -> None:
        self._reactor = reactor
        self._file = file
        self._descriptor: int | None = None

    @asynccontextmanager
    async def held(self, *name: str) -> AsyncIterator[None]:
        """Have the name until the block ends; raises OSError."""
        self._open()
        place = _place(name)
        pause = FIRST_PAUSE
        while not self._take(place):
            await deferLater(self._reactor, pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        try:
            yield
        finally:
            self._lock(fcntl.F_UNLCK, place)

    def _take(self, place: int) -> bool:
        try:
            self._lock(fcntl.F_WRLCK, place)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def _open(self) -> None:
        if self._descriptor is None:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(self._file, flags, 0o600)

    def _lock(self, kind: int, place: int) -> None:
        assert self._descriptor is not None
        # Of the open file, not of the process: closing another descriptor of it would end the other kind.
        fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, kind, os.SEEK_SET, place, 1, 0))


def _place(name: tuple[str, ...]) -> int:
    digest = hashlib.sha256("\0".join(name).encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") >> 2
