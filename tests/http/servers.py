"""A server in memory that is a project's master, and others that it meets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lxml import etree
from sqlalchemy import Connection, select
from twisted.internet.defer import Deferred

from lgi.client.answers import read_response
from lgi.db.mysqltext import quoted
from lgi.db.resources import register
from lgi.db.schema import users_denied
from lgi.db.updates import append_update, list_updates
from lgi.model import ServerFlag, Update
from tests.http.case import ServerCase
from tests.http.memory import PROJECT, Answer, Fields, MemoryServer, certificate

SLAVE = "LGI@slave; LGI"
SLAVE_URL = "https://slave.example/LGI"
GET, RUN = "servers/server_get_update.php", "servers/server_run_update.php"
OWN = "LGI@localhost"


def statement(name: str) -> str:
    """A change that shows."""
    return f"INSERT INTO users_denied SET user_name={quoted(name)}, application='any'"


def pushed(version: int | str, text: str = "", servers: str = "any") -> Fields:
    """The fields of an update that is pushed, the statement as deployed programs write it."""
    return {"version": version, "servers": servers, "update": (text or statement("bad")).encode().hex().upper()}


class Peer:
    """One server in memory as another one meets it."""

    def __init__(self, server: MemoryServer, common_name: str) -> None:
        self._server = server
        self._common_name = common_name
        self.calls: list[str] = []

    async def call(self, path: str, fields: Mapping[str, str | int]) -> etree._Element:
        """As `lgi.client.post.Server.call`."""
        self.calls.append(path)
        answer = await self._server.post(self._common_name, path, {"project": PROJECT, **fields})
        return read_response(answer.body)


class ServersCase(ServerCase):
    """A master that knows a slave."""

    def setUp(self) -> None:
        super().setUp()
        self.know(self.server, SLAVE, SLAVE_URL, ServerFlag.SLAVE)

    def know(self, server: MemoryServer, common_name: str, url: str, flag: ServerFlag) -> None:
        """Register a server with another one."""
        with server.database.engine.begin() as connection:
            register(
                connection,
                name=common_name.partition(";")[0],
                certificate=certificate(common_name),
                url=url,
                project_server=flag,
            )

    def another(self) -> MemoryServer:
        """The slave: a server in memory is called like the master, which does no harm here."""
        other = MemoryServer(Path(self.mktemp()).absolute())
        self.addCleanup(other.stop)
        return other

    async def record(self, server: MemoryServer, text: str, servers: tuple[str, ...] = ("any",)) -> Update:
        """An administrator's change on a server."""
        return await server.database.run("test", append_update, servers, text, OWN, 1)

    async def known(self, server: MemoryServer | None = None) -> list[Update]:
        """The updates that a server has."""
        return await (server or self.server).database.read("test", list_updates)

    async def denied(self, server: MemoryServer | None = None) -> set[str]:
        """The users that a server denies."""

        def names(connection: Connection) -> set[str]:
            return set(connection.scalars(select(users_denied.c.user_name)))

        return await (server or self.server).database.read("test", names)

    def peer(self, path: str, who: str = SLAVE, **fields: Any) -> Deferred[Answer]:
        """A call of a project server."""
        return self.server.post(who, path, {"project": PROJECT, **fields})
