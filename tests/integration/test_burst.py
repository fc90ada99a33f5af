"""Two hundred one-second jobs through one daemon: none is lost, and nothing is left over."""

from __future__ import annotations

import re
from pathlib import Path

from sqlalchemy import Connection, func, select
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from lgi.admin.store import on_project
from lgi.config import load_config
from lgi.db.schema import job_log, running_locks, running_sessions
from tests.integration.burst import burst, children, open_files, shorten
from tests.integration.grid import Grid

JOBS = 200


class BurstTests(TestCase):
    """With `job_limit` 50, as `lgi ca issue resource` writes it."""

    timeout = 240

    def setUp(self) -> None:
        self.grid = Grid(Path(self.mktemp()).absolute())
        self.addCleanup(self.grid.stop)

    def rows(self, table: object) -> int:
        def count(connection: Connection) -> int:
            return int(connection.scalar(select(func.count()).select_from(table)) or 0)  # type: ignore[arg-type]

        return on_project(load_config(self.grid.config), "LGI", count)

    async def test_two_hundred(self) -> None:
        limits = re.findall(r"<job_limit> (\d+) </job_limit>", self.grid.cfg.read_text())
        self.assertEqual(set(limits), {"50"})
        shorten(self.grid)
        self.grid.start_server()
        daemon = self.grid.start("lgi-daemon", self.grid.cfg)
        daemon.wait_for("works in")
        pid = daemon.process.pid
        while self.rows(running_sessions) != 1:
            await deferLater(reactor, 0.1)
        files = open_files(pid)
        result = await burst(reactor, self.grid, pid, JOBS)
        self.assertEqual(result.outputs, {f"job {index}": f"job {index}".encode() for index in range(JOBS)})
        # Each once: queued, running, finished.
        self.assertEqual(self.rows(job_log), 3 * JOBS)
        # Idle connections are closed after a while; the session that waits for work is the only one.
        while open_files(pid) > files or self.rows(running_sessions) != 1:
            await deferLater(reactor, 0.1)
        self.assertEqual((self.rows(running_locks), children(pid), self.grid.job_directories()), (0, [], []))
        daemon.stop()
        self.assertEqual(self.rows(running_sessions), 0)
        self.assertNotIn("Traceback", daemon.logged())
