"""How many jobs there are, counted when they change, so that a count costs the same whatever their number.

Jobs are counted by their owners and by those who may read them. A list of names is a set, known by its digest: whose
jobs are asked for has sets, each of which is counted once, however many of his names it has. A count is spread over
slots, one for each connection that writes, so that transactions do not wait for each other's rows: it is their sum,
and one of them may be negative.

Counts change in the transaction that changes jobs. It takes them after all rows of jobs and before the accounts of
`lgi.db.usage`, once, in the order of their key: so none waits for another that waits for it.
"""

from __future__ import annotations

import itertools
import secrets
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Any

import attrs
from sqlalchemy import Connection, delete, func, insert, select, text
from sqlalchemy.dialects import postgresql

from lgi.db.changes import remember, remembered
from lgi.db.prepared import Prepared
from lgi.db.schema import access_sets, job_counts, job_queue
from lgi.lists import decode_list

OWNERS, READERS = "o", "r"
SLOTS = 8
_BATCH = 10_000  # jobs that are looked at at a time
_ROWS = 500  # counts that are written at a time: SQLite takes 32,766 values
_MYSQL = ("mysql", "mariadb")
_SLOT = "lgi_slot"
_slots = itertools.count(secrets.randbelow(SLOTS))

Key = tuple[str, str, str, str]
"""What is counted apart: kind, set, application and state."""


@lru_cache(maxsize=4096)
def set_of(names: tuple[str, ...]) -> str:
    """The digest of a list of names, whatever their order."""
    return sha256(",".join(sorted(set(names))).encode()).hexdigest()[:32]


def keys_of(owners: Sequence[str], readers: Sequence[str], application: str, state: str) -> tuple[Key, Key]:
    """As what a job is counted that has these."""
    return (
        (OWNERS, set_of(tuple(owners)), application, state),
        (READERS, set_of(tuple(readers)), application, state),
    )


class Tally:
    """What changes in the counts during a transaction, to be written at its end."""

    def __init__(self) -> None:
        self._changes: Counter[Key] = Counter()
        self._names: dict[str, tuple[str, ...]] = {}

    def add(self, owners: tuple[str, ...], readers: tuple[str, ...], application: str, state: str) -> None:
        """There is one more such job."""
        self._changes.update(keys_of(owners, readers, application, state))
        for names in (owners, readers):
            self._names[set_of(names)] = names

    def move(self, owners: Sequence[str], readers: Sequence[str], application: str, state: str, to: str) -> None:
        """One of these jobs changes its state."""
        self.remove(owners, readers, application, state)
        self._changes.update(keys_of(owners, readers, application, to))

    def remove(self, owners: Sequence[str], readers: Sequence[str], application: str, state: str) -> None:
        """There is one such job less."""
        self._changes.subtract(keys_of(owners, readers, application, state))

    def write(self, connection: Connection) -> None:
        """Count what was tallied: one statement, on SQLite and PostgreSQL one more where there are new jobs."""
        changes = {key: number for key, number in self._changes.items() if number}
        if not changes:
            return
        adding, values = _added(connection, changes)
        if all(remembered(connection, f"set {set_id}") for set_id in self._names):
            adding.later(connection, **values)
            return
        result = adding(connection, **values)
        # A row that is changed counts for two there, a new one for one: all of these were counted before.
        if result.rowcount != 2 * len(changes) or connection.dialect.name not in _MYSQL:
            _write_names(connection, self._names)
        for set_id in self._names:
            remember(connection, f"set {set_id}", 1)


def _added(connection: Connection, changes: Mapping[Key, int]) -> tuple[Prepared, dict[str, object]]:
    """What adds these numbers, and with which values."""
    slot = connection.info.get(_SLOT)
    if slot is None:
        slot = connection.info[_SLOT] = next(_slots) % SLOTS
    values: dict[str, object] = {"slot": slot}
    for place, (key, number) in enumerate(sorted(changes.items())):
        values |= {f"{name}{place}": value for name, value in zip("ksat", key, strict=True)}
        values[f"n{place}"] = number
    return _adding(connection.dialect.name in _MYSQL, len(changes)), values


@lru_cache(maxsize=64)
def _adding(mysql: bool, rows: int) -> Prepared:
    values = ", ".join(f"(:k{row}, :s{row}, :a{row}, :t{row}, :slot, :n{row})" for row in range(rows))
    present = (
        "ON DUPLICATE KEY UPDATE number = number + VALUES(number)"
        if mysql
        else "ON CONFLICT (kind, set_id, application, state, slot)"
        " DO UPDATE SET number = job_counts.number + excluded.number"
    )
    columns = "kind, set_id, application, state, slot, number"
    # Nothing but names of parameters is put in.
    return Prepared(text(f"INSERT INTO job_counts ({columns}) VALUES {values} {present}"))  # noqa: S608


def _write_names(connection: Connection, sets: Mapping[str, Sequence[str]]) -> None:
    """Let these sets be found by their names, where they are not yet."""
    rows = sorted((name, set_id) for set_id, names in sets.items() for name in set(names))
    statement: Any = insert(access_sets)
    if connection.dialect.name == "postgresql":
        statement = postgresql.insert(access_sets).on_conflict_do_nothing()
    else:
        # What is there is held as by a reader, together with others: nobody changes it.
        statement = statement.prefix_with("OR IGNORE", dialect="sqlite")
        for dialect in _MYSQL:
            statement = statement.prefix_with("IGNORE", dialect=dialect)
    if rows:
        connection.execute(statement, [{"name": name, "set_id": set_id} for name, set_id in rows])


@attrs.frozen(kw_only=True)
class Recount:
    """What counting all jobs has shown to be wrong."""

    differences: Mapping[Key, int]
    """By how much what is counted is too low."""
    sets: Mapping[str, tuple[str, ...]]
    """Sets whose names are wrong, and the names that they have; none where no job has the set."""

    def __bool__(self) -> bool:
        """Whether anything is wrong."""
        return bool(self.differences or self.sets)


def recounted(connection: Connection) -> Recount:
    """Count all jobs, in a transaction that sees one state of the database."""
    due: Counter[Key] = Counter()
    sets: dict[str, tuple[str, ...]] = {}
    c = job_queue.c
    page = select(c.job_id, c.owners, c.read_access, c.application, c.state).order_by(c.job_id).limit(_BATCH)
    last = 0
    while found := connection.execute(page.where(c.job_id > last)).all():
        last = found[-1].job_id
        for _job_id, owners, readers, application, state in found:
            lists = decode_list(owners), decode_list(readers)
            due.update(keys_of(*lists, application, state))
            sets.update((set_of(names), names) for names in lists)
    counts = job_counts.c
    summed = select(counts.kind, counts.set_id, counts.application, counts.state, func.sum(counts.number))
    counted = connection.execute(summed.group_by(counts.kind, counts.set_id, counts.application, counts.state))
    for kind, set_id, application, state, number in counted:
        due[kind, set_id, application, state] -= int(number)
    known: dict[str, list[str]] = defaultdict(list)
    for name, set_id in connection.execute(select(access_sets.c.name, access_sets.c.set_id)):
        known[set_id].append(name)
    wrong = {set_id for set_id, names in known.items() if set_of(tuple(names)) != set_id}
    wrong |= {set_id for set_id, names in sets.items() if names and set_id not in known}
    return Recount(
        differences={key: number for key, number in due.items() if number},
        sets={set_id: sets.get(set_id, ()) for set_id in sorted(wrong)},
    )


def settle_counts(connection: Connection, found: Recount) -> None:
    """Mend what was found; what others have counted since is kept."""
    for set_id in found.sets:
        connection.execute(delete(access_sets).where(access_sets.c.set_id == set_id))
    _write_names(connection, found.sets)
    changes = sorted(found.differences.items())
    for first in range(0, len(changes), _ROWS):
        adding, values = _added(connection, dict(changes[first : first + _ROWS]))
        adding(connection, **values)
