"""The scheduler's services: for each project, take due events off the agenda and work them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from lgi.bell import Bell
from lgi.config import ConfigError, SchedulerSection, ServerConfig
from lgi.db.database import Database
from lgi.db.events import REPOSITORY_RESOURCES, SCHEDULE_CYCLE
from lgi.db.log import forget_jobs
from lgi.db.resources import list_names
from lgi.db.upgrade import SchemaError
from lgi.model import Changes
from lgi.repository.files import Repositories
from lgi.scheduler import work
from lgi.scheduler.updates import EVENTS, Updates
from lgi.service import Periodic, cannot_start, told
from lgi.setup import check_databases, open_databases, repositories_of
from lgi.sync import Neighbours, UpdateCycle, open_neighbours
from lgi.tls import TLSFileError

# The agenda is a table that programs on other machines may write to, whose bell is not heard here.
LOOK_SECONDS = 1.0
# Events that come one after the other are worked together; the first one of them at once.
PAUSE_SECONDS = 0.2
# How often the record of jobs that are long gone is removed, and of how many at once.
RECORD_SECONDS = 3600
RECORD_BATCH = 500
DAY = 86_400


class ResourceLists:
    """The file that lets resources change repositories: the resources of all projects of this server."""

    def __init__(self, databases: dict[str, Database], repositories: Repositories) -> None:
        self._databases = databases
        self._repositories = repositories

    async def write(self) -> None:
        """Write the list, unless it says so already."""
        names: set[str] = set()
        for database in self._databases.values():
            names.update(await database.read("list names", list_names))
        await deferToThread(self._repositories.write_resource_list, sorted(names))


class ProjectScheduler:
    """Works the events of one project. Several may run at once: each step is one transaction, safe to repeat."""

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        name: str,
        database: Database,
        section: SchedulerSection,
        resources: ResourceLists,
        take_updates: Callable[[Collection[str]], None],
    ) -> None:
        self._reactor = reactor
        self._name = name
        self._database = database
        self._section = section
        self._resources = resources
        self._take_updates = take_updates
        self._cycle_at = 0
        self._record_at = 0

    async def work(self) -> float:
        """Work what is due; returns the seconds until there may be more."""
        now = int(self._reactor.seconds())
        events = await self._database.read("due events", work.due_events, now)
        try:
            if events:
                # Before the work: what is scheduled during it, maybe for this very second, is an event of its own.
                events = await self._database.run("take events", work.take_events, events)
            await self._heed({event for _at, event in events}, now)
        except Exception:
            # The next turn does all that any event asks for.
            self._cycle_at = 0
            raise
        left = await self._database.read(
            "next event", work.seconds_to_next, self._reactor.seconds(), self._section.interval
        )
        return min(left, LOOK_SECONDS)

    async def _heed(self, kinds: set[str], now: int) -> None:
        if now >= self._cycle_at:
            # A regular cycle needs no event: sessions and pulses run out without one.
            kinds.add(SCHEDULE_CYCLE)
            self._cycle_at = now + self._section.interval
        if SCHEDULE_CYCLE in kinds:
            await self._cycle(now)
        if kinds & {REPOSITORY_RESOURCES, SCHEDULE_CYCLE}:
            await self._resources.write()
        self._take_updates(kinds)
        for event in kinds - {REPOSITORY_RESOURCES, SCHEDULE_CYCLE} - EVENTS:
            self._log.warn("project {project}: unknown event {event!r}", project=self._name, event=event)

    async def _cycle(self, now: int) -> None:
        ended = work.BATCH
        while ended == work.BATCH:
            ended = await self._database.run("end stale sessions", work.end_stale_sessions, now)
            if ended:
                self._log.info("project {project}: ended {ended} stale sessions", project=self._name, ended=ended)
        while await self._see_to_lost_jobs(now) == work.BATCH:
            pass
        if now >= self._record_at:
            before = now - self._section.record_days * DAY
            forgotten = await self._database.run("forget jobs", forget_jobs, before, RECORD_BATCH)
            if forgotten < RECORD_BATCH:
                self._record_at = now + RECORD_SECONDS

    async def _see_to_lost_jobs(self, now: int) -> int:
        lost = await self._database.run("see to lost jobs", work.see_to_lost_jobs, now, self._section.pulse_timeout)
        for job, state in lost:
            self._log.warn(
                "project {project}: no daemon looks after job {job_id}, which was {before} and is now {state}",
                project=self._name,
                job_id=job.job_id,
                before=job.state,
                state=state,
            )
        return len(lost)


class SchedulerService(MultiService):
    """The scheduler of all projects of a server."""

    _log = Logger()

    def __init__(self, reactor: Any, config: ServerConfig) -> None:
        super().__init__()
        self._reactor = reactor
        self._config = config
        self._databases: dict[str, Database] = {}
        self._neighbours: Neighbours | None = None
        self._updates: list[Updates] = []
        self._bell = Bell(config.server.run_directory)
        self._schedulers: dict[str, Periodic] = {}

    def startService(self) -> None:
        """Open the databases and begin."""
        try:
            self._neighbours = open_neighbours(self._reactor, self._config)
            repositories = repositories_of(self._config)
            repositories.prepare()
            self._databases = open_databases(self._config, self._reactor)
            check_databases(self._databases)
            self._bell.listen(self._reactor)
        except (SchemaError, ConfigError, TLSFileError) as problem:
            cannot_start("lgi-scheduler", problem)
        except OSError as problem:
            cannot_start("lgi-scheduler", told(problem))
        resources = ResourceLists(self._databases, repositories)
        for name, database in self._databases.items():
            database.start()
            section = self._config.scheduler
            cycle = UpdateCycle(self._reactor, name, database, self._neighbours)
            updates = Updates(self._reactor, name, cycle, section.interval)
            updates.service.setServiceParent(self)
            self._updates.append(updates)
            scheduler = ProjectScheduler(self._reactor, name, database, section, resources, updates.take)
            work_events = Periodic(self._reactor, f"scheduler of project {name}", scheduler.work, pause=PAUSE_SECONDS)
            work_events.setServiceParent(self)
            self._schedulers[name] = work_events
            database.committed = partial(self._bell.ring, name)
            self._log.info("works the events of project {project}", project=name)
        self._bell.heard = self._heard
        super().startService()

    def _heard(self, project: str, changes: Changes) -> None:
        if changes.agenda and project in self._schedulers:
            self._schedulers[project].wake()

    async def _stop(self) -> None:
        for updates in self._updates:
            updates.stop()
        stopping = super().stopService()
        if stopping is not None:
            await stopping
        if self._neighbours is not None:
            await self._neighbours.close()
        for database in self._databases.values():
            database.stop()
        self._bell.close()

    def stopService(self) -> Deferred[None]:
        """Wait for work under way, and close the databases."""
        return Deferred.fromCoroutine(self._stop())
