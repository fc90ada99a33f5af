"""The threads in which transactions run; each keeps connections of its own."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from lgi.db.connections import Connections
from lgi.model import Changes

R = TypeVar("R")

_Task = tuple[Deferred[Any], bool, Callable[[Connection], Any]]


class Workers:
    """A fixed number of threads that take transactions in the order in which they came."""

    def __init__(self, reactor: Any, engine: Engine, threads: int) -> None:
        self._reactor = reactor
        self._engine = engine
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._threads = [Thread(target=self._work, name=f"database {number}") for number in range(threads)]
        self.stopped = False

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Wait for what is under way; twice is once."""
        if self.stopped:
            return
        self.stopped = True
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def do(self, reading: bool, function: Callable[[Connection], R]) -> Deferred[tuple[R, Changes]]:
        """Carry out `function` in a transaction; fails with what it raises, DBAPIError and CommitFailed among it."""
        deferred: Deferred[tuple[R, Changes]] = Deferred()
        self._tasks.put((deferred, reading, function))
        return deferred

    def _work(self) -> None:
        connections = Connections(self._engine)
        while (task := self._tasks.get()) is not None:
            deferred, reading, function = task
            try:
                result: Any = connections.do(reading, function)
            except BaseException:
                result = Failure()
            self._reactor.callFromThread(deferred.callback, result)
        connections.close()
