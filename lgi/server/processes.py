"""The server as several processes: the one that twistd runs listens, and has the others serve."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from lgi.config import ServerConfig, processes_of
from lgi.server.front import Front
from lgi.server.operation import Gathering
from lgi.server.relay import Relay
from lgi.server.service import PROGRAM, Serving, started_relay
from lgi.service import cannot_start, told

BACKLOG = 1024
"""Connections that may wait while the processes are being replaced."""

_log = Logger()


class FrontService(Serving):
    """Looks whether everything can be opened, listens, and keeps the processes going; SIGHUP renews them.

    `file` is the configuration, which each process reads for itself when it starts.
    """

    def __init__(self, reactor: Any, config: ServerConfig, file: Path) -> None:
        super().__init__(reactor, config)
        self._file = file
        self._front: Front | None = None
        self._relay: Relay | None = None
        self._gathering = Gathering(reactor, config)

    @property
    def port(self) -> int:
        """The port it listens on; 0 while it does not listen."""
        return 0 if self._front is None else self._front.port

    def startService(self) -> None:
        """Look at everything once, which also finishes what a killed server began, and listen."""
        super().startService()
        self.open_parts(first=True)
        listener = self._listen()
        try:
            # Each process opens it for itself, but what is wrong with it is said once.
            self._operation.open_log()
            self._gathering.start()
        except OSError as problem:
            cannot_start(PROGRAM, told(problem))
        self._relay = started_relay(self._reactor, self._config)
        processes = processes_of(self._config)

        def command(number: int) -> list[str]:
            # Without the directory where it happens to be started, in which anybody's modules may lie.
            program = [sys.executable, "-P", "-m", "lgi.server.worker"]
            return [*program, str(self._file), str(number), str(processes)]

        self._front = Front(self._reactor, listener, processes, command)
        self.handle_hangup()
        Deferred.fromCoroutine(self._start(self._front, processes)).addErrback(
            lambda failure: cannot_start(PROGRAM, failure.value)
        )

    async def _start(self, front: Front, processes: int) -> None:
        # Nothing more is needed of what was opened.
        await self.close_parts()
        problem = await front.start()
        if not self.running:
            return
        if problem:
            cannot_start(PROGRAM, problem.partition("cannot start: ")[2] or problem)
        _log.info(
            "project server {url} listens on port {port} for {projects} in {processes} processes",
            url=self._config.server.url,
            port=self.port,
            projects=", ".join(self._config.projects),
            processes=processes,
        )

    def _listen(self) -> socket.socket:
        section = self._config.server
        family = socket.AF_INET6 if ":" in section.interface else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            flags = socket.AI_PASSIVE
            found = socket.getaddrinfo(section.interface or None, section.port, family, socket.SOCK_STREAM, 0, flags)
            listener.bind(found[0][4])
            listener.listen(BACKLOG)
        except OSError as problem:
            where = f"{section.interface or '*'}:{section.port}"
            cannot_start(PROGRAM, f"port {where} cannot be had: {problem.strerror}")
        return listener

    def hung_up(self) -> None:
        """Renew the processes: each new one reads configuration, certificates and programs anew."""
        if self._front is not None and self.running:
            _log.info("the processes are being renewed, one after the other")
            Deferred.fromCoroutine(self._renew(self._front)).addErrback(
                lambda failure: _log.failure("the processes are not renewed", failure=failure)
            )

    async def _renew(self, front: Front) -> None:
        await front.renew()
        _log.info("the renewal of the processes is over")

    def stopService(self) -> Deferred[None]:
        """Stop listening, and wait until the processes have answered the calls under way."""
        super().stopService()
        self.restore_hangup()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._front is not None:
            await self._front.stop()
        if self._relay is not None:
            await self._relay.stop()
        await self._gathering.stop()
        self.give_up_run_directory()
