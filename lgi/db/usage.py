"""What the files of jobs take: of each job in its own row, of each user in `user_usage`.

A job's files count for its first owner. A user's sum is only changed in the transaction that changes the job's, after
it, so that all take rows in one order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from sqlalchemy import BigInteger, Connection, bindparam, case, insert, select, update
from sqlalchemy.dialects import mysql, postgresql

from lgi.db.prepared import Prepared
from lgi.db.schema import job_queue, user_usage
from lgi.lists import decode_list

_SIZE, _BY = user_usage.c.size, bindparam("by", type_=BigInteger)
_OF_USER = user_usage.c.user_name == bindparam("user")
_CHARGE = Prepared(update(user_usage).where(_OF_USER).values(size=_SIZE + _BY))
_CHARGE_WITHIN = Prepared(
    update(user_usage).where(_OF_USER, bindparam("limit") >= _SIZE + _BY).values(size=_SIZE + _BY)
)
_DISCHARGE = Prepared(update(user_usage).where(_OF_USER).values(size=case((_SIZE > _BY, _SIZE - _BY), else_=0)))
_HOLD = Prepared(
    select(job_queue.c.job_id, job_queue.c.owners, job_queue.c.repository_size)
    .where(job_queue.c.repository == bindparam("repository"))
    .with_for_update()
)
_COUNT = Prepared(
    update(job_queue).where(job_queue.c.job_id == bindparam("job_id")).values(repository_size=bindparam("size"))
)


class AccountFull(Exception):
    """The files of `user` would take more than they may."""

    def __init__(self, user: str) -> None:
        self.user = user
        super().__init__(user)


class RepositoryFull(Exception):
    """The files of a repository would take more than they may."""


@attrs.frozen(kw_only=True)
class Charge:
    """Bytes that were added to a user's account, or taken off where `size` is negative."""

    user: str
    size: int


def charge(connection: Connection, user: str, size: int, limit: int = 0) -> None:
    """Add bytes, more than none, to a user's account; raises AccountFull where that passes `limit`, 0 for no limit.

    Others who change the account wait until the transaction ends, so that they cannot pass the limit together.
    """
    adding, values = (_CHARGE_WITHIN, {"limit": limit}) if limit else (_CHARGE, {})
    if adding(connection, user=user, by=size, **values).rowcount:
        return
    _open(connection, user)
    if not adding(connection, user=user, by=size, **values).rowcount:
        raise AccountFull(user)


def _open(connection: Connection, user: str) -> None:
    """Begin an empty account where there is none."""
    values = {"user_name": user, "size": 0}
    statement: Any
    if connection.dialect.name == "postgresql":
        statement = postgresql.insert(user_usage).on_conflict_do_nothing()
    elif connection.dialect.name == "sqlite":
        statement = insert(user_usage).prefix_with("OR IGNORE")
    else:
        # Writes nothing to a row that is there, but holds it as an update does: what is ignored instead would be held
        # as by a reader, together with others, and then none of them could add to it.
        statement = mysql.insert(user_usage).on_duplicate_key_update(size=user_usage.c.size)
    connection.execute(statement, values)


def discharge(connection: Connection, user: str, size: int) -> None:
    """Take bytes off a user's account, which is never less than empty."""
    _DISCHARGE(connection, user=user, by=size)


def _held(connection: Connection, repository: str) -> Any:
    """The row of the job that has a repository, which nobody else changes until the transaction ends, or None."""
    return _HOLD(connection, repository=repository).one_or_none()


def _count(connection: Connection, row: Any, size: int, limit: int) -> Charge:
    """Let a job that is held count with `size`, and its owner's account with it."""
    owners = decode_list(row.owners)
    charged = Charge(user=owners[0] if owners else "", size=size - row.repository_size)
    if charged.size:
        _COUNT(connection, job_id=row.job_id, size=size)
    if charged.size > 0:
        charge(connection, charged.user, charged.size, limit)
    elif charged.size < 0:
        discharge(connection, charged.user, -charged.size)
    return charged


def reserve(
    connection: Connection, repository: str, delta: int, *, user_limit: int = 0, limit: int = 0
) -> Charge | None:
    """Count so much more, or less, for the job that has a repository; None if no job has it.

    Raises RepositoryFull where its files would take more than `limit` then, AccountFull where those of its owner
    would take more than `user_limit`; 0 is no limit, and what shrinks is welcome, also where the limit was once
    higher. The charge is less than `delta` says where more is taken off than was counted.
    """
    row = _held(connection, repository)
    if row is None:
        return None
    size = max(0, row.repository_size + delta)
    if delta > 0 and limit and size > limit:
        raise RepositoryFull
    return _count(connection, row, size, user_limit)


def recount(connection: Connection, repository: str, size: int) -> bool:
    """Let the job that has a repository count with `size`, whatever was counted; False if no job has it."""
    row = _held(connection, repository)
    if row is None:
        return False
    _count(connection, row, size, 0)
    return True


def used_by(connection: Connection, user: str) -> int:
    """What a user's account says, in bytes."""
    return connection.scalar(select(user_usage.c.size).where(user_usage.c.user_name == user)) or 0


def sums(connection: Connection) -> tuple[Mapping[str, int], Mapping[str, int]]:
    """What the accounts of all users say, and what they should say: the sums of their jobs."""
    said = {row.user_name: row.size for row in connection.execute(select(user_usage)) if row.size}
    due: dict[str, int] = {}
    jobs = select(job_queue.c.owners, job_queue.c.repository_size).where(job_queue.c.repository_size != 0)
    for row in connection.execute(jobs):
        owners = decode_list(row.owners)
        user = owners[0] if owners else ""
        due[user] = due.get(user, 0) + row.repository_size
    return said, due


def settle_account(connection: Connection, user: str, difference: int) -> None:
    """Change a user's account by what `sums` found it to differ by."""
    if difference > 0:
        charge(connection, user, difference)
    elif difference < 0:
        discharge(connection, user, -difference)
