"""Making and upgrading the schema, and refusing one that does not fit the program."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

MIGRATIONS = Path(__file__).parent / "migrations"


class SchemaError(Exception):
    """The database's schema is not the program's; the message says what to do."""


def _configuration(connection: Connection | None = None) -> Config:
    configuration = Config()
    configuration.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    configuration.attributes["connection"] = connection
    return configuration


def upgrade_schema(connection: Connection, revision: str = "head") -> None:
    """Bring the database up to the program's schema, or an older one; an empty one gets all of it."""
    command.upgrade(_configuration(connection), revision)


def check_schema(connection: Connection) -> None:
    """Raise SchemaError unless the database has exactly the program's schema."""
    script = ScriptDirectory.from_config(_configuration())
    wanted = script.get_current_head()
    found = MigrationContext.configure(connection).get_current_revision()
    if found == wanted:
        return
    if found is None:
        raise SchemaError(
            "the database has no LGI schema; make one with: lgi init DIR, or lgi admin upgrade-db --config FILE"
        )
    if found not in {revision.revision for revision in script.walk_revisions()}:
        raise SchemaError(
            f"the database's schema ({found}) is newer than this program ({wanted}); install the newer release of lgi"
        )
    raise SchemaError(
        f"the database's schema ({found}) is older than this program ({wanted}); "
        "run: lgi admin upgrade-db --config FILE"
    )
