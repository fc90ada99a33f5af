"""Writing what comes from a connection in a thread, so that a slow disk holds up its sender and nobody else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

# Bytes written at once, and bytes that wait before the sender has to.
PIECE = 1024 * 1024
MOST = 4 * PIECE


class Line(Protocol):
    """A connection that can be told to wait."""

    def hold(self) -> None:
        """Read nothing from it for now."""

    def release(self) -> None:
        """Go on."""


class Writer:
    """Hands pieces to `sink` in a thread, in order, a large one at a time."""

    def __init__(self, sink: Callable[[Sequence[bytes]], Any], line: Line | None) -> None:
        self._sink = sink
        self._line = line
        self._pieces: list[bytes] = []
        self._size = 0
        self._busy = False
        self._held = False
        self._problem: Exception | None = None
        self._waiting: list[Deferred[None]] = []

    def write(self, data: bytes) -> None:
        """Take the next piece; raises what writing an earlier one raised."""
        if self._problem is not None:
            raise self._problem
        self._pieces.append(data)
        self._size += len(data)
        if self._size >= PIECE and not self._busy:
            self._begin()
        elif self._size >= MOST and not self._held and self._line is not None:
            self._held = True
            self._line.hold()

    def _begin(self) -> None:
        pieces, self._pieces, self._size, self._busy = self._pieces, [], 0, True
        deferToThread(self._sink, pieces).addBoth(self._end)

    def _end(self, result: object) -> None:
        self._busy = False
        if isinstance(result, Failure):
            problem = result.value
            self._problem = problem if isinstance(problem, Exception) else OSError(str(problem))
            self._pieces, self._size = [], 0
        if self._size >= PIECE or (self._size and self._waiting):
            self._begin()
        if self._held and self._line is not None:
            self._held = False
            self._line.release()
        if not self._busy:
            waiting, self._waiting = self._waiting, []
            for one in waiting:
                one.callback(None)

    async def flush(self) -> None:
        """Wait until all is written; raises what writing raised."""
        await self.settle()
        if self._problem is not None:
            raise self._problem

    async def settle(self) -> None:
        """Write what is left, and wait until no thread is at it; raises nothing."""
        if self._size and not self._busy:
            self._begin()
        while self._busy:
            idle: Deferred[None] = Deferred()
            self._waiting.append(idle)
            await idle

    def drop(self) -> None:
        """Forget what has not been written."""
        self._pieces, self._size = [], 0
