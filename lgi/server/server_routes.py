"""The calls of project servers among themselves (LGI 1.41, Project server synchronization API)."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
from twisted.logger import Logger

from lgi.db.updates import apply_update, highest_version, next_update
from lgi.errors import ErrorNumber, LGIError
from lgi.httpd.router import Call, Handler
from lgi.model import Resource, Update
from lgi.server.members import registered_server
from lgi.server.project import Project, Projects
from lgi.sync import UpdateCycle
from lgi.wire import server_answers

_log = Logger()
_FIELDS = ("version", "servers", "update")


def posted_update(call: Call) -> tuple[Update, str] | None:
    """The update that was posted, and its statement as posted; None if none of its fields was; raises LGIError."""
    fields = call.fields
    if not any(fields.values.get(name, b"") != b"" for name in _FIELDS):
        return None
    version, servers, query = fields.integer("version"), fields.optional_names("servers"), fields.binhex("update")
    if not version:
        raise LGIError(ErrorNumber.UPDATE_REFUSED, "the first version is 1")
    if not servers:
        raise LGIError(ErrorNumber.UPDATE_REFUSED, "the field servers is missing")
    if not query:
        raise LGIError(ErrorNumber.UPDATE_REFUSED, "the field update is missing")
    posted = (fields.values["update"] or b"").decode("ascii").strip()
    return Update(version=version, servers=servers, query=query), posted


@attrs.frozen(kw_only=True)
class ServerRoutes:
    """The handlers, by path below the server's URL; `cycles` by project."""

    projects: Projects
    cycles: Mapping[str, UpdateCycle]

    def handlers(self) -> Mapping[str, Handler]:
        """Path to handler."""
        return {"servers/server_get_update.php": self.get_update, "servers/server_run_update.php": self.run_update}

    @staticmethod
    async def _peer(project: Project, call: Call) -> Resource:
        return await project.database.run("peer", registered_server, call.caller, project.now())

    async def get_update(self, call: Call) -> str:
        """The update that follows the one the peer has."""
        project = self.projects.of(call)
        peer = await self._peer(project, call)
        version = call.fields.integer("version")
        servers = await project.servers()
        count, update = await project.database.read("next update", next_update, version)
        highest = 0 if update else await project.database.read("highest version", highest_version)
        return server_answers.next_update(project.name, servers, peer.resource_name, version, count, update, highest)

    async def run_update(self, call: Call) -> str:
        """Take an update that a peer pushes; without one, or if others come before it, ask all servers for theirs."""
        project = self.projects.of(call)
        peer = await self._peer(project, call)
        cycle = self.cycles[project.name]
        pushed, posted = posted_update(call) or (None, "")
        servers = await project.servers()
        highest = await project.database.read("highest version", highest_version)
        cycled = pushed is None or pushed.version > highest + 1
        if cycled:
            highest = await cycle.run()
        if pushed is not None and pushed.version == highest + 1:
            highest = await self._apply(project, peer, pushed, cycle.own_name)
        return server_answers.ran_update(
            project.name, servers, peer.resource_name, pushed, posted, cycled=cycled, highest=highest
        )

    @staticmethod
    async def _apply(project: Project, peer: Resource, pushed: Update, own_name: str) -> int:
        try:
            taken, highest = await project.database.run("apply update", apply_update, pushed, own_name, project.now())
        except LGIError as problem:
            _log.error(
                "project {project}: update {version} pushed by {name}: {problem}",
                project=project.name,
                version=pushed.version,
                name=peer.resource_name,
                problem=problem,
            )
            raise
        if taken:
            _log.info(
                "project {project}: update {version} was pushed by {name}",
                project=project.name,
                version=pushed.version,
                name=peer.resource_name,
            )
        return highest
