"""What those who run the server see of it: metrics, the access log, and calls that are slow."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import attrs
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from lgi.config import ServerConfig
from lgi.db.database import Database
from lgi.db.measure import Measure
from lgi.httpd.accesslog import AccessLog
from lgi.httpd.record import Record
from lgi.httpd.router import Router
from lgi.server.exposition import (
    DIRECTORY,
    Depths,
    directory_of,
    prepare_directory,
    registry_of,
    reserve,
    retire_ended,
    serve,
)
from lgi.server.metrics import Metrics, Timed
from lgi.server.project import Project
from lgi.setup import open_databases

RETIRE_SECONDS = 60.0
"""How often the front looks which processes have ended, where nobody asks for metrics."""
SAMPLE_SECONDS = 1.0
"""How often a process behind the front says what is so at the moment."""


def _timed(_name: str) -> Measure:
    return Timed()


class Operation:
    """Is told of every request by the Site, and of every transaction by the databases."""

    _log = Logger()

    def __init__(self, reactor: Any, config: ServerConfig) -> None:
        self._reactor = reactor
        self._config = config
        self._slow = config.log.slow_call
        self.access = None if config.log.access is None else AccessLog(reactor, config.log.access)
        self._depths: Depths | None = None
        self.port: IListeningPort | None = None
        directory = directory_of(config.server.run_directory)
        self._directory = directory if os.environ.get(DIRECTORY) == str(directory) else None
        self._measures = bool(config.metrics.listen)
        self._timer: Any = None

    @cached_property
    def metrics(self) -> Metrics:
        """The instruments, made when there is room for what they measure."""
        return Metrics()

    def attach(self, router: Router, projects: Mapping[str, Project]) -> None:
        """Measure these."""
        if self._measures:
            self.metrics.attach(router, projects)
            if self._directory is None:
                self._depths = Depths(self._reactor, {name: project.database for name, project in projects.items()})
                self.metrics.registry.register(self._depths)
            for name, project in projects.items():
                project.database.measured = self.metrics.measuring(name)
        elif self._slow:
            for project in projects.values():
                project.database.measured = _timed

    def start(self) -> None:
        """Open the log and the listener, before anything is attached; raises OSError."""
        self.open_log()
        if not self._measures:
            return
        if self._directory is not None:
            reserve(self._directory)
            self._sample()
            return
        self.port = serve(self._reactor, self._config.metrics, self.metrics.registry, self.refresh)

    def open_log(self) -> None:
        """Open the access log, if one is wanted; raises OSError that names the setting."""
        if self.access is None:
            return
        try:
            self.access.open()
        except OSError as problem:
            raise OSError(problem.errno, problem.strerror, f"log.access {self._config.log.access}") from None

    async def stop(self) -> None:
        """Close everything, when all requests have been answered."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
            self.metrics.sample()
        if self.port is not None:
            await maybeDeferred(self.port.stopListening)
            self.port = None
        if self.access is not None:
            self.access.close()

    def reopen(self) -> None:
        """Open the access log anew, which somebody may have moved away."""
        if self.access is not None:
            self.access.reopen()

    async def refresh(self) -> None:
        """Look at what is so at the moment, before it is told."""
        if self._depths is not None:
            await self._depths.look()
        self.metrics.sample()

    def _sample(self) -> None:
        self.metrics.sample()
        self._timer = self._reactor.callLater(SAMPLE_SECONDS, self._sample)

    def __call__(self, request: Any, record: Record) -> None:
        """A request is over."""
        if self._measures:
            self.metrics.request(record)
        if self.access is not None:
            self.access.write(request, record)
        if self._slow and record.is_call and record.worked > self._slow:
            self._log.warn(
                "slow call {call} of {caller}: {total:.0f} ms, of them {database:.0f} ms in {number} {transactions}",
                call=record.call,
                caller=record.caller,
                total=record.worked * 1000,
                database=record.database * 1000,
                number=record.transactions,
                transactions="transaction" if record.transactions == 1 else "transactions",
            )


class Gathering:
    """The front's part: tells the metrics of all its processes, and those of the queues, which it looks at itself."""

    def __init__(self, reactor: Any, config: ServerConfig) -> None:
        self._reactor = reactor
        self._config = config
        self._databases: dict[str, Database] = {}
        self._depths = Depths(reactor, self._databases)
        self._directory = directory_of(config.server.run_directory)
        self._timer: Any = None
        self.port: IListeningPort | None = None

    def start(self) -> None:
        """Listen, if metrics are wanted; before any process is started, which find out from the environment.

        Raises OSError.
        """
        if not self._config.metrics.listen:
            return
        self._config.server.run_directory.mkdir(mode=0o700, exist_ok=True)
        prepare_directory(self._config.server.run_directory)
        registry = registry_of(self._directory)
        registry.register(self._depths)
        self.port = serve(self._reactor, self._config.metrics, registry, self.refresh)
        projects = {name: attrs.evolve(section, threads=1) for name, section in self._config.projects.items()}
        self._databases.update(open_databases(attrs.evolve(self._config, projects=projects), self._reactor))
        for database in self._databases.values():
            database.start()
        self._retire()

    async def refresh(self) -> None:
        """Look at what is so at the moment, before it is told."""
        retire_ended(self._directory)
        await self._depths.look()

    def _retire(self) -> None:
        retire_ended(self._directory)
        self._timer = self._reactor.callLater(RETIRE_SECONDS, self._retire)

    async def stop(self) -> None:
        """Close everything."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self.port is not None:
            await maybeDeferred(self.port.stopListening)
            self.port = None
        for database in self._databases.values():
            database.stop()
