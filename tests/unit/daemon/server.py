"""A project server in memory that behaves as one does: states, locks, sessions, errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from lgi.access import owner_wanted
from lgi.client.answers import JobAnswer, JobUpdate, ServerList, ServerRefused, ServerUnreachable, SignedUp
from lgi.errors import MESSAGES, ErrorNumber
from lgi.model import Job
from lgi.states import TERMINAL, Actor, JobEvent, JobState, TransitionRefused, next_state, posted_state

URL = "https://grid.example/LGI"
PROJECT = "LGI"
RESOURCE = "here@example"


class Killed(BaseException):
    """The daemon's process has been killed: nothing of it catches this."""


def refused(number: ErrorNumber, timeout: int | None = None) -> ServerRefused:
    return ServerRefused(number, MESSAGES[number], timeout)


class FakeServer:
    """`before` and `after` are called with the name of each call, and may raise what it shall end with."""

    def __init__(self, url: str = URL, slaves: tuple[str, ...] = (), work_wait: int = 0) -> None:
        self.url = url
        self.slaves = slaves
        self.jobs: dict[int, Job] = {}
        self.locks: dict[int, int] = {}
        self.sessions: dict[int, str] = {}
        self.said: list[str] = []
        self.capabilities = ""
        self.largest_field: int | None = None
        self.asked: list[str] = []
        self.careless = False  # offers what was not asked for
        self.owners: tuple[str, ...] = ()
        self.work_wait = work_wait
        self.update_jobs = 0
        # What each session waits for, and the end of that.
        self.waits: dict[int, tuple[tuple[str, ...], Deferred[tuple[str, ...]]]] = {}
        self.before: Callable[[str], None] = lambda name: None
        self.after: Callable[[str], None] = lambda name: None
        self.hold: dict[str, Deferred[None]] = {}
        self._waiting: list[tuple[int, JobState, Deferred[None]]] = []
        self._last_session = 100
        self._called: dict[str, Deferred[None]] = {}

    def submit(self, job_id: int = 12, **fields: Any) -> Job:
        values: dict[str, Any] = {
            "job_id": job_id,
            "state": JobState.QUEUED,
            "application": "hello_world",
            "target_resources": ("any",),
            "owners": ("mark", "physics"),
            "read_access": ("admin", "mark"),
            "write_access": ("admin", "mark"),
            "job_specifics": "<nodes> 2 </nodes> <repository_url> https://grid.example/r </repository_url>",
            "state_time_stamp": 1000,
            "input": b"21 \x00 \xff",
            "output": b"",
        }
        self.jobs[job_id] = Job(**(values | fields))
        return self.jobs[job_id]

    def change(self, job_id: int, **changes: Any) -> None:
        self.jobs[job_id] = attrs.evolve(self.jobs[job_id], **changes)
        state = self.jobs[job_id].state
        due = [entry for entry in self._waiting if entry[:2] == (job_id, state)]
        for entry in due:
            self._waiting.remove(entry)
            entry[2].callback(None)

    def becomes(self, job_id: int, state: JobState) -> Deferred[None]:
        """Fires when the job is in this state."""
        done: Deferred[None] = Deferred()
        if self.jobs[job_id].state is state:
            done.callback(None)
        else:
            self._waiting.append((job_id, state, done))
        return done

    def called(self, name: str) -> Deferred[None]:
        """Fires at the next call of this name."""
        self._called[name] = Deferred()
        return self._called[name]

    def delete(self, job_id: int) -> None:
        """What a user's delete does to a running job."""
        self.change(job_id, state=next_state(self.jobs[job_id].state, JobEvent.DELETE, Actor.INTERFACE))

    def lose_pulse(self, job_id: int) -> None:
        """What the scheduler does when no daemon has asked about the job for long; it ends sessions too."""
        self.expire()
        self.change(job_id, state=next_state(self.jobs[job_id].state, JobEvent.PULSE_LOST, Actor.SCHEDULER))

    def expire(self) -> None:
        """End all sessions and their locks, as after half an hour."""
        self.sessions.clear()
        self.locks.clear()

    def down(self, *names: str) -> None:
        """From now on these calls (all, if none is named) find nobody."""

        def before(name: str) -> None:
            if not names or name in names:
                raise ServerUnreachable(f"{self.url}: connection refused")

        self.before = before

    def up(self) -> None:
        """Everything works, from now on."""
        self.before = self.after = lambda name: None


@attrs.define
class FakeCalls:
    """What one daemon process has of the server; `dead` once that process has been killed."""

    server: FakeServer
    resource: str = RESOURCE
    dead: bool = False

    async def _enter(self, name: str) -> None:
        if self.dead:
            raise Killed
        if name in self.server.hold:
            await self.server.hold[name]
        self.server.said.append(name)
        if name in self.server._called:
            # Not inside of the call itself.
            reactor.callLater(0, self.server._called.pop(name).callback, None)
        self.server.before(name)

    def _leave(self, name: str) -> None:
        self.server.after(name)

    def _in_session(self, session_id: int) -> None:
        if self.server.sessions.get(session_id) != self.resource:
            raise refused(ErrorNumber.SESSION_ENDED)

    def _locked(self, session_id: int, job_id: int) -> Job:
        self._in_session(session_id)
        if job_id not in self.server.jobs:
            raise refused(ErrorNumber.JOB_UNKNOWN)
        if self.server.locks.get(job_id) != session_id:
            raise refused(ErrorNumber.JOB_NOT_LOCKED)
        return self.server.jobs[job_id]

    async def signup(self, capabilities: str | None = None) -> SignedUp:
        await self._enter("signup")
        self.server._last_session += 1
        self.server.sessions[self.server._last_session] = self.resource
        if capabilities is not None:
            self.server.capabilities = capabilities
        self._leave("signup")
        return SignedUp(
            session_id=self.server._last_session,
            servers=ServerList(this=self.server.url, master=URL, slaves=self.server.slaves),
            work_wait=self.server.work_wait,
            largest_field=self.server.largest_field,
            update_jobs=self.server.update_jobs,
        )

    async def signoff(self, session_id: int) -> None:
        await self._enter("signoff")
        if self.server.sessions.pop(session_id, None) is None:
            raise refused(ErrorNumber.SESSION_UNKNOWN)
        self.server.locks = {job: owner for job, owner in self.server.locks.items() if owner != session_id}
        self._leave("signoff")

    async def request_work(
        self, session_id: int, application: str, *, start: int = 0, limit: int = 32, owners: tuple[str, ...] = ()
    ) -> list[JobAnswer]:
        await self._enter("request_work")
        self._in_session(session_id)
        self.server.owners = owners
        self.server.asked.append(application)
        if session_id in self.server.locks.values():
            raise refused(ErrorNumber.SESSION_HOLDS_LOCKS)
        offered = [
            job
            for job in self.server.jobs.values()
            if job.state is JobState.QUEUED
            and job.targets(self.resource)
            and job.job_id not in self.server.locks
            and (self.server.careless or (job.application == application and owner_wanted(job.owners, owners)))
        ][start : start + limit]
        for job in offered:
            self.server.locks[job.job_id] = session_id
        self._leave("request_work")
        return [JobAnswer(job=attrs.evolve(job, input=None, output=None)) for job in offered]

    async def wait_for_work(self, session_id: int, applications: Sequence[str], seconds: int) -> tuple[str, ...]:
        await self._enter("wait_for_work")
        self._in_session(session_id)
        told: Deferred[tuple[str, ...]] = Deferred()
        self.server.waits[session_id] = (tuple(applications), told)
        try:
            result = await told
        finally:
            del self.server.waits[session_id]
        self._leave("wait_for_work")
        return result

    async def lock(self, session_id: int, job_id: int) -> None:
        await self._enter("lock")
        self._in_session(session_id)
        if job_id not in self.server.jobs:
            raise refused(ErrorNumber.JOB_UNKNOWN)
        if not self.server.jobs[job_id].targets(self.resource):
            raise refused(ErrorNumber.NOT_A_TARGET)
        if job_id in self.server.locks:
            raise refused(ErrorNumber.LOCK_REFUSED)
        self.server.locks[job_id] = session_id
        self._leave("lock")

    async def unlock(self, session_id: int, job_id: int) -> None:
        await self._enter("unlock")
        self._locked(session_id, job_id)
        del self.server.locks[job_id]
        self._leave("unlock")

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
        await self._enter("update")
        answer = self._update(session_id, job_id, state, target_resources, job_specifics, output)
        self._leave("update")
        return answer

    async def update_jobs(self, session_id: int, updates: Sequence[JobUpdate]) -> list[JobAnswer | ServerRefused]:
        await self._enter("update_jobs")
        self._in_session(session_id)
        assert 0 < len(updates) <= self.server.update_jobs
        found: list[JobAnswer | ServerRefused] = []
        for one in updates:
            before = self.server.jobs[one.job_id].state if one.job_id in self.server.jobs else None
            try:
                job = self._update(
                    session_id, one.job_id, one.state, one.target_resources, one.job_specifics, one.output
                ).job
            except ServerRefused as refusal:
                found.append(refusal)
                continue
            begun = (before, job.state) == (JobState.QUEUED, JobState.RUNNING)
            found.append(JobAnswer(job=attrs.evolve(job, output=None, input=job.input if begun else None)))
        self._leave("update_jobs")
        return found

    def _update(
        self,
        session_id: int,
        job_id: int,
        state: JobState | None,
        target_resources: tuple[str, ...] | None,
        job_specifics: str | None,
        output: bytes | None,
    ) -> JobAnswer:
        job = self._locked(session_id, job_id)
        try:
            new = posted_state(job.state, state or job.state)
        except TransitionRefused:
            raise refused(ErrorNumber.STATE_MISSING) from None
        if job.state not in TERMINAL:
            posted = {"target_resources": target_resources, "job_specifics": job_specifics, "output": output}
            self.server.change(
                job_id, state=new, **{key: value for key, value in posted.items() if value is not None}
            )
        return JobAnswer(job=self.server.jobs[job_id])

    async def details(self, session_id: int, job_id: int) -> JobAnswer:
        await self._enter("details")
        job = self._locked(session_id, job_id)
        self._leave("details")
        return JobAnswer(job=job)

    async def state(self, job_id: int) -> JobAnswer:
        await self._enter("state")
        if job_id not in self.server.jobs:
            raise refused(ErrorNumber.JOB_UNKNOWN)
        job = self.server.jobs[job_id]
        if not job.targets(self.resource):
            raise refused(ErrorNumber.STATE_HIDDEN)
        self._leave("state")
        return JobAnswer(job=attrs.evolve(job, input=None, output=None))
