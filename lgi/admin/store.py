"""The administrator's way to a project's database, without a reactor."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from lgi.admin.layout import AdminError
from lgi.bell import Bell
from lgi.config import ConfigError, ServerConfig, load_config
from lgi.db.changes import committed
from lgi.db.database import DatabaseURLError, database_url, make_engine
from lgi.db.events import REPOSITORY_RESOURCES, schedule
from lgi.db.resources import register
from lgi.db.upgrade import SchemaError, check_schema
from lgi.model import Changes, ServerFlag
from lgi.wire.dialect import element

R = TypeVar("R")


def in_transaction(url: str, function: Callable[[Connection], R], *, checked: bool = True) -> R:
    """Run `function` in one transaction on the database at `url`; raises AdminError."""
    try:
        engine = make_engine(database_url(url), pool_size=1)
        try:
            with engine.begin() as connection:
                if checked:
                    check_schema(connection)
                return function(connection)
        finally:
            engine.dispose()
    except DBAPIError as problem:
        raise AdminError(f"the database cannot be used: {problem.orig}") from None
    except (DatabaseURLError, SchemaError, ConfigError) as problem:
        raise AdminError(str(problem)) from None


def on_project(config: ServerConfig, project: str, function: Callable[[Connection], R], *, checked: bool = True) -> R:
    """Run `function` like `in_transaction` on a project's database; its services learn at once of what it changes."""
    changes = Changes()

    def noting(connection: Connection) -> R:
        nonlocal changes
        result = function(connection)
        changes = committed(connection)
        return result

    result = in_transaction(project_database(config, project), noting, checked=checked)
    if changes:
        bell = Bell(config.server.run_directory)
        bell.ring(project, changes)
        bell.close()
    return result


def project_database(config: ServerConfig, project: str) -> str:
    """The URL of a project's database; raises AdminError for a project that is not configured."""
    if project not in config.projects:
        raise AdminError(f"there is no project {project} here; there are: {', '.join(config.projects)}")
    return config.projects[project].database


def describe_database(config_file: Path, project: str) -> str:
    """The URL of a project's database without its password, for people; raises AdminError."""
    try:
        config = load_config(config_file)
    except ConfigError as problem:
        raise AdminError(str(problem)) from None
    # The driver's name is of no use to them.
    url = database_url(project_database(config, project))
    return url.set(drivername=url.get_backend_name()).render_as_string(hide_password=True)


def register_resource(
    connection: Connection,
    *,
    name: str,
    certificate: bytes,
    url: str,
    project_server: ServerFlag = ServerFlag.NONE,
    applications: Sequence[str] = (),
) -> None:
    """Register a resource, and have the scheduler let it change repositories.

    With `applications`, jobs for them can be submitted before its daemon has called for the first time.
    """
    register(
        connection,
        name=name,
        certificate=certificate.decode("ascii"),
        url=url,
        project_server=project_server,
        capabilities=offered(applications),
    )
    schedule(connection, REPOSITORY_RESOURCES, int(time.time()))


def offered(applications: Sequence[str]) -> str:
    """The capabilities of a resource that offers these applications."""
    return " ".join(element(application, "") for application in applications)
