"""Files that have come, brought to disk and into their places: many together, in threads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

_TOGETHER = 128
_THREADS = 8


class Arrived(Protocol):
    """A file that has come whole and is to appear."""

    folder: int

    @property
    def size(self) -> int:
        """In bytes."""

    def digest(self) -> bytes:
        """SHA-256 of it; in a thread."""

    def stage(self) -> int:
        """A descriptor of all its bytes; in a thread."""

    def appear(self) -> None:
        """Have it in its place."""

    def close(self, *, remove: bool = False) -> None:
        """Let go of it."""


class Landing:
    """Makes files durable: those that come while others are on their way to the disk go next, in one go."""

    def __init__(self) -> None:
        self._queue: list[tuple[Arrived, Deferred[None]]] = []
        self._working = False

    def settle(self, file: Arrived) -> Deferred[None]:
        """Fires when the file is on disk in its place; fails with OSError. The file is let go of."""
        done: Deferred[None] = Deferred()
        self._queue.append((file, done))
        if not self._working:
            self._working = True
            Deferred.fromCoroutine(self._work())
        return done

    async def _work(self) -> None:
        while self._queue:
            batch, self._queue = self._queue[:_TOGETHER], self._queue[_TOGETHER:]
            outcomes = await deferToThread(land, [file for file, _ in batch])
            for (_, done), outcome in zip(batch, outcomes, strict=True):
                if done.called:
                    continue
                if outcome is None:
                    done.callback(None)
                else:
                    done.errback(outcome)
        self._working = False


def land(files: Sequence[Arrived]) -> list[OSError | None]:
    """Bring files to disk and into their places; says of each what went wrong, if anything did."""
    outcomes: list[OSError | None] = [None] * len(files)
    staged: list[tuple[int, int]] = []
    folders: dict[tuple[int, int], int] = {}
    try:
        for index, file in enumerate(files):
            try:
                staged.append((index, file.stage()))
            except OSError as problem:
                outcomes[index] = problem
        # File systems write what is asked for at the same time in one go.
        with ThreadPoolExecutor(min(_THREADS, max(1, len(staged)))) as threads:
            for index, outcome in threads.map(_synced, staged):
                outcomes[index] = outcome
        for index, file in enumerate(files):
            if outcomes[index] is not None:
                continue
            try:
                file.appear()
                status = os.fstat(file.folder)
                folders.setdefault((status.st_dev, status.st_ino), file.folder)
            except OSError as problem:
                outcomes[index] = problem
        for folder in folders.values():
            os.fsync(folder)
    except OSError as problem:
        # The names are not known to be on disk: nobody is told that they are.
        outcomes = [outcome or problem for outcome in outcomes]
    finally:
        for file in files:
            file.close()
    return outcomes


def _synced(item: tuple[int, int]) -> tuple[int, OSError | None]:
    index, descriptor = item
    try:
        os.fsync(descriptor)
    except OSError as problem:
        return index, problem
    return index, None
