"""Databases that do not let the program in."""

from __future__ import annotations

from tests.contract import case, shut


class MariaDBShutTests(case.MariaDBCase, shut.ShutContract):
    """Known by its numbers."""


class PostgreSQLShutTests(case.PostgreSQLCase, shut.ShutContract):
    """Known by its words, since its driver has no numbers for this."""
