"""Sessions of resources: `running_sessions` (LGI 1.41: a session ends after 30 minutes without a call)."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select, update

from lgi.db.locks import locked_by_session, unlock_jobs
from lgi.db.schema import running_sessions
from lgi.errors import ErrorNumber, LGIError

SESSION_SECONDS = 30 * 60


def start_session(connection: Connection, resource_id: int, now: int) -> int:
    """Start a session; returns its number."""
    key = connection.execute(
        insert(running_sessions), {"resource_id": resource_id, "session_time_stamp": now}
    ).inserted_primary_key
    assert key is not None
    return int(key[0])


def require_session(connection: Connection, session_id: int, resource_id: int, now: int) -> None:
    """Check that the session runs and is the resource's, and keep it alive; raises LGIError(SESSION_ENDED)."""
    result = connection.execute(
        update(running_sessions)
        .where(
            running_sessions.c.session_id == session_id,
            running_sessions.c.resource_id == resource_id,
            running_sessions.c.session_time_stamp > now - SESSION_SECONDS,
        )
        .values(session_time_stamp=now)
    )
    if result.rowcount != 1:
        raise LGIError(ErrorNumber.SESSION_ENDED)


def end_session(connection: Connection, session_id: int) -> list[int]:
    """End a session and free its locks; returns the jobs that were locked."""
    # First, since it waits for a call of this session that is under way and may be locking jobs.
    connection.execute(delete(running_sessions).where(running_sessions.c.session_id == session_id))
    jobs = locked_by_session(connection, session_id)
    unlock_jobs(connection, jobs)
    return jobs


def stale_sessions(connection: Connection, now: int, limit: int) -> list[int]:
    """Sessions that have ended by time; none that a call is just keeping alive.

    They stay ended until the transaction does.
    """
    return list(
        connection.scalars(
            select(running_sessions.c.session_id)
            .where(running_sessions.c.session_time_stamp <= now - SESSION_SECONDS)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
    )
