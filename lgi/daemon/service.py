"""The resource daemon's object graph, wired in one place, and its start and end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.web.client import HTTPConnectionPool

from lgi.client.post import Server, connect
from lgi.client.resource import ResourceClient
from lgi.daemon.config import DaemonConfig
from lgi.daemon.holdings import Holdings
from lgi.daemon.jobdir import JobDirectory, Tampered, scan
from lgi.daemon.keeper import Keeper
from lgi.daemon.limits import Taken
from lgi.daemon.links import CALLS_AT_ONCE, Calls, Links
from lgi.daemon.offers import Offers
from lgi.daemon.scripts import Scripts
from lgi.daemon.seal import Seal, SealError, load_seal
from lgi.daemon.steps import Tools
from lgi.daemon.tasks import Tasks
from lgi.daemon.work import WorkCycle
from lgi.identity import Identity, parse_common_name
from lgi.service import cannot_start
from lgi.tls import ClientPolicy, TLSFileError, common_name, load_credentials

_log = Logger()
PROGRAM = "lgi-daemon"
LOCK_FILE = ".lgi-daemon.lock"
PATIENCE = 10.0  # seconds for what is in flight when the daemon stops, and once more after it has been cut short


@attrs.frozen(kw_only=True)
class Cycles:
    """How often work is asked for (`slow`) and held jobs are asked about (`fast`), in seconds."""

    slow: float = 5.0
    fast: float = 5.0


class Daemon:
    """Everything that works on one run directory, which the caller has locked.

    `make_calls` gives what speaks to a server, from the project's name and the server's URL.
    """

    def __init__(
        self,
        *,
        reactor: Any,
        clock: Any,
        config: DaemonConfig,
        seal: Seal,
        resource_name: str,
        make_calls: Callable[[str, str], Calls],
        cycles: Cycles,
        chance: random.Random,
        environment: Mapping[str, str],
    ) -> None:
        self.tasks = Tasks(clock)
        self.holdings = Holdings()
        self._config = config
        self._seal = seal
        self._chance = chance
        self._links = Links(make_calls, clock)
        self._scripts = Scripts(processes=reactor, clock=clock, inherited=environment)
        self._tools = Tools(
            links=self._links,
            scripts=self._scripts,
            reactor=reactor,
            clock=clock,
            tasks=self.tasks,
            resource_name=resource_name,
            fast_cycle=cycles.fast,
        )
        offers = Offers(config=config, seal=seal, tools=self._tools, holdings=self.holdings)
        self._work = WorkCycle(
            config=config,
            links=self._links,
            scripts=self._scripts,
            offers=offers,
            tasks=self.tasks,
            clock=clock,
            chance=chance,
            cycle=cycles.slow,
        )
        self.holdings.freed = self._work.freed
        self._loops = [(LoopingCall(self._update), cycles.fast), (LoopingCall(self._work.turn), cycles.slow)]
        for loop, _ in self._loops:
            loop.clock = clock

    def start(self) -> None:
        """Take up the jobs that the run directory holds, and begin the cycles."""
        for directory in scan(self._config.run_directory, self._seal):
            try:
                keeper = Keeper(tools=self._tools, directory=directory, gone=self.holdings.drop)
            except Tampered as problem:
                _log.critical("refused, nothing of this job is run or reported: {problem}", problem=problem)
                self._keep_place(directory)
            else:
                self.holdings.keepers.append(keeper)
                _log.info(
                    "job {job_id} of project {project} found in {path}",
                    job_id=keeper.record.job_id,
                    project=keeper.record.project,
                    path=str(directory.path),
                )
        for loop, interval in self._loops:
            # Nothing in a turn waits, so that it never ends with an error that a handler would have to see.
            loop.start(interval)

    def _keep_place(self, directory: JobDirectory) -> None:
        """Count a refused job, and do not take it anew: something of it may be running."""
        project, application = directory.path.parent.parent.name, directory.path.parent.name
        self.holdings.reserved.append(Taken(project=project, application=application, owners=()))
        with contextlib.suppress(Tampered):
            key = (project, directory.text("LGI_this_project_server"), int(directory.text("LGI_job_id")))
            self.holdings.refused.add(key)

    def _update(self) -> None:
        for keeper in self._chance.sample(self.holdings.keepers, len(self.holdings.keepers)):
            self.tasks.start(f"asking about job {keeper.record.job_id}", keeper.pulse())

    async def stop(self) -> None:
        """End the cycles, scripts that are under way and sessions; what jobs run goes on."""
        for loop, _ in self._loops:
            if loop.running:
                loop.stop()
        self._work.stop()
        for keeper in self.holdings.keepers:
            keeper.stop()
        self._links.close()
        await self._scripts.stop()
        await self.tasks.finish(PATIENCE)


class DaemonService(Service):
    """Opens the files and the run directory, and ends the program with one line if that cannot be."""

    def __init__(self, *, reactor: Any, config: DaemonConfig, cycles: Cycles, strict_hostname: bool = True) -> None:
        self._reactor = reactor
        self._config = config
        self._cycles = cycles
        self._strict_hostname = strict_hostname
        self._lock: int | None = None
        self._daemon: Daemon | None = None
        self._pool: HTTPConnectionPool | None = None

    def startService(self) -> None:
        """Open everything, then begin."""
        super().startService()
        config = self._config
        try:
            credentials = load_credentials(config.resource_certificate_file, config.resource_key_file)
            identity = parse_common_name(common_name(credentials.certificate))
            policy = ClientPolicy(credentials, config.ca_certificate_file, strict_hostname=self._strict_hostname)
            self._check(identity)
            self._lock = lock_run_directory(config.run_directory)
            seal = load_seal(config.run_directory)
        except (TLSFileError, SealError) as problem:
            cannot_start(PROGRAM, problem)
        except ValueError as problem:
            cannot_start(PROGRAM, f"{config.resource_certificate_file}: {problem}")
        except BlockingIOError:
            cannot_start(PROGRAM, f"{config.run_directory}: another daemon works in this run directory")
        except OSError as problem:
            cannot_start(PROGRAM, f"{problem.filename or config.run_directory}: {problem.strerror}")
        http, pool = connect(self._reactor, policy)
        pool.maxPersistentPerHost = CALLS_AT_ONCE

        def make_calls(project: str, url: str) -> Calls:
            return ResourceClient(server=Server(http=http, reactor=self._reactor, url=url, project=project))

        self._pool = pool
        self._daemon = Daemon(
            reactor=self._reactor,
            clock=self._reactor,
            config=config,
            seal=seal,
            resource_name=identity.name,
            make_calls=make_calls,
            cycles=self._cycles,
            chance=random.Random(),  # noqa: S311  # an order, no secret
            environment=dict(os.environ),
        )
        _log.info("resource {name} works in {path}", name=identity.name, path=str(config.run_directory))
        if os.geteuid() == 0 or config.wants_sandbox:
            _log.warn("jobs are not sandboxed: they run under the daemon's own uid {uid}", uid=os.geteuid())
        try:
            self._daemon.start()
        except OSError as problem:
            cannot_start(PROGRAM, f"{problem.filename or config.run_directory}: {problem.strerror}")

    def _check(self, identity: Identity) -> None:
        for project in self._config.projects:
            if not identity.allows_project(project.name):
                raise ValueError(f"the certificate is not for project {project.name}")
        if shutil.which("setsid") is None:
            cannot_start(PROGRAM, "the program setsid is not in PATH, no script could be started")

    async def _stop(self) -> None:
        if self._daemon is not None:
            await self._daemon.stop()
        if self._pool is not None:
            await self._pool.closeCachedConnections()
        if self._lock is not None:
            os.close(self._lock)
        _log.info("stopped, what jobs run goes on")

    def stopService(self) -> Deferred[None]:
        """Sign off and end what is under way, but not the jobs."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())


def lock_run_directory(path: Path) -> int:
    """Make the run directory if need be, and lock it for as long as the descriptor is open.

    Raises BlockingIOError when another daemon has it, or another OSError.
    """
    path.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
