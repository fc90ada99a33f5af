"""The work request cycle: every application, at every server of its project (LGI 1.41, Resource daemon)."""

from __future__ import annotations

import random
from typing import Any

from twisted.logger import Logger

from lgi.client.answers import ServerList, ServerRefused
from lgi.daemon import limits
from lgi.daemon.config import ApplicationConfig, DaemonConfig, ProjectConfig
from lgi.daemon.links import Link, Links, NoAnswer
from lgi.daemon.offers import Offers, Place
from lgi.daemon.scripts import Scripts, StillRunning
from lgi.daemon.tasks import Tasks
from lgi.wire.dialect import raw_element

_log = Logger()
_MOST_PAGES = 16


def capabilities(project: ProjectConfig) -> str:
    """What the resource signs up with: an element for each application."""
    return " ".join(raw_element(app.name, app.capabilities) for app in project.applications)


class WorkCycle:
    """Asks for work; each server at its own pace, so that a slow or dead one holds up nobody."""

    def __init__(
        self,
        *,
        config: DaemonConfig,
        links: Links,
        scripts: Scripts,
        offers: Offers,
        tasks: Tasks,
        chance: random.Random,
    ) -> None:
        self._config = config
        self._links = links
        self._scripts = scripts
        self._offers = offers
        self._tasks = tasks
        self._chance = chance
        self._servers: dict[str, tuple[str, ...]] = {
            project.name: (project.master_server,) for project in config.projects
        }
        self._masters = {project.name: project.master_server for project in config.projects}
        self._checking: set[str] = set()
        self._asking: set[tuple[str, str]] = set()
        self._introduced: set[tuple[str, str]] = set()
        self._said: dict[Any, str] = {}
        self._stopping = False

    def stop(self) -> None:
        """Begin nothing any more."""
        self._stopping = True

    def turn(self) -> None:
        """Begin one cycle."""
        for project in self._chance.sample(self._config.projects, len(self._config.projects)):
            if project.name not in self._checking and not self._stopping:
                self._tasks.start(f"asking for work of project {project.name}", self._project(project))

    async def _project(self, project: ProjectConfig) -> None:
        self._checking.add(project.name)
        try:
            applications = [app for app in project.applications if await self._may_ask(project, app)]
        finally:
            self._checking.remove(project.name)
        self._spread(project, applications)

    def _spread(self, project: ProjectConfig, applications: list[ApplicationConfig]) -> None:
        for url in self._chance.sample(self._servers[project.name], len(self._servers[project.name])):
            key = (project.name, url)
            if key in self._asking or self._stopping or (key in self._introduced and not applications):
                continue
            self._asking.add(key)
            self._tasks.start(
                f"asking {url} for work of project {project.name}", self._server(project, url, applications)
            )

    async def _may_ask(self, project: ProjectConfig, application: ApplicationConfig) -> bool:
        if limits.room(self._offers.levels(project, application)) == 0:
            return False
        script = application.check_system_limits_script
        if script is None:
            return True
        try:
            outcome = await self._scripts.check_system(script, self._config.run_directory)
            problem = "" if outcome.ok else f"{script}: {outcome}"
        except (OSError, StillRunning) as trouble:
            problem = f"{script}: {trouble}"
        self._say((project.name, application.name), problem, f"no work of {application.name} asked for")
        return not problem

    async def _server(self, project: ProjectConfig, url: str, applications: list[ApplicationConfig]) -> None:
        link = self._links.to(project.name, url)
        try:
            async with link.session(capabilities(project)) as (session_id, servers):
                self._introduced.add((project.name, url))
                if url == project.master_server:
                    self._learn(project, servers, applications)
                for application in self._chance.sample(applications, len(applications)):
                    await self._application(project, application, link, session_id)
            self._say(url, "", "")
        except NoAnswer as problem:
            _log.debug("{problem}", problem=problem)
        except ServerRefused as refusal:
            self._say(url, str(refusal), f"{url} gives no work of project {project.name}")
        finally:
            self._asking.discard((project.name, url))

    def _learn(self, project: ProjectConfig, servers: ServerList, applications: list[ApplicationConfig]) -> None:
        """Take over the list of the project's servers; the configured address stands for the one that gave it."""
        others = [url.rstrip("/") for url in servers.all if url != servers.this]
        known = tuple(dict.fromkeys([project.master_server, *others]))
        self._masters[project.name] = servers.master.rstrip("/") or project.master_server
        if known != self._servers[project.name]:
            self._servers[project.name] = known
            _log.info("project {project} has the servers {servers}", project=project.name, servers=", ".join(known))
            self._spread(project, applications)

    async def _application(
        self, project: ProjectConfig, application: ApplicationConfig, link: Link, session_id: int
    ) -> None:
        place = Place(project=project, application=application, master=self._masters[project.name], link=link)
        start = 0
        asked_for: tuple[str, ...] = ()
        rejected: set[int] = set()
        for _ in range(_MOST_PAGES):
            levels = self._offers.levels(project, application)
            room, owners = limits.room(levels), limits.posted_owners(levels)
            if room == 0 or self._stopping:
                return
            # What has been rejected stands in the queue before what has not been seen; other owners, another queue.
            start = start if owners == asked_for else 0
            asked_for = owners
            jobs = await link.request_work(session_id, application.name, start=start, limit=room, owners=owners)
            for job in jobs:
                if job.job_id in rejected:
                    await link.unlock(session_id, job.job_id)
                    start += 1
                elif not await self._offers.consider(place, session_id, job):
                    rejected.add(job.job_id)
                    start += 1
            if len(jobs) < room:
                return

    def _say(self, about: Any, problem: str, what: str) -> None:
        if self._said.get(about, "") != problem:
            self._said[about] = problem
            if problem:
                _log.warn("{what}: {problem}", what=what, problem=problem)
