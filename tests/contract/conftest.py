"""The end of a pytest run ends its MariaDB."""

from __future__ import annotations

from tests import mariadb


def pytest_sessionfinish() -> None:
    """Stop the server, if a test asked for one."""
    mariadb.stop()
