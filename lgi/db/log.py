"""The record of jobs: what happened to which, when, by whom, written with the change itself."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select

from lgi.db.schema import job_log
from lgi.model import LogEntry


def record(
    connection: Connection, *, job_id: int, from_state: str, to_state: str, actor: str, detail: str = "", now: int
) -> None:
    """Add one entry."""
    connection.execute(
        insert(job_log),
        {
            "time": now,
            "job_id": job_id,
            "from_state": from_state,
            "to_state": to_state,
            "actor": actor,
            "detail": detail,
        },
    )


def entries_of_job(connection: Connection, job_id: int) -> list[LogEntry]:
    """All entries of one job, oldest first."""
    rows = connection.execute(select(job_log).where(job_log.c.job_id == job_id).order_by(job_log.c.number))
    return [LogEntry(**row._mapping) for row in rows]
