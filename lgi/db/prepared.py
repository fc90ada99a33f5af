"""Statements that are written out once for each kind of database: building them anew costs more than sending them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import BindParameter, Connection, CursorResult, Executable, bindparam
from sqlalchemy.engine.interfaces import Dialect


def numbered(name: str, number: int) -> list[BindParameter[Any]]:
    """So many parameters, for a list of a statement that is prepared for each length of it: see `values_of`."""
    return [bindparam(f"{name}_{index}") for index in range(number)]


def values_of(name: str, values: Iterable[object]) -> dict[str, object]:
    """The values of parameters that are `numbered`."""
    return {f"{name}_{index}": value for index, value in enumerate(values)}


class Prepared:
    """A statement of SQLAlchemy's with named parameters (`bindparam`), each of which is one plain value.

    Rows come as the driver gives them: for columns of text, numbers and bytes that is what they are stored as.
    """

    def __init__(self, statement: Executable) -> None:
        self._statement = statement
        self._texts: dict[str, tuple[str, Sequence[str] | None, Mapping[str, Any]]] = {}

    def __call__(self, connection: Connection, **values: object) -> CursorResult[Any]:
        """Send the statement; raises what `Connection.execute` raises."""
        dialect = connection.dialect
        text, order, fixed = self._texts.get(dialect.driver) or self._written(dialect)
        if order is None:
            return connection.exec_driver_sql(text, {**fixed, **values})
        return connection.exec_driver_sql(
            text, tuple(values[name] if name in values else fixed[name] for name in order)
        )

    def _written(self, dialect: Dialect) -> tuple[str, Sequence[str] | None, Mapping[str, Any]]:
        compiled: Any = self._statement.compile(dialect=dialect)  # type: ignore[attr-defined]
        fixed = {name: value for name, value in compiled.params.items() if value is not None}
        written = (str(compiled), compiled.positiontup if compiled.positional else None, fixed)
        self._texts[dialect.driver] = written
        return written
