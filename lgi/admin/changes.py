"""Changes of who may do what in a project: each is made here and is an update for the other servers.

LGI 1.41, Project management (ManageDB). A change and its update are one transaction, and are made on the master only.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection, select

from lgi.admin.layout import AdminError
from lgi.config import ServerConfig
from lgi.db.events import UPDATE_SERVERS, schedule
from lgi.db.managed import KEYS, TABLES
from lgi.db.mysqltext import Value, quoted
from lgi.db.resources import fetch_resource, list_servers
from lgi.db.schema import active_resources
from lgi.db.updates import append_update
from lgi.errors import LGIError
from lgi.identity import parse_common_name
from lgi.lists import ANY
from lgi.model import ServerFlag, Update
from lgi.sync import own_name
from lgi.tls import TLSFileError, common_name

RESOURCES = active_resources.name


def insert_statement(table: str, row: Mapping[str, Value]) -> str:
    """A new row, in MySQL's language."""
    # Here and below: every value is quoted, and the statement is taken apart again before it does anything.
    return f"INSERT INTO {table} SET {_assigned(row, ', ')}"


def update_statement(table: str, values: Mapping[str, Value], key: Mapping[str, Value]) -> str:
    """New values for the row with this key."""
    return f"UPDATE {table} SET {_assigned(values, ', ')} WHERE {_assigned(key, ' AND ')}"  # noqa: S608


def delete_statement(table: str, key: Mapping[str, Value]) -> str:
    """The end of the row with this key."""
    return f"DELETE FROM {table} WHERE {_assigned(key, ' AND ')}"  # noqa: S608


def _assigned(values: Mapping[str, Value], separator: str) -> str:
    return separator.join(f"{name}={quoted(value)}" for name, value in values.items())


@attrs.frozen(kw_only=True)
class Administrator:
    """Who makes changes in one transaction: on the master, called `own_name`, for the servers called `servers`.

    Every change raises AdminError, which ends the transaction, and returns its update. See `administrator`.
    """

    connection: Connection
    own_name: str
    servers: tuple[str, ...]

    def add(self, table: str, row: Mapping[str, Value]) -> Update:
        """Add a row that is not there yet."""
        if self._is_here(table, row):
            raise AdminError(f"{self._described(table, row)} is there already; delete it first to change it")
        return self._make(insert_statement(table, row))

    def remove(self, table: str, key: Mapping[str, Value]) -> Update:
        """Remove the row with this key."""
        if self.meant_here and not self._is_here(table, key):
            raise AdminError(f"{self._described(table, key)} is not there")
        return self._make(delete_statement(table, key))

    def set_capabilities(self, name: str, capabilities: str) -> Update:
        """Let a registered server or resource offer something else."""
        key = {"resource_name": name}
        if self.meant_here and not self._is_here(RESOURCES, key):
            raise AdminError(f"{name} is not registered in the project")
        return self._make(update_statement(RESOURCES, {"resource_capabilities": capabilities}, key))

    def register(self, row: Mapping[str, Value]) -> Update:
        """Add a resource, or give one that is there these values."""
        key = {name: row[name] for name in KEYS[RESOURCES]}
        found = fetch_resource(self.connection, str(row["resource_name"]))
        if found is not None and found.project_server != row["project_server"]:
            raise AdminError(f"{found.resource_name} is a project server, and would be none any more")
        if not self._is_here(RESOURCES, row):
            return self._make(insert_statement(RESOURCES, row))
        return self._make(
            update_statement(RESOURCES, {name: value for name, value in row.items() if name not in key}, key)
        )

    @property
    def meant_here(self) -> bool:
        """Whether the changes are for this server too."""
        return ANY in self.servers or self.own_name in self.servers

    def _is_here(self, table: str, row: Mapping[str, Value]) -> bool:
        """Whether this server has the row, which says nothing where the change is for others only."""
        columns = TABLES[table].c
        conditions = [columns[name] == row[name] for name in KEYS[table]]
        found = self.connection.execute(select(*columns).where(*conditions)).first() if self.meant_here else None
        return found is not None

    @staticmethod
    def _described(table: str, row: Mapping[str, Value]) -> str:
        return f"{' for '.join(str(row[name]) for name in KEYS[table])} in {table}"

    def _make(self, statement: str) -> Update:
        now = int(time.time())
        try:
            made = append_update(self.connection, self.servers, statement, self.own_name, now)
        except LGIError as problem:
            raise AdminError(problem.detail or str(problem)) from None
        schedule(self.connection, UPDATE_SERVERS, now)
        return made


def name_of(config: ServerConfig) -> str:
    """The name that this server is registered with; raises AdminError."""
    try:
        return own_name(config)
    except TLSFileError as problem:
        raise AdminError(str(problem)) from None


def administrator(connection: Connection, own_name: str, servers: tuple[str, ...] = (ANY,)) -> Administrator:
    """Who may make changes here.

    Raises AdminError where this is not the master, or a server is not one of the project.
    """
    known = list_servers(connection)
    masters = [server for server in known if server.project_server is ServerFlag.MASTER]
    if len(masters) != 1:
        raise AdminError(f"the project has {len(masters)} master servers, where it needs exactly one")
    if masters[0].resource_name != own_name:
        where = f"{masters[0].resource_name} at {masters[0].url}"
        raise AdminError(f"this server ({own_name}) is not the project's master; changes are made there: {where}")
    names = [server.resource_name for server in known]
    for name in servers:
        if name != ANY and name not in names:
            raise AdminError(f"{name} is not a server of the project; there are: {', '.join(names)}")
    return Administrator(connection=connection, own_name=own_name, servers=servers)


def resource_row(
    *,
    name: str,
    certificate: bytes,
    project: str,
    url: str,
    flag: ServerFlag = ServerFlag.NONE,
    capabilities: str | None = None,
) -> dict[str, Value]:
    """A row of active_resources; raises AdminError where the certificate (PEM) is not of that name and project."""
    try:
        loaded = x509.load_pem_x509_certificate(certificate)
        identity = parse_common_name(common_name(loaded))
    except ValueError as problem:
        raise AdminError(f"the certificate cannot be used: {problem}") from None
    if identity.name != name:
        raise AdminError(f"the certificate is that of {identity.name}, not of {name}")
    if not identity.allows_project(project):
        raise AdminError(f"the certificate of {name} is not for the project {project}")
    if flag is not ServerFlag.NONE and not url.startswith("https://"):
        raise AdminError(f"a project server's URL looks like https://host:8443/LGI, not {url!r}")
    row: dict[str, Value] = {
        "resource_name": name,
        "client_certificate": loaded.public_bytes(Encoding.PEM).decode("ascii"),
        "url": url,
        "project_server": int(flag),
    }
    if capabilities is not None:
        row["resource_capabilities"] = capabilities
    return row


def list_rows(connection: Connection, table: str, columns: Sequence[str]) -> list[dict[str, Value]]:
    """The rows of one of the tables that an administrator manages, sorted by their keys."""
    found = TABLES[table]
    order = [found.c[name] for name in KEYS[table]]
    rows = connection.execute(select(*(found.c[name] for name in columns)).order_by(*order))
    return [dict(row._mapping) for row in rows]
