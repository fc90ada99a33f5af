"""What becomes of one request: kept while it is served, for those who count, log and measure."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import attrs

GONE = 499
"""The status, in logs and counts alone, of a request whose client hung up before it was answered."""
_METHODS = {b"GET": "GET", b"HEAD": "HEAD", b"PUT": "PUT", b"DELETE": "DELETE", b"POST": "POST"}


@attrs.define(kw_only=True)
class Record:
    """One request. Times are in seconds, by the clock of its Site.

    `call` is the last part of the call's address without `.php`; for files `repository` and the method. `error` is
    the number of the LGI error that it was answered with. `idle` is for how long it waited on purpose; `database`
    is the time in transactions, of which there were `transactions`.
    """

    began: float
    caller: str = ""
    call: str = ""
    is_call: bool = False
    error: int | None = None
    status: int = 0
    size: int = 0
    ended: float = 0.0
    idle: float = 0.0
    database: float = 0.0
    transactions: int = 0
    over: bool = False

    @property
    def worked(self) -> float:
        """How long it took, without what it waited on purpose."""
        return self.ended - self.began - self.idle

    @property
    def result(self) -> str:
        """`ok`, the number of the LGI error, or `http` and the status."""
        if self.status >= 400:
            return f"http {self.status}"
        return "ok" if self.error is None else str(self.error)

    def name(self, method: bytes, path: bytes) -> None:
        """Say what it was for, where nobody has said so."""
        if not self.call:
            what = "repository" if b"/repository/" in path else "other"
            self.call = f"{what}_{_METHODS.get(method, 'other')}"


CURRENT: ContextVar[Record | None] = ContextVar("CURRENT", default=None)
"""The call that is being answered, for whatever is awaited on its behalf."""


def nobody_watches(_request: Any, _record: Record) -> None:
    """What a Site does with its records by default."""
