"""What the scheduler does to a project's database, each step in one transaction that may be run twice.

LGI 1.41, Scheduler: sessions that linger, jobs that no daemon looks after, the repository's list of resources.
"""

from __future__ import annotations

from sqlalchemy import Connection

from lgi.db.counts import Tally
from lgi.db.events import acknowledge, due, next_time
from lgi.db.jobs import fetch_job, offer, update_job, without_pulse
from lgi.db.log import record
from lgi.db.sessions import end_session, stale_sessions
from lgi.model import Job
from lgi.states import Actor, JobEvent, JobState, next_state

BATCH = 100
ACTOR = "scheduler"


def due_events(connection: Connection, now: int) -> list[tuple[int, str]]:
    """The events whose time has come."""
    return due(connection, now, BATCH)


def take_events(connection: Connection, events: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Take events off the agenda, and return those that no other scheduler has taken first.

    A crash before they are worked loses nothing: a scheduler begins with a cycle, and the others have theirs.
    """
    return [(at, event) for at, event in events if acknowledge(connection, at, event)]


def seconds_to_next(connection: Connection, now: float, interval: int) -> float:
    """How long there is nothing to do, at most `interval`."""
    at = next_time(connection)
    return float(interval if at is None else max(0.0, min(interval, at - now)))


def end_stale_sessions(connection: Connection, now: int) -> int:
    """End sessions without a call for 30 minutes and free their locks; returns how many."""
    sessions = stale_sessions(connection, now, BATCH)
    for session_id in sessions:
        end_session(connection, session_id)
    return len(sessions)


def see_to_lost_jobs(connection: Connection, now: int, pulse_timeout: int) -> list[tuple[Job, JobState]]:
    """Queue again running jobs that no daemon has looked after, and give up aborting ones.

    A job that is queued again keeps its target, which its daemon narrowed to its own resource: no other resource can
    run a second copy while the first one may still be alive. The daemon takes it up again when it is back.
    """
    changed = []
    tally = Tally()
    before = now - pulse_timeout
    for found in without_pulse(connection, before, BATCH):
        # Once more, now that nobody else can change it: its daemon may have come back in between.
        job = fetch_job(connection, found.job_id, for_update=True)
        if job is None or job.state is not found.state or job.lock_state or job.daemon_pulse >= before:
            continue
        state = next_state(job.state, JobEvent.PULSE_LOST, Actor.SCHEDULER)
        if not update_job(connection, job, {"state": state.value, "state_time_stamp": now}, tally):
            continue
        if state is JobState.QUEUED:
            offer(connection, job.job_id, job.application, job.target_resources, job.priority)
        record(
            connection,
            job_id=job.job_id,
            from_state=job.state.value,
            to_state=state.value,
            actor=ACTOR,
            detail=f"no daemon has looked after it for {pulse_timeout} seconds",
            now=now,
        )
        changed.append((job, state))
    tally.write(connection)
    return changed
