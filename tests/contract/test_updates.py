"""The contract of updates on each kind of database."""

from __future__ import annotations

from tests.contract import case, updates


class SQLiteUpdateTests(case.SQLiteCase, updates.UpdatesContract):
    """The embedded database."""


class MariaDBUpdateTests(case.MariaDBCase, updates.UpdatesContract):
    """The production database."""


class PostgreSQLUpdateTests(case.PostgreSQLCase, updates.UpdatesContract):
    """The third database."""
