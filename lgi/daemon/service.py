"""The resource daemon as a service of twistd: its start, its signals, its end."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from lgi.client.post import Server
from lgi.client.resource import ResourceClient
from lgi.daemon.config import ConfigErrors, DaemonConfig, read_config
from lgi.daemon.connections import Connections
from lgi.daemon.daemon import Cycles, Daemon
from lgi.daemon.links import Calls
from lgi.daemon.papers import Papers, PapersError, Watch, copies, missing_program, read_papers
from lgi.daemon.place import LOCK_FILE, lock_run_directory
from lgi.daemon.reload import changes, obstacles
from lgi.daemon.sandbox import SandboxError, sandbox_for
from lgi.daemon.seal import SealError, load_seal
from lgi.daemon.trace import Traced
from lgi.lockfile import taken
from lgi.service import cannot_start

_log = Logger()
PROGRAM = "lgi-daemon"
LARGEST_ANSWER = 1 << 24  # bytes, some times what 32 jobs with the largest fields need


class DaemonService(Service):
    """Opens the files and the run directory, and ends the program with one line if that cannot be.

    SIGHUP has `config_file` read again and the log opened anew (`reopen_log`), SIGUSR1 the latter alone. `sandbox`
    is for a daemon that runs as root; with `trace` each call of a server is logged.
    """

    def __init__(
        self,
        *,
        reactor: Any,
        config: DaemonConfig,
        config_file: Path,
        cycles: Cycles,
        strict_hostname: bool = True,
        sandbox: bool = True,
        reopen_log: Callable[[], None] = lambda: None,
        trace: bool = False,
    ) -> None:
        self._reactor = reactor
        self._config = config
        self._file = config_file
        self._cycles = cycles
        self._strict_hostname = strict_hostname
        self._wants_sandbox = sandbox
        self._reopen_log = reopen_log
        self._trace = trace
        self._watch = Watch(reactor, lambda: datetime.now(UTC))
        self._lock: int | None = None
        self._papers: Papers | None = None
        self._daemon: Daemon | None = None
        self._connections: Connections | None = None
        self._handlers: dict[signal.Signals, Any] = {}

    def startService(self) -> None:
        """Open everything, then begin."""
        super().startService()
        steady(self._reactor)
        for number in (signal.SIGHUP, signal.SIGUSR1):
            self._handlers[number] = signal.signal(number, self._signalled)
        config = self._config
        missing = missing_program()
        if missing is not None:
            cannot_start(PROGRAM, f"the program {missing} is not in PATH, no script could be started")
        try:
            papers = self._papers = read_papers(config, strict_hostname=self._strict_hostname)
            self._lock = lock_run_directory(config.run_directory)
            sandbox = sandbox_for(
                config.run_directory, os.environ, wanted=self._wants_sandbox, configured=config.sandbox_uids
            )
            seal = load_seal(config.run_directory)
        except (PapersError, SandboxError, SealError) as problem:
            cannot_start(PROGRAM, problem)
        except BlockingIOError:
            cannot_start(PROGRAM, taken(config.run_directory / LOCK_FILE, "daemon"))
        except OSError as problem:
            cannot_start(PROGRAM, f"{problem.filename or config.run_directory}: {problem.strerror}")
        self._connections = Connections(self._reactor, papers.policy)
        self._daemon = Daemon(
            reactor=self._reactor,
            clock=self._reactor,
            config=config,
            seal=seal,
            resource_name=papers.identity.name,
            make_calls=self._make_calls,
            cycles=self._cycles,
            chance=random.Random(),  # noqa: S311  # an order, no secret
            environment=dict(os.environ),
            sandbox=sandbox,
        )
        _log.info(
            "resource {name} works in {path} (process {pid})",
            name=papers.identity.name,
            path=str(config.run_directory),
            pid=os.getpid(),
        )
        for project in config.projects:
            _log.info(
                "offers {applications} to {project} at {url}",
                applications=", ".join(application.name for application in project.applications) or "nothing",
                project=project.name,
                url=project.master_server,
            )
        self._watch.begin(papers)
        try:
            self._daemon.start()
        except OSError as problem:
            cannot_start(PROGRAM, f"{problem.filename or config.run_directory}: {problem.strerror}")

    def _make_calls(self, project: str, url: str) -> Calls:
        http: Any = self._connections
        server = Server(http=http, reactor=self._reactor, url=url, project=project, largest=LARGEST_ANSWER)
        calls = ResourceClient(server=server)
        traced: Any = Traced(calls, url, self._reactor)
        return traced if self._trace else calls

    def _signalled(self, number: int, frame: object) -> None:
        self._reactor.callFromThread(self._heed, number)

    def _heed(self, number: int) -> None:
        self._reopen_log()
        if number == signal.SIGHUP:
            self.reload()

    def reload(self) -> None:
        """Read the configuration, certificate and key again; where anything is wrong, nothing changes.

        The jobs that are held go on by what their directories say, but for the certificate and key in them.
        """
        daemon, connections, before = self._daemon, self._connections, self._papers
        if not self.running or daemon is None or connections is None or before is None:
            return
        old = self._config
        try:
            config = read_config(self._file)
            papers = read_papers(config, strict_hostname=self._strict_hostname)
            files = copies(config)
            reasons = obstacles(old, config, before.identity, papers.identity)
        except ConfigErrors as mistakes:
            reasons = list(mistakes.mistakes)
        except PapersError as problem:
            reasons = list(problem.reasons)
        except OSError as problem:
            reasons = [f"{problem.filename}: {problem.strerror}"]
        if reasons:
            for reason in reasons:
                _log.critical("not reloaded: {reason}", reason=reason)
            _log.critical("{file} is refused, the configuration of before stays in force", file=str(self._file))
            return
        found = changes(old, config)
        if papers.credentials.certificate != before.credentials.certificate:
            found.append(f"the certificate is valid until {papers.ends[0][1]:%Y-%m-%d %H:%M} UTC")
        self._config, self._papers = config, papers
        self._watch.begin(papers)
        daemon.tasks.start("closing connections", connections.renew(papers.policy))
        daemon.reconfigure(config, files)
        _log.info(
            "{file} read again: {changes}", file=str(self._file), changes="; ".join(found) or "nothing has changed"
        )

    async def _stop(self) -> None:
        self._watch.stop()
        if self._daemon is not None:
            await self._daemon.stop()
        if self._connections is not None:
            await self._connections.close()
        if self._lock is not None:
            os.close(self._lock)
        for number, handler in self._handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._handlers.clear()
        _log.info("stopped, what jobs run goes on")

    def stopService(self) -> Deferred[None]:
        """Sign off and end what is under way, but not the jobs."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())


def steady(reactor: Any) -> None:
    """Let a reactor that has nothing scheduled count its seconds by a clock that nobody sets.

    Twisted takes the time of day: set back by an hour, every timer of the daemon would wait for an hour.
    """
    reactor.seconds = time.monotonic
