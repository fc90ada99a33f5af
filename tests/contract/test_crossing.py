"""Calls that cross on one job, on each database."""

from __future__ import annotations

import time

from sqlalchemy import text

from tests import mariadb
from tests.contract import crossing
from tests.contract.case import MariaDBCase, PostgreSQLCase, SQLiteCase


class SQLiteCrossingTests(SQLiteCase, crossing.CrossingContract):
    """On the embedded database."""

    def waits(self) -> bool:
        """Nobody can see it: whoever has begun by now waits for the file."""
        time.sleep(0.05)
        return True


class MariaDBCrossingTests(MariaDBCase, crossing.CrossingContract):
    """On the production database."""

    def waits(self) -> bool:
        return mariadb.server().execute("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'")[0][1] != "0"


class PostgreSQLCrossingTests(PostgreSQLCase, crossing.CrossingContract):
    """On the third database."""

    def waits(self) -> bool:
        with self.engine.connect() as connection:
            return bool(connection.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))
