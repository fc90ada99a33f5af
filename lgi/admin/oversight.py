"""What an administrator does to single jobs, sessions and locks, each in one transaction.

All raise AdminError, and change nothing then, for what cannot be done.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, select

from lgi.admin.layout import AdminError
from lgi.db.counts import Tally
from lgi.db.events import SCHEDULE_CYCLE, schedule
from lgi.db.jobs import fetch_job, offer, update_job, withdraw
from lgi.db.locks import fetch_lock, hold_jobs, unlock_jobs
from lgi.db.log import record, record_changes
from lgi.db.oversight import offers_application, session_runs
from lgi.db.resources import fetch_resource
from lgi.db.schema import job_access, job_queue
from lgi.db.sessions import end_session
from lgi.lists import ANY, decode_list, encode_list
from lgi.model import Job, Lock
from lgi.states import Actor, JobEvent, JobState, TransitionRefused, next_state

ACTOR = Actor.ADMINISTRATOR.value
_PURGED = ("job_id", "state", "repository", "application", "owners", "read_access")


def _held(connection: Connection, job_id: int) -> Job:
    """A job that nobody else changes until the end of the transaction, and that is not locked."""
    job = fetch_job(connection, job_id, for_update=True)
    if job is None:
        raise AdminError(f"there is no job {job_id}")
    if job.lock_state:
        raise AdminError(f"job {job_id} is locked; try again when it is not (lgi admin locks list)")
    return job


def _next(job: Job, event: JobEvent) -> JobState:
    try:
        return next_state(job.state, event, Actor.ADMINISTRATOR)
    except TransitionRefused:
        verb = "queued again" if event is JobEvent.RETURN else "aborted"
        raise AdminError(f"job {job.job_id} is {job.state} and cannot be {verb}") from None


def requeue(connection: Connection, job_id: int, target: str | None, now: int) -> Job:
    """Queue a running job again, for the resource `target` (`any`: all), or None for the targets that it has.

    A daemon that still runs it goes on with it when it keeps its target, and otherwise learns with its next look that
    it is no longer its own. Returns the job as it is then.
    """
    job = _held(connection, job_id)
    state = _next(job, JobEvent.RETURN)
    targets = job.target_resources if target is None else (target,)
    if target is not None and target != ANY:
        if fetch_resource(connection, target) is None:
            raise AdminError(f"{target} is not a resource of the project")
        if not offers_application(connection, target, job.application):
            raise AdminError(f"{target} does not offer {job.application}, the application of job {job_id}")
    changes = {"state": state.value, "state_time_stamp": now, "target_resources": encode_list(targets)}
    if not update_job(connection, job, changes):
        raise AdminError(f"job {job_id} has changed meanwhile")
    # One that is there already would be in the way.
    withdraw(connection, [job_id])
    offer(connection, job_id, job.application, targets, job.priority)
    _record(connection, job, state, "" if target is None else f"for {target}", now)
    return _fetched(connection, job_id)


def abort(connection: Connection, job_id: int, now: int) -> Job:
    """Abort a queued job, or have the daemon of a running one do so; returns it as it is then."""
    # First, as those do who lock: so that two who meet wait for each other in one order.
    withdraw(connection, [job_id])
    job = _held(connection, job_id)
    state = _next(job, JobEvent.ABORT)
    if not update_job(connection, job, {"state": state.value, "state_time_stamp": now}):
        raise AdminError(f"job {job_id} has changed meanwhile")
    _record(connection, job, state, "", now)
    return _fetched(connection, job_id)


def _record(connection: Connection, job: Job, state: JobState, detail: str, now: int) -> None:
    record(
        connection,
        job_id=job.job_id,
        from_state=job.state.value,
        to_state=state.value,
        actor=ACTOR,
        detail=detail,
        now=now,
    )
    schedule(connection, SCHEDULE_CYCLE, now)


def _fetched(connection: Connection, job_id: int) -> Job:
    job = fetch_job(connection, job_id)
    assert job is not None
    return job


def purge(connection: Connection, job_ids: Sequence[int], before: int, now: int) -> dict[int, str]:
    """Delete those of these jobs that are over since before the second `before` and not locked.

    Returns their numbers and the names of their repositories, whose files are for the caller to remove after the
    commit: a crash in between leaves files without a job, never a job without files.
    """
    over = {state for state in JobState if _may_delete(state)}
    found = connection.execute(
        select(*(job_queue.c[name] for name in _PURGED))
        .where(
            job_queue.c.job_id.in_(job_ids),
            job_queue.c.state.in_([state.value for state in over]),
            job_queue.c.state_time_stamp < before,
            job_queue.c.lock_state == 0,
        )
        .order_by(job_queue.c.job_id)
        .with_for_update()
    ).all()
    if not found:
        return {}
    doomed = [row.job_id for row in found]
    connection.execute(delete(job_queue).where(job_queue.c.job_id.in_(doomed)))
    connection.execute(delete(job_access).where(job_access.c.job_id.in_(doomed)))
    tally = Tally()
    for row in found:
        tally.remove(decode_list(row.owners), decode_list(row.read_access), row.application, row.state)
    tally.write(connection)
    record_changes(
        connection,
        [(row.job_id, row.state) for row in found],
        to_state=JobState.DELETED.value,
        actor=ACTOR,
        detail="purged",
        now=now,
    )
    return {row.job_id: row.repository for row in found}


def _may_delete(state: JobState) -> bool:
    try:
        return next_state(state, JobEvent.DELETE, Actor.ADMINISTRATOR) is JobState.DELETED
    except TransitionRefused:
        return False


def end(connection: Connection, session_id: int) -> list[int]:
    """End a session and free its locks; returns the jobs that were locked."""
    if not session_runs(connection, session_id):
        raise AdminError(f"there is no session {session_id}")
    return end_session(connection, session_id)


def clear_lock(connection: Connection, job_id: int) -> Lock:
    """Take the lock off a job, whoever holds it; what its holder does afterwards is refused."""
    hold_jobs(connection, [job_id])
    lock = fetch_lock(connection, job_id)
    if lock is None:
        raise AdminError(f"job {job_id} is not locked")
    unlock_jobs(connection, [job_id])
    return lock
