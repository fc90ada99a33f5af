"""The contract of `Database.run`: all or nothing, once or again, and in the right order."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select, update
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from lgi.db.database import Database
from lgi.db.grants import allow_user
from lgi.db.jobs import insert_job
from lgi.db.schema import job_log, job_queue, users_allowed
from lgi.errors import ErrorNumber, LGIError
from lgi.model import Grant
from tests.contract.case import ContractCase, job, rows

TIMES = 40
WRITERS = """
import sys
from tests.contract.case import job, read
from tests.contract.transactions import add_one
from lgi.db.database import database_url, make_engine
from lgi.db.jobs import insert_job
url, times = sys.argv[1], int(sys.argv[2])
engine = make_engine(database_url(url), pool_size=1)
print("ready", flush=True)
sys.stdin.readline()
for number in range(times):
    read(engine, add_one)
    read(engine, insert_job, job(repository=f"other_{number}"), actor="other")
engine.dispose()
"""


def add_one(connection: Connection) -> int:
    """Read a number, then write it one higher."""
    before: int = connection.execute(select(users_allowed.c.job_limit).with_for_update()).scalar_one()
    connection.execute(update(users_allowed).values(job_limit=before + 1))
    return before + 1


class TransactionsContract(ContractCase):
    """See `DatabaseContract`."""

    def open(self, threads: int = 8) -> Database:
        """The database as a service has it."""
        database = Database(reactor, self.new_engine(threads), threads=threads)
        database.start()
        self.addCleanup(database.stop)
        return database

    def number(self) -> int:
        """What `add_one` counts."""
        value: int = self.run_in(lambda connection: connection.scalar(select(users_allowed.c.job_limit)))
        return value

    async def test_result_is_returned_and_the_change_is_there(self) -> None:
        database = self.open()
        job_id = await database.run("insert", insert_job, job(repository="JOB_1"), actor="mark")
        self.assertEqual(self.fetch(job_id).owners, ("mark", "theor"))
        self.assertEqual(await database.read("count", rows, job_queue), 1)

    async def test_refusal_rolls_back_and_is_not_repeated(self) -> None:
        calls: list[int] = []

        def refuse(connection: Connection) -> None:
            calls.append(insert_job(connection, job(repository="JOB_1"), actor="mark"))
            raise LGIError(ErrorNumber.SUBMIT_REFUSED, "why")

        with self.assertRaises(LGIError) as caught:
            await self.open().run("refuse", refuse)
        self.assertEqual((caught.exception.number, caught.exception.detail), (ErrorNumber.SUBMIT_REFUSED, "why"))
        self.assertEqual((len(calls), self.run_in(rows, job_queue), self.run_in(rows, job_log)), (1, 0, 0))

    async def test_mistake_rolls_back_and_is_not_repeated(self) -> None:
        calls: list[int] = []

        def fail(connection: Connection) -> None:
            calls.append(insert_job(connection, job(repository="JOB_1"), actor="mark"))
            connection.exec_driver_sql("SELECT * FROM no_such_table")

        with self.assertRaisesRegex(Exception, "no_such_table"):
            await self.open().run("fail", fail)
        self.assertEqual((len(calls), self.run_in(rows, job_queue)), (1, 0))

    async def test_connection_is_good_after_a_refusal(self) -> None:
        database = self.open(threads=1)
        for _ in range(3):
            with self.assertRaises(LGIError):
                await database.run("refuse", _refuse)
        await database.run("insert", insert_job, job(repository="JOB_1"), actor="mark")
        self.assertEqual(self.run_in(rows, job_queue), 1)

    async def test_what_is_read_and_then_written_is_not_overtaken(self) -> None:
        self.run_in(allow_user, Grant(name="n", application="any", job_limit=0))
        databases = [self.open(), self.open()]
        seen: list[int] = await gatherResults(
            [
                Deferred.fromCoroutine(database.run("add", add_one))
                for _ in range(TIMES // 2)
                for database in databases
            ]
        )
        self.assertEqual((sorted(seen), self.number()), (list(range(1, TIMES + 1)), TIMES))

    async def test_two_processes_write_at_the_same_time(self) -> None:
        self.run_in(allow_user, Grant(name="n", application="any", job_limit=0))
        database = self.open()
        other = subprocess.Popen(
            [sys.executable, "-c", WRITERS, self.url, str(TIMES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        try:
            assert other.stdout is not None
            self.assertEqual(other.stdout.readline(), b"ready\n")
            assert other.stdin is not None
            other.stdin.write(b"go\n")
            other.stdin.flush()
            done: list[Deferred[Any]] = []
            for number in range(TIMES):
                done.append(Deferred.fromCoroutine(database.run("add", add_one)))
                insertion = database.run("insert", insert_job, job(repository=f"mine_{number}"), actor="mine")
                done.append(Deferred.fromCoroutine(insertion))
            await gatherResults(done)
            other.communicate(timeout=50)
            self.assertEqual(other.returncode, 0)
        finally:
            other.kill()
            other.wait()
        actors = self.run_in(lambda connection: list(connection.scalars(select(job_log.c.actor))))
        self.assertEqual((actors.count("mine"), actors.count("other")), (TIMES, TIMES))
        self.assertEqual((self.run_in(rows, job_queue), self.number()), (2 * TIMES, 2 * TIMES))

    async def test_closed_database_refuses_instead_of_hanging(self) -> None:
        database = self.open()
        await database.read("count", rows, job_queue)
        database.stop()
        with self.assertRaises(LGIError) as caught:
            await database.run("insert", insert_job, job(repository="JOB_1"), actor="mark")
        self.assertEqual(caught.exception.number, ErrorNumber.OVERLOADED)
        self.assertEqual(self.run_in(rows, job_queue), 0)

    async def test_stopping_waits_for_what_is_under_way(self) -> None:
        database = self.open()
        written = Deferred.fromCoroutine(database.run("insert", insert_job, job(repository="JOB_1"), actor="mark"))
        database.stop()
        await written
        self.assertEqual(self.run_in(rows, job_queue), 1)


def _refuse(_connection: Connection) -> None:
    raise LGIError(ErrorNumber.SUBMIT_REFUSED)
