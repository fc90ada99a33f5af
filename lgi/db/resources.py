"""Registered resources and project servers: `active_resources`."""

from __future__ import annotations

from functools import lru_cache
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from lgi.db.jobs import PLAIN, job_of_row
from lgi.db.prepared import Prepared
from lgi.db.schema import active_resources, job_queue, resource_applications
from lgi.model import Job, Resource, ServerFlag
from lgi.wire.capabilities import check_capabilities
from lgi.wire.dialect import parse_fragment

_NAMES = active_resources.c.keys()
_VALUES = attrgetter(*_NAMES)
_NAMED = active_resources.c.resource_name == bindparam("name")
RESOURCE = Prepared(select(active_resources).where(_NAMED))
"""A resource by its `name`."""
_FETCH_WITH_JOB = Prepared(
    select(*active_resources.c, *PLAIN)
    .select_from(active_resources.outerjoin(job_queue, job_queue.c.job_id == bindparam("number")))
    .where(_NAMED)
)
_TOUCH = Prepared(
    update(active_resources)
    .where(active_resources.c.resource_id == bindparam("number"))
    .values(last_call_time=bindparam("now"))
)


def resource_of_row(row: Row[Any]) -> Resource:
    """A row with the columns of `active_resources`, and maybe others, as a value."""
    return _resource(*_VALUES(row))


# Every call of a resource reads its row, which changes with its sign of life.
@lru_cache(maxsize=1024)
def _resource(*row: Any) -> Resource:
    values = dict(zip(_NAMES, row, strict=True))
    values["client_certificate"] = bytes(values["client_certificate"]).decode("ascii", "replace")
    values["project_server"] = ServerFlag(values["project_server"])
    return Resource(**values)


def fetch_resource(connection: Connection, name: str) -> Resource | None:
    """A resource by its name, or None."""
    row = RESOURCE(connection, name=name).one_or_none()
    return None if row is None else resource_of_row(row)


def fetch_resource_and_job(connection: Connection, name: str, job_id: int) -> tuple[Resource | None, Job | None]:
    """A resource by its name and a job without input and output, each None where there is none, in one statement.

    Without the resource the job is not looked for.
    """
    row = _FETCH_WITH_JOB(connection, name=name, number=job_id).one_or_none()
    if row is None:
        return None, None
    job = None if row.job_id is None else job_of_row(row)
    return resource_of_row(row), job


def list_resources(connection: Connection) -> list[Resource]:
    """All resources that are not project servers, in order of their numbers."""
    rows = connection.execute(
        select(active_resources)
        .where(active_resources.c.project_server == ServerFlag.NONE.value)
        .order_by(active_resources.c.resource_id)
    )
    return [resource_of_row(row) for row in rows]


def list_servers(connection: Connection) -> list[Resource]:
    """All project servers, in order of their numbers."""
    rows = connection.execute(
        select(active_resources)
        .where(active_resources.c.project_server != ServerFlag.NONE.value)
        .order_by(active_resources.c.resource_id)
    )
    return [resource_of_row(row) for row in rows]


def list_names(connection: Connection) -> list[str]:
    """The names of everything registered, sorted."""
    return list(
        connection.scalars(select(active_resources.c.resource_name).order_by(active_resources.c.resource_name))
    )


def register(
    connection: Connection,
    *,
    name: str,
    certificate: str,
    url: str,
    project_server: ServerFlag = ServerFlag.NONE,
    capabilities: str = "",
) -> int:
    """Add a resource, or give a known one a new certificate, address and role; returns its number."""
    found = fetch_resource(connection, name)
    values = {"client_certificate": certificate.encode("ascii"), "url": url, "project_server": project_server.value}
    if found is not None:
        connection.execute(
            update(active_resources).where(active_resources.c.resource_id == found.resource_id).values(**values)
        )
        if capabilities:
            set_capabilities(connection, found, capabilities)
        return found.resource_id
    key = connection.execute(
        insert(active_resources), {"resource_name": name, "resource_capabilities": capabilities, **values}
    ).inserted_primary_key
    assert key is not None
    _index_applications(connection, name, capabilities)
    return int(key[0])


def set_capabilities(connection: Connection, resource: Resource, capabilities: str) -> None:
    """Store what a resource says it can do: well-formed XML, an element for each application; raises LGIError."""
    connection.execute(
        update(active_resources)
        .where(active_resources.c.resource_id == resource.resource_id)
        .values(resource_capabilities=capabilities)
    )
    connection.execute(
        delete(resource_applications).where(resource_applications.c.resource_name == resource.resource_name)
    )
    _index_applications(connection, resource.resource_name, capabilities)


def _index_applications(connection: Connection, name: str, capabilities: str) -> None:
    applications = check_capabilities(capabilities)
    if applications:
        connection.execute(
            insert(resource_applications).values(
                [{"application": application, "resource_name": name} for application in applications]
            )
        )


def align_applications(connection: Connection) -> None:
    """Bring the index of applications in line with the capabilities of all resources, however those have changed."""
    wanted: set[tuple[str, str]] = set()
    # Locked, so that no resource changes its own while we look.
    for name, capabilities in connection.execute(
        select(active_resources.c.resource_name, active_resources.c.resource_capabilities).with_for_update()
    ):
        wanted.update((str(child.tag), name) for child in parse_fragment(capabilities))
    index = resource_applications.c
    found = {(row[0], row[1]) for row in connection.execute(select(index.application, index.resource_name))}
    for application, name in found - wanted:
        connection.execute(
            delete(resource_applications).where(index.application == application, index.resource_name == name)
        )
    if wanted - found:
        rows = [{"application": application, "resource_name": name} for application, name in sorted(wanted - found)]
        connection.execute(insert(resource_applications), rows)


def touch(connection: Connection, resource: Resource, now: int) -> None:
    """Note that a resource has called."""
    _TOUCH.later(connection, number=resource.resource_id, now=now)
