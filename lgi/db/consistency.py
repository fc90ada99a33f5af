"""Whether the tables of a project agree with each other, read in batches of job numbers.

What takes `first` and `last` looks at the jobs with these numbers, whether they exist or not, and wants to see one
state of the database during the call.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Set
from typing import Any

import attrs
from sqlalchemy import Connection, delete, func, insert, select

from lgi.db.counts import Recount, recounted
from lgi.db.jobs import OWNER, READER, WRITER, fetch_job, offer, withdraw
from lgi.db.schema import (
    access_sets,
    job_access,
    job_counts,
    job_log,
    job_offers,
    job_queue,
    running_locks,
    running_sessions,
)
from lgi.lists import decode_list
from lgi.model import Job
from lgi.states import JobState

OFFERS, ACCESS = job_offers.name, job_access.name
INDEX_TABLES = (OFFERS, ACCESS)
"""What holds nothing that is not in `job_queue` too, so that it can be made anew."""

_TABLES = (job_queue, running_locks, job_offers, job_access, job_log)
_INTERFACE = (-1, 0)  # resource and session of an interface's lock

Offer = tuple[str, str, int]
Access = tuple[str, str]


@attrs.frozen(kw_only=True)
class Problem:
    """What is wrong with a job, or with none (0): in which table, in words."""

    job_id: int
    table: str
    text: str


def next_last(connection: Connection, after: int, batch: int) -> tuple[int, bool]:
    """The last number of the batch of jobs that follows the number `after`, and whether there is any."""
    ends, found = [], False
    highest = after
    for table in _TABLES:
        ids = list(
            connection.scalars(
                select(table.c.job_id).where(table.c.job_id > after).distinct().order_by(table.c.job_id).limit(batch)
            )
        )
        if ids:
            found, highest = True, max(highest, ids[-1])
        if len(ids) == batch:
            ends.append(ids[-1])
    return (min(ends) if ends else highest), found


def check_jobs(connection: Connection, first: int, last: int) -> tuple[list[Problem], dict[int, str]]:
    """What is wrong with these jobs, and the repositories of those that exist."""
    rows = _Rows(connection=connection, first=first, last=last)
    columns = "job_id state application owners read_access write_access target_resources lock_state priority"
    jobs = {row.job_id: row for row in rows.among(job_queue, *columns.split(), "repository")}
    problems = [*_locks(rows, jobs), *_indexes(rows, jobs), *_ends(rows, jobs)]
    repositories = {job_id: row.repository for job_id, row in jobs.items()}
    return sorted(problems, key=lambda problem: (problem.job_id, problem.table)), repositories


def counted_sizes(connection: Connection, first: int, last: int) -> dict[int, tuple[str, int]]:
    """The repositories of these jobs, and what their files are counted with, in bytes."""
    rows = _Rows(connection=connection, first=first, last=last)
    return {
        row.job_id: (row.repository, row.repository_size)
        for row in rows.among(job_queue, "job_id", "repository", "repository_size")
    }


def check_counts(connection: Connection) -> list[tuple[Problem, Recount]]:
    """What is counted wrongly, each with what `settle_counts` mends it by; wants to see one state of the database."""
    found = recounted(connection)
    wrong = []
    for key, number in sorted(found.differences.items()):
        kind, set_id, application, state = key
        of = "readers" if kind == READER else "owners"
        text = f"jobs of {application} that are {state}, of the {of} {set_id}: the count is {-number:+} off"
        wrong.append((_wrong(0, job_counts, text), Recount(differences={key: number}, sets={})))
    for set_id, names in sorted(found.sets.items()):
        text = f"the names of {set_id} are not {', '.join(names)}" if names else f"{set_id} is not of its names"
        wrong.append((_wrong(0, access_sets, text), Recount(differences={}, sets={set_id: names})))
    return wrong


def of_no_job(connection: Connection, names: Set[str]) -> set[str]:
    """Those of these repositories that no job of the project has."""
    return set(names) - set(
        connection.scalars(select(job_queue.c.repository).where(job_queue.c.repository.in_(names)))
    )


@attrs.frozen(kw_only=True)
class _Rows:
    connection: Connection
    first: int
    last: int

    def among(self, table: Any, *columns: str) -> list[Any]:
        """Columns of all rows of these jobs."""
        chosen = [table.c[name] for name in columns]
        return list(
            self.connection.execute(select(*chosen).where(table.c.job_id.between(self.first, self.last))).all()
        )


def _wrong(job_id: int, table: Any, text: str) -> Problem:
    return Problem(job_id=job_id, table=table.name, text=text)


def _locks(rows: _Rows, jobs: dict[int, Any]) -> Iterator[Problem]:
    locks = {row.job_id: row for row in rows.among(running_locks, "job_id", "session_id", "resource_id")}
    sessions = _sessions(rows.connection, {row.session_id for row in locks.values()})
    for job_id, row in jobs.items():
        if row.lock_state not in (0, 1):
            yield _wrong(job_id, job_queue, f"lock_state is {row.lock_state}")
        elif row.lock_state and job_id not in locks:
            yield _wrong(job_id, running_locks, "the job is locked, but has no lock")
    for job_id, row in locks.items():
        if job_id not in jobs:
            yield _wrong(job_id, running_locks, "a lock on a job that does not exist")
        elif not jobs[job_id].lock_state:
            yield _wrong(job_id, running_locks, "a lock on a job that is not locked")
        if (row.resource_id, row.session_id) != _INTERFACE and sessions.get(row.session_id) != row.resource_id:
            text = f"the lock's session {row.session_id} of resource {row.resource_id} does not run"
            yield _wrong(job_id, running_locks, text)


def _indexes(rows: _Rows, jobs: dict[int, Any]) -> Iterator[Problem]:
    offers: dict[int, set[Offer]] = defaultdict(set)
    for row in rows.among(job_offers, "job_id", "application", "target", "priority"):
        offers[row.job_id].add((row.application, row.target, row.priority))
    access: dict[int, set[Access]] = defaultdict(set)
    for row in rows.among(job_access, "job_id", "kind", "name"):
        access[row.job_id].add((row.kind, row.name))
    for job_id in jobs.keys() | offers.keys() | access.keys():
        job = jobs.get(job_id)
        for table, text in (
            (job_offers, _difference(offers.get(job_id, set()), _wanted_offers(job))),
            (job_access, _difference(access.get(job_id, set()), _wanted_access(job))),
        ):
            if text:
                yield _wrong(job_id, table, text if job is not None else f"the job does not exist: {text}")


def _ends(rows: _Rows, jobs: dict[int, Any]) -> Iterator[Problem]:
    ends = _last_states(rows.connection, rows.first, rows.last)
    for job_id, row in jobs.items():
        if job_id not in ends:
            yield _wrong(job_id, job_log, "the record has no entry of the job")
        elif ends[job_id] != row.state:
            yield _wrong(job_id, job_log, f"the job is {row.state}, its record ends with {ends[job_id]}")
    for job_id in ends.keys() - jobs.keys():
        if ends[job_id] != JobState.DELETED.value:
            yield _wrong(job_id, job_log, f"the job does not exist, its record ends with {ends[job_id]}")


def _sessions(connection: Connection, session_ids: set[int]) -> dict[int, int]:
    if not session_ids:
        return {}
    rows = connection.execute(
        select(running_sessions.c.session_id, running_sessions.c.resource_id).where(
            running_sessions.c.session_id.in_(session_ids)
        )
    )
    return {row.session_id: row.resource_id for row in rows}


def _last_states(connection: Connection, first: int, last: int) -> dict[int, str]:
    ends = select(func.max(job_log.c.number)).where(job_log.c.job_id.between(first, last)).group_by(job_log.c.job_id)
    newest = ends.subquery().c[0]
    rows = connection.execute(select(job_log.c.job_id, job_log.c.to_state).where(job_log.c.number == newest))
    return {row.job_id: row.to_state for row in rows}


def _wanted_offers(row: Any) -> set[Offer]:
    if row is None or row.state != JobState.QUEUED.value or row.lock_state:
        return set()
    return {(row.application, target, row.priority) for target in decode_list(row.target_resources)}


def _wanted_access(row: Any) -> set[Access]:
    if row is None:
        return set()
    lists = ((OWNER, row.owners), (READER, row.read_access), (WRITER, row.write_access))
    return {(kind, name) for kind, text in lists for name in decode_list(text)}


def _difference(found: set[Any], wanted: set[Any]) -> str:
    parts = [
        f"{word} {', '.join(' '.join(map(str, item)) for item in sorted(items))}"
        for word, items in (("missing", wanted - found), ("too many", found - wanted))
        if items
    ]
    return "; ".join(parts)


def repair(connection: Connection, job_id: int, table: str) -> None:
    """Make the rows of a job in one of INDEX_TABLES anew, out of `job_queue`."""
    if table == OFFERS:
        # In the order of those who lock.
        withdraw(connection, [job_id])
    job = fetch_job(connection, job_id, for_update=True)
    if table == OFFERS:
        if job is not None and job.state is JobState.QUEUED and not job.lock_state:
            offer(connection, job_id, job.application, job.target_resources, job.priority)
        return
    connection.execute(delete(job_access).where(job_access.c.job_id == job_id))
    if job is not None:
        connection.execute(insert(job_access), _access_rows(job))


def _access_rows(job: Job) -> list[dict[str, Any]]:
    lists = ((OWNER, job.owners), (READER, job.read_access), (WRITER, job.write_access))
    return [{"kind": kind, "name": name, "job_id": job.job_id} for kind, names in lists for name in names]
