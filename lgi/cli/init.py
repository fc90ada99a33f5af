"""`lgi init`: a new project, ready to start."""

from __future__ import annotations

import socket
from pathlib import Path

import click

from lgi.admin.layout import AdminError, Layout
from lgi.admin.project import NewProject, make_project
from lgi.admin.slave import NewSlave, make_slave
from lgi.admin.store import describe_database
from lgi.ca import AuthorityError
from lgi.cli.complaint import Complaint
from lgi.cli.options import Options, common_options, pass_options
from lgi.cli.screen import Screen, standard_screen


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--project", default="", help="The project's name; LGI by default, or what the master has.")
@click.option("--host", default="", help="The name by which clients find this machine; its own by default.")
@click.option("--port", default=8443, show_default=True, type=click.IntRange(1, 65535), help="Where to listen.")
@click.option(
    "--database",
    default="",
    envvar="LGI_DATABASE",
    metavar="URL",
    help="An empty database, such as mariadb://user:password@host/name; SQLite under DIRECTORY by default.",
)
@click.option(
    "--slave-of",
    "master",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Make a further server of the project whose master is in DIR on this machine.",
)
@click.option(
    "--server-name", default="", metavar="NAME@PLACE", help="What other servers call it; LGI@HOST by default."
)
@common_options
@pass_options
def init(
    options: Options,
    directory: Path,
    project: str,
    host: str,
    port: int,
    database: str,
    master: Path | None,
    server_name: str,
) -> None:
    """Make a new project under DIRECTORY.

    A certificate authority, the server's and the scheduler's certificates, the first administrator's configuration
    directory, the server's configuration file and its database. A slave has the authority's certificate instead of
    the authority, and no administrator of its own.
    """
    screen = standard_screen(json=options.json, verbose=options.verbose)
    new = NewProject(
        directory=directory,
        project=project if master else project or "LGI",
        host=host or socket.getfqdn(),
        port=port,
        database=database,
        name=server_name,
    )
    if master is not None:
        _init_slave(screen, NewSlave(server=new, master=master))
        return
    try:
        layout = make_project(new)
        database = describe_database(layout.config, new.project)
    except (AdminError, AuthorityError) as problem:
        raise Complaint(str(problem)) from None
    administrator = layout.user(new.administrator)
    screen.result(
        {
            "directory": str(layout.root),
            "project": new.project,
            "url": new.url,
            "config": str(layout.config),
            "administrator": str(administrator),
            "database": database,
        }
    )
    screen.line(f"Project {new.project} is ready in {layout.root}; its server will be {new.url}")
    screen.line(f"Its database is {database}")
    screen.line("Every user with a certificate of this project may submit to every application.")
    screen.line()
    _say_how_to_start(screen, layout)
    screen.line("Then give it a resource, and users:")
    screen.line(f"  lgi ca --dir {layout.root} issue resource NAME@MACHINE --applications hello_world")
    screen.line(f"  lgi ca --dir {layout.root} issue user NAME@PLACE --groups GROUP")
    screen.line("Work as its first administrator:")
    screen.line(f"  lgi --config {administrator} resources")


def _say_how_to_start(screen: Screen, layout: Layout) -> None:
    screen.line("Start its services:")
    screen.line(f"  twistd -n lgi-server --config {layout.config}")
    screen.line(f"  twistd -n lgi-scheduler --config {layout.config}")


def _init_slave(screen: Screen, new: NewSlave) -> None:
    try:
        layout, server = make_slave(new)
        database = describe_database(layout.config, server.project)
    except (AdminError, AuthorityError) as problem:
        raise Complaint(str(problem)) from None
    screen.result(
        {
            "directory": str(layout.root),
            "project": server.project,
            "url": server.url,
            "config": str(layout.config),
            "server_name": server.server_name,
            "database": database,
        }
    )
    screen.line(f"A server of project {server.project} is ready in {layout.root}; it will be {server.url}")
    screen.line(f"Its database is {database}")
    screen.line(f"The project knows it as {server.server_name}; the master keeps the certificate authority.")
    screen.line("Copy ca/crl.pem from the master's directory again whenever a certificate has been revoked.")
    screen.line()
    _say_how_to_start(screen, layout)
