"""What an administrator looks at: jobs of everybody, sessions, locks and the agenda."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from sqlalchemy import Connection, exists, func, select

from lgi.db.jobs import OWNER, job_of_row
from lgi.db.schema import (
    active_resources,
    event_queue,
    job_access,
    job_queue,
    resource_applications,
    running_locks,
    running_sessions,
)
from lgi.model import Job

_PLAIN = [column for column in job_queue.c if column.name not in ("input", "output")]


@attrs.frozen(kw_only=True)
class SessionRow:
    """A running session; `resource_name` is None where the resource is not registered any more."""

    session_id: int
    resource_name: str | None
    session_time_stamp: int
    locks: int


@attrs.frozen(kw_only=True)
class LockRow:
    """A lock; `resource_name` is None for an interface's and where the resource is not registered any more."""

    lock_id: int
    job_id: int
    session_id: int
    resource_name: str | None
    lock_time: int


def list_jobs(
    connection: Connection, *, state: str = "", application: str = "", owner: str = "", after: int = 0, limit: int
) -> list[Job]:
    """Up to `limit` jobs with numbers above `after`, lowest first, without input and output; "" is no filter."""
    statement = select(*_PLAIN).where(job_queue.c.job_id > after).order_by(job_queue.c.job_id).limit(limit)
    if state:
        statement = statement.where(job_queue.c.state == state)
    if application:
        statement = statement.where(job_queue.c.application == application)
    if owner:
        statement = statement.where(
            exists().where(
                job_access.c.kind == OWNER, job_access.c.name == owner, job_access.c.job_id == job_queue.c.job_id
            )
        )
    return [job_of_row(row) for row in connection.execute(statement)]


def jobs_over(connection: Connection, states: Sequence[str], before: int, *, after: int, limit: int) -> list[int]:
    """Up to `limit` jobs above `after` that have been in one of these states since before the second `before`."""
    return list(
        connection.scalars(
            select(job_queue.c.job_id)
            .where(
                job_queue.c.job_id > after,
                job_queue.c.state.in_(states),
                job_queue.c.state_time_stamp < before,
                job_queue.c.lock_state == 0,
            )
            .order_by(job_queue.c.job_id)
            .limit(limit)
        )
    )


def list_sessions(connection: Connection) -> list[SessionRow]:
    """All sessions in order of their numbers."""
    held = (
        select(func.count())
        .where(running_locks.c.session_id == running_sessions.c.session_id)
        .scalar_subquery()
        .label("locks")
    )
    rows = connection.execute(
        select(
            running_sessions.c.session_id,
            active_resources.c.resource_name,
            running_sessions.c.session_time_stamp,
            held,
        )
        .outerjoin_from(
            running_sessions, active_resources, active_resources.c.resource_id == running_sessions.c.resource_id
        )
        .order_by(running_sessions.c.session_id)
    )
    return [SessionRow(**row._mapping) for row in rows]


def session_runs(connection: Connection, session_id: int) -> bool:
    """Whether there is such a session."""
    found = select(running_sessions.c.session_id).where(running_sessions.c.session_id == session_id)
    return connection.scalar(found) is not None


def list_locks(connection: Connection) -> list[LockRow]:
    """All locks in order of their jobs."""
    rows = connection.execute(
        select(
            running_locks.c.lock_id,
            running_locks.c.job_id,
            running_locks.c.session_id,
            active_resources.c.resource_name,
            running_locks.c.lock_time,
        )
        .outerjoin_from(
            running_locks, active_resources, active_resources.c.resource_id == running_locks.c.resource_id
        )
        .order_by(running_locks.c.job_id)
    )
    return [LockRow(**row._mapping) for row in rows]


def list_events(connection: Connection) -> list[tuple[int, str]]:
    """The whole agenda, earliest first, as (time stamp, event)."""
    rows = connection.execute(
        select(event_queue.c.event_time_stamp, event_queue.c.event).order_by(
            event_queue.c.event_time_stamp, event_queue.c.event
        )
    )
    return [(row.event_time_stamp, row.event) for row in rows]


def offers_application(connection: Connection, resource_name: str, application: str) -> bool:
    """Whether a resource offers an application."""
    found = select(resource_applications.c.resource_name).where(
        resource_applications.c.application == application, resource_applications.c.resource_name == resource_name
    )
    return connection.scalar(found) is not None
