"""The look at the database with which a process finds what nobody told it: one for all that wait in it.

A bell that was not heard costs the time until the next look. What is found is told as a ring would be.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred

from lgi.db.look import Follower
from lgi.server.project import Project
from lgi.service import Periodic


class Look:
    """Looks what is new in the record of a project's jobs, and wakes those who wait for it."""

    def __init__(self, reactor: Any, project: Project, seconds: float) -> None:
        self._reactor = reactor
        self._project = project
        self._seconds = seconds
        self._follower = Follower()

    async def work(self) -> float:
        """Look once; returns the seconds until the next look."""
        project = self._project
        for_work = len(project.waiting) > 0
        if not for_work and not project.news.awaited:
            # Whoever begins to wait after this looks first.
            await project.database.read("look for changes", self._follower.skip)
            return self._seconds
        changes, more = await project.database.read(
            "look for changes", self._follower.read, self._reactor.seconds(), offers=for_work
        )
        if changes:
            project.tell(changes)
        return 0.0 if more else self._seconds


class Looks:
    """The looks of all projects of a process."""

    def __init__(self, reactor: Any, projects: Iterable[Project], seconds: float) -> None:
        self._services = MultiService()
        for project in projects:
            look = Look(reactor, project, seconds)
            name = f"the look for changes of project {project.name}"
            Periodic(reactor, name, look.work, retry=max(10.0, seconds)).setServiceParent(self._services)

    def start(self) -> None:
        """Begin, once the databases have their threads."""
        self._services.startService()

    async def stop(self) -> None:
        """Look no more; returns when none is under way."""
        if self._services.running:
            stopping: Deferred[Any] = maybeDeferred(self._services.stopService)
            await stopping
