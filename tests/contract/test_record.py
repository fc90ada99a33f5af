"""The contract of the record of jobs on each kind of database."""

from __future__ import annotations

from tests.contract import case, record


class SQLiteRecordTests(case.SQLiteCase, record.RecordContract):
    """The embedded database."""


class MariaDBRecordTests(case.MariaDBCase, record.LateContract):
    """The production database."""


class PostgreSQLRecordTests(case.PostgreSQLCase, record.LateContract):
    """The third database."""
