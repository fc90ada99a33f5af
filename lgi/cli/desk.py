"""What `lgi admin` works with: a server's configuration, a project of it, and its database."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import attrs
import click
from alembic.util.exc import CommandError
from sqlalchemy import Connection

from lgi.admin.changes import name_of
from lgi.admin.layout import AdminError
from lgi.admin.store import on_project
from lgi.cli.complaint import Complaint
from lgi.cli.options import Options
from lgi.cli.screen import Screen, standard_screen
from lgi.config import ConfigError, ServerConfig, load_config
from lgi.db.updates import concerns
from lgi.model import ServerFlag, Update

ROLES = {ServerFlag.NONE: "", ServerFlag.MASTER: "master", ServerFlag.SLAVE: "slave"}

F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R")

CONFIG, PROJECT = "lgi.cli.admin.config", "lgi.cli.admin.project"


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value is not None:
        context.meta[CONFIG if parameter.name == "config" else PROJECT] = value


def server_options(command: F) -> F:
    """--config and --project, which may stand before and after the command's name."""
    command = click.option(
        "--project", metavar="NAME", expose_value=False, callback=_keep, help="Which project, if there are several."
    )(command)
    return click.option(
        "--config",
        metavar="FILE",
        type=click.Path(path_type=Path),
        expose_value=False,
        callback=_keep,
        help="The server's configuration file; or in LGI_SERVER_CONFIG.",
    )(command)


@attrs.frozen(kw_only=True)
class Desk:
    """What a command works with: the configuration, a project of it, and where to write."""

    config: ServerConfig
    project: str
    screen: Screen

    def run(self, function: Callable[[Connection], R], *, checked: bool = True) -> R:
        """Run a function in one transaction on the project's database."""
        try:
            return on_project(self.config, self.project, function, checked=checked)
        except (AdminError, CommandError) as problem:
            raise Complaint(str(problem)) from None

    def own_name(self) -> str:
        """What other servers call this one."""
        try:
            return name_of(self.config)
        except AdminError as problem:
            raise Complaint(str(problem)) from None


def config_file() -> Path:
    """Which configuration file is meant; raises UsageError."""
    found = click.get_current_context().meta.get(CONFIG) or os.environ.get("LGI_SERVER_CONFIG")
    if found is None:
        raise click.UsageError(
            "--config is missing: the server's configuration file, such as DIR/etc/lgi-server.toml"
        )
    return Path(found)


def open_desk(options: Options) -> Desk:
    """The desk of a command; raises Complaint or UsageError."""
    try:
        config = load_config(config_file())
    except ConfigError as problem:
        raise Complaint(str(problem)) from None
    project = click.get_current_context().meta.get(PROJECT) or options.project
    if not project and len(config.projects) > 1:
        raise click.UsageError(f"--project is missing: one of {', '.join(config.projects)}")
    screen = standard_screen(json=options.json, verbose=options.verbose)
    return Desk(config=config, project=project or next(iter(config.projects)), screen=screen)


def update_value(update: Update, own: str) -> dict[str, Any]:
    """An update for JSON."""
    return {
        "version": update.version,
        "servers": list(update.servers),
        "update": update.query.decode("utf-8", "backslashreplace"),
        "carried_out_here": concerns(update, own),
    }
