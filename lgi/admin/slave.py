"""Making a slave: a further server of a project that is there (LGI 1.41, Project server synchronization API).

It is made on the master's machine, since its certificates come from the project's authority. Its directory can then
be moved to the machine that it names, if its database is SQLite or can be reached from there; the authority's key
stays with the master.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Table, insert, select

from lgi.admin.changes import administrator, name_of, resource_row
from lgi.admin.folder import appearing
from lgi.admin.layout import AdminError, Layout, existing
from lgi.admin.members import open_office
from lgi.admin.project import NewProject, check_name, make_schema, write_server
from lgi.admin.store import in_transaction, project_database
from lgi.ca import Issued
from lgi.config import load_config
from lgi.db.managed import NUMBER, TABLES
from lgi.db.resources import align_applications, fetch_resource
from lgi.db.schema import active_resources, updates
from lgi.durable import write_atomically
from lgi.model import ServerFlag

# What a new server takes over; jobs, sessions and events are each server's own.
_SHARED: tuple[Table, ...] = (*TABLES.values(), updates)
Rows = dict[str, list[dict[str, Any]]]


@attrs.frozen(kw_only=True)
class NewSlave:
    """A slave to be made, and the directory of the master; `project` may be left empty where that has only one."""

    server: NewProject
    master: Path


def make_slave(new: NewSlave) -> tuple[Layout, NewProject]:
    """Make the slave under its directory, which appears whole or not at all, and register it on the master.

    Returns its layout, and what it is with the project filled in. Raises AdminError, AuthorityError.
    """
    office = open_office(existing(new.master))
    projects = list(office.config.projects)
    if not new.server.project and len(projects) > 1:
        raise AdminError(f"--project is needed, since the master serves several: {', '.join(projects)}")
    server = attrs.evolve(new.server, project=new.server.project or projects[0])
    check_name(server.project)
    master_database = project_database(office.config, server.project)
    master_name = name_of(office.config)

    def look(connection: Connection) -> None:
        administrator(connection, master_name)
        if fetch_resource(connection, server.server_name) is not None:
            raise AdminError(f"{server.server_name} is registered already; give this server another --server-name")

    in_transaction(master_database, look)
    target = server.directory.absolute()
    with appearing(target) as draft:
        layout = Layout(draft)
        layout.authority.mkdir(mode=0o700)
        for name in ("ca.crt", "crl.pem"):
            write_atomically(layout.authority / name, (office.layout.authority / name).read_bytes(), mode=0o644)
        scheduler = write_server(layout, server, office.authority)
        database = load_config(layout.config).projects[server.project].database

        def fill(connection: Connection) -> None:
            make_schema(connection)
            # Last, since from here on the master knows the slave.
            rows = in_transaction(master_database, lambda master: _register(master, master_name, server, scheduler))
            _take_over(connection, rows)

        try:
            in_transaction(database, fill, checked=False)
        except CommandError as problem:
            raise AdminError(f"the database cannot be prepared: {problem}") from None
    return Layout(target), server


def _register(connection: Connection, master_name: str, server: NewProject, scheduler: Issued) -> Rows:
    """Register the slave on the master, as an update for all; returns what a new server has to know."""
    row = resource_row(
        name=server.server_name,
        certificate=scheduler.certificate_pem,
        project=server.project,
        url=server.url,
        flag=ServerFlag.SLAVE,
    )
    administrator(connection, master_name).add(active_resources.name, row)
    rows = {}
    for table in _SHARED:
        # Each database numbers its resources itself.
        columns = [column for column in table.c if column.name != NUMBER]
        found = connection.execute(select(*columns).order_by(*table.primary_key.columns))
        rows[table.name] = [dict(one._mapping) for one in found]
    return rows


def _take_over(connection: Connection, rows: Rows) -> None:
    for table in _SHARED:
        if rows[table.name]:
            connection.execute(insert(table), rows[table.name])
    align_applications(connection)
