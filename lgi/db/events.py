"""The scheduler's agenda (LGI 1.41, event_queue)."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select
from sqlalchemy.dialects import postgresql

from lgi.db.changes import note, remember, remembered
from lgi.db.prepared import Prepared
from lgi.db.schema import event_queue
from lgi.model import Changes

SCHEDULE_CYCLE = "schedule_cycle"
REPOSITORY_RESOURCES = "repository_resources"
UPDATE_CYCLE = "update_cycle"  # ask the project's other servers for updates
_VALUES: dict[str, Any] = {name: bindparam(name) for name in ("event_time_stamp", "event")}
_SCHEDULE = Prepared(
    insert(event_queue)
    .values(_VALUES)
    .prefix_with("OR IGNORE", dialect="sqlite")
    .prefix_with("IGNORE", dialect="mysql")
    .prefix_with("IGNORE", dialect="mariadb")
)
_SCHEDULE_POSTGRESQL = Prepared(postgresql.insert(event_queue).values(_VALUES).on_conflict_do_nothing())

UPDATE_SERVERS = "update_servers"  # tell them that there is one here


def schedule(connection: Connection, event: str, at: int) -> None:
    """Put an event on the agenda for the second `at`; an equal one that is there already is this one.

    Of cycles that a busy connection schedules again and again there is one in each second: what comes after the first
    is told of in the next second, by which time the first may have been worked. A change that takes so long that the
    next second's is worked as well has to wait for the regular one: cycles see to what time brings about.
    """
    if event == SCHEDULE_CYCLE:
        latest = remembered(connection, event)
        if latest == at + 1:
            return
        if latest == at:
            at += 1
        remember(connection, event, at)
    note(connection, Changes(agenda=True))
    statement = _SCHEDULE_POSTGRESQL if connection.dialect.name == "postgresql" else _SCHEDULE
    statement.later(connection, event_time_stamp=at, event=event)


def due(connection: Connection, now: int, limit: int) -> list[tuple[int, str]]:
    """The events whose time has come, oldest first, as (time stamp, event)."""
    rows = connection.execute(
        select(event_queue.c.event_time_stamp, event_queue.c.event)
        .where(event_queue.c.event_time_stamp <= now)
        .order_by(event_queue.c.event_time_stamp, event_queue.c.event)
        .limit(limit)
    )
    return [(row.event_time_stamp, row.event) for row in rows]


def next_time(connection: Connection) -> int | None:
    """When the earliest event is due, or None."""
    value: int | None = connection.scalar(
        select(event_queue.c.event_time_stamp).order_by(event_queue.c.event_time_stamp).limit(1)
    )
    return value


def acknowledge(connection: Connection, at: int, event: str) -> bool:
    """Take an event off the agenda; False if another scheduler did so first."""
    result = connection.execute(
        delete(event_queue).where(event_queue.c.event_time_stamp == at, event_queue.c.event == event)
    )
    return result.rowcount == 1
