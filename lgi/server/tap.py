"""`twistd lgi-server`."""

from __future__ import annotations

from pathlib import Path

from twisted.application.service import IService

from lgi.config import processes_of
from lgi.setup import ServerOptions


class Options(ServerOptions):
    """Options of the project server."""

    synopsis = "twistd [twistd options] lgi-server --config FILE"
    longdesc = "The project server: HTTPS interfaces for users and resources, and the file repository."


def makeService(options: Options) -> IService:
    """The service; nothing is opened yet, since twistd forks between this and its start."""
    from twisted.internet import reactor

    from lgi.server.processes import FrontService
    from lgi.server.service import ServerService

    configuration = options["configuration"]
    if processes_of(configuration) > 1:
        # In the background, twistd goes to another directory.
        return FrontService(reactor, configuration, Path(options["config"]).absolute())
    return ServerService(reactor, configuration)
