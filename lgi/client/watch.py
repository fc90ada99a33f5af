"""Jobs that are followed until they are over: told of by servers that can, asked for where they cannot."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredSemaphore, FirstError, gatherResults
from twisted.internet.task import deferLater

from lgi.client.answers import JobAnswer, ServerRefused
from lgi.client.patience import Patience
from lgi.client.post import CONNECTIONS
from lgi.client.user import UserClient
from lgi.errors import ErrorNumber
from lgi.states import TERMINAL, JobState

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 2.0
PAUSE_GROWTH = 1.4
AT_ONCE = 1000  # jobs in one waiting call

# What may be wrong with one job while there is nothing wrong with the next.
ABOUT_ONE_JOB = frozenset(
    {
        ErrorNumber.JOB_UNKNOWN,
        ErrorNumber.INTERFACE_LOCK_MISSING,
        ErrorNumber.READ_REFUSED,
        ErrorNumber.MODIFY_REFUSED,
        ErrorNumber.OVERLOADED,
    }
)


@attrs.define(kw_only=True)
class Followed:
    """A job that is being followed on `server`; `refused` is why the server does not let us."""

    server: str
    job_id: int
    answer: JobAnswer | None = None
    gone: bool = False
    refused: ServerRefused | None = None

    @property
    def state(self) -> JobState | None:
        """The state that is known, None for none."""
        return None if self.answer is None else self.answer.job.state

    @property
    def over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.gone or self.refused is not None or self.state in TERMINAL


async def _all_of(parts: list[Deferred[None]]) -> None:
    """Wait for all; the first that fails is raised, and ends the others, as cancelling this does."""
    try:
        await gatherResults(parts, consumeErrors=True)
    except FirstError as first:
        problem = first.subFailure.value
        assert isinstance(problem, Exception)
        raise problem from None
    finally:
        for part in parts:
            part.cancel()


@attrs.frozen(kw_only=True)
class Watch:
    """Follows jobs of several servers.

    `connect` gives the calls of a server, `job_wait` says for how many seconds a call may wait there (0: not at all).
    Each job is looked at in full, with its output, when it is over. `interval` is the longest time in seconds between
    two looks at a server that cannot tell.
    """

    reactor: Any
    connect: Callable[[str], UserClient]
    job_wait: Callable[[str], Awaitable[int]]
    patience: Patience
    interval: float = LONGEST_PAUSE

    async def follow(self, followed: Iterable[Followed], changed: Callable[[Followed], None]) -> None:
        """Return when all are over; `changed` is called for each that is in another state than before.

        Raises what `Server.call` raises where that is not about a single job.
        """
        by_server: dict[str, list[Followed]] = {}
        for one in followed:
            by_server.setdefault(one.server, []).append(one)
        following = [
            Deferred.fromCoroutine(self._on_server(server, jobs, changed)) for server, jobs in by_server.items()
        ]
        await _all_of(following)

    async def _on_server(self, server: str, jobs: list[Followed], changed: Callable[[Followed], None]) -> None:
        user = self.connect(server)
        wait = await self.job_wait(server)
        if wait:
            parts = [
                Deferred.fromCoroutine(self._told(user, jobs[start : start + AT_ONCE], wait, changed))
                for start in range(0, len(jobs), AT_ONCE)
            ]
        else:
            gate = DeferredSemaphore(CONNECTIONS)
            parts = [Deferred.fromCoroutine(self._asked(user, one, gate, changed)) for one in jobs]
        await _all_of(parts)

    async def _told(
        self, user: UserClient, jobs: list[Followed], wait: int, changed: Callable[[Followed], None]
    ) -> None:
        left = {one.job_id: one for one in jobs}
        while left:
            known: Mapping[int, JobState | None] = {job_id: one.state for job_id, one in left.items()}
            news = await self.patience.ask(user.changed, known, wait)
            for answer in news.jobs:
                one = left.get(answer.job.job_id)
                if one is None:
                    continue
                one.answer = answer
                if one.over:
                    await self._look(user, one)
                changed(one)
            for job_id in news.gone:
                one = left.get(job_id)
                if one is not None:
                    # Why it cannot be seen, its detail says.
                    await self._look(user, one)
                    changed(one)
            left = {job_id: one for job_id, one in left.items() if not one.over}

    async def _look(self, user: UserClient, one: Followed) -> None:
        try:
            one.answer = await self.patience.ask(user.job, one.job_id)
        except ServerRefused as problem:
            if problem.number not in ABOUT_ONE_JOB:
                raise
            if one.answer is not None and problem.number == ErrorNumber.JOB_UNKNOWN:
                one.gone = True
            else:
                one.refused = problem

    async def _asked(
        self, user: UserClient, one: Followed, gate: DeferredSemaphore, changed: Callable[[Followed], None]
    ) -> None:
        pause = FIRST_PAUSE
        while True:
            before = one.state
            await gate.acquire()
            try:
                await self._look(user, one)
            finally:
                gate.release()
            if one.state is not before or one.over:
                changed(one)
                pause = FIRST_PAUSE
            if one.over:
                return
            await deferLater(self.reactor, min(pause, self.interval))
            pause *= PAUSE_GROWTH
