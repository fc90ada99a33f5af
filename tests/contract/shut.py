"""A database server that is there and does not let the program in: no waiting helps, and that is said."""

from __future__ import annotations

from sqlalchemy.engine import URL
from twisted.internet import reactor

from lgi.db.database import Database, database_url, make_engine
from lgi.db.schema import job_queue
from lgi.errors import ErrorNumber, LGIError
from tests.contract.case import ContractCase, rows


class ShutContract(ContractCase):
    """See `DatabaseContract`."""

    async def refused(self, url: URL) -> None:
        """Assert that both kinds of transactions end with the error of the table, once, and without the password."""
        database = Database(reactor, make_engine(url), threads=2)
        database.start()
        self.addCleanup(database.stop)
        for transaction in (database.read, database.run):
            with self.assertRaises(LGIError) as caught:
                await transaction("look", rows, job_queue)
            self.assertEqual(caught.exception.number, ErrorNumber.DATABASE_UNREACHABLE)
            self.assertIsNone(caught.exception.timeout)
            self.assertNotIn("secret", str(caught.exception))

    async def test_unknown_database(self) -> None:
        await self.refused(database_url(self.url).set(database="nosuch"))

    async def test_wrong_user(self) -> None:
        await self.refused(database_url(self.url).set(username="nobody", password="secret"))
