"""Statements that are written out once for each kind of database: building them anew costs more than sending them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    BindParameter,
    Connection,
    CursorResult,
    Executable,
    Insert,
    Select,
    Table,
    bindparam,
    insert,
)
from sqlalchemy.engine.interfaces import Dialect

from lgi.db.answer import Answer
from lgi.db.direct import NEW_NUMBER, Direct, NewNumber, direct_of, finish_number


def numbered(name: str, number: int) -> list[BindParameter[Any]]:
    """So many parameters, for a list of a statement that is prepared for each length of it: see `values_of`."""
    return [bindparam(f"{name}_{index}") for index in range(number)]


def values_of(name: str, values: Iterable[object]) -> dict[str, object]:
    """The values of parameters that are `numbered`."""
    return {f"{name}_{index}": value for index, value in enumerate(values)}


def named(prefix: str, values: Mapping[str, object]) -> dict[str, object]:
    """The values of parameters that have the names of columns behind a prefix: see `parameters_for`."""
    return {f"{prefix}{name}": value for name, value in values.items()}


def parameters_for(prefix: str, columns: Iterable[str]) -> dict[str, BindParameter[Any]]:
    """Parameters for columns that are to get values."""
    return {name: bindparam(f"{prefix}{name}") for name in columns}


def number_of(connection: Connection, number: int | NewNumber) -> int:
    """The number of a row that was inserted `later_number`, at the end of the transaction.

    Where that saves a wait all is committed with it: nothing may follow. Raises what `Connection.commit` raises, and
    CommitFailed.
    """
    return number if isinstance(number, int) else finish_number(connection, direct_of(connection))


class Prepared:
    """A statement of SQLAlchemy's with named parameters (`bindparam`), each of which is one plain value.

    `postgresql` and `mysql` are those for PostgreSQL, and for MySQL and MariaDB, where these need another.
    Rows come as the driver gives them: for columns of text, numbers and bytes that is what they are stored as.
    """

    def __init__(
        self, statement: Executable, *, postgresql: Executable | None = None, mysql: Executable | None = None
    ) -> None:
        self._statement = statement
        self._others = {"postgresql": postgresql, "mysql": mysql, "mariadb": mysql}
        self._texts: dict[str, tuple[str, Sequence[str] | None, Mapping[str, Any]]] = {}
        self._direct: Direct | None = None

    def __call__(self, connection: Connection, **values: object) -> Answer:
        """Send the statement; raises what `Connection.execute` raises."""
        driver = direct_of(connection)
        if driver is not None:
            return (self._direct or self._for_driver(connection)).send(connection, driver, values)
        return self._ask(connection, values)

    def with_(self, after: Prepared, connection: Connection, **values: object) -> tuple[Answer, Answer]:
        """Send the statement, a SELECT, and another after it, with values for both, and wait once.

        The other one takes no time: nobody can hold what it reads, and it is found by its key.
        """
        driver = direct_of(connection)
        if driver is None:
            return self._ask(connection, values), after._ask(connection, values)
        first, second = self._direct or self._for_driver(connection), after._direct or after._for_driver(connection)
        return first.send_with(second, connection, driver, values)

    def later(self, connection: Connection, **values: object) -> None:
        """Send the statement some time before the next one that is not sent `later`, or before the commit.

        For statements of whose effect nothing is asked: what is wrong with it may be raised there.
        """
        driver = direct_of(connection)
        if driver is None:
            self._execute(connection, values)
        elif any(type(value) is bytes for value in values.values()):
            # These stay out of what several statements are made one by.
            self(connection, **values)
        else:
            (self._direct or self._for_driver(connection)).later(connection, driver, values)

    def later_number(self, connection: Connection, **values: object) -> int | NewNumber:
        """Send an INSERT `later`, see `numbering`; returns what statements that follow may call its number.

        `number_of` has that at the end of the transaction, in which there is one such statement.
        """
        driver = direct_of(connection)
        if driver is not None:
            statement = self._direct or self._for_driver(connection)
            if statement.later_number(connection, driver, values):
                return NEW_NUMBER
        return self.one_key(connection, **values)

    def last(self, connection: Connection, **values: object) -> int:
        """Send the statement as the last of its transaction, if it changes a row; returns how many it changed.

        Where that saves a wait all is committed with it then: nothing may follow that is to undo it.
        """
        driver = direct_of(connection)
        if driver is None:
            return self._execute(connection, values).rowcount
        return (self._direct or self._for_driver(connection)).finish(connection, driver, values)[0]

    def last_with(self, question: Prepared, connection: Connection, **values: object) -> tuple[int, Answer]:
        """As `last`, with what a SELECT gives that is asked after it, and takes no time; see `with_`.

        Where it gives nothing, how many rows were changed may be not known, and 0.
        """
        driver = direct_of(connection)
        if driver is None:
            changed = self._execute(connection, values).rowcount
            return changed, question._ask(connection, values)
        changed, _key, answer = self._finish_with(question, connection, driver, values)
        return changed, answer

    def last_key_with(self, question: Prepared, connection: Connection, **values: object) -> tuple[int, Answer]:
        """As `last_with`, with the number of the new row instead of how many there are, 0 where there is none.

        See `numbering`.
        """
        driver = direct_of(connection)
        if driver is None:
            key = self._key(connection, self._execute(connection, values))
            return key, question._ask(connection, values)
        changed, key, answer = self._finish_with(question, connection, driver, values)
        return key if changed else 0, answer

    def _finish_with(
        self, question: Prepared, connection: Connection, driver: Any, values: Mapping[str, object]
    ) -> tuple[int, int, Answer]:
        changing = self._direct or self._for_driver(connection)
        asking = question._direct or question._for_driver(connection)
        return changing.finish(connection, driver, values, asking)

    def _ask(self, connection: Connection, values: Mapping[str, object]) -> Answer:
        result = self._execute(connection, values)
        return Answer(result.all() if result.returns_rows else (), result.rowcount)

    def _execute(self, connection: Connection, values: Mapping[str, object]) -> CursorResult[*tuple[Any, ...]]:
        dialect = connection.dialect
        text, order, fixed = self._texts.get(dialect.driver) or self._written(dialect)
        if order is None:
            return connection.exec_driver_sql(text, {**fixed, **values})
        return connection.exec_driver_sql(
            text, tuple(values[name] if name in values else fixed[name] for name in order)
        )

    @classmethod
    def numbering(cls, table: Table, columns: Iterable[str]) -> Prepared:
        """An INSERT into a table that numbers its rows itself; parameters are `new_` and the name of a column."""
        return cls._numbering(table, insert(table).values({name: bindparam(f"new_{name}") for name in columns}))

    @classmethod
    def numbering_from(cls, table: Table, columns: Sequence[str], found: Select[Any]) -> Prepared:
        """As `numbering`, with the values of a row that is found, if there is one."""
        return cls._numbering(table, insert(table).from_select(columns, found))

    @classmethod
    def _numbering(cls, table: Table, inserting: Insert) -> Prepared:
        [number] = table.primary_key
        return cls(inserting.inline(), postgresql=inserting.returning(number))

    def one_key(self, connection: Connection, **values: object) -> int:
        """Send an INSERT of one row, and return the number that the database gave it; see `numbering`."""
        driver = direct_of(connection)
        if driver is not None:
            (self._direct or self._for_driver(connection)).send(connection, driver, values)
            return int(driver.insert_id())
        return self._key(connection, self._execute(connection, values))

    @staticmethod
    def _key(connection: Connection, result: CursorResult[*tuple[Any, ...]]) -> int:
        if connection.dialect.name == "postgresql":
            return int(result.scalar() or 0)
        return int(result.lastrowid) if result.rowcount else 0

    def _for_driver(self, connection: Connection) -> Direct:
        text, order, fixed = self._written(connection.dialect)
        assert order is not None
        self._direct = Direct(text, order, fixed)
        return self._direct

    def _written(self, dialect: Dialect) -> tuple[str, Sequence[str] | None, Mapping[str, Any]]:
        statement: Any = self._others.get(dialect.name)
        if statement is None:
            statement = self._statement
        compiled = statement.compile(dialect=dialect)
        fixed = {name: value for name, value in compiled.params.items() if value is not None}
        written = (str(compiled), compiled.positiontup if compiled.positional else None, fixed)
        self._texts[dialect.driver] = written
        return written
