"""Waking what waits for a job to change, instead of letting it sleep and look again.

Commit first, then tell: what is told is true already. A change made by another program is heard through the bell, if
that runs on this machine; a waiter looks again by itself every `RECHECK` seconds all the same: a lost wake-up costs
that, and never a job.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import Deferred

RECHECK = 1.0


class News:
    """Who waits for which job."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self._waiting: dict[int, list[Deferred[None]]] = {}
        self.stopped = False

    def stop(self) -> None:
        """Wake everybody, for good: the server stops and nobody should wait for anything."""
        self.stopped = True
        self.tell(tuple(self._waiting))

    def tell(self, job_ids: Iterable[int]) -> None:
        """Wake everybody who waits for one of these jobs."""
        for job_id in job_ids:
            for waiter in self._waiting.pop(job_id, []):
                if not waiter.called:
                    waiter.callback(None)

    async def wait(self, job_id: int, seconds: float) -> None:
        """Return when the job has changed, or at the latest after RECHECK or `seconds`."""
        waiter: Deferred[None] = Deferred()
        self._waiting.setdefault(job_id, []).append(waiter)
        timer = self.reactor.callLater(min(seconds, RECHECK), waiter.callback, None)
        try:
            await waiter
        finally:
            if timer.active():
                timer.cancel()
            waiters = self._waiting.get(job_id, [])
            if waiter in waiters:
                waiters.remove(waiter)
                if not waiters:
                    del self._waiting[job_id]
