"""The resource daemon's object graph, wired in one place: what works on one run directory."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Mapping
from typing import Any

import attrs
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from lgi.daemon.claims import Claims
from lgi.daemon.config import DaemonConfig
from lgi.daemon.holdings import Holdings
from lgi.daemon.intake import Intake
from lgi.daemon.jobdir import JobDirectory, Tampered, scan
from lgi.daemon.keeper import Keeper
from lgi.daemon.limits import Taken
from lgi.daemon.links import Calls, Links
from lgi.daemon.offers import Offers
from lgi.daemon.papers import copies
from lgi.daemon.sandbox import Sandbox
from lgi.daemon.scripts import Scripts
from lgi.daemon.seal import Seal
from lgi.daemon.sessions import OpenSessions
from lgi.daemon.spares import Spares
from lgi.daemon.steps import Tools
from lgi.daemon.tasks import Tasks
from lgi.daemon.work import WorkCycle

_log = Logger()
PATIENCE = 10.0  # seconds for what is in flight when the daemon stops, and once more after it has been cut short


@attrs.frozen(kw_only=True)
class Cycles:
    """How often work is asked for (`slow`) and held jobs are asked about (`fast`), in seconds."""

    slow: float = 5.0
    fast: float = 5.0


class Daemon:
    """Everything that works on one run directory, which the caller has locked.

    `make_calls` gives what speaks to a server, from the project's name and the server's URL.
    """

    def __init__(
        self,
        *,
        reactor: Any,
        clock: Any,
        config: DaemonConfig,
        seal: Seal,
        resource_name: str,
        make_calls: Callable[[str, str], Calls],
        cycles: Cycles,
        chance: random.Random,
        environment: Mapping[str, str],
        sandbox: Sandbox | None = None,
    ) -> None:
        self._sandbox = sandbox
        self.tasks = Tasks(clock)
        self.holdings = Holdings()
        self._config = config
        self._seal = seal
        self._chance = chance
        self._links = Links(make_calls, clock, OpenSessions(config.run_directory))
        self._scripts = Scripts(processes=reactor, clock=clock, inherited=environment, sandboxed=sandbox is not None)
        self._spares = Spares(config.run_directory, seal)
        self._intake = Intake(config.run_directory, seal, self._spares)
        self._tools = Tools(
            links=self._links,
            scripts=self._scripts,
            reactor=reactor,
            clock=clock,
            tasks=self.tasks,
            resource_name=resource_name,
            fast_cycle=cycles.fast,
            sandbox=sandbox,
            spare=self._spares.keep,
        )
        self.holdings.left = self._intake.forget
        self._claims = Claims(tools=self._tools, holdings=self.holdings, intake=self._intake)
        offers = self._offers = Offers(
            config=config, seal=seal, tools=self._tools, holdings=self.holdings, claims=self._claims
        )
        self._work = WorkCycle(
            config=config,
            links=self._links,
            scripts=self._scripts,
            offers=offers,
            tasks=self.tasks,
            clock=clock,
            chance=chance,
            cycle=cycles.slow,
        )
        self.holdings.freed = self._work.freed
        self._loops = [(LoopingCall(self._update), cycles.fast), (LoopingCall(self._work.turn), cycles.slow)]
        for loop, _ in self._loops:
            loop.clock = clock

    def start(self) -> None:
        """Take up the jobs that the run directory holds, and begin the cycles; raises OSError."""
        self.tasks.start("ending sessions that a daemon before has left", self._links.end_left())
        files = copies(self._config)
        self._spares.clear()
        missing = self._intake.missing()
        for directory in scan(self._config.run_directory, self._seal):
            if self._sandbox is not None and directory.uid is not None:
                self._sandbox.hold(directory.uid)
            try:
                keeper = Keeper(tools=self._tools, directory=directory, gone=self.holdings.drop)
            except Tampered as problem:
                _log.critical("refused, nothing of this job is run or reported: {problem}", problem=problem)
                self._keep_place(directory)
            else:
                self.holdings.keepers.append(keeper)
                keeper.renew(files)
                _log.info(
                    "job {job_id} of project {project} found in {path}",
                    job_id=keeper.record.job_id,
                    project=keeper.record.project,
                    path=str(directory.path),
                )
        for keeper in self._claims.found(missing):
            keeper.renew(files)
        for loop, interval in self._loops:
            # Nothing in a turn waits, so that it never ends with an error that a handler would have to see.
            loop.start(interval)

    def _keep_place(self, directory: JobDirectory) -> None:
        """Count a refused job, and do not take it anew: something of it may be running."""
        project, application = directory.path.parent.parent.name, directory.path.parent.name
        self.holdings.reserved.append(Taken(project=project, application=application, owners=()))
        with contextlib.suppress(Tampered):
            key = (project, directory.text("LGI_this_project_server"), int(directory.text("LGI_job_id")))
            self.holdings.refused.add(key)

    def _update(self) -> None:
        self._claims.again()
        for keeper in self._chance.sample(self.holdings.keepers, len(self.holdings.keepers)):
            self.tasks.start(f"asking about job {keeper.record.job_id}", keeper.pulse())

    def reconfigure(self, config: DaemonConfig, files: Mapping[str, bytes]) -> None:
        """Take and run what comes by this configuration; `files` are the copies that held jobs have of certificates.

        The run directory has to be the one of before.
        """
        self._config = config
        self._offers.reconfigure(config)
        for keeper in self.holdings.keepers:
            keeper.renew(files)
        self._work.reconfigure(config)

    async def stop(self) -> None:
        """End the cycles, scripts that are under way and sessions; what jobs run goes on."""
        for loop, _ in self._loops:
            if loop.running:
                loop.stop()
        self._work.stop()
        for keeper in self.holdings.keepers:
            keeper.stop()
        self._links.close()
        await self._scripts.stop()
        await self.tasks.finish(PATIENCE)
