"""The statements of the calls on SQLite and MariaDB, and how MariaDB carries them out."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text

from tests.contract import statements
from tests.contract.case import MariaDBCase, SQLiteCase

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
