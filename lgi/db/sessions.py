"""Sessions of resources: `running_sessions` (LGI 1.41: a session ends after 30 minutes without a call)."""

from __future__ import annotations

from typing import Any

import attrs
from sqlalchemy import ColumnElement, Connection, Integer, bindparam, delete, exists, select, update

from lgi.db.jobs import WHOLE, job_of_row
from lgi.db.locks import OFFERED, hold_jobs, locked_by_session, search_any, search_values, unlock_jobs
from lgi.db.prepared import Prepared
from lgi.db.resources import RESOURCE, resource_of_row
from lgi.db.schema import active_resources, job_queue, running_locks, running_sessions
from lgi.errors import ErrorNumber, LGIError
from lgi.model import Job, Resource

SESSION_SECONDS = 30 * 60
STAMP_SECONDS = 10

_STAMP = running_sessions.c.session_time_stamp
_THIS = running_sessions.c.session_id == bindparam("session_id")
_START = Prepared.numbering(running_sessions, ["resource_id", "session_time_stamp"])
_END = Prepared(delete(running_sessions).where(_THIS))
_HOLDS_LOCKS = exists().where(running_locks.c.session_id == bindparam("session_id"))
# Told sooner than whether there is any.
_A_LOCK = select(running_locks.c.lock_id).where(running_locks.c.session_id == bindparam("session_id")).limit(1)
_END_IDLE = Prepared(delete(running_sessions).where(_THIS, ~_HOLDS_LOCKS))
_KEEP = Prepared(update(running_sessions).where(_THIS).values(session_time_stamp=bindparam("now")))
# Sessions are held, not their resource, which is a query of its own for that: it may have many sessions, whose calls
# need not wait for each other.
_RESOURCE = (
    select(active_resources)
    .where(active_resources.c.resource_name == bindparam("resource_name"))
    .subquery("resource")
)
_HOLD = Prepared(
    select(*_RESOURCE.c, _STAMP)
    .select_from(running_sessions.join(_RESOURCE, _RESOURCE.c.resource_id == running_sessions.c.resource_id))
    .where(_THIS)
    .with_for_update(of=running_sessions)
)


def _with_locked(*columns: ColumnElement[Any]) -> Prepared:
    """Holds a session and then a job with its lock; no row where there is not both."""
    holders = running_locks.c.resource_id.label("holder"), running_locks.c.session_id
    return Prepared(
        select(*_RESOURCE.c, _STAMP, *columns, *holders)
        .select_from(
            running_sessions.join(job_queue, job_queue.c.job_id == bindparam("job_id"))
            .join(running_locks, running_locks.c.job_id == job_queue.c.job_id)
            .join(_RESOURCE, _RESOURCE.c.resource_id == running_sessions.c.resource_id)
        )
        .where(_THIS)
        # In this order.
        .prefix_with("STRAIGHT_JOIN", dialect="mysql")
        .prefix_with("STRAIGHT_JOIN", dialect="mariadb")
        .with_for_update(of=(running_sessions, job_queue, running_locks))
    )


# Nothing is changed, but nobody else has it then.
_HOLD_FIRST = Prepared(update(running_sessions).where(_THIS).values(session_time_stamp=_STAMP))
_HELD_FIRST = Prepared(
    select(*active_resources.c, _STAMP, _A_LOCK.scalar_subquery().label("busy"))
    .join(running_sessions, running_sessions.c.resource_id == active_resources.c.resource_id)
    .where(_THIS, active_resources.c.resource_name == bindparam("resource_name"))
)
_HOLD_WITH_JOB = _with_locked(*WHOLE)
_HOLD_WITH_LOCK = _with_locked(running_locks.c.lock_id, running_locks.c.job_id, running_locks.c.lock_time, *OFFERED)


# The resource is as the caller says, and has been heard of just now: nothing has to be written of it.
_CALLER = select(active_resources.c.resource_id).where(
    active_resources.c.resource_name == bindparam("name"),
    active_resources.c.client_certificate == bindparam("certificate"),
    active_resources.c.last_call_time > bindparam("heard"),
)
_CALLERS_START = _CALLER.add_columns(bindparam("now", type_=Integer))
_STARTED = ("resource_id", "session_time_stamp")
_START_KNOWN = {
    False: Prepared.numbering_from(running_sessions, _STARTED, _CALLERS_START),
    True: Prepared.numbering_from(
        running_sessions,
        _STARTED,
        _CALLERS_START.where(active_resources.c.resource_capabilities == bindparam("capabilities")),
    ),
}
_END_KNOWN = Prepared(
    delete(running_sessions).where(
        _THIS,
        running_sessions.c.resource_id == _CALLER.scalar_subquery(),
        bindparam("alive") < _STAMP,
        ~_HOLDS_LOCKS,
    )
)


def start_session(connection: Connection, resource_id: int, now: int) -> int:
    """Start a session; returns its number."""
    return _START.one_key(connection, new_resource_id=resource_id, new_session_time_stamp=now)


def start_session_of_known(
    connection: Connection, name: str, *, certificate: str, capabilities: str | None, heard: int, now: int
) -> tuple[Resource, int] | None:
    """Start a session of a resource that is registered just like this, and has called after `heard`, else do nothing.

    It is all that its transaction does, in one statement.
    """
    values = {"name": name, "certificate": certificate.encode("ascii"), "heard": heard, "now": now}
    if capabilities is not None:
        values["capabilities"] = capabilities
    starting = _START_KNOWN[capabilities is not None]
    session_id, found = starting.last_key_with(RESOURCE, connection, **values)
    row = found.one_or_none()
    return None if row is None or not session_id else (resource_of_row(row), session_id)


def end_session_of_known(
    connection: Connection, session_id: int, name: str, *, certificate: str, heard: int, now: int
) -> Resource | None:
    """End a session without locks of a resource that is registered just like this, as `start_session_of_known`.

    None where there is none, and nothing is done.
    """
    values = {
        "name": name,
        "certificate": certificate.encode("ascii"),
        "heard": heard,
        "alive": now - SESSION_SECONDS,
    }
    # First, since it waits for a call of this session that is under way and may be locking jobs.
    _HOLD_FIRST.later(connection, session_id=session_id)
    ended, found = _END_KNOWN.last_with(RESOURCE, connection, session_id=session_id, **values)
    row = found.one_or_none()
    return None if row is None or not ended else resource_of_row(row)


@attrs.frozen(kw_only=True)
class HeldSession:
    """A session in whose name a transaction works, and the resource whose it is."""

    session_id: int
    resource: Resource
    stamp: int

    @classmethod
    def of_row(cls, row: Any, session_id: int) -> HeldSession:
        """From a row with the columns of the resource, and the time stamp of the session."""
        return cls(session_id=session_id, resource=resource_of_row(row), stamp=row.session_time_stamp)


def hold_session(connection: Connection, session_id: int, resource_name: str) -> HeldSession | None:
    """A session of a resource, in one statement, or None; it may have ended by time, see `keep_alive`.

    Other calls of the session wait until the transaction ends.
    """
    row = _HOLD(connection, session_id=session_id, resource_name=resource_name).one_or_none()
    return None if row is None else HeldSession.of_row(row, session_id)


def hold_session_and_job(
    connection: Connection, session_id: int, resource_name: str, job_id: int
) -> tuple[HeldSession, Job] | None:
    """A session as `hold_session` has it, and a job that it holds locked as `hold_locked_job` has it.

    In one statement; None where anything about it is not as it should be, which those two tell apart.
    """
    row = _held_by(_HOLD_WITH_JOB, connection, session_id, resource_name, job_id)
    return None if row is None else (HeldSession.of_row(row, session_id), job_of_row(row))


def hold_session_and_lock(
    connection: Connection, session_id: int, resource_name: str, job_id: int
) -> tuple[HeldSession, Any] | None:
    """As `hold_session_and_job`, with a row for `give_back_held` in place of the job."""
    row = _held_by(_HOLD_WITH_LOCK, connection, session_id, resource_name, job_id)
    return None if row is None else (HeldSession.of_row(row, session_id), row)


def hold_session_and_offers(
    connection: Connection, session_id: int, resource_name: str, *, application: str, start: int, limit: int
) -> tuple[HeldSession, bool, list[Job]] | None:
    """A session as `hold_session` has it, or None, whether it holds locks, and jobs on offer, first come first.

    These are held for `take_offers`.
    """
    _HOLD_FIRST.later(connection, session_id=session_id)
    values = search_values(application=application, resource_name=resource_name, start=start, limit=limit)
    searching = search_any(connection.dialect.name == "postgresql")
    rows, found = searching.with_(_HELD_FIRST, connection, session_id=session_id, **values)
    row = found.one_or_none()
    if row is None:
        return None
    jobs = [job for job in map(job_of_row, rows) if job.targets(resource_name)]
    return HeldSession.of_row(row, session_id), bool(row.busy), jobs


def _held_by(
    holding_both: Prepared, connection: Connection, session_id: int, resource_name: str, job_id: int
) -> Any | None:
    rows = holding_both(connection, session_id=session_id, resource_name=resource_name, job_id=job_id).all()
    if len(rows) == 1 and (rows[0].holder, rows[0].session_id) == (rows[0].resource_id, session_id):
        return rows[0]
    return None


def keep_alive(connection: Connection, held: HeldSession, now: int) -> HeldSession:
    """Let a session go on; raises LGIError(SESSION_ENDED).

    The time is written at most every STAMP_SECONDS, so a session may end that much sooner than SESSION_SECONDS after
    its last call.
    """
    if held.stamp <= now - SESSION_SECONDS:
        raise LGIError(ErrorNumber.SESSION_ENDED)
    if now - held.stamp < STAMP_SECONDS:
        return held
    _KEEP.later(connection, session_id=held.session_id, now=now)
    return attrs.evolve(held, stamp=now)


def end_held_session(connection: Connection, session_id: int) -> list[int]:
    """End a session that the transaction holds, and free its locks; returns the jobs that were locked.

    It is the last that the transaction does.
    """
    if _END_IDLE.last(connection, session_id=session_id):
        return []
    return end_session(connection, session_id, known=True)


def end_session(connection: Connection, session_id: int, *, known: bool = False) -> list[int]:
    """End a session and free its locks; returns the jobs that were locked.

    Raises LGIError(SESSION_UNKNOWN) for one that is not there, if it was `known` to be.
    """
    # First, since it waits for a call of this session that is under way and may be locking jobs.
    ended = _END(connection, session_id=session_id)
    if known and not ended.rowcount:
        raise LGIError(ErrorNumber.SESSION_UNKNOWN)
    hold_jobs(connection, locked_by_session(connection, session_id))
    # What an administrator has unlocked meanwhile may be another's by now.
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
