"""Asking for work: every application, at every server of its project (LGI 1.41, Resource daemon).

Each cycle asks all servers. One that offers it is then waited for in the same session, and asked again the moment it
has something; the cycles leave it alone as long as that goes on.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs
from twisted.logger import Logger

from lgi.client.answers import ServerList, ServerRefused, SignedUp
from lgi.daemon import limits
from lgi.daemon.claims import Place
from lgi.daemon.config import SERVER_ADDRESS, ApplicationConfig, DaemonConfig, ProjectConfig
from lgi.daemon.kept import WorkSession
from lgi.daemon.links import Link, Links, NoAnswer
from lgi.daemon.offers import Offers
from lgi.daemon.scripts import Scripts, StillRunning
from lgi.daemon.tasks import Tasks
from lgi.wire.dialect import raw_element

_log = Logger()
_MOST_PAGES = 16
# Seconds after which a server that is waited for is asked for everything all the same: a hint may be lost.
LOOK_AGAIN = 60
# Seconds until a server that had been waited for, and fell silent, is tried again, however long the cycle.
TRY_AGAIN = 5.0
# So many hints in a row, each within so many seconds, that brought no job: the server is left alone for a while.
VAIN_HINTS, VAIN = 16, 1.0
# Seconds, at most a cycle, for which a yes of check_system_limits_script is good.
GOOD_FOR = 5.0


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
        clock: Any,
        chance: random.Random,
        cycle: float,
    ) -> None:
        self._config = config
        self._clock = clock
        self._cycle = cycle
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
        self._good_until: dict[tuple[str, Path], float] = {}
        self._held: dict[tuple[str, str], tuple[Link, frozenset[str]]] = {}
        self._telling: set[tuple[str, str]] = set()
        # Project, server and application of which there may be jobs that were not taken when it was last asked for.
        self._left: set[tuple[str, str, str]] = set()
        self._nudged: set[tuple[str, str]] = set()
        self._retries: dict[str, Any] = {}
        self._stopping = False

    def stop(self) -> None:
        """Begin nothing any more, and wait for nothing."""
        self._stopping = True
        for retry in self._retries.values():
            if retry.active():
                retry.cancel()
        self._let_go()

    def reconfigure(self, config: DaemonConfig) -> None:
        """Ask by this from now on; what is under way ends, and takes nothing that this does not offer."""
        before = {project.name: project.master_server for project in self._config.projects}
        self._config = config
        for project in config.projects:
            if before.get(project.name) != project.master_server:
                self._servers[project.name] = (project.master_server,)
                self._masters[project.name] = project.master_server
        self._introduced.clear()  # each server is told what is offered now
        self._said.clear()
        self._let_go()

    def _current(self, project: ProjectConfig) -> bool:
        return project in self._config.projects

    def _let_go(self) -> None:
        for link, _names in list(self._held.values()):
            link.let_go()

    def freed(self) -> None:
        """There is room for a job more: ask for it where that was not waited for, or some were not taken before."""
        for project in self._config.projects:
            roomy = {app.name for app in project.applications if self._has_room(project, app)}
            for url in self._servers[project.name]:
                key = (project.name, url)
                held = self._held.get(key)
                if held is not None and (not roomy <= held[1] or self._has_left(key, roomy)):
                    self._nudged.add(key)
                    held[0].let_go()
            if roomy and any((project.name, url) in self._telling for url in self._servers[project.name]):
                self._begin(project)

    def _has_left(self, key: tuple[str, str], names: Iterable[str]) -> bool:
        return any((*key, name) in self._left for name in names)

    def _has_room(self, project: ProjectConfig, application: ApplicationConfig) -> bool:
        return limits.room(self._offers.levels(project, application)) > 0

    def turn(self) -> None:
        """Begin one cycle."""
        for project in self._chance.sample(self._config.projects, len(self._config.projects)):
            self._begin(project)

    def _begin(self, project: ProjectConfig) -> None:
        busy = all((project.name, url) in self._asking for url in self._servers[project.name])
        if project.name not in self._checking and not self._stopping and not busy:
            self._tasks.start(f"asking for work of project {project.name}", self._project(project))

    def _begin_anew(self, name: str) -> None:
        for project in self._config.projects:
            if project.name == name:
                self._begin(project)

    async def _project(self, project: ProjectConfig) -> None:
        self._checking.add(project.name)
        try:
            applications = [app for app in project.applications if await self._may_ask(project, app)]
        finally:
            self._checking.remove(project.name)
        if self._current(project):
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
        if not self._has_room(project, application):
            return False
        script = application.check_system_limits_script
        now = self._clock.seconds()
        if script is None or now < self._good_until.get((project.name, script), now):
            return True
        try:
            outcome = await self._scripts.check_system(script, self._config.run_directory)
            problem = "" if outcome.ok else f"{script}: {outcome}"
            if outcome.ok:
                self._good_until[project.name, script] = self._clock.seconds() + min(GOOD_FOR, self._cycle)
        except (OSError, StillRunning) as trouble:
            problem = f"{script}: {trouble}"
        self._say((project.name, application.name), problem, f"no work of {application.name} asked for")
        return not problem

    async def _server(self, project: ProjectConfig, url: str, applications: list[ApplicationConfig]) -> None:
        link = self._links.to(project.name, url)
        key = (project.name, url)
        try:
            async with link.session(capabilities(project)) as (signed_up, session):
                self._introduced.add(key)
                if url == project.master_server:
                    self._learn(project, signed_up.servers, applications)
                await self._look(project, applications, link, session)
                self._say(url, "", "")
                if signed_up.work_wait:
                    self._telling.add(key)
                    await self._wait(project, link, signed_up, session)
                else:
                    self._telling.discard(key)
        except NoAnswer as problem:
            _log.debug("{problem}", problem=problem)
            self._try_again(project, key)
        except ServerRefused as refusal:
            self._say(url, str(refusal), f"{url} gives no work of project {project.name}")
            self._try_again(project, key)
        finally:
            self._asking.discard(key)
            if not self._current(project):
                self._begin_anew(project.name)

    async def _look(
        self, project: ProjectConfig, applications: Sequence[ApplicationConfig], link: Link, session: WorkSession
    ) -> int:
        """Ask for work of each application; how many jobs were taken."""
        taken = 0
        for application in self._chance.sample(applications, len(applications)):
            taken += await self._application(project, application, link, session)
        return taken

    async def _wait(self, project: ProjectConfig, link: Link, signed_up: SignedUp, session: WorkSession) -> None:
        """Wait for work in a session, and take it, until there is no room for any.

        `freed` begins anew then. The session is signed off meanwhile, since the server would end it.
        """
        key = (project.name, link.url)
        vain = 0
        while not self._stopping and self._current(project):
            if vain == VAIN_HINTS:
                self._say((key, "vain"), "there was none", f"{link.url} told of work {VAIN_HINTS} times")
                self._try_again(project, key)
                return
            wanted = [app for app in project.applications if await self._may_ask(project, app)]
            names = frozenset(app.name for app in wanted)
            if not wanted or self._stopping:
                return
            seconds = min(signed_up.work_wait, LOOK_AGAIN)
            refused = any(app.name not in names and self._has_room(project, app) for app in project.applications)
            if refused or self._has_left(key, names):
                # What says no for now, a script or a full disk, is tried again in the next cycle.
                seconds = max(1, min(seconds, int(self._cycle)))
            self._held[key] = (link, names)
            began = self._clock.seconds()
            try:
                told = await link.wait_for_work(await session.free(), sorted(names), seconds)
            finally:
                del self._held[key]
            # Told of nothing, look at everything: time is up, or there is room for what was not waited for.
            look_at = [app for app in project.applications if app.name in told or not told]
            wanted = [app for app in look_at if await self._may_ask(project, app)]
            quick = self._clock.seconds() < began + VAIN and key not in self._nudged
            self._nudged.discard(key)
            if await self._look(project, wanted, link, session):
                self._say((key, "vain"), "", "")
                quick = False
            vain = vain + 1 if quick else 0

    def _try_again(self, project: ProjectConfig, key: tuple[str, str]) -> None:
        if key not in self._telling or self._stopping or self._cycle <= TRY_AGAIN:
            return
        retry = self._retries.get(project.name)
        if retry is None or not retry.active():
            self._retries[project.name] = self._clock.callLater(TRY_AGAIN, self._begin_anew, project.name)

    def _learn(self, project: ProjectConfig, servers: ServerList, applications: list[ApplicationConfig]) -> None:
        """Take over the list of the project's servers; the configured address stands for the one that gave it."""
        if not self._current(project):
            return
        others = [url.rstrip("/") for url in servers.all if url != servers.this and SERVER_ADDRESS.fullmatch(url)]
        odd = [url for url in servers.all if not SERVER_ADDRESS.fullmatch(url)]
        self._say(
            (project.name, "servers"), ", ".join(odd), "left out of the project's servers, as no https:// address"
        )
        known = tuple(dict.fromkeys([project.master_server, *others]))
        self._masters[project.name] = servers.master.rstrip("/") or project.master_server
        if known != self._servers[project.name]:
            self._servers[project.name] = known
            _log.info("project {project} has the servers {servers}", project=project.name, servers=", ".join(known))
            self._spread(project, applications)

    async def _application(
        self, project: ProjectConfig, application: ApplicationConfig, link: Link, session: WorkSession
    ) -> int:
        place = Place(project=project, application=application, master=self._masters[project.name], link=link)
        start = taken = 0
        asked_for: tuple[str, ...] = ()
        rejected: set[int] = set()
        left = (project.name, link.url, application.name)
        self._left.discard(left)
        for _ in range(_MOST_PAGES):
            levels = self._offers.levels(project, application)
            room, owners = limits.room(levels), limits.posted_owners(levels)
            if room == 0 or self._stopping:
                break
            # What has been rejected stands in the queue before what has not been seen; other owners, another queue.
            start = start if owners == asked_for else 0
            asked_for = owners
            if owners != limits.posted_owners([attrs.evolve(level, jobs=[]) for level in levels]):
                self._left.add(left)
            session_id = await session.free()
            jobs = await link.request_work(session_id, application.name, start=start, limit=room, owners=owners)
            new = []
            for job in jobs:
                if job.job_id in rejected:
                    await link.unlock(session_id, job.job_id)
                    start += 1
                else:
                    new.append(job)
            welcome = await self._offers.consider(place, session, new)
            taken += len(welcome)
            for job in new:
                if job.job_id not in welcome:
                    rejected.add(job.job_id)
                    self._left.add(left)
                    start += 1
            if len(jobs) < room:
                break
        return taken

    def _say(self, about: Any, problem: str, what: str) -> None:
        if self._said.get(about, "") != problem:
            self._said[about] = problem
            if problem:
                _log.warn("{what}: {problem}", what=what, problem=problem)
