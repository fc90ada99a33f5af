"""From a server's configuration to what its programs stand on: options, databases, repositories."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import attrs
from sqlalchemy.exc import DBAPIError
from twisted.python.usage import UsageError

from lgi.config import ConfigError, ServerConfig, load_config, storage_address
from lgi.db.database import Database, DatabaseURLError, database_url, make_engine
from lgi.db.upgrade import SchemaError, check_schema
from lgi.repository.files import Repositories
from lgi.service import ProgramOptions, refuse

# No statement of a service takes a fraction of this.
PATIENCE_SECONDS = 60


class ServerOptions(ProgramOptions):
    """The options of the programs that serve a project: the configuration file, read before anything starts."""

    optParameters: ClassVar = [
        ["config", "c", None, "The server's configuration file, such as DIR/etc/lgi-server.toml of lgi init."]
    ]

    def postOptions(self) -> None:
        """Read the configuration into `self["configuration"]`; ends the program with every mistake in it."""
        super().postOptions()
        if self["config"] is None:
            raise UsageError("--config FILE is needed: the file that lgi init wrote, DIR/etc/lgi-server.toml")
        try:
            configuration = load_config(Path(self["config"]))
            for section in configuration.projects.values():
                database_url(section.database)
        except (ConfigError, DatabaseURLError) as problem:
            refuse(str(self.parent.subCommand) if self.parent else "lgi", problem)
        self["configuration"] = configuration


def repositories_of(config: ServerConfig) -> Repositories:
    """The repositories that a configuration describes; nothing is opened or gone to yet."""
    section = config.repository
    local = Repositories.local(
        root=section.directory,
        location=section.location,
        url=section.url.rstrip("/") or f"{config.server.url.rstrip('/')}/repository",
        max_repository_size=section.max_repository_size,
    )
    address = storage_address(section.storage)
    if address is None:
        return local
    # What speaks SSH takes memory, which most servers need not have.
    from lgi.repository.remote import RemoteStore

    store = RemoteStore(
        host=address.host,
        port=address.port,
        user=address.user,
        directory=address.directory,
        private_key=section.storage_key or config.server.private_key,
        # Checked by load_config.
        known_hosts=section.storage_known_hosts or Path(),
    )
    return attrs.evolve(local, store=store, directory=address.directory)


def open_databases(config: ServerConfig, reactor: Any) -> dict[str, Database]:
    """The databases of all projects, not started, none connected to."""
    return {
        name: Database(
            reactor,
            make_engine(database_url(section.database), pool_size=section.threads, patience=PATIENCE_SECONDS),
            threads=section.threads,
        )
        for name, section in config.projects.items()
    }


def check_databases(databases: dict[str, Database]) -> None:
    """Connect to each database once; raises SchemaError where one is away or has another schema."""
    for name, database in databases.items():
        url = database.engine.url
        if url.get_backend_name() == "sqlite" and not Path(str(url.database)).is_file():
            # Connecting would make an empty one.
            raise SchemaError(f"project {name}: there is no database file {url.database}")
        try:
            with database.engine.connect() as connection:
                check_schema(connection)
        except DBAPIError as problem:
            raise SchemaError(f"the database of project {name} cannot be reached: {problem.orig}") from None
        except SchemaError as problem:
            raise SchemaError(f"project {name}: {problem}") from None
