"""Locks: `running_locks` and `lock_state` (LGI 1.41, Job locking mechanism).

A job is held by one session at a time: `lock_state` goes from 0 to 1 in a conditional update, which decides every
race, and the unique `job_id` of `running_locks` would refuse a second lock all the same. Every transaction that locks
withdraws offers first, so that all of them take rows in one order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any

import attrs
from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Select,
    bindparam,
    delete,
    exists,
    false,
    func,
    insert,
    literal,
    select,
    union_all,
    update,
)

from lgi.access import matches, owner_wanted
from lgi.db.changes import note
from lgi.db.jobs import OWNER, PLAIN, WHOLE, fetch_job, fetch_jobs, job_of_row, offer, withdraw
from lgi.db.prepared import Prepared, named, numbered, values_of
from lgi.db.schema import job_access, job_offers, job_queue, running_locks
from lgi.errors import ErrorNumber, LGIError
from lgi.lists import ANY, decode_list
from lgi.model import Changes, Job, Lock
from lgi.states import JobState

_TAKE = Prepared(
    update(job_queue)
    .where(job_queue.c.job_id == bindparam("job_id"), job_queue.c.lock_state == 0)
    .values(lock_state=1)
)
_HOLD = Prepared.numbering(running_locks, ["job_id", "resource_id", "lock_time", "session_id"])
_FETCH = Prepared(select(running_locks).where(running_locks.c.job_id == bindparam("job_id")).limit(2))


def fetch_lock(connection: Connection, job_id: int) -> Lock | None:
    """The lock on a job, or None; raises LGIError(SEVERAL_LOCKS) where the unique key that rules them out is gone."""
    rows = _FETCH(connection, job_id=job_id).all()
    if len(rows) > 1:
        raise LGIError(ErrorNumber.SEVERAL_LOCKS)
    return Lock(**rows[0]._asdict()) if rows else None


_JOBS_OF_SESSION = Prepared(
    select(running_locks.c.job_id).where(running_locks.c.session_id == bindparam("session_id"))
)
_OF_SESSION = Prepared(
    select(running_locks.c.lock_id).where(running_locks.c.session_id == bindparam("session_id")).limit(1)
)


def session_holds_locks(connection: Connection, session_id: int) -> bool:
    """Whether a session holds any lock."""
    return _OF_SESSION(connection, session_id=session_id).first() is not None


def lock_job(connection: Connection, job_id: int, *, resource_id: int, session_id: int, now: int) -> Lock:
    """Lock a job for a session; raises LGIError(LOCK_REFUSED) when somebody holds it."""
    withdraw(connection, [job_id])
    if _TAKE(connection, job_id=job_id).rowcount != 1:
        raise LGIError(ErrorNumber.LOCK_REFUSED)
    values = {"job_id": job_id, "resource_id": resource_id, "lock_time": now, "session_id": session_id}
    return Lock(lock_id=_HOLD.one_key(connection, **named("new_", values)), **values)


def holding(jobs: ColumnElement[bool], *columns: ColumnElement[Any]) -> Select[Any]:
    """What holds jobs, each and then its lock, as those do who unlock; no row where nobody has it locked."""
    return (
        select(*columns)
        .select_from(job_queue.join(running_locks, running_locks.c.job_id == job_queue.c.job_id))
        .where(jobs)
        .prefix_with("STRAIGHT_JOIN", dialect="mysql")
        .prefix_with("STRAIGHT_JOIN", dialect="mariadb")
        .with_for_update()
    )


_HOLDER = (running_locks.c.resource_id, running_locks.c.session_id)
_THIS = job_queue.c.job_id == bindparam("job_id")
_LOCK_NAMES = running_locks.c.keys()
_LOCK = attrgetter(*_LOCK_NAMES)
OFFERED = (job_queue.c.state, job_queue.c.application, job_queue.c.target_resources, job_queue.c.priority)
"""What a queued job is offered by, and whether it is queued."""
_QUEUED = job_queue.c.state == JobState.QUEUED.value
_HOLD_LOCK = Prepared(holding(_THIS, *running_locks.c, *OFFERED))
_HOLD_LOCKED = Prepared(holding(_THIS, *WHOLE, *_HOLDER))


@lru_cache(maxsize=64)
def _hold_several(number: int, inputs: bool) -> Prepared:
    columns = [*PLAIN, job_queue.c.input] if inputs else PLAIN
    return Prepared(
        holding(job_queue.c.job_id.in_(numbered("job", number)), *columns, *_HOLDER)
        .order_by(job_queue.c.job_id)
        # In the order of their numbers, and none but these: short tables are otherwise read from end to end.
        .with_hint(job_queue, "FORCE INDEX (PRIMARY)", "mysql")
        .with_hint(job_queue, "FORCE INDEX (PRIMARY)", "mariadb")
    )


def give_back(connection: Connection, job_id: int, *, resource_id: int, session_id: int) -> Lock:
    """Take off the lock this session holds on a job, and return it; a job that is queued is on offer again.

    Nobody is woken for it: a resource gives back what it does not want. Raises LGIError when there is no lock, or it
    is another's.
    """
    rows = _HOLD_LOCK(connection, job_id=job_id).all()
    if not rows:
        # A lock on a job that is gone is nothing that this could mend.
        gone = fetch_lock(connection, job_id) is not None
        raise LGIError(ErrorNumber.UNLOCK_REFUSED if gone else ErrorNumber.LOCK_MISSING)
    if len(rows) > 1:
        raise LGIError(ErrorNumber.SEVERAL_LOCKS)
    [job] = rows
    if (job.resource_id, job.session_id) != (resource_id, session_id):
        raise LGIError(ErrorNumber.LOCK_OF_ANOTHER)
    return give_back_held(connection, job)


def give_back_held(connection: Connection, row: Any) -> Lock:
    """As `give_back`, where the transaction holds job and lock, with a row of the lock and OFFERED."""
    _take_off(connection, [row.job_id])
    if row.state == JobState.QUEUED.value:
        _offer_again(connection, [row], quietly=True)
    return Lock(**dict(zip(_LOCK_NAMES, _LOCK(row), strict=True)))


def hold_locked_job(connection: Connection, job_id: int, *, resource_id: int, session_id: int) -> Job:
    """A job with input and output that this session holds locked; nobody else changes it or its lock until the end.

    Raises LGIError where there is no such job, or its lock is not this session's.
    """
    rows = _HOLD_LOCKED(connection, job_id=job_id).all()
    if len(rows) > 1:
        raise LGIError(ErrorNumber.SEVERAL_LOCKS)
    for row in rows:
        if (row.resource_id, row.session_id) == (resource_id, session_id):
            return job_of_row(row)
    if not rows and fetch_job(connection, job_id) is None:
        raise LGIError(ErrorNumber.JOB_UNKNOWN)
    raise LGIError(ErrorNumber.JOB_NOT_LOCKED)


def hold_locked_jobs(
    connection: Connection, job_ids: Collection[int], *, resource_id: int, session_id: int, inputs: bool
) -> dict[int, Job | LGIError]:
    """Several jobs as `hold_locked_job` has one, by number; in place of one what that raises.

    They come without output, and with input only if `inputs` says so.
    """
    found: dict[int, Job | LGIError] = {}
    if not job_ids:
        return found
    hold = _hold_several(len(job_ids), inputs)
    for row in hold(connection, **values_of("job", sorted(job_ids))):
        if row.job_id in found:
            found[row.job_id] = LGIError(ErrorNumber.SEVERAL_LOCKS)
        elif (row.resource_id, row.session_id) == (resource_id, session_id):
            found[row.job_id] = job_of_row(row)
        else:
            found[row.job_id] = LGIError(ErrorNumber.JOB_NOT_LOCKED)
    others = [job_id for job_id in job_ids if job_id not in found]
    if others:
        known = {job.job_id for job in fetch_jobs(connection, others)}
        for job_id in others:
            found[job_id] = LGIError(ErrorNumber.JOB_NOT_LOCKED if job_id in known else ErrorNumber.JOB_UNKNOWN)
    return found


@attrs.frozen
class _Several:
    """The statements on so many jobs."""

    free: Prepared
    mark: Prepared
    queued: Prepared
    hold: Prepared


@lru_cache(maxsize=64)
def _several(number: int) -> _Several:
    jobs = job_queue.c.job_id.in_(numbered("job", number))
    held = [
        {
            "job_id": job_id,
            "resource_id": bindparam("resource_id"),
            "lock_time": bindparam("lock_time"),
            "session_id": bindparam("session_id"),
        }
        for job_id in numbered("job", number)
    ]
    return _Several(
        free=Prepared(delete(running_locks).where(running_locks.c.job_id.in_(numbered("job", number)))),
        mark=Prepared(update(job_queue).where(jobs).values(lock_state=bindparam("lock_state"))),
        queued=Prepared(select(job_queue.c.job_id, *OFFERED).where(jobs, _QUEUED)),
        hold=Prepared(insert(running_locks).inline().values(held)),
    )


def unlock_jobs(connection: Connection, job_ids: Sequence[int]) -> None:
    """Take the locks off these jobs, as far as there are any, and offer again those that are queued."""
    if not job_ids:
        return
    _take_off(connection, job_ids)
    queued = _several(len(job_ids)).queued(connection, **values_of("job", job_ids)).all()
    if queued:
        _offer_again(connection, queued)


def _take_off(connection: Connection, job_ids: Sequence[int]) -> None:
    note(connection, Changes(jobs=frozenset(job_ids)))
    several, these = _several(len(job_ids)), values_of("job", job_ids)
    # Jobs first, then their locks, as those do who lock.
    several.mark.later(connection, lock_state=0, **these)
    several.free.later(connection, **these)


def _offer_again(connection: Connection, jobs: Sequence[Any], *, quietly: bool = False) -> None:
    """Put queued jobs on offer, of which there are rows with what they are offered by."""
    # One that the scheduler queued again while it was being locked is on offer already.
    withdraw(connection, [row.job_id for row in jobs])
    for row in jobs:
        offer(
            connection,
            row.job_id,
            row.application,
            decode_list(row.target_resources),
            row.priority,
            quietly=quietly,
        )


def hold_jobs(connection: Connection, job_ids: Collection[int]) -> None:
    """Have nobody else change these jobs, or lock or unlock them, until the transaction ends."""
    if job_ids:
        these = job_queue.c.job_id.in_(sorted(job_ids))
        in_order = select(job_queue.c.job_id).where(these).order_by(job_queue.c.job_id)
        connection.execute(in_order.with_for_update()).all()


def locked_by_session(connection: Connection, session_id: int) -> list[int]:
    """The jobs a session holds."""
    return _JOBS_OF_SESSION(connection, session_id=session_id).scalars()


def _of_owners(owners: Sequence[str]) -> list[ColumnElement[bool]]:
    """Conditions on an offer that its job's owners meet the posted filter (see `lgi.access.owner_wanted`)."""

    def owned_by(names: list[str]) -> ColumnElement[bool]:
        return exists().where(
            job_access.c.kind == OWNER, job_access.c.name.in_(names), job_access.c.job_id == job_offers.c.job_id
        )

    refused = [name[1:].strip() for name in owners if name.startswith("!")]
    allowed = [name for name in owners if not name.startswith("!")]
    conditions: list[ColumnElement[bool]] = []
    if ANY in refused:
        conditions.append(false())
    elif refused:
        conditions.append(~owned_by(refused))
    if allowed and ANY not in allowed:
        conditions.append(owned_by(allowed))
    return conditions


def count_offers(connection: Connection, *, application: str, resource_name: str, owners: Sequence[str] = ()) -> int:
    """How many queued jobs there are for a resource, whether locked or not."""
    on_offer = connection.scalar(
        select(func.count()).where(
            job_offers.c.application == application,
            job_offers.c.target.in_([ANY, resource_name]),
            *_of_owners(owners),
        )
    )
    held = connection.execute(
        select(job_queue.c.owners, job_queue.c.target_resources).where(
            job_queue.c.state == JobState.QUEUED.value,
            job_queue.c.lock_state == 1,
            job_queue.c.application == application,
        )
    )
    return int(on_offer or 0) + sum(
        matches([resource_name], decode_list(row.target_resources)) and owner_wanted(decode_list(row.owners), owners)
        for row in held
    )


def claim_offers(
    connection: Connection,
    *,
    application: str,
    resource_name: str,
    resource_id: int,
    session_id: int,
    owners: Sequence[str] = (),
    start: int,
    limit: int,
    now: int,
) -> list[Job]:
    """Lock up to `limit` jobs on offer to a resource, first come first, and return them in that order.

    `owners` is the posted filter: names to take work of, and names with a leading `!` to take none of. Rows that
    another transaction is about to take are passed over, not waited for. Four statements whatever the number of jobs.
    """
    values = search_values(application=application, resource_name=resource_name, start=start, limit=limit)
    postgresql = connection.dialect.name == "postgresql"
    if owners:
        rows: Iterable[Any] = connection.execute(_search(postgresql, _of_owners(owners)), values)
    else:
        rows = search_any(postgresql)(connection, **values)
    jobs = [job for job in map(job_of_row, rows) if job.targets(resource_name)]
    take_offers(connection, jobs, resource_id=resource_id, session_id=session_id, now=now)
    return jobs


def take_offers(connection: Connection, jobs: Sequence[Job], *, resource_id: int, session_id: int, now: int) -> None:
    """Lock jobs that a search has found."""
    if not jobs:
        return
    taken = [job.job_id for job in jobs]
    several, these = _several(len(taken)), values_of("job", taken)
    several.mark.later(connection, lock_state=1, **these)
    several.hold.later(connection, resource_id=resource_id, lock_time=now, session_id=session_id, **these)
    withdraw(connection, taken)


def search_values(*, application: str, resource_name: str, start: int, limit: int) -> dict[str, object]:
    """What a search is for."""
    return {
        "application": application,
        "resource_name": resource_name,
        "start": start,
        "limit": limit,
        "end": start + limit,
    }


@lru_cache(maxsize=2)
def search_any(postgresql: bool) -> Prepared:
    """What finds jobs on offer whoever owns them, and holds them until the transaction ends; see `search_values`."""
    return Prepared(_search(postgresql, ()), mysql=_search(postgresql, (), nested=False))


def _search(postgresql: bool, conditions: Sequence[ColumnElement[bool]], *, nested: bool = True) -> Select[Any]:
    # One range of the key for each target; a job is offered under `any` or under names, never both.
    ranges = [
        select(job_offers.c.priority, job_offers.c.job_id)
        .where(job_offers.c.application == bindparam("application"), job_offers.c.target == target, *conditions)
        .order_by(job_offers.c.priority, job_offers.c.job_id)
        .limit(bindparam("end", type_=Integer))
        .with_for_update(skip_locked=True)
        for target in (literal(ANY), bindparam("resource_name"))
    ]
    # SQLite and PostgreSQL take such ranges into a union as subqueries alone; MariaDB copies each of these once more.
    both = union_all(*(select(offered.subquery()) for offered in ranges)) if nested else union_all(*ranges)
    # Found once, before the jobs: PostgreSQL might run a plain subquery again for every job, and take more each time.
    offers = both.cte("offers") if postgresql else both.subquery("offers")
    return (
        select(*PLAIN)
        .select_from(offers.join(job_queue, job_queue.c.job_id == offers.c.job_id))
        .where(job_queue.c.lock_state == 0, _QUEUED)
        .order_by(offers.c.priority, offers.c.job_id)
        .offset(bindparam("start", type_=Integer))
        .limit(bindparam("limit", type_=Integer))
        # Offers first, then each job by its number: short tables are otherwise read, and locked, from end to end.
        .prefix_with("STRAIGHT_JOIN", dialect="mysql")
        .prefix_with("STRAIGHT_JOIN", dialect="mariadb")
        .with_hint(job_queue, "FORCE INDEX (PRIMARY)", "mysql")
        .with_hint(job_queue, "FORCE INDEX (PRIMARY)", "mariadb")
        .with_for_update(skip_locked=True, of=job_queue if postgresql else None)
    )
