"""One of several processes that serve: `python -m lgi.server.worker CONFIG NUMBER PROCESSES`, started by the front.

It has what the server has that runs alone, but for the port: its connections come from the front, without which it
does not go on.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import FileLogObserver, LogEvent, Logger, formatEvent, globalLogBeginner
from twisted.python.failure import Failure

from lgi.config import ConfigError, ServerConfig, load_config
from lgi.server.channel import Channel, finish
from lgi.server.service import PROGRAM, Serving
from lgi.service import refuse

LEAST_THREADS = 4

_log = Logger()


def share(config: ServerConfig, processes: int) -> ServerConfig:
    """The part of one process of so many in what the server may do at once."""

    def part(whole: int, least: int = 1) -> int:
        return max(min(whole, least), -(-whole // processes))

    limits = attrs.evolve(config.limits, requests=part(config.limits.requests), waiting=part(config.limits.waiting))
    projects = {
        name: attrs.evolve(section, threads=part(section.threads, LEAST_THREADS))
        for name, section in config.projects.items()
    }
    server = attrs.evolve(config.server, processes=processes)
    return attrs.evolve(config, server=server, limits=limits, projects=projects)


class WorkerService(Serving):
    """Serves what the front hands it."""

    _channel: Channel | None = None
    _ended = False

    def end(self) -> None:
        """End the process, however often the front asks for it, and whoever ends the whole group too."""
        if not self._ended:
            self._ended = True
            self._reactor.stop()

    def startService(self) -> None:
        """Open files and databases, then take connections."""
        super().startService()
        self.open_parts(first=False)
        factory = self.make_factory()

        def leave() -> None:
            if self._channel is not None:
                # The front closes its end only when this process is gone, or when it is itself.
                Deferred.fromCoroutine(self._finish(factory)).addErrback(
                    lambda failure: _log.failure("the connections are not finished", failure=failure)
                )

        self._channel = Channel(self._reactor, factory, leave=leave, lost=self._alone)
        self._channel.open()

    async def _finish(self, factory: Any) -> None:
        assert self._ending is not None
        self._ending.let_go()
        await finish(self._reactor, factory)
        self.end()

    def _alone(self) -> None:
        # As if the whole server were killed: its next one may be there already, and relies on being alone.
        _log.critical("the front is gone")
        os._exit(1)

    async def _stop(self) -> None:
        await self.close_parts()

    def stopService(self) -> Deferred[None]:
        """Answer what is under way."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())


def _line(event: LogEvent) -> str:
    """An event as lines for the front, which adds the time."""
    text = formatEvent(event)
    failure = event.get("log_failure")
    if isinstance(failure, Failure):
        text = f"{text}\n{failure.getTraceback()}"
    if not text:
        return ""
    return f"[{event.get('log_namespace', '-')}#{event['log_level'].name}] {text.rstrip()}\n"


def main(words: Sequence[str]) -> None:
    """Serve until the front says that it is enough, or is gone."""
    from twisted.internet import reactor

    file, _number, processes = words
    # To a terminal's whole group; what follows from it is the front's to say.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    globalLogBeginner.beginLoggingTo([FileLogObserver(sys.stderr, _line)], redirectStandardIO=False)
    try:
        config = load_config(Path(file))
    except ConfigError as problem:
        refuse(PROGRAM, problem)
    running: Any = reactor
    service = WorkerService(running, share(config, int(processes)))

    def terminated(_number: int, _frame: object) -> None:
        running.callFromThread(service.end)

    # Before anything that takes its time: the reactor's own would be asked a second time by the front.
    running.callWhenRunning(signal.signal, signal.SIGTERM, terminated)
    running.callWhenRunning(service.startService)
    running.addSystemEventTrigger("before", "shutdown", service.stopService)
    running.run()


if __name__ == "__main__":
    main(sys.argv[1:])
