"""The record of jobs: what happened to which, when, by whom, written with the change itself."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, bindparam, delete, insert, or_, select

from lgi.db.changes import note
from lgi.db.direct import NewNumber
from lgi.db.prepared import Prepared, numbered, values_of
from lgi.db.schema import job_log
from lgi.model import Changes, LogEntry
from lgi.states import JobState

_RECORD = Prepared(
    # Nobody asks for its number.
    insert(job_log)
    .inline()
    .values({name: bindparam(name) for name in ("time", "job_id", "from_state", "to_state", "actor", "detail")})
)

GAP_SECONDS = 60
"""How long a number that is missing may still come: no transaction of ours lives longer after it has drawn one."""


def record(
    connection: Connection, *, job_id: int, from_state: str, to_state: str, actor: str, detail: str = "", now: int
) -> None:
    """Add one entry."""
    note(connection, Changes(jobs=frozenset([job_id])))
    _RECORD.later(
        connection, time=now, job_id=job_id, from_state=from_state, to_state=to_state, actor=actor, detail=detail
    )


def record_new(connection: Connection, job_id: int | NewNumber, *, state: str, actor: str, now: int) -> None:
    """Add the entry of a new job, of which nobody is told: that is for who knows its number."""
    _RECORD.later(connection, time=now, job_id=job_id, from_state="", to_state=state, actor=actor, detail="")


def record_moves(connection: Connection, moves: Sequence[tuple[int, str, str]], *, actor: str, now: int) -> None:
    """Add an entry for each of `moves`, (job_id, from_state, to_state), in one statement; there is at least one."""
    note(connection, Changes(jobs=frozenset(job_id for job_id, _from, _to in moves)))
    values: dict[str, object] = {"time": now, "actor": actor, "detail": ""}
    for name, column in zip(_MOVE, zip(*moves, strict=True), strict=True):
        values |= values_of(name, column)
    _recording(len(moves)).later(connection, **values)


_MOVE = ("job_id", "from_state", "to_state")


@lru_cache(maxsize=64)
def _recording(number: int) -> Prepared:
    same: dict[str, Any] = {name: bindparam(name) for name in ("time", "actor", "detail")}
    moves = zip(*(numbered(name, number) for name in _MOVE), strict=True)
    return Prepared(insert(job_log).inline().values([same | dict(zip(_MOVE, move, strict=True)) for move in moves]))


def record_changes(
    connection: Connection, changes: Sequence[tuple[int, str]], *, to_state: str, actor: str, detail: str, now: int
) -> None:
    """Add an entry for each of `changes`, (job_id, from_state), in one statement; there is at least one."""
    note(connection, Changes(jobs=frozenset(job_id for job_id, _state in changes)))
    values = {"time": now, "to_state": to_state, "actor": actor, "detail": detail}
    connection.execute(
        insert(job_log).values([{"job_id": job_id, "from_state": state, **values} for job_id, state in changes])
    )


def forget_jobs(connection: Connection, before: int, limit: int) -> int:
    """Remove all entries of up to `limit` jobs that were deleted before the second `before`; returns of how many."""
    gone = list(
        connection.scalars(
            select(job_log.c.job_id)
            .where(job_log.c.to_state == JobState.DELETED.value, job_log.c.time < before)
            .order_by(job_log.c.time)
            .limit(limit)
        )
    )
    if gone:
        connection.execute(delete(job_log).where(job_log.c.job_id.in_(gone)))
    return len(gone)


def entries_of_job(connection: Connection, job_id: int) -> list[LogEntry]:
    """All entries of one job, oldest first."""
    rows = connection.execute(select(job_log).where(job_log.c.job_id == job_id).order_by(job_log.c.number))
    return [_entry(row) for row in rows]


def _entry(row: Row[Any]) -> LogEntry:
    return LogEntry(**row._asdict())


class LogReader:
    """Reads the record from after the number `since` on: each entry exactly once, those of one job in their order.

    Numbers are drawn before transactions commit, so that a lower number may appear after a higher one, and never
    appears if its transaction is rolled back. The reader therefore remembers the gaps it has passed and asks for them
    again with what is new, until they fill or are older than GAP_SECONDS: then nobody can be alive who could fill
    them. Others are not kept waiting meanwhile, since what has happened to one job cannot come out of order: a change
    of a job waits for the one before it to commit, and each look is one statement, that sees both or neither.
    On SQLite writers take turns, and there are no gaps.

    With `job_id` it reads the entries of that job only, which for the same reason leave no gaps to wait for. Nor do
    entries from before the Unix second `settled_before`: numbers that are missing there have been removed.
    """

    def __init__(self, *, since: int = 0, job_id: int | None = None, settled_before: int = 0) -> None:
        self._seen = since
        self._job_id = job_id
        self._settled_before = settled_before
        # First and last missing number, and when that was noticed.
        self._gaps: list[tuple[int, int, float]] = []

    @property
    def settled(self) -> int:
        """Who starts again from this number misses nothing, and may see again what is higher."""
        return self._gaps[0][0] - 1 if self._gaps else self._seen

    def read(self, connection: Connection, now: float, limit: int = 1000) -> list[LogEntry]:
        """The next entries, at most `limit`, none if there is nothing new; `now` in seconds never goes back."""
        # Asked for once more when their time is up, and forgotten only after that.
        expired = [gap for gap in self._gaps if gap[2] <= now - GAP_SECONDS]
        statement = select(job_log).where(self._wanted()).order_by(job_log.c.number).limit(limit)
        entries = [_entry(row) for row in connection.execute(statement)]
        numbers = [entry.number for entry in entries]
        if len(numbers) < limit:
            self._gaps = [gap for gap in self._gaps if gap not in expired]
        self._fill([number for number in numbers if number <= self._seen])
        for entry in entries:
            if entry.number > self._seen:
                waited_for = self._job_id is None and entry.time >= self._settled_before
                if waited_for and entry.number > self._seen + 1:
                    self._gaps.append((self._seen + 1, entry.number - 1, now))
                self._seen = entry.number
        return entries

    def _wanted(self) -> ColumnElement[bool]:
        if self._job_id is not None:
            return and_(job_log.c.job_id == self._job_id, job_log.c.number > self._seen)
        missing = [job_log.c.number.between(first, last) for first, last, _since in self._gaps]
        return or_(job_log.c.number > self._seen, *missing)

    def _fill(self, numbers: Sequence[int]) -> None:
        """Take numbers that have come out of the gaps."""
        for number in numbers:
            self._gaps = [
                part
                for first, last, since in self._gaps
                for part in (
                    [(first, number - 1, since), (number + 1, last, since)]
                    if first <= number <= last
                    else [(first, last, since)]
                )
                if part[0] <= part[1]
            ]
