"""`twistd lgi-server`."""

from __future__ import annotations

from twisted.application.service import IService

from lgi.setup import ServerOptions


class Options(ServerOptions):
    """Options of the project server."""

    synopsis = "twistd [twistd options] lgi-server --config FILE"
    longdesc = "The project server: HTTPS interfaces for users and resources, and the file repository."


def makeService(options: Options) -> IService:
    """The service; nothing is opened yet, since twistd forks between this and its start."""
    from twisted.internet import reactor

    from lgi.server.service import ServerService

    return ServerService(reactor, options["configuration"])
