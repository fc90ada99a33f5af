"""What programs look at while they wait, on each database."""

from __future__ import annotations

from tests.contract import case, look


class SQLiteLookTests(case.SQLiteCase, look.LookContract):
    """The embedded database."""


class MariaDBLookTests(case.MariaDBCase, look.LateLookContract):
    """The production database."""


class PostgreSQLLookTests(case.PostgreSQLCase, look.LateLookContract):
    """The third one."""
