"""How often a transfer is tried again: as long as it gets further, and a few times more."""

from __future__ import annotations

from collections.abc import Callable, Collection
from random import SystemRandom
from typing import Any

import attrs
from twisted.internet.task import deferLater

from lgi.client.answers import ServerUnreachable
from lgi.client.exchange import Refusal

FIRST_WAIT = 0.25  # seconds, doubled with each failure in a row
LONGEST_WAIT = 20.0
LONGEST_ASKED = 60.0
LONGEST_BUSY_WAIT = 2.0
_PASSING = (408, 425, 429, 500, 502, 503, 504)


def passing(problem: Exception, also: Collection[int] = ()) -> bool:
    """Whether another attempt may end better, `also` where the answer has one of these statuses."""
    if isinstance(problem, ServerUnreachable):
        return not problem.lasting
    return isinstance(problem, Refusal) and (problem.number in _PASSING or problem.number in also)


@attrs.frozen(kw_only=True)
class Patience:
    """So many `tries` without progress are made after the first; `jitter` picks a time between two, in seconds.

    For `busy` seconds what somebody else still holds is waited for: a connection that is dead, as far as we know.
    """

    tries: int = 6
    busy: float = 90.0
    jitter: Callable[[float, float], float] = SystemRandom().uniform


class Attempts:
    """The attempts of one transfer."""

    def __init__(self, reactor: Any, patience: Patience) -> None:
        self._reactor = reactor
        self._patience = patience
        self._best = 0
        self._failed = 0
        self._busy_until: float | None = None

    async def wait_for_other(self, problem: Exception) -> None:
        """Wait a little for who still holds it; raises `problem` when that has taken too long."""
        if self._busy_until is None:
            self._busy_until = self._reactor.seconds() + self._patience.busy
        if self._reactor.seconds() >= self._busy_until:
            raise problem
        await deferLater(self._reactor, self._patience.jitter(0, LONGEST_BUSY_WAIT))

    async def wait(self, problem: Exception, position: int, also: Collection[int] = ()) -> None:
        """Wait until the next one after a failure at `position` (bytes); raises `problem` if there is to be none."""
        self._busy_until = None
        if not passing(problem, also):
            raise problem
        if position > self._best:
            self._best = position
            self._failed = 0
        self._failed += 1
        if self._failed > self._patience.tries:
            raise problem
        ceiling = min(FIRST_WAIT * 2 ** (self._failed - 1), LONGEST_WAIT)
        # Full jitter: clients that were cut off together do not come back together.
        delay = self._patience.jitter(0, ceiling)
        if isinstance(problem, Refusal) and problem.timeout is not None:
            delay = min(problem.timeout, LONGEST_ASKED) + delay
        await deferLater(self._reactor, delay)
