"""Who may submit: the four grant tables, and the resources that offer an application."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Select,
    Table,
    bindparam,
    case,
    delete,
    insert,
    literal,
    or_,
    select,
    true,
    union_all,
    update,
)

from lgi.access import Grants
from lgi.db.jobs import owned
from lgi.db.prepared import Prepared, numbered, values_of
from lgi.db.schema import groups_allowed, groups_denied, resource_applications, users_allowed, users_denied
from lgi.lists import ANY
from lgi.model import Denial, Grant


def fetch_grants(
    connection: Connection,
    users: Sequence[str],
    groups: Sequence[str],
    application: str,
    targets: Sequence[str] | None = None,
) -> Grants:
    """All that decides who of these users and groups may submit for `application`, in one statement.

    Of the resources that offer it those of `targets` are told, and one more, if there are any; by default all.
    """
    found: dict[str, list[Any]] = {}
    for row in _fetching(len(users), len(groups), None if targets is None else len(targets))(
        connection,
        application=application,
        **values_of("user", users),
        **values_of("group", groups),
        **values_of("target", targets or ()),
    ):
        found.setdefault(row[0], []).append(row)

    def allowed(table: Table) -> tuple[Grant, ...]:
        return tuple(Grant(name=row[1], application=row[2], job_limit=row[3]) for row in found.get(table.name, ()))

    def denied(table: Table) -> tuple[Denial, ...]:
        return tuple(Denial(name=row[1], application=row[2]) for row in found.get(table.name, ()))

    return Grants(
        users_allowed=allowed(users_allowed),
        groups_allowed=allowed(groups_allowed),
        users_denied=denied(users_denied),
        groups_denied=denied(groups_denied),
        offered_by=frozenset(row[1] for row in found.get(resource_applications.name, ())),
    )


@lru_cache(maxsize=64)
def _fetching(users: int, groups: int, targets: int | None) -> Prepared:
    def concerning(table: Table, kind: str, number: int) -> Select[Any]:
        name, of = table.c[0], table.c[1]
        limit = table.c.job_limit if "job_limit" in table.c else literal(0)
        return select(literal(table.name).label("kind"), name, of, limit).where(
            name.in_([*numbered(kind, number), literal(ANY)]), of.in_([bindparam("application"), literal(ANY)])
        )

    offers = resource_applications.c
    offering = select(
        literal(resource_applications.name).label("kind"),
        offers.resource_name,
        offers.application,
        literal(0).label("job_limit"),
    ).where(offers.application == bindparam("application"))

    def all_of(*, nested: bool) -> CompoundSelect[Any]:
        wanted = [offering]
        if targets is not None:
            # Many resources may offer it.
            wanted = [select(offering.limit(1).subquery()) if nested else offering.limit(1)]
        if targets:
            wanted.append(offering.where(offers.resource_name.in_(numbered("target", targets))))
        return union_all(
            concerning(users_allowed, "user", users),
            concerning(groups_allowed, "group", groups),
            concerning(users_denied, "user", users),
            concerning(groups_denied, "group", groups),
            *wanted,
        )

    # As in `lgi.db.locks`.
    return Prepared(all_of(nested=True), mysql=all_of(nested=False))


def _row_of(table: Table) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    name, application, _limit = table.c
    return name == bindparam("grant_name"), application == bindparam("grant_application")


def _holding(table: Table) -> Prepared:
    _name, _application, limit = table.c
    return Prepared(select(limit).where(*_row_of(table)).with_for_update())


_HOLD_USER, _HOLD_GROUP = _holding(users_allowed), _holding(groups_allowed)


def hold_grant(connection: Connection, grant: Grant, *, of_group: bool) -> Grant | None:
    """The row as it is now, None if it is gone.

    Others who submit under it wait until the transaction ends, so that jobs can be counted and added.
    """
    holding = _HOLD_GROUP if of_group else _HOLD_USER
    job_limit = holding(connection, grant_name=grant.name, grant_application=grant.application).scalar()
    return None if job_limit is None else Grant(name=grant.name, application=grant.application, job_limit=job_limit)


def _taking(table: Table) -> Prepared:
    _name, _application, limit = table.c
    return Prepared(update(table).where(*_row_of(table)).values({limit.name: limit}))


_TAKE_USER, _TAKE_GROUP = _taking(users_allowed), _taking(groups_allowed)


def take_grant(connection: Connection, grant: Grant, *, of_group: bool) -> None:
    """As `hold_grant`, with the next statement and without an answer."""
    taking = _TAKE_GROUP if of_group else _TAKE_USER
    taking.later(connection, grant_name=grant.name, grant_application=grant.application)


@lru_cache(maxsize=8)
def _keeping(table: Table, application: str) -> Prepared:
    _name, _application, limit = table.c
    counts = owned(application).subquery()
    # As `lgi.access.leaves_room` says of one job less.
    fits = case((limit < 0, counts.c.active <= -limit), else_=counts.c.total <= limit)
    within = or_(limit == 0, select(fits).scalar_subquery() == true())
    return Prepared(update(table).where(*_row_of(table), within).values({limit.name: limit}))


def keeps_limit(connection: Connection, owner: str, grant: Grant, *, of_group: bool) -> bool:
    """Whether the jobs of an owner, with those that the transaction adds, are within a limit that it has taken.

    If they are, that is the last that the transaction does, and with some databases it is committed.
    """
    one = "" if grant.application == ANY else "="
    keeping = _keeping(groups_allowed if of_group else users_allowed, one)
    values = {"name": owner, "wanted_application": grant.application} if one else {"name": owner}
    return keeping.last(connection, **values, grant_name=grant.name, grant_application=grant.application) > 0


def allow_user(connection: Connection, grant: Grant) -> None:
    """Add or replace one row of users_allowed."""
    key = (users_allowed.c.user_name == grant.name, users_allowed.c.application == grant.application)
    connection.execute(delete(users_allowed).where(*key))
    connection.execute(
        insert(users_allowed),
        {"user_name": grant.name, "application": grant.application, "job_limit": grant.job_limit},
    )
