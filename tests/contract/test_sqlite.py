"""The contract on SQLite."""

from __future__ import annotations

from tests.contract import case, database


class SQLiteContractTests(case.SQLiteCase, database.DatabaseContract):
    """The embedded database."""
