"""The project servers as the daemon speaks to them: sessions, locks, back-off, silence.

A server that gives no usable answer has said nothing, and nothing follows from it for any job: NoAnswer. What it
refuses by number stays `ServerRefused`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

import attrs
from twisted.internet.defer import CancelledError, Deferred, DeferredLock, DeferredSemaphore, gatherResults
from twisted.internet.task import deferLater
from twisted.logger import Logger

from lgi.client.answers import AnswerMalformed, JobAnswer, JobUpdate, ServerRefused, ServerUnreachable, SignedUp
from lgi.daemon.gather import Gathered, side_by_side
from lgi.daemon.jobdir import LARGEST_OUTPUT
from lgi.daemon.kept import KeptLocks, WorkSession
from lgi.daemon.sessions import OpenSession, OpenSessions
from lgi.errors import ErrorNumber
from lgi.model import Job
from lgi.states import JobState

_log = Logger()
_Answer = TypeVar("_Answer")
CALLS_AT_ONCE = 8
PAUSE = 10  # seconds, where a server that asks to back off does not say for how long
LONGEST_PAUSE = 600  # seconds; what it says may be nonsense, and its jobs have to be reported some day
SIGN_OFF_TRIES = 3
NOT_OURS = frozenset({ErrorNumber.JOB_UNKNOWN, ErrorNumber.STATE_HIDDEN})
"""Errors that say: this job is none of this resource's any more."""
_NO_SESSION = frozenset({ErrorNumber.SESSION_ENDED, ErrorNumber.SESSION_UNKNOWN, ErrorNumber.LOCK_WITHOUT_SESSION})


class NoAnswer(Exception):
    """The server did not answer, not usefully, or asked to be left alone; one line."""


class OddAnswer(NoAnswer):
    """The server answered, but what it says cannot be about this job."""


class Calls(Protocol):
    """What the daemon needs of `lgi.client.resource.ResourceClient`."""

    async def signup(self, capabilities: str | None = None) -> SignedUp:
        """Start a session."""

    async def signoff(self, session_id: int) -> None:
        """End it."""

    async def request_work(
        self, session_id: int, application: str, *, start: int = 0, limit: int = 32, owners: tuple[str, ...] = ()
    ) -> list[JobAnswer]:
        """Queued jobs, locked."""

    async def wait_for_work(self, session_id: int, applications: Sequence[str], seconds: int) -> tuple[str, ...]:
        """Wait until there may be work; of which applications."""

    async def lock(self, session_id: int, job_id: int) -> None:
        """Lock a job."""

    async def unlock(self, session_id: int, job_id: int) -> None:
        """Unlock it."""

    async def update(
        self,
        session_id: int,
        job_id: int,
        *,
        state: JobState | None = None,
        target_resources: tuple[str, ...] | None = None,
        job_specifics: str | None = None,
        output: bytes | None = None,
    ) -> JobAnswer:
        """Change a locked job."""

    async def update_jobs(self, session_id: int, updates: Sequence[JobUpdate]) -> list[JobAnswer | ServerRefused]:
        """Change several locked jobs."""

    async def details(self, session_id: int, job_id: int) -> JobAnswer:
        """Everything about a locked job."""

    async def state(self, job_id: int) -> JobAnswer:
        """A job without its input and output; counts as its pulse."""


@attrs.define
class _Session:
    session_id: int
    users: int = 0


class Link:
    """One project server, for one project."""

    def __init__(self, *, url: str, project: str, calls: Calls, clock: Any, sessions: OpenSessions) -> None:
        self.url = url
        self.project = project
        self._calls = calls
        self._clock = clock
        self._sessions = sessions
        self._quiet_until = 0.0
        self._problem = ""
        self._shared: _Session | None = None
        self._most = LARGEST_OUTPUT
        self._opening = DeferredLock()
        self._slots = DeferredSemaphore(CALLS_AT_ONCE)
        self._closing = False
        self._unended: set[int] = set()
        self._wait: Deferred[tuple[str, ...]] | None = None
        self._unlocking: dict[int, Deferred[None]] = {}
        self.kept = KeptLocks(clock, self._sign_off)
        self._together = 0  # changes of jobs in one call; 0: one call each
        self.updates: Gathered[tuple[int, JobUpdate], JobAnswer] = Gathered(self._update_many)

    def close(self) -> None:
        """From now on do not wait for a server before a session is signed off."""
        self._closing = True
        self.kept.end()

    async def state(self, job_id: int) -> Job:
        """The job as the server has it, without input and output; also its pulse."""
        return _same(job_id, await self._ask(lambda: self._calls.state(job_id)))

    async def details(self, session_id: int, job_id: int) -> Job:
        """Everything about a job that the session holds locked."""
        return _same(job_id, await self._ask(lambda: self._calls.details(session_id, job_id)))

    async def update(
        self,
        session_id: int,
        job_id: int,
        *,
        state: JobState | None = None,
        target_resources: tuple[str, ...] | None = None,
        job_specifics: str | None = None,
        output: bytes | None = None,
    ) -> Job:
        """Change a job that the session holds locked; after NoAnswer it may be changed or not.

        Where the server takes several changes in a call, they go with those of others.
        """
        if self._together:
            update = JobUpdate(
                job_id=job_id,
                state=state,
                target_resources=target_resources,
                job_specifics=job_specifics,
                output=output,
            )
            return _same(job_id, await self.updates((session_id, update)))
        answer = await self._ask(
            lambda: self._calls.update(
                session_id,
                job_id,
                state=state,
                target_resources=target_resources,
                job_specifics=job_specifics,
                output=output,
            )
        )
        return _same(job_id, answer)

    async def _update_many(self, wanted: list[tuple[int, JobUpdate]]) -> list[JobAnswer | Exception]:
        results: dict[int, JobAnswer | Exception] = {}
        calls = []
        for session_id in dict.fromkeys(session_id for session_id, _ in wanted):
            mine = [(at, update) for at, (its, update) in enumerate(wanted) if its == session_id]
            for some in _in_calls(mine, self._together, self._most):
                calls.append(self._update_some(session_id, some, results))
        await side_by_side(calls)
        return [results[at] for at in range(len(wanted))]

    async def _update_some(
        self, session_id: int, some: list[tuple[int, JobUpdate]], results: dict[int, JobAnswer | Exception]
    ) -> None:
        updates = [update for _, update in some]
        try:
            answers = await self._ask(lambda: self._calls.update_jobs(session_id, updates))
        except (NoAnswer, ServerRefused) as problem:
            results.update((at, problem) for at, _ in some)
        else:
            results.update((at, answer) for (at, _), answer in zip(some, answers, strict=True))

    async def request_work(
        self, session_id: int, application: str, *, start: int, limit: int, owners: tuple[str, ...]
    ) -> list[Job]:
        """Queued jobs, each locked by the session."""
        answers = await self._ask(
            lambda: self._calls.request_work(session_id, application, start=start, limit=limit, owners=owners)
        )
        return [answer.job for answer in answers]

    async def wait_for_work(self, session_id: int, applications: Sequence[str], seconds: int) -> tuple[str, ...]:
        """Wait until there may be work, for at most `seconds` and until `let_go`; of which applications."""
        return await self._ask(lambda: self._waited(session_id, applications, seconds), waiting=True)

    async def _waited(self, session_id: int, applications: Sequence[str], seconds: int) -> tuple[str, ...]:
        wait = Deferred.fromCoroutine(self._calls.wait_for_work(session_id, applications, seconds))
        self._wait = wait
        try:
            return await wait
        except (CancelledError, ServerUnreachable):
            if self._wait is not wait:
                # Let go: there is nothing to complain about.
                return ()
            raise
        finally:
            if self._wait is wait:
                self._wait = None

    def let_go(self) -> None:
        """Wait for work no longer."""
        wait, self._wait = self._wait, None
        if wait is not None:
            wait.cancel()

    async def unlock(self, session_id: int, job_id: int) -> None:
        """Give a lock back as well as it goes: what is left over ends with the session."""
        done = self._unlocking[job_id] = Deferred()
        try:
            await self._ask(lambda: self._calls.unlock(session_id, job_id))
        except (NoAnswer, ServerRefused) as problem:
            _log.debug("{url}: job {job_id} not unlocked: {problem}", url=self.url, job_id=job_id, problem=problem)
        finally:
            del self._unlocking[job_id]
            done.callback(None)

    @asynccontextmanager
    async def locked(self, job_id: int) -> AsyncIterator[int]:
        """Hold the lock on a job, in the session whose number is the value."""
        while job_id in self._unlocking:
            # By another session of this daemon, which then is out of the way.
            await self._unlocking[job_id]
        async with self.shared_session() as session_id:
            await self._ask(lambda: self._calls.lock(session_id, job_id))
            try:
                yield session_id
            finally:
                await self.unlock(session_id, job_id)

    @asynccontextmanager
    async def session(self, capabilities: str) -> AsyncIterator[tuple[SignedUp, WorkSession]]:
        """A session of one's own, as work requests need: the server refuses them while its session holds locks."""
        signed_up = await self.sign_up(capabilities)
        session = WorkSession(link=self, number=signed_up.session_id)
        try:
            yield signed_up, session
        finally:
            if session.number is not None:
                await self._sign_off(session.number)

    @asynccontextmanager
    async def shared_session(self) -> AsyncIterator[int]:
        """The session that everybody who locks jobs at this time shares; signed off by the last to leave."""
        await self._opening.acquire()
        try:
            if self._shared is None:
                signed_up = await self.sign_up(None)
                self._shared = _Session(signed_up.session_id)
            session = self._shared
            session.users += 1
        finally:
            self._opening.release()
        try:
            yield session.session_id
        except ServerRefused as refusal:
            if refusal.number in _NO_SESSION and self._shared is session:
                self._shared = None  # whoever comes next signs up again
            raise
        finally:
            session.users -= 1
            if session.users == 0:
                if self._shared is session:
                    self._shared = None
                await self._sign_off(session.session_id)

    @property
    def largest_output(self) -> int:
        """How many bytes the server takes as output: fewer than the size that it announces with each session."""
        return self._most

    async def sign_up(self, capabilities: str | None) -> SignedUp:
        """Start a session, which the caller has to end or to leave to `kept`."""
        signed_up = await self._ask(lambda: self._calls.signup(capabilities))
        if signed_up.largest_field is not None:
            self._most = signed_up.largest_field - 1
        self._together = signed_up.update_jobs
        self._sessions.add(self._open(signed_up.session_id))
        return signed_up

    def _open(self, session_id: int) -> OpenSession:
        return OpenSession(project=self.project, url=self.url, session_id=session_id)

    async def end_left(self, session_id: int) -> None:
        """End a session of a daemon that was killed."""
        await self._sign_off(session_id)

    async def _sign_off(self, session_id: int) -> None:
        problem: Exception | None = None
        for _ in range(SIGN_OFF_TRIES):
            pause = self._quiet_until - self._clock.seconds()
            if pause > 0 and not self._closing:
                # Its locks would keep jobs from everybody until the server ends the session by itself.
                await deferLater(self._clock, pause)
            try:
                await self._ask(lambda: self._calls.signoff(session_id))
                self._sessions.remove(self._open(session_id))
                return
            except ServerRefused as refusal:
                # It is not there any more.
                self._sessions.remove(self._open(session_id))
                problem = refusal
                break
            except NoAnswer as trouble:
                problem = trouble
                if self._quiet_until <= self._clock.seconds():
                    break
        if isinstance(problem, NoAnswer) and not self._closing:
            # Its locks keep jobs from everybody: as soon as the server answers again.
            self._unended.add(session_id)
        _log.debug(
            "{url}: session {session_id} not signed off: {problem}",
            url=self.url,
            session_id=session_id,
            problem=problem,
        )

    async def _ask(self, call: Callable[[], Awaitable[_Answer]], *, waiting: bool = False) -> _Answer:
        pause = self._quiet_until - self._clock.seconds()
        if pause > 0:
            raise NoAnswer(f"{self.url} asked to be left alone for {pause:.0f} s more")
        # A call that waits keeps others from nothing.
        slots = None if waiting else await self._slots.acquire()
        try:
            answer = await call()
        except (ServerUnreachable, AnswerMalformed) as problem:
            raise self._silence(str(problem)) from None
        except ServerRefused as refusal:
            if refusal.number == ErrorNumber.OVERLOADED:
                seconds = PAUSE if refusal.timeout is None else min(refusal.timeout, LONGEST_PAUSE)
                self._quiet_until = self._clock.seconds() + seconds
                raise self._silence(f"{refusal}; it asks to wait {seconds} s") from None
            self._spoke()
            raise
        finally:
            if slots is not None:
                slots.release()
        self._spoke()
        return answer

    def _silence(self, problem: str) -> NoAnswer:
        line = problem if self.url in problem else f"{self.url}: {problem}"
        if problem != self._problem:
            self._problem = problem
            _log.warn("no answer for project {project}: {line}", project=self.project, line=line)
        return NoAnswer(line)

    def _spoke(self) -> None:
        if self._problem:
            self._problem = ""
            _log.info("{url} answers again for project {project}", url=self.url, project=self.project)
        left, self._unended = self._unended, set()
        for session_id in left:
            Deferred.fromCoroutine(self._sign_off(session_id)).addErrback(
                lambda failure: _log.failure("a session could not be signed off", failure)
            )


def _in_calls(updates: list[tuple[int, JobUpdate]], most: int, largest: int) -> Iterator[list[tuple[int, JobUpdate]]]:
    """Not more in a call than the server takes, nor more bytes than in a field of one."""
    some: list[tuple[int, JobUpdate]] = []
    size = 0
    for at, update in updates:
        needs = len(update.output or b"") + len((update.job_specifics or "").encode())
        if some and (len(some) >= most or size + needs > largest):
            yield some
            some, size = [], 0
        some.append((at, update))
        size += needs
    if some:
        yield some


def _same(job_id: int, answer: JobAnswer) -> Job:
    if answer.job.job_id != job_id:
        raise OddAnswer(f"the server answered about job {answer.job.job_id} when asked about job {job_id}")
    return answer.job


class Links:
    """The links to all servers spoken to, each made once."""

    def __init__(self, make_calls: Callable[[str, str], Calls], clock: Any, sessions: OpenSessions) -> None:
        self._make_calls = make_calls
        self._clock = clock
        self._sessions = sessions
        self._links: dict[tuple[str, str], Link] = {}

    def to(self, project: str, url: str) -> Link:
        """The link to a server of a project."""
        key = (project, url.rstrip("/"))
        if key not in self._links:
            calls = self._make_calls(*key)
            self._links[key] = Link(
                project=project, url=key[1], calls=calls, clock=self._clock, sessions=self._sessions
            )
        return self._links[key]

    async def end_left(self) -> None:
        """End the sessions that a daemon before has left open, since it was killed."""
        left = [self.to(one.project, one.url).end_left(one.session_id) for one in self._sessions.left()]
        await gatherResults([Deferred.fromCoroutine(ending) for ending in left])

    def close(self) -> None:
        """The daemon stops."""
        for link in self._links.values():
            link.close()
