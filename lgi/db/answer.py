"""What a prepared statement gave, whoever sent it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any


class Answer:
    """Rows, which are tuples with named fields, or how many rows a statement has changed."""

    __slots__ = ("_rows", "rowcount")

    def __init__(self, rows: Sequence[Any], rowcount: int) -> None:
        self._rows = rows
        self.rowcount = rowcount

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def all(self) -> Sequence[Any]:
        """All rows."""
        return self._rows

    def first(self) -> Any | None:
        """The first row, None where there is none."""
        return self._rows[0] if self._rows else None

    def one_or_none(self) -> Any | None:
        """The row, None where there is none; raises ValueError where there are several."""
        if len(self._rows) > 1:
            raise ValueError(f"{len(self._rows)} rows where there may be one")
        return self.first()

    def one(self) -> Any:
        """The row; raises ValueError where there is not exactly one."""
        [row] = self._rows
        return row

    def scalars(self) -> list[Any]:
        """The first field of each row."""
        return [row[0] for row in self._rows]

    def scalar_one(self) -> Any:
        """The first field of the row; raises ValueError where there is not exactly one."""
        return self.one()[0]

    def scalar(self) -> Any | None:
        """The first field of the first row, None where there is none."""
        return self._rows[0][0] if self._rows else None
