"""The contract on MariaDB."""

from __future__ import annotations

from tests.contract import case, database, jobs, locks, values


class MariaDBContractTests(case.MariaDBCase, database.DatabaseContract):
    """The production database, with the compiled driver."""


class PyMySQLContractTests(case.MariaDBCase, jobs.JobsContract, locks.LocksContract, values.ValuesContract):
    """What depends on the driver, with the one that needs no compiler and is there everywhere."""

    driver = "pymysql"
