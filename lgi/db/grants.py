"""Who may submit: the four grant tables, and the resources that offer an application."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Select, Table, delete, insert, literal, select, union_all

from lgi.access import Grants
from lgi.db.schema import groups_allowed, groups_denied, resource_applications, users_allowed, users_denied
from lgi.lists import ANY
from lgi.model import Denial, Grant


def fetch_grants(connection: Connection, users: Sequence[str], groups: Sequence[str], application: str) -> Grants:
    """All that decides who of these users and groups may submit for `application`, in one statement."""
    applications = [application, ANY]

    def concerning(table: Table, names: Sequence[str]) -> Select[Any]:
        name, of = table.c[0], table.c[1]
        limit = table.c.job_limit if "job_limit" in table.c else literal(0)
        return select(literal(table.name).label("kind"), name, of, limit).where(
            name.in_([*names, ANY]), of.in_(applications)
        )

    tables = ((users_allowed, users), (groups_allowed, groups), (users_denied, users), (groups_denied, groups))
    offers = resource_applications.c
    offering = select(
        literal(resource_applications.name), offers.resource_name, offers.application, literal(0)
    ).where(offers.application == application)
    rows = connection.execute(union_all(*(concerning(table, names) for table, names in tables), offering)).all()

    def allowed(table: Table) -> tuple[Grant, ...]:
        return tuple(Grant(name=row[1], application=row[2], job_limit=row[3]) for row in rows if row[0] == table.name)

    def denied(table: Table) -> tuple[Denial, ...]:
        return tuple(Denial(name=row[1], application=row[2]) for row in rows if row[0] == table.name)

    return Grants(
        users_allowed=allowed(users_allowed),
        groups_allowed=allowed(groups_allowed),
        users_denied=denied(users_denied),
        groups_denied=denied(groups_denied),
        offered_by=frozenset(row[1] for row in rows if row[0] == resource_applications.name),
    )


def hold_grant(connection: Connection, grant: Grant, *, of_group: bool) -> Grant | None:
    """The row as it is now, None if it is gone.

    Others who submit under it wait until the transaction ends, so that jobs can be counted and added.
    """
    name, application, limit = (groups_allowed if of_group else users_allowed).c
    job_limit = connection.scalar(
        select(limit).where(name == grant.name, application == grant.application).with_for_update()
    )
    return None if job_limit is None else Grant(name=grant.name, application=grant.application, job_limit=job_limit)


def allow_user(connection: Connection, grant: Grant) -> None:
    """Add or replace one row of users_allowed."""
    key = (users_allowed.c.user_name == grant.name, users_allowed.c.application == grant.application)
    connection.execute(delete(users_allowed).where(*key))
    connection.execute(
        insert(users_allowed),
        {"user_name": grant.name, "application": grant.application, "job_limit": grant.job_limit},
    )
