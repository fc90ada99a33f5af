"""What a resource does with jobs: ask for work, look at it, look after it.

LGI 1.41, resource_request_work, resource_request_job_details, resource_job_state.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
from sqlalchemy import Connection

from lgi.db.locks import claim_offers, count_offers, session_holds_locks, take_offers
from lgi.db.resources import fetch_resource_and_job
from lgi.db.sessions import HeldSession, hold_session_and_offers
from lgi.errors import ErrorNumber, LGIError
from lgi.httpd.peer import Caller
from lgi.lists import ANY
from lgi.model import Job, Resource
from lgi.server.members import TOUCH_SECONDS, known_resource, note_call
from lgi.server.project import Project
from lgi.server.sessions import going_on, held_session, job_in_session, resource_in_session
from lgi.states import JobState

# Deployed servers look no further than this many pages into the queue.
PAGES = 16


@attrs.frozen(kw_only=True)
class WorkRequest:
    """What a resource asks for; `limit` 0 asks for a count."""

    session_id: int
    application: str
    owners: tuple[str, ...]
    start: int
    limit: int


def _searched(connection: Connection, caller: Caller, wanted: WorkRequest, now: int) -> tuple[HeldSession, list[Job]]:
    """The session, which must hold no locks, and the jobs that are locked for it now; raises LGIError."""
    session_id, name = wanted.session_id, caller.identity.name
    looks = bool(wanted.limit) and wanted.start < PAGES * wanted.limit
    if looks and not wanted.owners:
        # Nearly nobody picks owners: both in one go.
        found = hold_session_and_offers(
            connection,
            session_id,
            name,
            application=wanted.application,
            start=wanted.start,
            limit=wanted.limit,
        )
        if found is not None:
            held, busy, jobs = found
            held = going_on(connection, caller, held, now)
            if busy:
                raise LGIError(ErrorNumber.SESSION_HOLDS_LOCKS)
            take_offers(connection, jobs, resource_id=held.resource.resource_id, session_id=session_id, now=now)
            return held, jobs
    held = held_session(connection, caller, session_id, now)
    if session_holds_locks(connection, session_id):
        raise LGIError(ErrorNumber.SESSION_HOLDS_LOCKS)
    if not looks:
        return held, []
    return held, claim_offers(
        connection,
        application=wanted.application,
        resource_name=name,
        resource_id=held.resource.resource_id,
        session_id=session_id,
        owners=wanted.owners,
        start=wanted.start,
        limit=wanted.limit,
        now=now,
    )


def _request_work(
    connection: Connection, caller: Caller, wanted: WorkRequest, now: int
) -> tuple[Resource, int, list[Job]]:
    held, jobs = _searched(connection, caller, wanted, now)
    resource = held.resource
    if not jobs or held.stamp != now:
        # A call with work writes enough; its resource will be heard of when it takes the work on.
        resource = note_call(connection, resource, now)
    number = len(jobs)
    if wanted.limit == 0:
        number = count_offers(
            connection,
            application=wanted.application,
            resource_name=resource.resource_name,
            owners=wanted.owners,
        )
    return resource, number, jobs


async def request_work(project: Project, caller: Caller, wanted: WorkRequest) -> tuple[Resource, int, list[Job]]:
    """Lock queued jobs for the session and return them, or count them."""
    return await project.database.run("request work", _request_work, caller, wanted, project.now())


async def wait_for_work(
    project: Project,
    caller: Caller,
    session_id: int,
    applications: tuple[str, ...],
    seconds: int,
    gone: Callable[[Callable[[], None]], None],
) -> tuple[Resource, frozenset[str]]:
    """Wait until it is worth asking for work of one of `applications`, at most `seconds`; returns of which.

    Locks nothing, and holds neither a thread nor a connection of the database.
    """
    resource = await project.database.run("wait for work", resource_in_session, caller, session_id, project.now())
    if session_id not in project.waiting and len(project.waiting) >= project.limits.waiting:
        raise LGIError(ErrorNumber.OVERLOADED, "too many resources wait for work", timeout=project.limits.back_off)
    name = resource.resource_name
    return resource, await project.waiting.wait(session_id, name, frozenset(applications), seconds, gone)


async def details(project: Project, caller: Caller, session_id: int, job_id: int) -> tuple[Resource, Job]:
    """A job that this session holds locked, with input and output."""
    return await project.database.run("job details", job_in_session, caller, session_id, job_id, project.now())


def targets_of(posted: tuple[str, ...]) -> tuple[str, ...]:
    """Posted targets in the form that is stored: `any` takes in all others."""
    return (ANY,) if ANY in posted else posted


def _state(connection: Connection, caller: Caller, job_id: int) -> tuple[Resource, Job]:
    found, job = fetch_resource_and_job(connection, caller.identity.name, job_id)
    resource = known_resource(caller, found)
    if job is None:
        raise LGIError(ErrorNumber.JOB_UNKNOWN)
    if not job.targets(resource.resource_name):
        raise LGIError(ErrorNumber.STATE_HIDDEN)
    return resource, job


async def state(project: Project, caller: Caller, job_id: int) -> tuple[Resource, Job]:
    """A job of this resource without input and output; notes that its daemon looks after it."""
    resource, job = await project.database.read("job state", _state, caller, job_id)
    now = project.now()
    if job.state in (JobState.RUNNING, JobState.ABORTING):
        project.pulses.of_job(job_id, now)
    if now - resource.last_call_time >= TOUCH_SECONDS:
        project.pulses.of_resource(resource.resource_id, now)
        resource = attrs.evolve(resource, last_call_time=now)
    return resource, job
