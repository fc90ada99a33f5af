"""The contract on MariaDB."""

from __future__ import annotations

from tests.contract import case, database


class MariaDBContractTests(case.MariaDBCase, database.DatabaseContract):
    """The production database, with the compiled driver."""


class PyMySQLContractTests(case.MariaDBCase, database.DatabaseContract):
    """The same with the driver that needs no compiler, which is there everywhere."""

    driver = "pymysql"
