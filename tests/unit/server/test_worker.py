"""The part that each of several processes has of the whole, and how it ends."""

from __future__ import annotations

import os
from pathlib import Path

import attrs
from twisted.internet.selectreactor import SelectReactor
from twisted.trial.unittest import SynchronousTestCase

from lgi.config import MOST_BY_DEFAULT, ServerConfig, load_config, processes_of
from lgi.server.worker import WorkerService, share
from tests.unit.test_config import GOOD


class WorkerCase(SynchronousTestCase):
    """A configuration with a MariaDB and a SQLite."""

    def setUp(self) -> None:
        file = Path(self.mktemp())
        file.write_text(GOOD)
        self.config: ServerConfig = load_config(file)


class ShareTests(WorkerCase):
    """Of threads, requests and waiting clients."""

    def test_default(self) -> None:
        self.assertEqual(processes_of(self.config), 1)
        server = attrs.evolve(self.config, projects={"LGI": self.config.projects["LGI"]})
        self.assertEqual(processes_of(server), min(MOST_BY_DEFAULT, len(os.sched_getaffinity(0))))
        chosen = attrs.evolve(self.config, server=attrs.evolve(self.config.server, processes=3))
        self.assertEqual(processes_of(chosen), 3)

    def test_parts(self) -> None:
        part = share(self.config, 3)
        self.assertEqual((part.limits.requests, part.limits.waiting), (86, 1366))
        self.assertEqual([section.threads for section in part.projects.values()], [4, 2])
        limits = attrs.evolve(self.config.limits, requests=2, waiting=1)
        small = share(attrs.evolve(self.config, limits=limits), 8)
        self.assertEqual((small.limits.requests, small.limits.waiting), (1, 1))


class EndTests(WorkerCase):
    """A reactor stops once."""

    def test_ended_twice(self) -> None:
        """At one moment, as by the front and by whoever ends the whole group: neither is a mistake."""
        reactor = SelectReactor()
        service = WorkerService(reactor, self.config)
        reactor.callWhenRunning(service.end)
        reactor.callWhenRunning(service.end)
        reactor.run(installSignalHandlers=False)
        self.assertEqual(self.flushLoggedErrors(), [])
