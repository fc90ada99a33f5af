"""Waking what waits for jobs to change, instead of letting it sleep and look again.

Commit first, then tell: what is told is true already. A change made by another program is heard through the bell, or
found by the look that the process makes for all who wait (`lgi/server/look.py`). Who waits for one job's lock, which
the record of jobs does not tell of, looks again by himself after RECHECK seconds: a lost wake-up costs that, and
never a job.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.defer import Deferred

from lgi.errors import ErrorNumber, LGIError

RECHECK = 1.0


class Ear:
    """Hears of some jobs; what has come since it was last asked is not lost."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._rung = False
        self._waiter: Deferred[None] | None = None

    def ring(self) -> None:
        """Something has come."""
        self._rung = True
        if self._waiter is not None and not self._waiter.called:
            self._waiter.callback(None)

    async def heard(self, seconds: float) -> None:
        """Return when something has come since this was called last, or at the latest after `seconds`."""
        if not self._rung:
            waiter = self._waiter = Deferred[None]()
            timer = self._reactor.callLater(seconds, waiter.callback, None)
            try:
                await waiter
            finally:
                self._waiter = None
                if timer.active():
                    timer.cancel()
        self._rung = False


class News:
    """Who waits for which job."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self._waiting: dict[int, set[Ear]] = {}
        self.crowded = 0
        """How many wait for longer than a lock is held."""
        self.stopped = False

    @property
    def awaited(self) -> bool:
        """Whether anybody waits for a job."""
        return bool(self._waiting)

    def stop(self) -> None:
        """Wake everybody, for good: the server stops and nobody should wait for anything."""
        self.stopped = True
        self.tell(tuple(self._waiting))

    def tell(self, job_ids: Iterable[int]) -> None:
        """Wake everybody who waits for one of these jobs."""
        for job_id in job_ids:
            for ear in tuple(self._waiting.get(job_id, ())):
                ear.ring()

    @contextmanager
    def listening(self, job_ids: Iterable[int]) -> Iterator[Ear]:
        """An ear for these jobs: look at them after this begins, and no change is missed."""
        ear, wanted = Ear(self.reactor), tuple(job_ids)
        for job_id in wanted:
            self._waiting.setdefault(job_id, set()).add(ear)
        try:
            yield ear
        finally:
            for job_id in wanted:
                others = self._waiting[job_id]
                others.discard(ear)
                if not others:
                    del self._waiting[job_id]

    @contextmanager
    def crowd(self, most: int, back_off: int) -> Iterator[None]:
        """Count among those who wait for long; raises LGIError(OVERLOADED) where there are `most` already."""
        if self.crowded >= most:
            raise LGIError(ErrorNumber.OVERLOADED, "too many users wait for jobs", timeout=back_off)
        self.crowded += 1
        try:
            yield
        finally:
            self.crowded -= 1

    async def wait(self, job_id: int, seconds: float) -> None:
        """Return when the job has changed, or at the latest after RECHECK or `seconds`."""
        with self.listening((job_id,)) as ear:
            await ear.heard(min(seconds, RECHECK))
