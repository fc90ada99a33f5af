"""Everybody who waits for jobs of one server, as one who asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from lgi.client.watch import Followed, Watch
from lgi.states import JobState

# Seconds in which those who come to wait are gathered before the server is asked anew, and how many more for each.
GATHER = 0.05
GATHER_EACH = 0.002
Seen = Callable[[JobState], None]


class _Waiting:
    def __init__(self, deferred: Deferred[Followed], seen: Seen | None) -> None:
        self.deferred = deferred
        self.seen = seen


class Follower:
    """Follows the jobs of `server` that somebody waits for, all of them in as few calls as the server allows."""

    def __init__(self, reactor: Any, server: str, watch: Watch) -> None:
        self._reactor = reactor
        self._server = server
        self._watch = watch
        self._followed: dict[int, Followed] = {}
        self._waiting: dict[int, list[_Waiting]] = {}
        self._following: Deferred[None] | None = None
        self._call: Any = None

    async def over(self, job_id: int, seen: Seen | None = None) -> Followed:
        """The job when it is over; `seen` is told of each state that it is met in. Raises what asking raises."""
        waiting = _Waiting(Deferred(), seen)
        if job_id not in self._followed:
            self._followed[job_id] = Followed(server=self._server, job_id=job_id)
            self._again()
        self._waiting.setdefault(job_id, []).append(waiting)
        state = self._followed[job_id].state
        if seen is not None and state is not None:
            seen(state)
        try:
            return await waiting.deferred
        finally:
            left = self._waiting.get(job_id)
            if left is not None and waiting in left:
                left.remove(waiting)
                if not left:
                    self._forget(job_id)

    def _forget(self, job_id: int) -> None:
        self._waiting.pop(job_id, None)
        self._followed.pop(job_id, None)
        if not self._followed:
            self._reactor.callLater(0, self._rest)  # later, since it may be the following itself that told of this

    def _rest(self) -> None:
        if not self._followed:
            self._let_go()

    def _again(self) -> None:
        if self._call is None:
            self._call = self._reactor.callLater(GATHER + GATHER_EACH * len(self._followed), self._follow)

    def _follow(self) -> None:
        self._call = None
        self._let_go()
        self._following = Deferred.fromCoroutine(self._run())

    async def _run(self) -> None:
        try:
            await self._watch.follow(list(self._followed.values()), self._changed)
        except CancelledError:
            return
        except Exception:
            failure = Failure()
            for waiting in self._take_all():
                waiting.deferred.errback(failure)

    def _take_all(self) -> list[_Waiting]:
        """Those who wait, who wait no more: what they do next may be to wait anew."""
        waiting = [one for all_of_job in self._waiting.values() for one in all_of_job]
        self._waiting.clear()
        self._followed.clear()
        return [one for one in waiting if not one.deferred.called]

    def _changed(self, one: Followed) -> None:
        if self._followed.get(one.job_id) is not one:
            return
        waiting = self._waiting.get(one.job_id, [])
        if one.state is not None:
            for each in list(waiting):
                if each.seen is not None:
                    each.seen(one.state)
        if one.over:
            self._waiting.pop(one.job_id, None)
            self._followed.pop(one.job_id, None)
            for each in waiting:
                if not each.deferred.called:
                    each.deferred.callback(one)

    def _let_go(self) -> None:
        if self._following is not None:
            self._following.cancel()
            self._following = None

    def close(self) -> None:
        """Ask no more."""
        if self._call is not None:
            self._call.cancel()
            self._call = None
        waiting = self._take_all()
        self._let_go()
        for one in waiting:
            one.deferred.cancel()
