"""Who may submit: the four grant tables."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Table, delete, insert, select

from lgi.access import Grants
from lgi.db.schema import groups_allowed, groups_denied, users_allowed, users_denied
from lgi.lists import ANY
from lgi.model import Denial, Grant


def fetch_grants(connection: Connection, users: Sequence[str], groups: Sequence[str], application: str) -> Grants:
    """The rows that may concern these users and groups for `application`."""
    applications = [application, ANY]

    def allowed(table: Table, names: Sequence[str]) -> tuple[Grant, ...]:
        name_column, application_column, limit_column = table.c
        rows = connection.execute(
            select(name_column, application_column, limit_column).where(
                name_column.in_([*names, ANY]), application_column.in_(applications)
            )
        )
        return tuple(Grant(name=row[0], application=row[1], job_limit=row[2]) for row in rows)

    def denied(table: Table, names: Sequence[str]) -> tuple[Denial, ...]:
        name_column, application_column = table.c
        rows = connection.execute(
            select(name_column, application_column).where(
                name_column.in_([*names, ANY]), application_column.in_(applications)
            )
        )
        return tuple(Denial(name=row[0], application=row[1]) for row in rows)

    return Grants(
        users_allowed=allowed(users_allowed, users),
        groups_allowed=allowed(groups_allowed, groups),
        users_denied=denied(users_denied, users),
        groups_denied=denied(groups_denied, groups),
    )


def hold_grant(connection: Connection, grant: Grant, *, of_group: bool) -> None:
    """Let others who submit under this row wait until the transaction ends, so that jobs can be counted and added."""
    table = groups_allowed if of_group else users_allowed
    name_column, application_column, _limit = table.c
    connection.execute(
        select(name_column)
        .where(name_column == grant.name, application_column == grant.application)
        .with_for_update()
    )


def allow_user(connection: Connection, grant: Grant) -> None:
    """Add or replace one row of users_allowed."""
    key = (users_allowed.c.user_name == grant.name, users_allowed.c.application == grant.application)
    connection.execute(delete(users_allowed).where(*key))
    connection.execute(
        insert(users_allowed),
        {"user_name": grant.name, "application": grant.application, "job_limit": grant.job_limit},
    )
