"""The project server's object graph, wired in one place."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
from OpenSSL import SSL
from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.web.resource import IResource, Resource
from twisted.web.static import File

from lgi import __version__, lockfile
from lgi.bell import Bell
from lgi.config import ServerConfig
from lgi.db.database import Database
from lgi.db.upgrade import SchemaError
from lgi.errors import ErrorNumber, LGIError
from lgi.httpd.peer import Peers
from lgi.httpd.router import Router
from lgi.httpd.site import BodyLimits, Request, Site
from lgi.httpd.transport import tls_factory
from lgi.model import Changes
from lgi.repository.address import below
from lgi.repository.files import Repositories
from lgi.repository.http import RepositoryResource
from lgi.repository.keeper import Keeper
from lgi.repository.locks import FileLocks
from lgi.repository.receive import Receiver
from lgi.server.look import Looks
from lgi.server.news import News
from lgi.server.operation import Operation
from lgi.server.project import Project, Projects
from lgi.server.relay import Relay, relay_of
from lgi.server.resource_routes import ResourceRoutes
from lgi.server.server_routes import ServerRoutes
from lgi.server.unmade import UnmadeOfJobs
from lgi.server.usage import Accounts
from lgi.server.user_routes import UserRoutes
from lgi.service import cannot_start, told
from lgi.setup import check_databases, open_databases, repositories_of
from lgi.sync import Neighbours, UpdateCycle, open_neighbours
from lgi.tls import RevocationList, TLSFileError, load_credentials, server_context_factory
from lgi.wire.answers import Envelope

PROGRAM = "lgi-server"
LOCKS, LOCK_FILE = "changes.lock", "server.lock"
FLUSH_SECONDS = 0.05


class _Root(Resource):
    """The server's URL path: `repository/` to files, `ca.crt` to the authority's, everything else to the API."""

    def __init__(
        self, api: IResource, repository: RepositoryResource, authority: IResource, prefix: list[bytes]
    ) -> None:
        super().__init__()
        self._api = api
        self._repository = repository
        self._authority = authority
        self._prefix = prefix

    def getChild(self, path: bytes, request: Request) -> IResource:
        """Descend along the URL path, then choose; doubled slashes count as one, as in the deployed servers."""
        segments = [path, *(request.postpath or [])]
        named = [segment for segment in segments if segment]
        request.prepath = []
        files = below([*self._prefix, b"repository"], segments)
        if files is not None:
            request.postpath = files
            return self._repository
        if named == [*self._prefix, b"ca.crt"]:
            request.postpath = []
            return self._authority
        # Which has the whole path of each call.
        request.postpath = named
        return self._api


@attrs.frozen(kw_only=True)
class Ending:
    """Ends what is under way."""

    projects: Projects
    cycles: Mapping[str, UpdateCycle]
    router: Router

    def let_go(self) -> None:
        """Let nobody wait any more: who does is answered now."""
        for project in self.projects.by_name.values():
            project.stop()

    async def __call__(self) -> None:
        """Begin nothing more, and return when all is answered."""
        self.let_go()
        for cycle in self.cycles.values():
            cycle.stop()
        await self.router.drain()
        for project in self.projects.by_name.values():
            await project.pulses.stop()


def make_site(
    reactor: Any,
    config: ServerConfig,
    databases: dict[str, Database],
    peers: Any,
    repositories: Repositories,
    neighbours: Neighbours,
    bell: Bell,
    operation: Operation | None = None,
) -> Site:
    """The whole HTTP side; `peers` has `identify(transport)`, which tests replace, as they do `neighbours`."""
    operation = operation or Operation(reactor, config)
    envelope = Envelope(lgi_version=__version__, ca_certificate_url=config.server.ca_certificate_url)
    url = config.server.url.rstrip("/")
    accounts = Accounts(
        databases=databases.values(),
        repository_limit=config.repository.max_repository_size,
        user_limit=config.repository.max_user_size,
    )
    others = FileLocks(reactor, config.server.run_directory / LOCKS) if config.server.processes > 1 else None
    keeper = Keeper(repositories, accounts, others, UnmadeOfJobs(databases=databases.values()))
    projects = Projects(
        by_name={
            name: Project(
                name=name,
                database=database,
                repositories=repositories,
                keeper=keeper,
                user_files=config.repository.max_user_size,
                news=News(reactor),
                limits=config.limits,
                url=url,
                now=lambda: int(reactor.seconds()),
            )
            for name, database in databases.items()
        }
    )

    def tell(name: str, changes: Changes) -> None:
        if name in projects.by_name:
            projects.by_name[name].tell(changes)

    def committed(name: str, changes: Changes) -> None:
        tell(name, changes)
        bell.ring(name, changes)

    bell.heard = tell
    for name, database in databases.items():
        database.committed = partial(committed, name)
    cycles = {name: UpdateCycle(reactor, name, database, neighbours) for name, database in databases.items()}
    router = Router(
        envelope=envelope,
        max_requests=config.limits.requests,
        back_off=config.limits.back_off,
    )
    operation.attach(router, projects.by_name)
    prefix = urlsplit(url).path
    for routes in (
        ResourceRoutes(projects=projects, limits=config.limits),
        UserRoutes(projects=projects, limits=config.limits),
        ServerRoutes(projects=projects, cycles=cycles),
    ):
        for path, handler in routes.handlers().items():
            router.add(f"{prefix}/{path}", handler)
    named = [part.encode() for part in prefix.strip("/").split("/")]
    receiver = Receiver(
        repositories, keeper, max_file_size=config.repository.max_file_size, prefix=[*named, b"repository"]
    )
    root = _Root(
        router,
        RepositoryResource(repositories, keeper, receiver),
        File(str(config.server.ca_certificate), defaultType="application/x-pem-file"),
        named,
    )

    limits = BodyLimits(request=config.repository.max_request_size, file=config.repository.max_file_size)
    return Site(
        root,
        identify=peers.identify,
        admit=receiver.admit,
        drain=Ending(projects=projects, cycles=cycles, router=router),
        spool=repositories.spool,
        limits=limits,
        too_big=envelope.wrap_error(
            LGIError(
                ErrorNumber.REQUEST_TOO_BIG, f"at most {limits.request} bytes, and {limits.file} bytes in one file"
            )
        ),
        reactor=reactor,
        idle_timeout=config.server.idle_timeout,
        shortcuts=dict.fromkeys(router.paths, router),
        watch=operation,
    )


class _Current(CertificateOptions):
    """The server's side of TLS as it is now; connections that are there keep what they began with."""

    def __init__(self, options: CertificateOptions) -> None:
        super().__init__()
        self.options = options

    def getContext(self) -> SSL.Context:
        """What the next connection is made with."""
        return self.options.getContext()


class Serving(Service):
    """What all services of the server have in common: opening everything, or ending the program."""

    _log = Logger()

    def __init__(self, reactor: Any, config: ServerConfig) -> None:
        self._reactor = reactor
        self._config = config
        self._databases: dict[str, Database] = {}
        self._site: Site | None = None
        self._ending: Ending | None = None
        self._looks: Looks | None = None
        self._neighbours: Neighbours | None = None
        self._bell = Bell(config.server.run_directory)
        self._operation = Operation(reactor, config)
        self._tls: _Current
        self._peers: Peers
        self._repositories: Repositories
        self._hangup: Any = None
        self._lock: int | None = None

    def _options(self) -> CertificateOptions:
        section = self._config.server
        return server_context_factory(
            load_credentials(section.certificate, section.private_key), section.ca_certificate
        )

    def open_parts(self, *, first: bool = True) -> None:
        """Open files and databases; `first` where no other process of this server runs yet."""
        section = self._config.server
        if first:
            self._take_run_directory(section.run_directory / LOCK_FILE)
        try:
            self._tls = _Current(self._options())
            self._peers = Peers(RevocationList(section.revoked, section.ca_certificate))
            self._neighbours = open_neighbours(self._reactor, self._config)
            self._repositories = repositories_of(self._config)
            if first:
                self._repositories.prepare()
            self._databases = open_databases(self._config, self._reactor)
            check_databases(self._databases)
        except (TLSFileError, SchemaError) as problem:
            cannot_start(PROGRAM, problem)
        except OSError as problem:
            cannot_start(PROGRAM, told(problem))

    def _take_run_directory(self, file: Path) -> None:
        # Whoever begins clears away the metrics that a killed server has left: a living one would lose its own.
        try:
            self._lock = lockfile.lock(file)
        except BlockingIOError:
            cannot_start(PROGRAM, lockfile.taken(file, "server"))
        except OSError as problem:
            cannot_start(PROGRAM, f"{problem.filename or file}: {problem.strerror}")

    def give_up_run_directory(self) -> None:
        """Let another server begin in the run directory."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def make_factory(self) -> TLSMemoryBIOFactory:
        """What serves connections, of what `open_parts` has opened."""
        assert self._neighbours is not None
        try:
            self._bell.listen(self._reactor)
            self._operation.start()
        except OSError as problem:
            cannot_start(PROGRAM, told(problem))
        for database in self._databases.values():
            database.start()
        self._site = make_site(
            self._reactor,
            self._config,
            self._databases,
            self._peers,
            self._repositories,
            self._neighbours,
            self._bell,
            self._operation,
        )
        assert isinstance(self._site.drain, Ending)
        self._ending = self._site.drain
        projects = self._ending.projects.by_name.values()
        self._looks = Looks(self._reactor, projects, self._config.server.look)
        self._looks.start()
        return tls_factory(self._tls, self._site)

    async def close_parts(self) -> None:
        """Answer what is under way, and close all that was opened."""
        if self._site is not None:
            await self._site.drain()
            # The last answers are encrypted in a later turn, and written in the one after that.
            await deferLater(self._reactor, FLUSH_SECONDS)
            await deferLater(self._reactor, 0)
        await self._operation.stop()
        if self._looks is not None:
            await self._looks.stop()
        if self._neighbours is not None:
            await self._neighbours.close()
        for database in self._databases.values():
            database.stop()
        self._bell.close()

    def handle_hangup(self) -> None:
        """Have SIGHUP call `hung_up`."""

        def signalled(_number: int, _frame: object) -> None:
            self._reactor.callFromThread(self.hung_up)

        self._hangup = signal.signal(signal.SIGHUP, signalled)

    def restore_hangup(self) -> None:
        """Let SIGHUP do what it did before."""
        if self._hangup is not None:
            signal.signal(signal.SIGHUP, self._hangup)
            self._hangup = None

    def hung_up(self) -> None:
        """Take over what has changed in files."""


def started_relay(reactor: Any, config: ServerConfig) -> Relay | None:
    """What passes wake-ups on to other machines, where the configuration asks for it; or ends the program."""
    relay = relay_of(reactor, config)
    if relay is not None:
        try:
            relay.start()
        except CannotListenError as problem:
            cannot_start(PROGRAM, f"the bell's {config.server.bell} cannot be had: {problem.socketError.strerror}")
        except OSError as problem:
            cannot_start(PROGRAM, told(problem))
    return relay


class ServerService(Serving):
    """The project server in one process, which listens itself; SIGHUP has it take a renewed certificate."""

    def __init__(self, reactor: Any, config: ServerConfig) -> None:
        super().__init__(reactor, config)
        self._port: IListeningPort | None = None
        self._relay: Relay | None = None

    @property
    def port(self) -> int:
        """The port it listens on, which the system chose if the configuration says 0; 0 while it does not listen."""
        return 0 if self._port is None else int(getattr(self._port.getHost(), "port", 0))

    def startService(self) -> None:
        """Open files and databases, then listen."""
        super().startService()
        section = self._config.server
        self.open_parts()
        factory = self.make_factory()
        self._relay = started_relay(self._reactor, self._config)
        self.handle_hangup()
        endpoint_type = TCP6ServerEndpoint if ":" in section.interface else TCP4ServerEndpoint
        endpoint = endpoint_type(self._reactor, section.port, interface=section.interface)
        endpoint.listen(factory).addCallbacks(self._listens, self._cannot_listen)

    def _listens(self, port: IListeningPort) -> None:
        self._port = port
        self._log.info(
            "project server {url} listens on port {port} for {projects}",
            url=self._config.server.url,
            port=self.port,
            projects=", ".join(self._config.projects),
        )

    def _cannot_listen(self, failure: Any) -> None:
        problem = failure.value
        if isinstance(problem, CannotListenError):
            where = f"{problem.interface or '*'}:{problem.port}"
            cannot_start(PROGRAM, f"port {where} cannot be had: {problem.socketError.strerror}")
        cannot_start(PROGRAM, problem)

    def hung_up(self) -> None:
        """Show a renewed certificate to those who connect from now on; where it is of no use, nothing changes."""
        self._operation.reopen()
        try:
            self._tls.options = self._options()
        except TLSFileError as problem:
            self._log.error("{problem}; the certificate known before stays", problem=problem)
        else:
            self._log.info("{file} is shown from now on", file=str(self._config.server.certificate))

    async def _stop(self) -> None:
        if self._port is not None:
            await maybeDeferred(self._port.stopListening)
            self._port = None
        await self.close_parts()
        if self._relay is not None:
            await self._relay.stop()
        self.give_up_run_directory()

    def stopService(self) -> Deferred[None]:
        """Stop listening, and wait until the calls under way have been answered."""
        super().stopService()
        self.restore_hangup()
        return Deferred.fromCoroutine(self._stop())
