"""The accounts of a server with two projects: what is counted is counted where its job is."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, gatherResults

from lgi.db.database import Database, database_url, make_engine
from lgi.db.jobs import insert_job
from lgi.db.usage import used_by
from lgi.repository.usage import UsageExceeded
from lgi.server.usage import Accounts
from tests.contract.case import SQLiteCase, job

MINE, THEIRS = "JOB_mine", "JOB_theirs"


class AccountsTests(SQLiteCase):
    """Accounts on two databases, each with a job."""

    async def prepare(self, limit: int = 0) -> Accounts:
        """The accounts; `self.databases` are what they are in."""
        self.databases = []
        for repository in (MINE, THEIRS):
            database = Database(reactor, make_engine(database_url(self.make_database()), pool_size=2), threads=2)
            database.start()
            self.addCleanup(database.stop)
            await database.run("test", insert_job, job(repository=repository), actor="mark")
            self.databases.append(database)
        return Accounts(databases=self.databases, user_limit=limit)

    async def used(self) -> list[int]:
        """What the user has in each project."""
        return [await database.read("test", used_by, "mark") for database in self.databases]

    async def test_each_in_its_own(self) -> None:
        accounts = await self.prepare()
        await accounts.reserve(MINE, 5)
        theirs = await accounts.reserve(THEIRS, 7)
        self.assertEqual(await self.used(), [5, 7])
        await accounts.release(theirs)
        self.assertEqual(await self.used(), [5, 0])
        await accounts.recount(THEIRS, 9)
        less = await accounts.reserve(MINE, -100)
        self.assertEqual((less.size, await self.used()), (-5, [0, 9]))
        await accounts.release(less)
        self.assertEqual(await self.used(), [5, 9])

    async def test_of_no_project(self) -> None:
        accounts = await self.prepare(limit=1)
        reserved = await accounts.reserve("JOB_none", 5)
        await accounts.recount("JOB_none", 5)
        await accounts.release(reserved)
        self.assertEqual((reserved.size, await self.used()), (0, [0, 0]))

    async def test_limit(self) -> None:
        accounts = await self.prepare(limit=10)
        await accounts.reserve(MINE, 10)
        with self.assertRaises(UsageExceeded) as full:
            await accounts.reserve(MINE, 1)
        self.assertIn("the files of mark may take at most 10 bytes", str(full.exception))
        await accounts.reserve(THEIRS, 10)
        with self.assertRaises(UsageExceeded):
            await accounts.reserve(THEIRS, 1)
        self.assertEqual(await self.used(), [10, 10])

    async def test_many_at_once(self) -> None:
        """All that fit are counted, in few transactions, and not a byte more; the others hear why not."""
        accounts = await self.prepare(limit=100)
        names: list[str] = []
        run = Database.run

        async def counted(database: Database, name: str, *arguments: Any, **more: Any) -> Any:
            names.append(name)
            return await run(database, name, *arguments, **more)

        self.patch(Database, "run", counted)
        fitting = [Deferred.fromCoroutine(accounts.reserve(MINE, 2)) for _ in range(40)]
        await gatherResults(fitting)
        self.assertEqual((await self.used(), len(names)), ([80, 0], 2))
        results = await DeferredList(
            [Deferred.fromCoroutine(accounts.reserve(MINE, size)) for size in (15, 10, 5, 7, 3)], consumeErrors=True
        )
        taken = sum(result.size for good, result in results if good)
        self.assertEqual(await self.used(), [80 + taken, 0])
        self.assertEqual(taken, 20)

    async def test_limit_of_a_repository(self) -> None:
        accounts = await self.prepare()
        accounts.repository_limit = 10
        await accounts.reserve(MINE, 8)
        with self.assertRaises(UsageExceeded) as full:
            await accounts.reserve(MINE, 3)
        self.assertIn("max_repository_size", str(full.exception))
        accounts.repository_limit = 5
        await accounts.reserve(MINE, -1)
        self.assertEqual(await self.used(), [7, 0])
