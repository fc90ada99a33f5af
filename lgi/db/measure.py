"""Where transactions can be measured; this package does not know by whom."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from sqlalchemy import Connection

R = TypeVar("R")


class Measure:
    """Goes along with one transaction, from when it is asked for until its caller goes on; this one does nothing."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def counting(self, function: Callable[[Connection], R]) -> Callable[[Connection], R]:
        """What to carry out instead of `function`, in a thread and perhaps more than once."""
        return function

    def retry(self) -> None:
        """An attempt was in vain."""


UNMEASURED = Measure()

_STATEMENTS = "lgi_statements"
Watcher = Callable[[Connection, str, Any], None]
watchers: list[Watcher] = []
"""Told of each statement before it is sent, with its text and parameters."""


def note_statement(connection: Connection, text: str, parameters: Any) -> None:
    """One more statement is to be sent on this connection."""
    info = connection.info
    info[_STATEMENTS] = info.get(_STATEMENTS, 0) + 1
    for watcher in watchers:
        watcher(connection, text, parameters)


def before_statement(connection: Connection, _cursor: object, text: str, parameters: Any, *_more: object) -> None:
    """What SQLAlchemy calls before each (`before_cursor_execute`)."""
    note_statement(connection, text, parameters)


def statements_on(connection: Connection) -> int:
    """How many statements were sent on this connection until now; 0 where it is lost."""
    return 0 if connection.invalidated else int(connection.info.get(_STATEMENTS, 0))
