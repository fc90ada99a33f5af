"""`twistd lgi-scheduler`."""

from __future__ import annotations

from twisted.application.service import IService

from lgi.setup import ServerOptions


class Options(ServerOptions):
    """Options of the scheduler."""

    synopsis = "twistd [twistd options] lgi-scheduler --config FILE"
    longdesc = "The scheduler of a project server: stale sessions, lost jobs, the repository's list of resources."


def makeService(options: Options) -> IService:
    """The service; nothing is opened yet, since twistd forks between this and its start."""
    from twisted.internet import reactor

    from lgi.scheduler.service import SchedulerService

    return SchedulerService(reactor, options["configuration"])
