"""Looking at a project's database more than once, on one connection and without keeping anybody from working."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from lgi.admin.layout import AdminError
from lgi.db.database import DatabaseURLError, database_url, make_engine
from lgi.db.upgrade import SchemaError, check_schema

R = TypeVar("R")


class Look(Protocol):
    """Runs a function that only reads, on one state of the whole database."""

    def __call__(self, function: Callable[[Connection], R]) -> R:
        """Run it and return what it returns."""


@contextmanager
def snapshots(url: str) -> Iterator[Look]:
    """Gives what runs functions, each in a transaction that only reads and sees no change of others meanwhile.

    Raises AdminError, here and in the function given, for a database that cannot be used or has another schema.
    """
    try:
        engine = make_engine(database_url(url), pool_size=1)
    except DatabaseURLError as problem:
        raise AdminError(str(problem)) from None

    def look(function: Callable[[Connection], R]) -> R:
        try:
            return _look(engine, function)
        except DBAPIError as problem:
            raise AdminError(f"the database cannot be used: {problem.orig}") from None
        except SchemaError as problem:
            raise AdminError(str(problem)) from None

    try:
        look(check_schema)
        yield look
    finally:
        engine.dispose()


def _look(engine: Engine, function: Callable[[Connection], R]) -> R:
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.execution_options(lgi_reading=True)
        else:
            connection.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin():
            return function(connection)
