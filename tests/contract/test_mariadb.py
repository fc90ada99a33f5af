"""The contract on MariaDB."""

from __future__ import annotations

from tests.contract import case, database


class MariaDBContractTests(case.MariaDBCase, database.DatabaseContract):
    """The production database."""
