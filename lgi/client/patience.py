"""When to ask a server again: what it asks to have repeated, and what did not reach it."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from random import random
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
    repeated without harm; a call answered with back-off has had no effect. `chance` gives numbers from 0 to 1, by
    which clients that were turned away together do not come back together.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        busy: float,
        unreachable: float = 0.0,
        note: Callable[[str], None] = no_note,
        chance: Callable[[], float] = random,
    ) -> None:
        self._reactor = reactor
        self._busy = busy
        self._unreachable = unreachable
        self._note = note
        self._chance = chance
        self._noted = False

    def for_what_happens_once(self) -> Patience:
        """The same, for a call that is not repeated unless it certainly had no effect."""
        return Patience(self._reactor, busy=self._busy, note=self._note, chance=self._chance)

    async def ask(self, call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of `call(…)`; raises what it last raised when patience is at its end."""
        failing_since: float | None = None
        retry = FIRST_RETRY
        while True:
            try:
                result = await call(*args, **kwargs)
            except (ServerRefused, ServerUnreachable) as problem:
                # What was done before the first failure, an upload maybe, does not count.
                failing_since = self._reactor.seconds() if failing_since is None else failing_since
                if isinstance(problem, ServerRefused) and problem.number == ErrorNumber.OVERLOADED:
                    asked = DEFAULT_BACK_OFF if problem.timeout is None else float(problem.timeout)
                    delay = min(max(asked, FIRST_RETRY), LONGEST_BACK_OFF)
                    # Not before the server said, and a little later.
                    await self._wait(problem, delay * (1 + self._chance() / 10), failing_since + self._busy)
                elif self._may_pass(problem):
                    await self._wait(problem, retry * (1 - self._chance() / 2), failing_since + self._unreachable)
                    retry = min(2 * retry, LONGEST_RETRY)
                else:
                    raise
            else:
                self._noted = False
                return result

    def _may_pass(self, problem: ServerRefused | ServerUnreachable) -> bool:
        """Whether it is an outage, and one that this patience is for."""
        if isinstance(problem, ServerUnreachable):
            return not problem.lasting
        # Says no more of what was done than a connection that is lost.
        return problem.number == ErrorNumber.DATABASE_UNREACHABLE and self._unreachable > 0

    async def _wait(self, problem: Exception, delay: float, end: float) -> None:
        left = end - self._reactor.seconds()
        if left <= 0:
            raise problem
        if not self._noted:
            self._noted = True
            how_long = f" for {left:.0f} s" if math.isfinite(left) else ""
            self._note(f"{problem}; still trying{how_long}")
        await deferLater(self._reactor, min(delay, left))  # the last attempt is at the very end
