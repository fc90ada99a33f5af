"""The statements of the calls on SQLite and MariaDB, and how MariaDB carries them out."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, TypeVar

from sqlalchemy import text

from lgi.db.fibres import FibreConnection
from lgi.server import reports, sessions, submit, work
from lgi.states import JobState
from tests.contract import statements
from tests.contract.case import RESOURCE, MariaDBCase, SQLiteCase
from tests.contract.load import caller

R = TypeVar("R")

MANY_JOBS = 100_000
LARGE = ("job_queue", "job_offers", "job_access", "running_locks", "job_counts", "access_sets")


class SQLiteStatementsTests(SQLiteCase, statements.StatementsContract):
    """On the embedded database."""


class MariaDBStatementsTests(MariaDBCase, statements.StatementsContract):
    """On the production database."""


class MariaDBPlansTests(MariaDBCase, statements.CallsCase):
    """The same calls on a much longer queue, with a look at what MariaDB does for each statement."""

    number = MANY_JOBS
    timeout = 120

    def load(self) -> None:
        """Fill the queue and let the database know how large it is."""
        super().load()
        with self.engine.connect() as connection:
            for table in LARGE:
                connection.execute(text(f"ANALYZE TABLE {table}")).all()

    def scans(self, statement: str, values: Any) -> list[tuple[str, str]]:
        """Which large tables a statement reads from end to end, and how."""
        with self.engine.connect() as connection:
            plan = connection.exec_driver_sql(f"EXPLAIN {statement}", values).mappings().all()
        return [
            (row["table"], row["type"]) for row in plan if row["table"] in LARGE and row["type"] in ("ALL", "index")
        ]

    def check(self, found: list[statements.Statement]) -> None:
        """No statement reads a large table from end to end."""
        for statement, values in found:
            # What is inserted is not looked for, whatever EXPLAIN says of it.
            if not statement.startswith("INSERT"):
                self.assertEqual(self.scans(statement, values), [], statement)

    async def test_calls(self) -> None:
        self.load()
        # Filled once for all of them, since that takes longest.
        for call in self.calls():
            await call()
        self.assertEqual(self.scans("SELECT * FROM job_queue WHERE output = 'x'", None), [("job_queue", "ALL")])


class MariaDBWaitsTests(MariaDBCase, statements.CallsCase):
    """How often a call waits for the database, with the driver that sends statements together."""

    waited = 0

    async def waits(self, call: Awaitable[R]) -> tuple[int, R]:
        """What a call returns, and how often it has waited."""
        self.waited = 0
        result = await call
        return self.waited, result

    def setUp(self) -> None:
        """Count."""
        super().setUp()
        query = FibreConnection._query

        def counted(connection: FibreConnection, text: bytes) -> None:
            self.waited += 1
            query(connection, text)

        self.patch(FibreConnection, "_query", counted)

    async def test_calls_of_a_busy_server(self) -> None:
        self.load()
        resource = caller(RESOURCE)
        found: dict[str, int] = {}
        # The first time connections are opened, and sets of names are noted.
        for _ in range(2 * self.server.database.threads):
            found["sign up"], (_resource, session_id) = await self.waits(
                sessions.sign_up(self.server, resource, None)
            )
            wanted = self.wanted(session_id, limit=1)
            found["work"], (_resource, _number, [job]) = await self.waits(
                work.request_work(self.server, resource, wanted)
            )
            running = reports.JobChanges(state=JobState.RUNNING)
            found["update"], _job = await self.waits(
                reports.update(self.server, resource, session_id, job.job_id, running)
            )
            found["unlock"], _lock = await self.waits(sessions.unlock(self.server, resource, session_id, job.job_id))
            found["sign off"], _resource = await self.waits(sessions.sign_off(self.server, resource, session_id))
            found["submit"], _submitted = await self.waits(
                submit.submit_of_user(self.server, statements.MARK, statements.POSTED, [])
            )
        self.assertEqual(found, {"sign up": 1, "work": 2, "update": 2, "unlock": 2, "sign off": 1, "submit": 2})
