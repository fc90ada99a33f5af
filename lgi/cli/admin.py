"""`lgi admin`: a project's rules and resources, its servers and their updates, its database and configuration."""

from __future__ import annotations

import click

from lgi.admin.check import check_config
from lgi.cli import admin_check_db, admin_events, admin_jobs, admin_log, admin_sessions, rules
from lgi.cli.desk import ROLES, config_file, open_desk, server_options, update_value
from lgi.cli.options import Options, common_options, pass_options
from lgi.cli.screen import standard_screen
from lgi.cli.show import moment
from lgi.db.resources import list_servers
from lgi.db.updates import concerns, list_updates
from lgi.db.upgrade import upgrade_schema
from lgi.lists import encode_list


@click.group()
@server_options
def admin() -> None:
    """Manage a project on its server: who may submit what, which resources and servers there are."""


for _command in (
    rules.list_,
    rules.add,
    rules.delete,
    rules.set_capabilities,
    admin_jobs.jobs,
    admin_sessions.sessions,
    admin_sessions.locks,
    admin_events.events,
    admin_log.log,
    admin_check_db.check_db,
):
    admin.add_command(_command)


@admin.group()
def servers() -> None:
    """The project's servers."""


@servers.command("list")
@server_options
@common_options
@pass_options
def list_of_servers(options: Options) -> None:
    """Show the project's servers as this one knows them."""
    desk = open_desk(options)
    own = desk.own_name()
    found = desk.run(list_servers)
    desk.screen.result(
        [
            {
                "name": server.resource_name,
                "role": ROLES[server.project_server],
                "url": server.url,
                "last_call_time": server.last_call_time or None,
                "capabilities": server.resource_capabilities,
                "this": server.resource_name == own,
            }
            for server in found
        ]
    )
    desk.screen.table(
        ["name", "role", "offers", "last_call", "url"],
        [
            [
                server.resource_name,
                ROLES[server.project_server] + (" (this one)" if server.resource_name == own else ""),
                rules.offered(server.resource_capabilities),
                moment(server.last_call_time) if server.last_call_time else "never",
                server.url,
            ]
            for server in found
        ],
    )


@admin.group()
def updates() -> None:
    """The changes that the project's servers tell each other."""


@updates.command("list")
@click.option("--after", default=0, type=click.IntRange(0), metavar="VERSION", help="Only those after this one.")
@server_options
@common_options
@pass_options
def list_of_updates(options: Options, after: int) -> None:
    """Show the updates that this server knows; the last one's version is the server's."""
    desk = open_desk(options)
    own = desk.own_name()
    found = desk.run(lambda connection: list_updates(connection, after=after))
    desk.screen.result([update_value(update, own) for update in found])
    desk.screen.table(
        ["version", "servers", "here", "update"],
        [
            [
                str(update.version),
                encode_list(update.servers),
                "yes" if concerns(update, own) else "no",
                _shortened(update.query.decode("utf-8", "backslashreplace")),
            ]
            for update in found
        ],
    )


def _shortened(text: str, most: int = 160) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


@admin.command("upgrade-db")
@server_options
@common_options
@pass_options
def upgrade_db(options: Options) -> None:
    """Bring a project's database up to this program's schema; stop its services before."""
    desk = open_desk(options)
    desk.run(upgrade_schema, checked=False)
    desk.screen.result({"project": desk.project, "upgraded": True})
    desk.screen.line(f"The database of project {desk.project} has this program's schema")


@admin.command("check-config")
@server_options
@common_options
@pass_options
def check(options: Options) -> None:
    """Check a configuration file and all that it names; exits 1 if anything is wrong."""
    file = config_file()
    screen = standard_screen(json=options.json, verbose=options.verbose)
    problems = check_config(file)
    screen.result({"config": str(file), "problems": problems})
    for problem in problems:
        screen.note(problem)
    if problems:
        click.get_current_context().exit(1)
    screen.line(f"{file} is in order")
