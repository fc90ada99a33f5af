"""What a resource does with jobs: ask for work, look at it, change it, look after it.

LGI 1.41, resource_request_work, resource_request_job_details, resource_update_job, resource_job_state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from sqlalchemy import Connection

from lgi.db.events import SCHEDULE_CYCLE, schedule
from lgi.db.jobs import update_job
from lgi.db.locks import claim_offers, count_offers, hold_locked_job, session_holds_locks
from lgi.db.log import record
from lgi.db.resources import fetch_resource_and_job
from lgi.errors import ErrorNumber, LGIError
from lgi.httpd.peer import Caller
from lgi.lists import ANY, encode_list
from lgi.model import Job, Resource
from lgi.server.members import TOUCH_SECONDS, known_resource, note_call
from lgi.server.project import Project
from lgi.server.sessions import held_session, resource_in_session
from lgi.states import TERMINAL, JobState, TransitionRefused, posted_state
from lgi.wire.dialect import MalformedXML
from lgi.wire.specifics import posted_specifics, with_repository

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


def _request_work(
    connection: Connection, caller: Caller, wanted: WorkRequest, now: int
) -> tuple[Resource, int, list[Job]]:
    held = held_session(connection, caller, wanted.session_id, now)
    resource = held.resource
    if held.has_locks:
        raise LGIError(ErrorNumber.SESSION_HOLDS_LOCKS)
    jobs: list[Job] = []
    if wanted.limit and wanted.start < PAGES * wanted.limit:
        jobs = claim_offers(
            connection,
            application=wanted.application,
            resource_name=resource.resource_name,
            resource_id=resource.resource_id,
            session_id=wanted.session_id,
            owners=wanted.owners,
            start=wanted.start,
            limit=wanted.limit,
            now=now,
            idle=True,
        )
    if not jobs and session_holds_locks(connection, wanted.session_id):
        # It has got them while this call waited for another one of the same session.
        raise LGIError(ErrorNumber.SESSION_HOLDS_LOCKS)
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


def _locked_job(
    connection: Connection, caller: Caller, session_id: int, job_id: int, now: int
) -> tuple[Resource, Job]:
    resource = resource_in_session(connection, caller, session_id, now)
    return resource, hold_locked_job(connection, job_id, resource_id=resource.resource_id, session_id=session_id)


async def details(project: Project, caller: Caller, session_id: int, job_id: int) -> tuple[Resource, Job]:
    """A job that this session holds locked, with input and output."""
    return await project.database.run("job details", _locked_job, caller, session_id, job_id, project.now())


@attrs.frozen(kw_only=True)
class JobChanges:
    """What a resource posts of a job; None where it posts nothing."""

    state: JobState | None = None
    target_resources: tuple[str, ...] | None = None
    job_specifics: str | None = None
    input: bytes | None = None
    output: bytes | None = None


def targets_of(posted: tuple[str, ...]) -> tuple[str, ...]:
    """Posted targets in the form that is stored: `any` takes in all others."""
    return (ANY,) if ANY in posted else posted


def _update(
    connection: Connection,
    project: Project,
    caller: Caller,
    session_id: int,
    job_id: int,
    posted: JobChanges,
    now: int,
) -> tuple[Resource, Job]:
    resource, job = _locked_job(connection, caller, session_id, job_id, now)
    try:
        state = posted_state(job.state, posted.state or job.state)
    except TransitionRefused as problem:
        raise LGIError(ErrorNumber.STATE_MISSING, str(problem)) from None
    if job.state in TERMINAL:
        # A report that is repeated, since its answer was lost: the first one stands.
        return resource, job
    changes: dict[str, Any] = {}
    if posted.target_resources is not None:
        changes["target_resources"] = targets_of(posted.target_resources)
    if posted.job_specifics is not None:
        changes["job_specifics"] = with_repository(
            posted.job_specifics,
            project.repositories.location_of(job.repository),
            project.repositories.url_of(job.repository),
        )
    if posted.input is not None:
        changes["input"] = posted.input
    if posted.output is not None:
        changes["output"] = posted.output
    if state is not job.state:
        changes |= {"state": state, "state_time_stamp": now}
    if state in (JobState.RUNNING, JobState.ABORTING):
        changes["daemon_pulse"] = now
    changed = attrs.evolve(job, **changes)
    if changes:
        columns = {name: encode_list(value) if isinstance(value, tuple) else value for name, value in changes.items()}
        if "state" in columns:
            columns["state"] = state.value
        if not update_job(connection, job, columns):
            raise LGIError(ErrorNumber.JOB_NOT_LOCKED)
    if state is not job.state:
        record(
            connection,
            job_id=job_id,
            from_state=job.state.value,
            to_state=state.value,
            actor=resource.resource_name,
            now=now,
        )
        schedule(connection, SCHEDULE_CYCLE, now)
    return resource, changed


async def update(
    project: Project, caller: Caller, session_id: int, job_id: int, posted: JobChanges
) -> tuple[Resource, Job]:
    """Change a job that this session holds locked; returns it as it is then, with input and output."""
    if posted.job_specifics is not None:
        try:
            posted = attrs.evolve(posted, job_specifics=posted_specifics(posted.job_specifics))
        except MalformedXML as problem:
            raise LGIError(ErrorNumber.SPECIFICS_MALFORMED, str(problem)) from None
    return await project.database.run(
        "update job", _update, project, caller, session_id, job_id, posted, project.now()
    )


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
