"""A test case with a server in memory."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.http.memory import MemoryServer


class ServerCase(TestCase):
    """Each test has a server of its own; `changes` are lines for its configuration file."""

    timeout = 60
    changes = ""

    def setUp(self) -> None:
        """Start it."""
        self.server = MemoryServer(Path(self.mktemp()).absolute(), changes=self.changes)
        self.addCleanup(self.server.stop)

    def run_now(self, coroutine: object) -> Deferred[object]:
        """A coroutine as the Deferred that trial wants."""
        return Deferred.fromCoroutine(coroutine)  # type: ignore[arg-type]
