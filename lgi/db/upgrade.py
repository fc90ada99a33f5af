"""Making and upgrading the schema, and refusing one that does not fit the program."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect

if TYPE_CHECKING:
    # Services look at the schema and never change it: what does takes memory that they need not have.
    from alembic.config import Config

MIGRATIONS = Path(__file__).parent / "migrations"
_REVISION = re.compile(r'^(revision|down_revision) = "(\w+)"$', re.MULTILINE)


class SchemaError(Exception):
    """The database's schema is not the program's; the message says what to do."""


def _configuration(connection: Connection | None = None) -> Config:
    from alembic.config import Config

    configuration = Config()
    configuration.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    configuration.attributes["connection"] = connection
    return configuration


def upgrade_schema(connection: Connection, revision: str = "head") -> None:
    """Bring the database up to the program's schema, or an older one; an empty one gets all of it."""
    from alembic import command

    command.upgrade(_configuration(connection), revision)


def program_revisions() -> tuple[str, frozenset[str]]:
    """The revision of the program's schema, and all that it knows."""
    found: dict[str, set[str]] = {"revision": set(), "down_revision": set()}
    for file in (MIGRATIONS / "versions").glob("*.py"):
        for name, revision in _REVISION.findall(file.read_text("utf-8")):
            found[name].add(revision)
    (head,) = found["revision"] - found["down_revision"]
    return head, frozenset(found["revision"])


def _revision_of(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return None if found is None else str(found)


def check_schema(connection: Connection) -> None:
    """Raise SchemaError unless the database has exactly the program's schema."""
    wanted, known = program_revisions()
    found = _revision_of(connection)
    if found == wanted:
        return
    if found is None:
        raise SchemaError(
            "the database has no LGI schema; make one with: lgi init DIR, or lgi admin upgrade-db --config FILE"
        )
    if found not in known:
        raise SchemaError(
            f"the database's schema ({found}) is newer than this program ({wanted}); install the newer release of lgi"
        )
    raise SchemaError(
        f"the database's schema ({found}) is older than this program ({wanted}); "
        "run: lgi admin upgrade-db --config FILE"
    )
