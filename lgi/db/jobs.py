"""Jobs: `job_queue`, and what is held beside it to find them (access, offers, repository)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Row, bindparam, case, delete, func, insert, select, text, union, update

from lgi.db.changes import note
from lgi.db.counts import Tally
from lgi.db.log import record
from lgi.db.prepared import Prepared, numbered, values_of
from lgi.db.schema import access_sets, job_access, job_counts, job_offers, job_queue
from lgi.db.usage import discharge
from lgi.lists import ANY, decode_list, encode_list
from lgi.model import Changes, Job
from lgi.states import JobState

OWNER, READER, WRITER = "o", "r", "w"

_BLOBS = ("input", "output")
# What a job is found by, and nobody needs to see.
_KEY = "submission_key"
_WHOLE = [column for column in job_queue.c if column.name != _KEY]
PLAIN = [column for column in _WHOLE if column.name not in _BLOBS]
_NAMES = [column.name for column in _WHOLE]

_THIS = job_queue.c.job_id == bindparam("job_id")
_FETCH = {
    (blobs, for_update): Prepared(statement.with_for_update() if for_update else statement)
    for blobs, statement in ((True, select(*_WHOLE).where(_THIS)), (False, select(*PLAIN).where(_THIS)))
    for for_update in (True, False)
}
_OF_REPOSITORY = Prepared(
    select(job_queue.c.write_access, job_queue.c.state_time_stamp).where(
        job_queue.c.repository == bindparam("repository")
    )
)
_PULSE = Prepared(update(job_queue).where(_THIS).values(daemon_pulse=bindparam("now")))


def job_of_row(row: Row[Any]) -> Job:
    """A row with the columns of `job_queue`, maybe without input and output and maybe with others, as a value."""
    mapping = row._mapping
    values = {name: mapping[name] for name in _NAMES if name in mapping}
    for name in ("owners", "read_access", "write_access", "target_resources"):
        values[name] = decode_list(values[name])
    return Job(**values | {"state": JobState(values["state"])})


def insert_job(connection: Connection, job: Job, *, actor: str, submission_key: str | None = None) -> int:
    """Store a new job (its `job_id` is ignored) and return its number.

    Four to six statements whatever the job. `lock_state` of the job says whether it is offered at once. With the
    `submission_key` of `key_of` it can be found again; raises IntegrityError where there is a job with that key.
    """
    values = {
        "state": job.state.value,
        "application": job.application,
        "owners": encode_list(job.owners),
        "read_access": encode_list(job.read_access),
        "write_access": encode_list(job.write_access),
        "target_resources": encode_list(job.target_resources),
        "input": job.input or b"",
        "output": job.output or b"",
        "job_specifics": job.job_specifics,
        "lock_state": job.lock_state,
        "state_time_stamp": job.state_time_stamp,
        "daemon_pulse": job.daemon_pulse,
        "priority": job.priority,
        "repository": job.repository,
        "repository_size": job.repository_size,
        _KEY: submission_key,
    }
    key = connection.execute(insert(job_queue), values).inserted_primary_key
    assert key is not None
    job_id: int = key[0]
    rows = [
        {"kind": kind, "name": name, "job_id": job_id}
        for kind, names in ((OWNER, job.owners), (READER, job.read_access), (WRITER, job.write_access))
        for name in names
    ]
    connection.execute(insert(job_access).values(rows))
    if job.state is JobState.QUEUED and not job.lock_state:
        offer(connection, job_id, job.application, job.target_resources, job.priority)
    tally = Tally()
    tally.add(job.owners, job.read_access, job.application, job.state.value)
    tally.write(connection)
    record(connection, job_id=job_id, from_state="", to_state=job.state.value, actor=actor, now=job.state_time_stamp)
    return job_id


def offer(
    connection: Connection,
    job_id: int,
    application: str,
    targets: Sequence[str],
    priority: int,
    *,
    quietly: bool = False,
) -> None:
    """Let resources find a queued job that nobody holds, and tell those that wait for work unless it is `quietly`."""
    if not quietly:
        note(connection, Changes(offers=frozenset((application, target) for target in targets)))
    connection.execute(
        insert(job_offers).values(
            [
                {"application": application, "target": target, "priority": priority, "job_id": job_id}
                for target in targets
            ]
        )
    )


@lru_cache(maxsize=64)
def _withdraw(number: int, forced: bool) -> Prepared:
    if not forced:
        return Prepared(delete(job_offers).where(job_offers.c.job_id.in_(numbered("job", number))))
    # A short table is read from end to end unless this is forced: past rows that others hold, which means waiting for
    # nothing, and deadlocks.
    listed = ", ".join(f":job_{index}" for index in range(number))
    return Prepared(
        text(
            "DELETE job_offers FROM job_offers FORCE INDEX (ix_job_offers_job_id) "
            f"WHERE job_offers.job_id IN ({listed})"
        )
    )


def withdraw(connection: Connection, job_ids: Sequence[int]) -> None:
    """Let no resource find these jobs."""
    forced = connection.dialect.name in ("mysql", "mariadb")
    _withdraw(len(job_ids), forced)(connection, **values_of("job", job_ids))


def fetch_job(connection: Connection, job_id: int, *, blobs: bool = False, for_update: bool = False) -> Job | None:
    """One job, or None; `blobs` adds input and output, `for_update` keeps others from changing it until the end."""
    row = _FETCH[blobs, for_update](connection, job_id=job_id).one_or_none()
    return None if row is None else job_of_row(row)


def fetch_jobs(connection: Connection, job_ids: Collection[int]) -> Iterator[Row[Any]]:
    """The rows of these jobs for `job_of_row`, without input and output, in order of their numbers."""
    return iter(
        connection.execute(select(*PLAIN).where(job_queue.c.job_id.in_(job_ids)).order_by(job_queue.c.job_id)).all()
    )


def fetch_of_repository(connection: Connection, repository: str) -> tuple[tuple[str, ...], int] | None:
    """Who may change the job that has this repository, and since when it is in its state; None if there is none."""
    row = _OF_REPOSITORY(connection, repository=repository).mappings().one_or_none()
    return None if row is None else (decode_list(row["write_access"]), row["state_time_stamp"])


def key_of(user: str, key: str) -> str:
    """What a job is found by that `user` has submitted with `key`, which has no colon."""
    return f"{user}:{key}"


def fetch_submitted(connection: Connection, submission_key: str) -> Job | None:
    """The job that was stored with this key, with input and output, or None."""
    row = connection.execute(select(*_WHOLE).where(job_queue.c.submission_key == submission_key)).one_or_none()
    return None if row is None else job_of_row(row)


def update_job(connection: Connection, job: Job, changes: dict[str, Any], tally: Tally | None = None) -> bool:
    """Change columns of a job if it still is in the state that `job` says; False if it is not.

    Offers are not touched: a job that changes is locked, or its caller sees to them. Application, owners and readers
    never change. Who changes several jobs gives a `tally`, which is then his to write.
    """
    result = connection.execute(
        update(job_queue)
        .where(job_queue.c.job_id == job.job_id, job_queue.c.state == job.state.value)
        .values(**changes)
    )
    if result.rowcount != 1:
        return False
    state = changes.get("state", job.state.value)
    if state != job.state.value:
        counting = tally or Tally()
        counting.move(job.owners, job.read_access, job.application, job.state.value, state)
        if tally is None:
            counting.write(connection)
    return True


def pulse(connection: Connection, job_id: int, now: int) -> None:
    """Note that a daemon looks after the job."""
    _PULSE(connection, job_id=job_id, now=now)


def delete_job(connection: Connection, job: Job, *, actor: str, now: int) -> bool:
    """Remove a job that nobody holds locked and that still is in its state; False, and nothing changed, otherwise.

    Its files do not count any more, with what `job` says they were counted with.
    """
    result = connection.execute(
        delete(job_queue).where(
            job_queue.c.job_id == job.job_id,
            job_queue.c.state == job.state.value,
            job_queue.c.lock_state == 0,
        )
    )
    if result.rowcount != 1:
        return False
    withdraw(connection, [job.job_id])
    connection.execute(delete(job_access).where(job_access.c.job_id == job.job_id))
    tally = Tally()
    tally.remove(job.owners, job.read_access, job.application, job.state.value)
    tally.write(connection)
    if job.repository_size:
        discharge(connection, job.account, job.repository_size)
    record(
        connection,
        job_id=job.job_id,
        from_state=job.state.value,
        to_state=JobState.DELETED.value,
        actor=actor,
        now=now,
    )
    return True


def _filtered(statement: Any, column: Any, wanted: str) -> Any:
    """The statement with a condition on a column: a value, `!` and a value for "not", or `any`."""
    if not wanted or wanted == ANY:
        return statement
    if wanted.startswith("!"):
        return statement.where(column != wanted[1:].strip())
    return statement.where(column == wanted)


def list_readable(
    connection: Connection, names: Sequence[str], *, state: str, application: str, start: int, limit: int
) -> list[Job]:
    """The jobs that any of `names` may read, in order of their numbers, without input and output.

    `state` and `application` filter, with `any` and a leading `!` for "not". Of each name no more is read than the
    page takes.
    """
    readable = [
        select(_readable(name, state, application).order_by(job_access.c.job_id).limit(start + limit).subquery())
        for name in dict.fromkeys([*names, ANY])
    ]
    found = union(*readable).subquery()
    page = select(found.c.job_id).order_by(found.c.job_id).offset(start).limit(limit).subquery()
    rows = connection.execute(
        select(*PLAIN).join(page, page.c.job_id == job_queue.c.job_id).order_by(job_queue.c.job_id)
    )
    return [job_of_row(row) for row in rows]


def _readable(name: str, state: str, application: str) -> Any:
    """The numbers of the jobs that may be read by those of one name."""
    plain = select(job_access.c.job_id).where(job_access.c.kind == READER, job_access.c.name == name)
    statement = _filtered(plain, job_queue.c.state, state.lower())
    statement = _filtered(statement, job_queue.c.application, application)
    if statement is plain:
        return plain
    # Numbers first, in their order: otherwise all jobs of a state may be read, and sorted.
    return (
        statement.select_from(job_access.join(job_queue, job_queue.c.job_id == job_access.c.job_id))
        .prefix_with("STRAIGHT_JOIN", dialect="mysql")
        .prefix_with("STRAIGHT_JOIN", dialect="mariadb")
    )


def count_readable(connection: Connection, names: Sequence[str], *, state: str, application: str) -> int:
    """How many jobs any of `names` may read; `state` and `application` as for the list of them."""
    sets = select(access_sets.c.set_id).where(access_sets.c.name.in_([*names, ANY])).distinct().subquery()
    # Sets first: otherwise all counts may be read.
    statement = (
        select(func.coalesce(func.sum(job_counts.c.number), 0))
        .select_from(sets.join(job_counts, job_counts.c.set_id == sets.c.set_id))
        .where(job_counts.c.kind == READER)
        .prefix_with("STRAIGHT_JOIN", dialect="mysql")
        .prefix_with("STRAIGHT_JOIN", dialect="mariadb")
    )
    statement = _filtered(statement, job_counts.c.state, state.lower())
    return int(connection.scalar(_filtered(statement, job_counts.c.application, application)) or 0)


def count_owned(connection: Connection, owner: str, application: str) -> tuple[int, int]:
    """How many jobs of `application` (`any`: all) an owner has: queued and running ones, and in all.

    Exact for whoever holds the grant of a limit: of those who add jobs under it, all before him have committed.
    """
    number = job_counts.c.number
    active = case((job_counts.c.state.in_([JobState.QUEUED.value, JobState.RUNNING.value]), number), else_=0)
    statement = (
        select(func.coalesce(func.sum(active), 0), func.coalesce(func.sum(number), 0))
        .select_from(access_sets.join(job_counts, job_counts.c.set_id == access_sets.c.set_id))
        .where(access_sets.c.name == owner, job_counts.c.kind == OWNER)
        .prefix_with("STRAIGHT_JOIN", dialect="mysql")
        .prefix_with("STRAIGHT_JOIN", dialect="mariadb")
    )
    row = connection.execute(_filtered(statement, job_counts.c.application, application)).one()
    return int(row[0]), int(row[1])


def without_pulse(connection: Connection, before: int, limit: int) -> list[Job]:
    """Running and aborting jobs that no daemon has looked after since `before`.

    They stay as they are until the transaction ends. Those that another transaction is changing are passed over.
    """
    rows = connection.execute(
        select(*PLAIN)
        .where(
            job_queue.c.state.in_([JobState.RUNNING.value, JobState.ABORTING.value]),
            job_queue.c.daemon_pulse < before,
            job_queue.c.lock_state == 0,
        )
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return [job_of_row(row) for row in rows]
