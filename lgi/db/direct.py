"""Statements given to the compiled driver of MariaDB and MySQL as they are.

SQLAlchemy makes a description of each result anew, which costs more than all that the driver does for a statement. Of
what it does, this does what transactions go by: its exceptions, and a lost connection that is not used any more.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, event, exc

from lgi.db.answer import Answer
from lgi.db.measure import note_statement
from lgi.db.trouble import CommitFailed, connection_lost

_KEY = "lgi_driver"

HEXED = 1 << 16
"""Bytes of values that may be written out in statements that are sent together."""


class NewNumber:
    """In place of the number of a row that is inserted later, in statements that come after it."""

    __slots__ = ()


NEW_NUMBER = NewNumber()


def go_direct(engine: Engine) -> None:
    """Have prepared statements on an engine's connections, of this driver, go this way."""

    def connect(driver: Any, record: Any) -> None:
        record.info[_KEY] = driver

    event.listen(engine, "connect", connect)


def direct_of(connection: Connection) -> Any | None:
    """The driver's connection, None where statements do not go this way."""
    return connection.info.get(_KEY)


def begin(connection: Connection) -> None:
    """Begin a transaction; raises what `Connection.begin` raises. With this driver the first statement begins it."""
    if direct_of(connection) is None:
        connection.begin()


def commit(connection: Connection) -> None:
    """Commit what was begun; raises what `Connection.commit` raises."""
    driver = direct_of(connection)
    if driver is None or connection.in_transaction():
        connection.commit()
        return
    # SQLAlchemy has not been told of any of it.
    try:
        driver.commit()
    except driver.Error as problem:
        raise _wrapped(connection, "COMMIT", problem) from problem


def rollback(connection: Connection) -> None:
    """Undo what was begun; raises what `Connection.rollback` raises."""
    if connection.invalidated or connection.in_transaction():
        connection.rollback()
        return
    driver = direct_of(connection)
    if driver is not None:
        try:
            driver.rollback()
        except driver.Error as problem:
            raise _wrapped(connection, "ROLLBACK", problem) from problem


def finish_number(connection: Connection, driver: Any) -> int:
    """Commit, and return the number of the row that was NEW_NUMBER; raises as `Direct.finish`."""
    try:
        return int(driver.finish_number())
    except driver.Error as problem:
        raise _of_commit(connection, "COMMIT", problem) from problem


class Direct:
    """One statement, with the names of its parameters in the order of its text, and the values that never change."""

    __slots__ = ("_order", "_row", "_template", "_text")

    def __init__(self, text: str, order: Sequence[str], fixed: Mapping[str, Any]) -> None:
        self._text = text
        self._template = text.encode()
        # Names with what counts where no value is given.
        self._order = [(name, fixed.get(name)) for name in order]
        self._row: Any = None

    def _filled(self, connection: Connection, driver: Any, values: Mapping[str, object]) -> bytes:
        parameters = tuple([values.get(*parameter) for parameter in self._order])
        note_statement(connection, self._text, parameters)
        return self._template % tuple(
            [b"%d" % value if type(value) is int else _literal(driver, value) for value in parameters]
        )

    def later_number(self, connection: Connection, driver: Any, values: Mapping[str, object]) -> bool:
        """As `later`, with an INSERT whose number is NEW_NUMBER for those that follow; False where that cannot be."""
        long = sum(len(value) for value in values.values() if isinstance(value, bytes)) > HEXED
        if long or not driver.gathers:
            return False
        # Several statements are read as text before each is read by itself.
        plain = {name: _Hexed(value) if isinstance(value, bytes) else value for name, value in values.items()}
        driver.later_number(self._filled(connection, driver, plain))
        return True

    def later(self, connection: Connection, driver: Any, values: Mapping[str, object]) -> None:
        """Send it with these values in time; raises what `Connection.execute` raises, now or when it is sent."""
        try:
            driver.later(self._filled(connection, driver, values))
        except driver.Error as problem:
            raise _wrapped(connection, self._text, problem) from problem

    def send(self, connection: Connection, driver: Any, values: Mapping[str, object]) -> Answer:
        """Send it with these values; raises what `Connection.execute` raises."""
        try:
            [result] = driver.ask(self._filled(connection, driver, values))
            return self._answer(driver, result)
        except driver.Error as problem:
            raise _wrapped(connection, self._text, problem) from problem

    def send_with(
        self, after: Direct, connection: Connection, driver: Any, values: Mapping[str, object]
    ) -> tuple[Answer, Answer]:
        """Send it, and another after it, as `Prepared.with_` has it."""
        try:
            sent = self._filled(connection, driver, values), after._filled(connection, driver, values)
            first, second = driver.ask(*sent)
            return self._answer(driver, first), after._answer(driver, second)
        except driver.Error as problem:
            raise _wrapped(connection, self._text, problem) from problem

    def _answer(self, driver: Any, result: Any) -> Answer:
        if result is None:
            return Answer((), driver.affected_rows())
        if self._row is None:
            self._row = _maker([column[0] for column in result.describe()])
        rows = [self._row(row) for row in result.fetch_row(0)]
        return Answer(rows, len(rows))

    def finish(
        self, connection: Connection, driver: Any, values: Mapping[str, object], question: Direct | None = None
    ) -> tuple[int, int, Answer]:
        """Send it as the last of the transaction, which is committed with it if it changes a row.

        Returns how many rows it changed, the number that the database gave to one, and what the question gave, which
        is asked after it with the same values; where that gave nothing, how many rows were changed is not known, and
        0. Raises what `Connection.execute` raises, and CommitFailed.
        """
        try:
            asked = question._filled(connection, driver, values) if question is not None else b""
            names, rows = driver.finish(self._filled(connection, driver, values), asked)
            if not rows:
                return 0, 0, Answer((), 0)
            changed, key = map(int, rows[0][:2])
            if question is None:
                return changed, key, Answer((), 0)
            if question._row is None:
                question._row = _maker(names[2:])
            return changed, key, Answer([question._row(row[2:]) for row in rows], len(rows))
        except driver.Error as problem:
            raise _of_commit(connection, self._text, problem) from problem


def _of_commit(connection: Connection, text: str, problem: BaseException) -> Exception:
    """What is wrong with a statement with which all would have been committed."""
    wrapped = _wrapped(connection, text, problem)
    return CommitFailed(str(problem)) if connection.invalidated else wrapped


def _wrapped(connection: Connection, text: str, problem: BaseException) -> exc.DBAPIError:
    wrapped: exc.DBAPIError = getattr(exc, type(problem).__name__)(text, None, problem)
    if connection_lost(wrapped):
        connection.invalidate(problem)
    return wrapped


class _Hexed(bytes):
    """Bytes that are to be written out."""


def _maker(names: Sequence[str]) -> Any:
    """What makes a row with these fields of a tuple."""
    row: Any = namedtuple("Row", names, rename=True)  # type: ignore[misc]
    return row._make


def _literal(driver: Any, value: Any) -> bytes:
    if isinstance(value, _Hexed):
        return b"X'%s'" % value.hex().encode()
    if value is NEW_NUMBER:
        return b"@lgi_number"
    # The driver looks for what it is in more places.
    literal: bytes = driver.string_literal(value.encode()) if type(value) is str else driver.literal(value)
    return literal
