"""The connections of those who carry out transactions: kept from one to the next, so that none is handed about."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, IntegrityError

from lgi.db.changes import begun, committed
from lgi.db.direct import begin, commit, rollback
from lgi.db.trouble import CommitFailed, connection_lost, contended
from lgi.model import Changes

R = TypeVar("R")

IDLE_SECONDS = 3600
"""After so long a connection is opened anew: servers close what nobody uses."""


class _Kept:
    """A connection that is kept from transaction to transaction, and opened anew after trouble with it."""

    def __init__(self, engine: Engine, **options: Any) -> None:
        self._engine = engine
        self._options = options
        self._connection: Connection | None = None
        self._used = 0.0

    @property
    def is_open(self) -> bool:
        if self._connection is not None and time.monotonic() - self._used > IDLE_SECONDS:
            self.close()
        return self._connection is not None

    def get(self) -> Connection:
        if not self.is_open:
            self._connection = self._engine.connect().execution_options(**self._options)
        self._used = time.monotonic()
        assert self._connection is not None
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


class Connections:
    """What one transaction after the other is carried out on: a connection to read with, and one to write with.

    Reading on a server is done without transactions, each statement sees what is committed; that saves a round trip.
    SQLite has snapshots instead, which must end.
    """

    def __init__(self, engine: Engine) -> None:
        self._embedded = engine.dialect.name == "sqlite"
        reading = {"lgi_reading": True} if self._embedded else {"isolation_level": "AUTOCOMMIT"}
        self._reading = _Kept(engine, **reading)
        self._writing = _Kept(engine)

    def is_open(self, reading: bool) -> bool:
        """Whether the connection for this is there."""
        return (self._reading if reading else self._writing).is_open

    def open(self, reading: bool) -> None:
        """Open it, which may take its time; raises DBAPIError."""
        (self._reading if reading else self._writing).get()

    def do(self, reading: bool, function: Callable[[Connection], R]) -> tuple[R, Changes]:
        """Carry out `function` in a transaction; raises what it raises, DBAPIError and CommitFailed among it."""
        return self._read(function) if reading else self._write(function)

    def _read(self, function: Callable[[Connection], R]) -> tuple[R, Changes]:
        try:
            connection = self._reading.get()
            if not self._embedded:
                return function(connection), Changes()
            with connection.begin():
                return function(connection), Changes()
        except DBAPIError as problem:
            self._reading.close_after(problem)
            raise

    def _write(self, function: Callable[[Connection], R]) -> tuple[R, Changes]:
        try:
            connection = self._writing.get()
            begun(connection)
            begin(connection)
            try:
                result = function(connection)
            except BaseException:
                rollback(connection)
                raise
            try:
                commit(connection)
            except DBAPIError as problem:
                # Nobody knows what state it is in.
                self._writing.close()
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
        """Close both."""
        self._reading.close()
        self._writing.close()
