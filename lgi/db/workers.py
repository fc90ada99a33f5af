"""The threads in which transactions run; each keeps connections of its own, so that none is handed about."""

from __future__ import annotations

import time
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from lgi.db.changes import begun, committed
from lgi.db.trouble import connection_lost, contended
from lgi.model import Changes

R = TypeVar("R")

IDLE_SECONDS = 3600
"""After so long a connection is opened anew: servers close what nobody uses."""


class CommitFailed(Exception):
    """The connection broke while committing: whether the transaction took effect is not known."""


class _Kept:
    """A connection that is kept from transaction to transaction, and opened anew after trouble with it."""

    def __init__(self, engine: Engine, **options: Any) -> None:
        self._engine = engine
        self._options = options
        self._connection: Connection | None = None
        self._used = 0.0

    def get(self) -> Connection:
        now = time.monotonic()
        if self._connection is not None and now - self._used > IDLE_SECONDS:
            self.close()
        self._used = now
        if self._connection is None:
            self._connection = self._engine.connect().execution_options(**self._options)
        return self._connection

    def close_after(self, problem: DBAPIError) -> None:
        if not (isinstance(problem, IntegrityError) or contended(problem)):
            self.close()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # Not given back to be used by the next one: it may be broken.
            connection.invalidate()
            connection.close()


class _Connections:
    """What one thread has: a connection to read with, and one to write with.

    Reading on a server is done without transactions, each statement sees what is committed; that saves a round trip.
    SQLite has snapshots instead, which must end.
    """

    def __init__(self, engine: Engine) -> None:
        self._embedded = engine.dialect.name == "sqlite"
        reading = {"lgi_reading": True} if self._embedded else {"isolation_level": "AUTOCOMMIT"}
        self._reading = _Kept(engine, **reading)
        self._writing = _Kept(engine)

    def read(self, function: Callable[[Connection], R]) -> tuple[R, Changes]:
        try:
            connection = self._reading.get()
            if not self._embedded:
                return function(connection), Changes()
            with connection.begin():
                return function(connection), Changes()
        except DBAPIError as problem:
            self._reading.close_after(problem)
            raise

    def write(self, function: Callable[[Connection], R]) -> tuple[R, Changes]:
        try:
            connection = self._writing.get()
            begun(connection)
            with connection.begin() as transaction:
                result = function(connection)
                try:
                    transaction.commit()
                except OperationalError as problem:
                    if connection_lost(problem):
                        raise CommitFailed(str(problem.orig)) from problem
                    raise
                return result, committed(connection)
        except DBAPIError as problem:
            self._writing.close_after(problem)
            raise
        except CommitFailed:
            self._writing.close()
            raise

    def close(self) -> None:
        self._reading.close()
        self._writing.close()


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
        connections = _Connections(self._engine)
        while (task := self._tasks.get()) is not None:
            deferred, reading, function = task
            try:
                result: Any = (connections.read if reading else connections.write)(function)
            except BaseException:
                result = Failure()
            self._reactor.callFromThread(deferred.callback, result)
        connections.close()
