"""Keeping the servers of a project alike: asking the others for updates, and telling them of one.

LGI 1.41, Project server synchronization API. The others are asked at the same time, each on its own: one that is
down, slow or wrong costs itself alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import attrs
from cryptography import x509
from twisted.internet.defer import CancelledError, Deferred, DeferredList, DeferredLock, TimeoutError
from twisted.logger import Logger

from lgi.client.answers import AnswerMalformed, ServerRefused, ServerUnreachable
from lgi.client.peers import Calls, PeerClient
from lgi.client.post import Server, connect
from lgi.config import ServerConfig
from lgi.db.database import Database
from lgi.db.resources import list_servers
from lgi.db.updates import apply_update, highest_version
from lgi.errors import LGIError
from lgi.identity import parse_common_name
from lgi.model import Resource
from lgi.tls import ClientPolicy, TLSFileError, common_name, load_credentials

# One call to another server may take this long, whatever comes of it, and its answer be this long.
CALL_SECONDS = 20
ANSWER_BYTES = 1 << 20
# Taken from one server in one cycle; what is left comes with the next.
MOST_UPDATES = 1000


@attrs.frozen(kw_only=True)
class Neighbours:
    """How this server meets the others of a project: the name it is registered with, and a way to call a URL."""

    name: str
    server: Callable[[str, str], Calls]
    close: Callable[[], Awaitable[None]]


def own_name(config: ServerConfig) -> str:
    """The name that this server is registered with: that of the scheduler's certificate; raises TLSFileError."""
    file = config.scheduler.certificate
    try:
        return parse_common_name(common_name(x509.load_pem_x509_certificate(file.read_bytes()))).name
    except OSError as problem:
        raise TLSFileError(f"{file}: {problem.strerror}") from None
    except ValueError as problem:
        raise TLSFileError(f"{file}: {problem}") from None


def open_neighbours(reactor: Any, config: ServerConfig) -> Neighbours:
    """Ways to the other servers with the scheduler's certificate; raises TLSFileError."""
    section = config.scheduler
    policy = ClientPolicy(load_credentials(section.certificate, section.private_key), config.server.ca_certificate)
    http, pool = connect(reactor, policy)

    def server(url: str, project: str) -> Server:
        return Server(http=http, reactor=reactor, url=url, project=project, largest=ANSWER_BYTES)

    async def close() -> None:
        await pool.closeCachedConnections()

    return Neighbours(name=own_name(config), server=server, close=close)


class UpdateStopped(Exception):
    """An update that is not carried out here, nor any that follows it; the message names it."""


class UpdateCycle:
    """Brings one project's database up to what its other servers know."""

    _log = Logger()

    def __init__(self, reactor: Any, project: str, database: Database, neighbours: Neighbours) -> None:
        self._reactor = reactor
        self._project = project
        self._database = database
        self._neighbours = neighbours
        self._turn = DeferredLock()
        self._begun = 0
        self._asking: list[Deferred[None]] = []
        self._said: dict[str, str] = {}

    @property
    def own_name(self) -> str:
        """The name that this server is registered with."""
        return self._neighbours.name

    async def run(self) -> int:
        """Ask all others until nobody has more; returns the highest version then.

        Whoever asks for a cycle while one is under way shares the next one.
        """
        wanted = self._begun + 1
        await self._turn.acquire()
        try:
            if self._begun < wanted:
                self._begun += 1
                await self._all(self._catch_up)
        finally:
            self._turn.release()
        return await self._database.read("highest version", highest_version)

    async def tell(self) -> None:
        """Let all others look for updates, as there is one here."""
        await self._turn.acquire()
        try:
            await self._all(self._begin_there)
        finally:
            self._turn.release()

    def stop(self) -> None:
        """Wait for no answer any more."""
        for asked in self._asking:
            asked.cancel()

    async def _all(self, action: Callable[[Resource], Coroutine[Any, Any, None]]) -> None:
        others = await self._database.read("list servers", list_servers)
        names = {server.resource_name for server in others} - {self.own_name}
        self._said = {name: text for name, text in self._said.items() if name in names}
        self._asking = [
            Deferred.fromCoroutine(self._one(action, server))
            for server in others
            if server.resource_name != self.own_name
        ]
        await DeferredList(self._asking, consumeErrors=True)

    async def _one(self, action: Callable[[Resource], Coroutine[Any, Any, None]], server: Resource) -> None:
        """Do it with one server; what goes wrong is said once, until it is something else or over."""
        try:
            await action(server)
        except TimeoutError:
            text = "no answer in time"
        except (ServerRefused, ServerUnreachable, AnswerMalformed, UpdateStopped, LGIError) as problem:
            text = str(problem)
        except CancelledError:
            raise
        except Exception:
            self._log.failure(
                "project {project}: updates of {name} failed", project=self._project, name=server.resource_name
            )
            return
        else:
            if self._said.pop(server.resource_name, None) is not None:
                self._log.info(
                    "project {project}: server {name} is in order again",
                    project=self._project,
                    name=server.resource_name,
                )
            return
        if self._said.get(server.resource_name) != text:
            self._said[server.resource_name] = text
            self._log.error(
                "project {project}: server {name}: {text}",
                project=self._project,
                name=server.resource_name,
                text=text,
            )

    async def _called(self, call: Coroutine[Any, Any, Any]) -> Any:
        return await Deferred.fromCoroutine(call).addTimeout(CALL_SECONDS, self._reactor)

    def _client(self, server: Resource) -> PeerClient:
        return PeerClient(server=self._neighbours.server(server.url, self._project))

    async def _begin_there(self, server: Resource) -> None:
        await self._called(self._client(server).begin_cycle())

    async def _catch_up(self, server: Resource) -> None:
        client = self._client(server)
        for _ in range(MOST_UPDATES):
            version = await self._database.read("highest version", highest_version)
            update = await self._called(client.next_update(version))
            if update is None:
                return
            if update.version != version + 1:
                raise UpdateStopped(f"update {update.version} was offered where {version + 1} comes next")
            try:
                taken, _ = await self._database.run(
                    "apply update", apply_update, update, self.own_name, int(self._reactor.seconds())
                )
            except LGIError as problem:
                raise UpdateStopped(f"update {update.version}: {problem}") from None
            if taken:
                self._log.info(
                    "project {project}: update {version} taken from {name}",
                    project=self._project,
                    version=update.version,
                    name=server.resource_name,
                )
