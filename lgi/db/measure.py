"""Where transactions can be measured; this package does not know by whom."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

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
