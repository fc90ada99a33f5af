"""The contract on PostgreSQL."""

from __future__ import annotations

from tests.contract import case, database


class PostgreSQLContractTests(case.PostgreSQLCase, database.DatabaseContract):
    """The third database."""
