"""The database killed, away or busy under a server and a scheduler that go on."""

from __future__ import annotations

import random
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import TaskStopped, deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from lgi.admin.store import in_transaction
from lgi.client.answers import ServerRefused
from lgi.client.resource import ResourceClient
from lgi.client.user import UserClient
from lgi.config import load_config
from lgi.db.events import due, schedule
from lgi.errors import ErrorNumber
from tests import mariadb, postgresql
from tests.integration.grid import Grid, until
from tests.integration.kept import verify
from tests.integration.load import APPLICATION, Load, as_resource, as_user

ODD_EVENT = "no_such_event"
# What a lock on the database's file outlasts: an attempt that waits for it.
BUSY_SECONDS = 6.0
HOLD_THE_FILE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


class _Case(TestCase):
    timeout = 180

    def make_grid(self, database: str = "") -> Grid:
        """A new project; nothing runs yet."""
        grid = Grid(Path.cwd() / "-".join(self.id().split(".")[-2:]), database=database)
        self.addCleanup(grid.stop)
        return grid

    def no_traceback(self, grid: Grid) -> None:
        """What is expected to happen is said in a line."""
        for program in grid.programs:
            log = program.log.read_text(errors="replace")
            self.assertNotIn("Traceback", log, log[log.find("Traceback") - 500 :][:4000])

    async def told_to_wait(self, grid: Grid, call: Any) -> None:
        """Assert that `call(client)` is answered with back-off."""
        try:
            answer = await as_user(reactor, grid, call)
        except ServerRefused as problem:
            self.assertEqual((problem.number, problem.timeout), (ErrorNumber.OVERLOADED, 10), problem.message)
            self.assertNotIn("unexpected", problem.message)
        else:
            self.fail(f"answered: {answer}")


class _Server(_Case):
    """On a database server of its own, private or not."""

    def private(self) -> Any:
        """The database server."""
        raise NotImplementedError

    async def lock_a_job(self, grid: Grid) -> tuple[int, int]:
        """Submit a job, and have the resource hold it locked; returns job and session."""
        answer = await as_user(reactor, grid, lambda user: user.submit(application=APPLICATION, input=b"locked"))
        job_id: int = answer.job.job_id

        async def lock(resource: ResourceClient) -> int:
            session_id = (await resource.signup()).session_id
            await resource.lock(session_id, job_id)
            return session_id

        return job_id, await as_resource(reactor, grid, lock)

    async def test_killed_under_load(self) -> None:
        """Clients are told to wait, and go on when it is back; neither server nor scheduler is restarted."""
        private = self.private()
        seed = secrets.randbelow(1 << 30)
        chance = random.Random(seed)
        grid = self.make_grid(private.create_database())
        database = load_config(grid.config).projects["LGI"].database
        grid.start_scheduler().wait_for("works the events")
        grid.start_server()
        locked, session_id = await self.lock_a_job(grid)
        load = Load(reactor, grid, seed, users=4, resources=4)
        ledger = load.ledger
        ledger.sent[b"locked"] = None
        self.addCleanup(load.end)
        self.addCleanup(self.flushLoggedErrors, TaskStopped)
        load.start()
        for _ in range(2):
            await deferLater(reactor, chance.uniform(1, 2))
            waiting = Deferred.fromCoroutine(self.told_to_wait(grid, lambda user: user.job(locked)))
            await deferLater(reactor, 0.5)
            self.assertFalse(waiting.called)
            before, told = len(ledger.submitted) + len(ledger.finished), ledger.backed_off
            private.kill()
            try:
                await waiting
                await self.told_to_wait(grid, lambda user: user.submit(application=APPLICATION))
                await deferLater(reactor, 1)
                self.assertGreater(ledger.backed_off, told)
            finally:
                # In the thread with which the server of the database is to end.
                private.start()
            in_transaction(database, lambda by: schedule(by, ODD_EVENT, 0))
            late = reactor.seconds() + 30
            while len(ledger.submitted) + len(ledger.finished) <= before + 10:
                self.assertLess(reactor.seconds(), late, "the clients do not go on")
                await deferLater(reactor, 0.1)
            await deferToThread(
                until,
                lambda: not in_transaction(database, lambda by: due(by, 0, 10)),
                "the scheduler works its events again",
                30,
            )
        self.assertEqual([program.process.poll() for program in grid.programs], [None, None])
        await load.stop()
        self.assertEqual(ledger.problems, [], f"seed {seed}")
        await deferToThread(grid.lgi, "admin", "--config", str(grid.config), "sessions", "end", str(session_id))
        verify(self, grid, ledger)
        self.no_traceback(grid)

    async def test_not_there_at_the_start(self) -> None:
        """A program that finds no database says so in one line and ends, for whoever restarts it."""
        private = self.private()
        grid = self.make_grid(private.create_database())
        private.stop()
        try:
            for name in ("lgi-server", "lgi-scheduler"):
                status, said = grid.start(name, grid.config).ended()
                self.assertEqual(status, 1, said)
                self.assertIn("cannot start: the database of project LGI cannot be reached", said)
                self.assertNotIn("Traceback", said)
        finally:
            private.start()
        grid.start_scheduler().wait_for("works the events")
        grid.start_server()


class MariaDBTests(_Server):
    """With MariaDB."""

    def private(self) -> Any:
        return mariadb.server()


class PostgreSQLTests(_Server):
    """With PostgreSQL."""

    def private(self) -> Any:
        return postgresql.server()


class SQLiteTests(_Case):
    """With a file that somebody else holds."""

    async def test_file_held_by_another_process(self) -> None:
        grid = self.make_grid()
        grid.start_scheduler().wait_for("works the events")
        grid.start_server()

        async def submit(user: UserClient) -> int:
            return (await user.submit(application=APPLICATION, input=b"x")).job.job_id

        first = await as_user(reactor, grid, submit)
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLD_THE_FILE, str(grid.root / "db" / "LGI.sqlite")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            assert holder.stdout is not None
            self.assertEqual(await deferToThread(holder.stdout.readline), b"held\n")
            began = reactor.seconds()
            refused = [Deferred.fromCoroutine(self.told_to_wait(grid, submit)) for _ in range(4)]
            # Who only reads is served meanwhile.
            jobs = await as_user(reactor, grid, lambda user: user.jobs(limit=10))
            self.assertEqual([answer.job.job_id for answer in jobs], [first])
            await gatherResults(refused)
            took = reactor.seconds() - began
            # Longer than one attempt, shorter than the patience of clients.
            self.assertTrue(BUSY_SECONDS < took < 35, f"{took} seconds")
        finally:
            holder.communicate(b"")
        again = await as_user(reactor, grid, submit)
        jobs = await as_user(reactor, grid, lambda user: user.jobs(limit=10))
        self.assertEqual([answer.job.job_id for answer in jobs], [first, again])
        self.assertEqual(list((grid.root / "repository").glob("*/JOB_*")), [])
        self.assertEqual([program.process.poll() for program in grid.programs], [None, None])
        self.no_traceback(grid)


del _Case, _Server
