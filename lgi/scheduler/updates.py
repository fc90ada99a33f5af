"""When a scheduler sees to the updates of a project: at its interval, and when an event asks for it."""

from __future__ import annotations

from collections.abc import Collection

from lgi.db.events import UPDATE_CYCLE, UPDATE_SERVERS
from lgi.service import Periodic
from lgi.sync import UpdateCycle

EVENTS = frozenset({UPDATE_CYCLE, UPDATE_SERVERS})


class Updates:
    """The updates of one project, beside its other events: these never wait for another server."""

    def __init__(self, reactor: object, project: str, cycle: UpdateCycle, interval: int) -> None:
        self._cycle = cycle
        self._interval = interval
        self._tell = False
        self.service = Periodic(reactor, f"updates of project {project}", self._work)

    def take(self, events: Collection[str]) -> None:
        """Do what these events ask for, soon; other events are not looked at."""
        self._tell = self._tell or UPDATE_SERVERS in events
        if EVENTS & set(events):
            self.service.wake()

    def stop(self) -> None:
        """Wait for no other server any more."""
        self._cycle.stop()

    async def _work(self) -> float:
        if self._tell:
            self._tell = False
            await self._cycle.tell()
        else:
            await self._cycle.run()
        return self._interval
