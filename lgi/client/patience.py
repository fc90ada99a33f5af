"""When to ask a server again: what it asks to have repeated, and what did not reach it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

from twisted.internet.task import deferLater

from lgi.client.answers import ServerRefused, ServerUnreachable
from lgi.errors import ErrorNumber

P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_BACK_OFF = 10.0
LONGEST_BACK_OFF = 60.0
FIRST_RETRY = 0.5
LONGEST_RETRY = 8.0


def no_note(_text: str) -> None:
    """Tell nobody."""


class Patience:
    """Repeats calls while a server says back-off, or cannot be reached, up to `busy` and `unreachable` seconds.

    `note` gets one line for people at the first failure of a series. Give `unreachable` only where the call may be
    repeated without harm; a call answered with back-off has had no effect.
    """

    def __init__(
        self, reactor: Any, *, busy: float, unreachable: float = 0.0, note: Callable[[str], None] = no_note
    ) -> None:
        self._reactor = reactor
        self._busy = busy
        self._unreachable = unreachable
        self._note = note
        self._noted = False

    async def ask(self, call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of `call(…)`; raises what it last raised when patience is at its end."""
        started = self._reactor.seconds()
        retry = FIRST_RETRY
        while True:
            try:
                result = await call(*args, **kwargs)
            except ServerRefused as problem:
                if problem.number != ErrorNumber.OVERLOADED:
                    raise
                asked = DEFAULT_BACK_OFF if problem.timeout is None else float(problem.timeout)
                delay = min(max(asked, FIRST_RETRY), LONGEST_BACK_OFF)
                await self._wait(problem, delay, started + self._busy)
            except ServerUnreachable as problem:
                await self._wait(problem, retry, started + self._unreachable)
                retry = min(2 * retry, LONGEST_RETRY)
            else:
                self._noted = False
                return result

    async def _wait(self, problem: Exception, delay: float, end: float) -> None:
        left = end - self._reactor.seconds()
        if left <= 0:
            raise problem
        if not self._noted:
            self._noted = True
            self._note(f"{problem}; still trying")
        await deferLater(self._reactor, min(delay, left))  # the last attempt is at the very end
