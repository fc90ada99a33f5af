"""The contract of oversight on each kind of database."""

from __future__ import annotations

from tests.contract import case, oversight


class SQLiteOversightTests(case.SQLiteCase, oversight.OversightContract):
    """The embedded database."""


class MariaDBOversightTests(case.MariaDBCase, oversight.OversightContract):
    """The production database."""


class PostgreSQLOversightTests(case.PostgreSQLCase, oversight.OversightContract):
    """The third database."""
