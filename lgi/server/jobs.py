"""What a user does with jobs that are there: list, count, look, delete.

LGI 1.41, interface_job_state, interface_delete_job. A job that a resource holds locked is waited for, without a
thread or a connection to the database, up to the document's 30 seconds.
"""

from __future__ import annotations

import attrs
from sqlalchemy import Connection
from twisted.logger import Logger

from lgi.access import matches
from lgi.db.events import SCHEDULE_CYCLE, schedule
from lgi.db.jobs import (
    count_readable,
    delete_job,
    fetch_job,
    list_readable,
    update_job,
    withdraw,
)
from lgi.db.log import record
from lgi.errors import ErrorNumber, LGIError
from lgi.model import Job, ListedJob, RepositoryFile
from lgi.server.members import User
from lgi.server.project import Project
from lgi.states import TERMINAL, Actor, JobEvent, JobState, next_state

_log = Logger()


@attrs.frozen(kw_only=True)
class JobQuery:
    """Which jobs to list; `state` and `application` may be `any` or start with `!`; `limit` 0 counts."""

    state: str
    application: str
    start: int
    limit: int


async def list_jobs(project: Project, user: User, query: JobQuery) -> tuple[int, list[ListedJob]]:
    """The jobs the user may read, and how many they are; with `limit` 0 only how many there are in all."""
    if query.limit == 0:
        number = await project.database.read(
            "count jobs", count_readable, user.names, state=query.state, application=query.application
        )
        return number, []
    jobs = await project.database.read(
        "list jobs",
        list_readable,
        user.names,
        state=query.state,
        application=query.application,
        start=query.start,
        limit=query.limit,
    )
    return len(jobs), jobs


def _look(connection: Connection, user: User, job_id: int) -> Job:
    job = fetch_job(connection, job_id, blobs=True)
    if job is None:
        raise LGIError(ErrorNumber.JOB_UNKNOWN)
    if not matches(user.names, job.read_access):
        raise LGIError(ErrorNumber.READ_REFUSED)
    return job


async def look(project: Project, user: User, job_id: int) -> tuple[Job, tuple[RepositoryFile, ...]]:
    """A job with input, output and files; raises LGIError(OVERLOADED) when it stays locked."""
    deadline = project.now() + project.limits.lock_wait
    while True:
        job = await project.database.read("look at job", _look, user, job_id)
        if not job.lock_state:
            return job, await project.files(job)
        await _wait_for_lock(project, job_id, deadline)


async def _wait_for_lock(project: Project, job_id: int, deadline: int) -> None:
    left = deadline - project.now()
    if left <= 0 or project.news.stopped:
        raise LGIError(ErrorNumber.OVERLOADED, "the job is locked", timeout=project.limits.back_off)
    await project.news.wait(job_id, left)


def _delete(connection: Connection, user: User, job_id: int, cancel: bool, now: int) -> Job | None:
    """Delete a job or have it aborted, with `cancel` never delete it; None when it is locked."""
    if cancel:
        # First, as those do who lock: so that two who meet wait for each other in one order.
        withdraw(connection, [job_id])
    job = fetch_job(connection, job_id, for_update=True)
    if job is None:
        raise LGIError(ErrorNumber.JOB_UNKNOWN)
    if not matches(user.names, job.write_access):
        raise LGIError(ErrorNumber.MODIFY_REFUSED)
    if job.lock_state:
        return None
    if cancel and job.state in (*TERMINAL, JobState.ABORTING):
        return job
    state = next_state(job.state, JobEvent.ABORT if cancel else JobEvent.DELETE, Actor.INTERFACE)
    if state is JobState.DELETED:
        if not delete_job(connection, job, actor=user.name, now=now):
            raise LGIError(ErrorNumber.INTERFACE_LOCK_MISSING)
        schedule(connection, SCHEDULE_CYCLE, now)
        return attrs.evolve(job, state=state)
    if state is not job.state:
        if not update_job(connection, job, {"state": state.value, "state_time_stamp": now}):
            raise LGIError(ErrorNumber.INTERFACE_LOCK_MISSING)
        record(
            connection,
            job_id=job_id,
            from_state=job.state.value,
            to_state=state.value,
            actor=user.name,
            now=now,
        )
        schedule(connection, SCHEDULE_CYCLE, now)
        job = attrs.evolve(job, state=state, state_time_stamp=now)
    return job


async def delete(project: Project, user: User, job_id: int, *, cancel: bool = False) -> Job:
    """Delete a job that nobody runs, or have the resource abort it: the state in the result says which.

    With `cancel` a queued job becomes an aborted one, and one that is over stays as it is: no files are lost. Raises
    LGIError(INTERFACE_LOCK_MISSING) where somebody else has deleted it while this call waited for its lock.
    """
    deadline = project.now() + project.limits.lock_wait
    waited = False
    while True:
        try:
            job = await project.database.run("delete job", _delete, user, job_id, cancel, project.now())
        except LGIError as problem:
            if waited and problem.number is ErrorNumber.JOB_UNKNOWN:
                raise LGIError(ErrorNumber.INTERFACE_LOCK_MISSING) from None
            raise
        if job is not None:
            break
        waited = True
        await _wait_for_lock(project, job_id, deadline)
    if job.state is JobState.DELETED:
        # After the commit: a crash in between leaves files without a job, never a job without files.
        try:
            await project.keeper.remove(job.repository)
        except OSError as problem:
            # The job is deleted all the same, and that is what was asked.
            _log.error("the files of job {job_id} could not be removed: {problem}", job_id=job_id, problem=problem)
    return job
