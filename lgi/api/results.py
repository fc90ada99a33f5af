"""Several jobs, each given as soon as it is over."""

from __future__ import annotations

from typing import Generic, TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredQueue, TimeoutError

from lgi.api.core import Core, too_late
from lgi.api.values import Found, Seen

J = TypeVar("J", bound=Seen)


class Results(Generic[J]):
    """Jobs that are being followed, from the first call of `next`, for at most `timeout` seconds. Close it."""

    def __init__(self, core: Core, jobs: list[J], timeout: float | None) -> None:
        self._core = core
        self._jobs = jobs
        self._timeout = timeout
        self._left = len(jobs)
        self._end = 0.0
        self._following: list[Deferred[None]] = []
        self._done: DeferredQueue[tuple[J, Found | Exception | None]] = DeferredQueue()

    async def next(self) -> J:
        """The next one that is over, as it is now; raises builtin TimeoutError, and what asking for it raised."""
        reactor = self._core.reactor
        if not self._following:
            self._end = reactor.seconds() + (self._timeout or 0)
            self._following = [Deferred.fromCoroutine(self._follow(job)) for job in self._jobs]
        getting = self._done.get()
        if self._timeout is not None:
            getting.addTimeout(max(0.0, self._end - reactor.seconds()), reactor)
        try:
            job, found = await getting
        except TimeoutError:
            raise too_late(f"{self._left} of {len(self._jobs)} jobs are not over after {self._timeout:g} s") from None
        self._left -= 1
        if isinstance(found, Exception):
            raise found
        job.settle(found)
        return job

    async def _follow(self, job: J) -> None:
        found: Found | Exception | None
        try:
            found = await self._core.over(job.found)
        except CancelledError:
            return
        except Exception as problem:
            found = problem
        self._done.put((job, found))

    async def close(self) -> None:
        """Follow them no more."""
        for following in self._following:
            following.cancel()
