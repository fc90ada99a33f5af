"""Jobs: `job_queue`, and what is held beside it to find them (access, offers, repository)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    Integer,
    Row,
    Select,
    bindparam,
    case,
    delete,
    func,
    insert,
    or_,
    select,
    text,
    union,
    update,
)

from lgi.db.changes import note
from lgi.db.counts import Tally
from lgi.db.direct import NewNumber
from lgi.db.log import record, record_new
from lgi.db.prepared import Prepared, named, number_of, numbered, parameters_for, values_of
from lgi.db.schema import access_sets, job_access, job_counts, job_offers, job_queue
from lgi.db.usage import discharge
from lgi.lists import ANY, decode_list, encode_list
from lgi.model import Changes, Job, ListedJob
from lgi.states import JobState

OWNER, READER, WRITER = "o", "r", "w"

_BLOBS = ("input", "output")
# What a job is found by, and nobody needs to see.
_KEY = "submission_key"
_LISTED = [job_queue.c[name] for name in ListedJob._fields]
WHOLE = [column for column in job_queue.c if column.name != _KEY]
PLAIN = [column for column in WHOLE if column.name not in _BLOBS]
_NAMES = frozenset(column.name for column in WHOLE)
_LISTS = ("owners", "read_access", "write_access", "target_resources")

_THIS = job_queue.c.job_id == bindparam("job_id")
_FETCH = {
    (blobs, for_update): Prepared(statement.with_for_update() if for_update else statement)
    for blobs, statement in ((True, select(*WHOLE).where(_THIS)), (False, select(*PLAIN).where(_THIS)))
    for for_update in (True, False)
}
_OF_REPOSITORY = Prepared(
    select(job_queue.c.write_access, job_queue.c.state_time_stamp, job_queue.c.repository_size).where(
        job_queue.c.repository == bindparam("repository")
    )
)
_INSERT = Prepared.numbering(job_queue, [column.name for column in job_queue.c if column.name != "job_id"])
_FETCH_SUBMITTED = Prepared(select(*WHOLE).where(job_queue.c.submission_key == bindparam("submission_key")))
_DELETE = Prepared(
    delete(job_queue).where(_THIS, job_queue.c.state == bindparam("state"), job_queue.c.lock_state == 0)
)
_DELETE_ACCESS = Prepared(delete(job_access).where(job_access.c.job_id == bindparam("job_id")))


def job_of_row(row: Row[Any]) -> Job:
    """A row with the columns of `job_queue`, maybe without input and output and maybe with others, as a value."""
    values = {name: value for name, value in zip(row._fields, row, strict=True) if name in _NAMES}
    for name in _LISTS:
        values[name] = decode_list(values[name])
    values["state"] = JobState(values["state"])
    return Job(**values)


def insert_job(connection: Connection, job: Job, *, actor: str) -> int:
    """Store a new job (its `job_id` is ignored) and return its number.

    Four to six statements whatever the job. `lock_state` of the job says whether it is offered at once.
    """
    job_id = _INSERT.one_key(connection, **_new(job, None))
    _complete(connection, job_id, job, actor)
    note(connection, Changes(jobs=frozenset([job_id])))
    return job_id


def insert_last_job(
    connection: Connection,
    job: Job,
    *,
    actor: str,
    submission_key: str | None = None,
    complete: Callable[[], None],
) -> int:
    """As `insert_job`, as the last that its transaction does but for what is to `complete` it.

    With the `submission_key` of `key_of` it can be found again; raises IntegrityError where there is a job with that
    key, and what `complete` raises.
    """
    number = _INSERT.later_number(connection, **_new(job, submission_key))
    _complete(connection, number, job, actor)
    complete()
    job_id = number_of(connection, number)
    note(connection, Changes(jobs=frozenset([job_id])))
    return job_id


def _new(job: Job, submission_key: str | None) -> dict[str, object]:
    """The values of a new job."""
    return named(
        "new_",
        {
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
        },
    )


def _complete(connection: Connection, job_id: int | NewNumber, job: Job, actor: str) -> None:
    """Write what is held beside a new job."""
    rows = [
        (kind, name)
        for kind, names in ((OWNER, job.owners), (READER, job.read_access), (WRITER, job.write_access))
        for name in names
    ]
    values = values_of("kind", (kind for kind, _name in rows)) | values_of("name", (name for _kind, name in rows))
    # First what is answered to, so that the others can be sent together.
    tally = Tally()
    tally.add(job.owners, job.read_access, job.application, job.state.value)
    tally.write(connection)
    _giving_access(len(rows)).later(connection, job_id=job_id, **values)
    if job.state is JobState.QUEUED and not job.lock_state:
        offer(connection, job_id, job.application, job.target_resources, job.priority)
    record_new(connection, job_id, state=job.state.value, actor=actor, now=job.state_time_stamp)


def offer(
    connection: Connection,
    job_id: int | NewNumber,
    application: str,
    targets: Sequence[str],
    priority: int,
    *,
    quietly: bool = False,
) -> None:
    """Let resources find a queued job that nobody holds, and tell those that wait for work unless it is `quietly`."""
    if not quietly:
        note(connection, Changes(offers=frozenset((application, target) for target in targets)))
    values = values_of("target", targets)
    _offering(len(targets)).later(connection, application=application, priority=priority, job_id=job_id, **values)


@lru_cache(maxsize=64)
def _offering(targets: int) -> Prepared:
    same: dict[str, Any] = {name: bindparam(name) for name in ("application", "priority", "job_id")}
    return Prepared(
        insert(job_offers).inline().values([{"target": target, **same} for target in numbered("target", targets)])
    )


@lru_cache(maxsize=64)
def _giving_access(rows: int) -> Prepared:
    pairs = zip(numbered("kind", rows), numbered("name", rows), strict=True)
    return Prepared(
        insert(job_access)
        .inline()
        .values([{"kind": kind, "name": name, "job_id": bindparam("job_id")} for kind, name in pairs])
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
    _withdraw(len(job_ids), forced).later(connection, **values_of("job", job_ids))


def fetch_job(connection: Connection, job_id: int, *, blobs: bool = False, for_update: bool = False) -> Job | None:
    """One job, or None; `blobs` adds input and output, `for_update` keeps others from changing it until the end."""
    row = _FETCH[blobs, for_update](connection, job_id=job_id).one_or_none()
    return None if row is None else job_of_row(row)


def fetch_jobs(connection: Connection, job_ids: Collection[int]) -> list[ListedJob]:
    """These jobs as far as they are there, in order of their numbers."""
    statement = select(*_LISTED).where(job_queue.c.job_id.in_(job_ids)).order_by(job_queue.c.job_id)
    return [ListedJob(*row) for row in connection.execute(statement)]


def fetch_of_repository(connection: Connection, repository: str) -> tuple[tuple[str, ...], int, int] | None:
    """Who may change the job that has this repository, since when it is in its state, and what its files take.

    None if there is none.
    """
    row = _OF_REPOSITORY(connection, repository=repository).one_or_none()
    if row is None:
        return None
    return decode_list(row.write_access), row.state_time_stamp, row.repository_size


def key_of(user: str, key: str) -> str:
    """What a job is found by that `user` has submitted with `key`, which has no colon."""
    return f"{user}:{key}"


def fetch_submitted(connection: Connection, submission_key: str) -> Job | None:
    """The job that was stored with this key, with input and output, or None."""
    row = _FETCH_SUBMITTED(connection, submission_key=submission_key).one_or_none()
    return None if row is None else job_of_row(row)


def update_job(
    connection: Connection, job: Job, changes: dict[str, Any], tally: Tally | None = None, *, held: bool = False
) -> bool:
    """Change columns of a job if it still is in the state that `job` says; False if it is not.

    With `held` the transaction holds the job as it found it, and nothing is asked.

    Offers are not touched: a job that changes is locked, or its caller sees to them. Application, owners and readers
    never change. Who changes several jobs gives a `tally`, which is then his to write.
    """
    values = named("new_", changes)
    changing = _changing(tuple(changes))
    if held:
        changing.later(connection, job_id=job.job_id, state=job.state.value, **values)
    elif changing(connection, job_id=job.job_id, state=job.state.value, **values).rowcount != 1:
        return False
    state = changes.get("state", job.state.value)
    if state != job.state.value:
        counting = tally or Tally()
        counting.move(job.owners, job.read_access, job.application, job.state.value, state)
        if tally is None:
            counting.write(connection)
    return True


@lru_cache(maxsize=64)
def _changing(columns: tuple[str, ...]) -> Prepared:
    in_state = job_queue.c.state == bindparam("state")
    return Prepared(update(job_queue).where(_THIS, in_state).values(parameters_for("new_", columns)))


def update_jobs(connection: Connection, changes: Sequence[tuple[Job, dict[str, Any]]]) -> None:
    """Change columns of several jobs that the transaction holds and that are as it found them; see `update_job`.

    One statement for all that change the same columns, and one for the counts.
    """
    alike: dict[tuple[str, ...], list[tuple[int, dict[str, Any]]]] = {}
    tally = Tally()
    for job, values in changes:
        alike.setdefault(tuple(sorted(values)), []).append((job.job_id, values))
        state = values.get("state", job.state.value)
        if state != job.state.value:
            tally.move(job.owners, job.read_access, job.application, job.state.value, state)
    forced = connection.dialect.name in ("mysql", "mariadb")
    for names, group in alike.items():
        first = group[0][1]
        common = tuple(name for name in names if all(values[name] == first[name] for _job_id, values in group))
        posted = values_of("job", (job_id for job_id, _values in group))
        posted |= {f"new_{name}": first[name] for name in common}
        apart = tuple(name for name in names if name not in common)
        for name in apart:
            posted |= values_of(f"new_{name}", (values[name] for _job_id, values in group))
        _changing_several(common, apart, len(group), forced).later(connection, **posted)
    tally.write(connection)


@lru_cache(maxsize=256)
def _changing_several(common: tuple[str, ...], apart: tuple[str, ...], number: int, forced: bool) -> Prepared:
    jobs = range(number)
    setting = [f"{name} = :new_{name}" for name in common]
    for name in apart:
        cases = " ".join(f"WHEN :job_{place} THEN :new_{name}_{place}" for place in jobs)
        setting.append(f"{name} = CASE job_id {cases} END")
    # Forced as in `_withdraw`.
    table = "job_queue FORCE INDEX (PRIMARY)" if forced else "job_queue"
    listed = ", ".join(f":job_{place}" for place in jobs)
    # Nothing but names of columns and parameters is put in.
    return Prepared(text(f"UPDATE {table} SET {', '.join(setting)} WHERE job_id IN ({listed})"))  # noqa: S608


def delete_job(connection: Connection, job: Job, *, actor: str, now: int) -> bool:
    """Remove a job that nobody holds locked and that still is in its state; False, and nothing changed, otherwise.

    Its files do not count any more, with what `job` says they were counted with.
    """
    if _DELETE(connection, job_id=job.job_id, state=job.state.value).rowcount != 1:
        return False
    withdraw(connection, [job.job_id])
    _DELETE_ACCESS.later(connection, job_id=job.job_id)
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


class Filter(NamedTuple):
    """What is asked for of a column: `any`, a value, or `!` and a value for "not"."""

    wanted: str

    @property
    def kind(self) -> str:
        """Nothing where all are wanted, or the comparison."""
        if not self.wanted or self.wanted == ANY:
            return ""
        return "!" if self.wanted.startswith("!") else "="

    @property
    def value(self) -> str:
        """What is compared with."""
        return self.wanted.removeprefix("!").strip() if self.kind == "!" else self.wanted


def _filtered(statement: Any, column: Any, kind: str) -> Any:
    """The statement with a condition on a column, whose value is the parameter of its name."""
    if not kind:
        return statement
    value: Any = bindparam(f"wanted_{column.name}")
    return statement.where(column != value if kind == "!" else column == value)


def _wanted(**filters: Filter) -> dict[str, object]:
    """The values of those parameters."""
    return {f"wanted_{name}": found.value for name, found in filters.items() if found.kind}


def list_readable(
    connection: Connection, names: Sequence[str], *, state: str, application: str, start: int, limit: int
) -> list[ListedJob]:
    """The jobs that any of `names` may read, in order of their numbers.

    `state` and `application` filter, with `any` and a leading `!` for "not". Of each name no more is read than the
    page takes.
    """
    readers = tuple(dict.fromkeys([*names, ANY]))
    states, applications = Filter(state.lower()), Filter(application)
    rows = _listing(len(readers), states.kind, applications.kind)(
        connection,
        start=start,
        limit=limit,
        end=start + limit,
        **values_of("name", readers),
        **_wanted(state=states, application=applications),
    )
    return [ListedJob(*row) for row in rows]


@lru_cache(maxsize=64)
def _listing(names: int, state: str, application: str) -> Prepared:
    readable = [
        _readable(name, state, application).order_by(job_access.c.job_id).limit(bindparam("end", type_=Integer))
        for name in numbered("name", names)
    ]

    def paged(found: Any) -> Select[Any]:
        offset, limit = bindparam("start", type_=Integer), bindparam("limit", type_=Integer)
        page = found.order_by(found.selected_columns.job_id).offset(offset).limit(limit).subquery()
        return (
            select(*_LISTED)
            .select_from(page.join(job_queue, page.c.job_id == job_queue.c.job_id))
            .order_by(page.c.job_id)
        )

    # SQLite takes no part of a union with an order and a limit of its own, MySQL no more tables than it must have.
    return Prepared(paged(union(*(select(part.subquery()) for part in readable))), mysql=paged(union(*readable)))


def _readable(name: Any, state: str, application: str) -> Any:
    """The numbers of the jobs that may be read by those of one name."""
    plain = select(job_access.c.job_id).where(job_access.c.kind == READER, job_access.c.name == name)
    statement = _filtered(plain, job_queue.c.state, state)
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
    readers = tuple(dict.fromkeys([*names, ANY]))
    states, applications = Filter(state.lower()), Filter(application)
    counting = _counting(len(readers), states.kind, applications.kind)
    wanted = _wanted(state=states, application=applications)
    return int(counting(connection, **values_of("name", readers), **wanted).scalar_one())


@lru_cache(maxsize=64)
def _counting(names: int, state: str, application: str) -> Prepared:
    sets = select(access_sets.c.set_id).where(access_sets.c.name.in_(numbered("name", names))).distinct().subquery()
    # Sets first: otherwise all counts may be read.
    statement = (
        select(func.coalesce(func.sum(job_counts.c.number), 0))
        .select_from(sets.join(job_counts, job_counts.c.set_id == sets.c.set_id))
        .where(job_counts.c.kind == READER)
        .prefix_with("STRAIGHT_JOIN", dialect="mysql")
        .prefix_with("STRAIGHT_JOIN", dialect="mariadb")
    )
    statement = _filtered(statement, job_counts.c.state, state)
    return Prepared(_filtered(statement, job_counts.c.application, application))


def count_owned(connection: Connection, owner: str, application: str) -> tuple[int, int]:
    """How many jobs of `application` (`any`: all) an owner has: queued and running ones, and in all.

    Exact for whoever holds the grant of a limit: of those who add jobs under it, all before him have committed.
    """
    applications = Filter(application)
    row = _counting_owned(applications.kind)(connection, name=owner, **_wanted(application=applications)).one()
    return int(row[0]), int(row[1])


@lru_cache(maxsize=4)
def _counting_owned(application: str) -> Prepared:
    return Prepared(owned(application))


def owned(application: str) -> Select[Any]:
    """How many jobs the owner `name` has: queued and running ones, and in all.

    Of one application or all others, by the kind of a `Filter`, whose value is the parameter `wanted_application`.
    """
    number = job_counts.c.number
    state = job_counts.c.state
    active = case(
        (or_(state == JobState.QUEUED.value, state == JobState.RUNNING.value), number),
        else_=0,
    )
    statement = (
        select(func.coalesce(func.sum(active), 0).label("active"), func.coalesce(func.sum(number), 0).label("total"))
        .select_from(access_sets.join(job_counts, job_counts.c.set_id == access_sets.c.set_id))
        .where(access_sets.c.name == bindparam("name"), job_counts.c.kind == OWNER)
        .prefix_with("STRAIGHT_JOIN", dialect="mysql")
        .prefix_with("STRAIGHT_JOIN", dialect="mariadb")
    )
    found: Select[Any] = _filtered(statement, job_counts.c.application, application)
    return found


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
