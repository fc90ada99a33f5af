"""A file being received: beside its target, hidden, and found again by the next process that wants the same."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import stat
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from lgi.client.places import Place, plain_mode

_AHEAD = 1 << 19  # bytes gathered for one write, and at most as many again while that is done
_SUFFIX = ".lgi-part"
_NAME_BYTES = 150
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def _stem(name: str) -> str:
    return "." + os.fsdecode(os.fsencode(name)[:_NAME_BYTES])


def part_name(name: str, url: str, mark: str) -> str:
    """The hidden name of the part of a file: of what is at `url` while the server gives it this mark."""
    digest = hashlib.sha256(f"{url}\0{mark}".encode()).hexdigest()
    return f"{_stem(name)}.{digest[:32]}{_SUFFIX}"


class Part:
    """The bytes that have come, of which `size` are in the file; write() may ask to wait.

    With an empty `mark` nobody finds it again, and it goes when it is closed.
    """

    def __init__(self, place: Place, url: str, mark: str) -> None:
        self.folder = os.dup(place.folder)
        self._place = place
        self._appeared = False
        self.mark = mark
        self.name = part_name(place.name, url, mark)
        self._kept = bool(mark)
        self._gathered: list[bytes] = []
        self._waiting = 0
        self._writing: Deferred[None] | None = None
        try:
            if not self._kept or not self._open():
                self._private(place)
            self.size = os.fstat(self.descriptor).st_size
        except BaseException:
            os.close(self.folder)
            raise

    def _open(self) -> bool:
        """Open the part of this name; False where another process is at it."""
        for _ in range(2):
            try:
                descriptor = os.open(self.name, _FLAGS, 0o600, dir_fd=self.folder)
            except OSError as problem:
                if problem.errno != errno.ELOOP:
                    raise
                self._unlink()
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as problem:
                os.close(descriptor)
                if problem.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise
                return False
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid == os.geteuid():
                os.fchmod(descriptor, 0o600)
                self.descriptor = descriptor
                return True
            # Put there by somebody else, or put in place by another process between open and lock.
            os.close(descriptor)
            self._unlink()
        return False

    def _unlink(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self.name, dir_fd=self.folder)

    def _private(self, place: Place) -> None:
        self._kept = False
        self.name = f"{_stem(place.name)}.{secrets.token_hex(16)}{_SUFFIX}"
        self.descriptor = os.open(self.name, _FLAGS | os.O_EXCL, 0o600, dir_fd=self.folder)

    @property
    def length(self) -> int:
        """The bytes that have come."""
        return self.size + self._waiting

    def write(self, data: bytes) -> Deferred[None] | None:
        """Add bytes; a Deferred is to be waited for before more of them are brought, and fails with OSError."""
        self._gathered.append(data)
        self._waiting += len(data)
        if self._waiting < _AHEAD:
            return None
        if self._writing is None:
            self._begin()
            return None
        waiter: Deferred[None] = Deferred()
        self._writing.addCallbacks(lambda _: self._next(waiter), lambda failure: self._refuse(waiter, failure))
        return waiter

    def _begin(self) -> None:
        data, self._gathered = self._gathered, []
        count = sum(map(len, data))
        offset, self.size, self._waiting = self.size, self.size + count, self._waiting - count
        self._writing = deferToThread(_write, self.descriptor, data, offset)

    def _next(self, waiter: Deferred[None]) -> None:
        if self._gathered:
            self._begin()
        waiter.callback(None)

    @staticmethod
    def _refuse(waiter: Deferred[None], failure: Any) -> Any:
        waiter.errback(failure)
        return failure

    async def flush(self) -> None:
        """Have all bytes in the file; raises OSError, and then it has those before the failure."""
        while self._writing is not None or self._gathered:
            if self._writing is None:
                self._begin()
            assert self._writing is not None
            writing, self._writing = self._writing, None
            try:
                await writing
            except OSError:
                self._gathered, self._waiting = [], 0
                self.size = os.fstat(self.descriptor).st_size
                raise

    def restart(self) -> None:
        """Forget all bytes."""
        os.ftruncate(self.descriptor, 0)
        self.size = 0

    def digest(self) -> bytes:
        """SHA-256 of the bytes; in a thread."""
        hashed, offset = hashlib.sha256(), 0
        while data := os.pread(self.descriptor, 1 << 20, offset):
            hashed.update(data)
            offset += len(data)
        return hashed.digest()

    def stage(self) -> int:
        """Give it the mode of files here, and return its descriptor to have it brought to disk."""
        os.fchmod(self.descriptor, plain_mode())
        return self.descriptor

    def appear(self) -> None:
        """Have it in its place; raises OSError."""
        os.rename(self.name, self._place.name, src_dir_fd=self.folder, dst_dir_fd=self.folder)
        self._appeared = True

    def close(self, *, remove: bool = False) -> None:
        """Let go of it; it stays for the next attempt where that can find it and gains by it."""
        if not self._appeared and (remove or not self._kept or not self.size):
            with suppress(OSError):
                os.unlink(self.name, dir_fd=self.folder)
        os.close(self.descriptor)
        os.close(self.folder)


class Small:
    """A file that has come whole in memory."""

    def __init__(self, place: Place, data: bytes) -> None:
        self.folder = os.dup(place.folder)
        self._place = place
        self._data = data
        self._name = f"{_stem(place.name)}.{secrets.token_hex(16)}{_SUFFIX}"
        self._descriptor = -1

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self._data)

    def digest(self) -> bytes:
        """SHA-256 of the bytes."""
        return hashlib.sha256(self._data).digest()

    def stage(self) -> int:
        """Write it beside its place, and return its descriptor; in a thread. Raises OSError."""
        self._descriptor = os.open(self._name, _FLAGS | os.O_EXCL, 0o666, dir_fd=self.folder)
        _write(self._descriptor, [self._data], 0)
        return self._descriptor

    def appear(self) -> None:
        """Have it in its place; raises OSError."""
        os.rename(self._name, self._place.name, src_dir_fd=self.folder, dst_dir_fd=self.folder)
        self._name = ""

    def close(self, *, remove: bool = False) -> None:
        """Let go of it; what has not appeared goes."""
        if self._descriptor >= 0:
            if self._name:
                with suppress(OSError):
                    os.unlink(self._name, dir_fd=self.folder)
            os.close(self._descriptor)
        os.close(self.folder)


def _write(descriptor: int, pieces: list[bytes], offset: int) -> None:
    for piece in pieces if len(pieces) == 1 else [b"".join(pieces)]:
        rest = memoryview(piece)
        while rest:
            count = os.pwrite(descriptor, rest, offset)
            offset += count
            rest = rest[count:]


def remove_stale(place: Place, keep: str) -> None:
    """Remove the parts of other versions of a file, which nobody is at."""
    stem = f"{_stem(place.name)}."
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    with os.scandir(place.folder) as entries:
        names = [entry.name for entry in entries if entry.name.startswith(stem) and entry.name.endswith(_SUFFIX)]
    for name in names:
        mark = name[len(stem) : -len(_SUFFIX)]
        if name == keep:
            continue
        if len(mark) != 32 or set(mark) - set("0123456789abcdef"):
            continue
        with suppress(OSError):
            descriptor = os.open(name, flags, dir_fd=place.folder)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(name, dir_fd=place.folder)
            finally:
                os.close(descriptor)
