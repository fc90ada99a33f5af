"""The fight for jobs on each database."""

from __future__ import annotations

from tests.contract import fight
from tests.contract.case import MariaDBCase, PostgreSQLCase, SQLiteCase


class SQLiteFightTests(SQLiteCase, fight.FightContract):
    """On the embedded database."""


class MariaDBFightTests(MariaDBCase, fight.FightContract):
    """On the production database."""


class PostgreSQLFightTests(PostgreSQLCase, fight.FightContract):
    """On the third database."""
