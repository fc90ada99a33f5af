"""What a resource reports of the jobs that it holds locked: one in a call, or several.

LGI 1.41, resource_update_job.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from sqlalchemy import Connection

from lgi.db.events import SCHEDULE_CYCLE, schedule
from lgi.db.jobs import update_job, update_jobs
from lgi.db.locks import hold_locked_jobs
from lgi.db.log import record, record_moves
from lgi.errors import ErrorNumber, LGIError
from lgi.httpd.peer import Caller
from lgi.lists import encode_list
from lgi.model import Job, Resource
from lgi.server.project import Project
from lgi.server.sessions import job_in_session, resource_in_session
from lgi.server.work import targets_of
from lgi.states import TERMINAL, JobState, TransitionRefused, posted_state
from lgi.wire.dialect import MalformedXML
from lgi.wire.specifics import posted_specifics, with_repository


@attrs.frozen(kw_only=True)
class JobChanges:
    """What a resource posts of a job; None where it posts nothing."""

    state: JobState | None = None
    target_resources: tuple[str, ...] | None = None
    job_specifics: str | None = None
    input: bytes | None = None
    output: bytes | None = None


def _checked(posted: JobChanges) -> JobChanges:
    """With the specifics that may be kept; raises LGIError(SPECIFICS_MALFORMED)."""
    if posted.job_specifics is None:
        return posted
    try:
        return attrs.evolve(posted, job_specifics=posted_specifics(posted.job_specifics))
    except MalformedXML as problem:
        raise LGIError(ErrorNumber.SPECIFICS_MALFORMED, str(problem)) from None


def _planned(project: Project, job: Job, posted: JobChanges, now: int) -> tuple[Job, dict[str, Any]]:
    """A job as it is to be, and the columns that change; raises LGIError(STATE_MISSING)."""
    try:
        state = posted_state(job.state, posted.state or job.state)
    except TransitionRefused as problem:
        raise LGIError(ErrorNumber.STATE_MISSING, str(problem)) from None
    if job.state in TERMINAL:
        # A report that is repeated, since its answer was lost: the first one stands.
        return job, {}
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
    columns = {name: encode_list(value) if isinstance(value, tuple) else value for name, value in changes.items()}
    if "state" in columns:
        columns["state"] = state.value
    return attrs.evolve(job, **changes), columns


def _update(
    connection: Connection,
    project: Project,
    caller: Caller,
    session_id: int,
    job_id: int,
    posted: JobChanges,
    now: int,
) -> tuple[Resource, Job]:
    resource, job = job_in_session(connection, caller, session_id, job_id, now)
    changed, columns = _planned(project, job, posted, now)
    if columns:
        update_job(connection, job, columns, held=True)
    if changed.state is not job.state:
        record(
            connection,
            job_id=job_id,
            from_state=job.state.value,
            to_state=changed.state.value,
            actor=resource.resource_name,
            now=now,
        )
        schedule(connection, SCHEDULE_CYCLE, now)
    return resource, changed


async def update(
    project: Project, caller: Caller, session_id: int, job_id: int, posted: JobChanges
) -> tuple[Resource, Job]:
    """Change a job that this session holds locked; returns it as it is then, with input and output."""
    posted = _checked(posted)
    return await project.database.run(
        "update job", _update, project, caller, session_id, job_id, posted, project.now()
    )


def _update_several(
    connection: Connection,
    project: Project,
    caller: Caller,
    session_id: int,
    posted: Mapping[int, JobChanges],
    now: int,
) -> tuple[Resource, dict[int, Job | LGIError]]:
    resource = resource_in_session(connection, caller, session_id, now)
    held = hold_locked_jobs(
        connection,
        posted,
        resource_id=resource.resource_id,
        session_id=session_id,
        inputs=any(changes.state is JobState.RUNNING for changes in posted.values()),
    )
    found: dict[int, Job | LGIError] = {}
    changes: list[tuple[Job, dict[str, Any]]] = []
    moves: list[tuple[int, str, str]] = []
    for job_id, job in sorted(held.items()):
        if isinstance(job, LGIError):
            found[job_id] = job
            continue
        try:
            changed, columns = _planned(project, job, posted[job_id], now)
        except LGIError as problem:
            found[job_id] = problem
            continue
        begins = (job.state, changed.state) == (JobState.QUEUED, JobState.RUNNING)
        found[job_id] = attrs.evolve(changed, input=changed.input if begins else None, output=None)
        if columns:
            changes.append((job, columns))
        if changed.state is not job.state:
            moves.append((job_id, job.state.value, changed.state.value))
    update_jobs(connection, changes)
    if moves:
        record_moves(connection, moves, actor=resource.resource_name, now=now)
        schedule(connection, SCHEDULE_CYCLE, now)
    return resource, found


async def update_several(
    project: Project, caller: Caller, session_id: int, posted: Mapping[int, JobChanges | LGIError]
) -> tuple[Resource, dict[int, Job | LGIError]]:
    """Change jobs that this session holds locked; returns each as it is then, or why nothing of it was changed.

    They come without output, and with input only where they were queued and are running now. What is posted of a job
    may be known to be wrong already.
    """
    refused: dict[int, LGIError] = {}
    wanted: dict[int, JobChanges] = {}
    for job_id, one in posted.items():
        if isinstance(one, LGIError):
            refused[job_id] = one
            continue
        try:
            wanted[job_id] = _checked(one)
        except LGIError as problem:
            refused[job_id] = problem
    resource, found = await project.database.run(
        "update jobs", _update_several, project, caller, session_id, wanted, project.now()
    )
    found |= refused
    return resource, {job_id: found[job_id] for job_id in posted}
