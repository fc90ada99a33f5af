"""Locks that are kept from a claim to the report of a job that soon ends: two calls for it, instead of six.

The session that was given the locks keeps them for two seconds at most after the claims, and is signed off when the
last of its jobs has been reported. A user who asks for details of such a job waits for as long.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger

_log = Logger()
KEPT_FOR = 2.0  # seconds


@attrs.define(eq=False)
class _Session:
    session_id: int
    jobs: set[int]
    users: int = 0
    claimed: bool = False
    timer: Any = None


class KeptLocks:
    """The sessions of one project server that were given locks and keep them; `sign_off` ends one."""

    def __init__(self, clock: Any, sign_off: Callable[[int], Awaitable[None]]) -> None:
        self._clock = clock
        self._sign_off = sign_off
        self._of: dict[int, _Session] = {}
        self._sessions: dict[int, _Session] = {}

    def keep(self, session_id: int, jobs: Iterable[int]) -> None:
        """The session holds these jobs locked, and nobody else uses it but to claim them, until `claimed`."""
        session = _Session(session_id=session_id, jobs=set(jobs))
        self._sessions[session_id] = session
        self._of.update((job_id, session) for job_id in session.jobs)

    async def claimed(self, session_id: int) -> None:
        """All claims have been answered: from now on the locks are for the reports."""
        session = self._sessions[session_id]
        session.claimed = True
        if session.jobs or session.users:
            session.timer = self._clock.callLater(KEPT_FOR, self._expire, session)
        await self._end(session)

    def _expire(self, session: _Session) -> None:
        for job_id in [job_id for job_id in session.jobs if self._of.get(job_id) is session]:
            del self._of[job_id]
        session.jobs.clear()
        session.claimed = True
        if session.users == 0:
            _unattended(self._end(session))

    async def release(self, job_id: int) -> None:
        """The lock on this job is not needed, if it is kept."""
        session = self._of.pop(job_id, None)
        if session is not None:
            session.jobs.discard(job_id)
            await self._end(session)

    async def _end(self, session: _Session) -> None:
        if session.session_id in self._sessions and not session.users and not session.jobs and session.claimed:
            del self._sessions[session.session_id]
            if session.timer is not None and session.timer.active():
                session.timer.cancel()
            await self._sign_off(session.session_id)

    @asynccontextmanager
    async def using(self, job_id: int) -> AsyncIterator[int | None]:
        """The session that has kept the lock on a job, for the last time; None if there is none."""
        session = self._of.get(job_id)
        if session is None:
            yield None
            return
        session.users += 1
        try:
            yield session.session_id
        finally:
            session.users -= 1
            if self._of.get(job_id) is session:
                del self._of[job_id]
            session.jobs.discard(job_id)
            await self._end(session)

    def end(self) -> None:
        """End all, as the daemon stops."""
        for session in list(self._sessions.values()):
            self._expire(session)


class Lockable(Protocol):
    """What a work session needs of a link."""

    async def sign_up(self, capabilities: str | None) -> Any:
        """Start a session."""


@attrs.define
class WorkSession:
    """The session in which work is asked for; where it has been left to the jobs that it got, another follows."""

    link: Lockable
    number: int | None

    def leave(self) -> None:
        """It is used no longer here."""
        self.number = None

    async def free(self) -> int:
        """The number of a session without locks; raises NoAnswer and ServerRefused."""
        if self.number is None:
            self.number = (await self.link.sign_up(None)).session_id
        assert self.number is not None
        return self.number


def _unattended(coroutine: Any) -> None:
    Deferred.fromCoroutine(coroutine).addErrback(
        lambda failure: _log.failure("a session could not be ended", failure)
    )
