"""`lgi init`: a new project, ready to start."""

from __future__ import annotations

import socket
from pathlib import Path

import click

from lgi.admin.layout import AdminError
from lgi.admin.project import NewProject, make_project
from lgi.ca import AuthorityError
from lgi.cli.complaint import Complaint
from lgi.cli.options import Options, common_options, pass_options
from lgi.cli.screen import standard_screen


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--project", default="LGI", show_default=True, help="The project's name.")
@click.option("--host", default="", help="The name by which clients find this machine; its own by default.")
@click.option("--port", default=8443, show_default=True, type=click.IntRange(1, 65535), help="Where to listen.")
@click.option(
    "--database",
    default="",
    envvar="LGI_DATABASE",
    metavar="URL",
    help="An empty database, such as mariadb://user:password@host/name; SQLite under DIRECTORY by default.",
)
@common_options
@pass_options
def init(options: Options, directory: Path, project: str, host: str, port: int, database: str) -> None:
    """Make a new project under DIRECTORY.

    A certificate authority, the server's and the scheduler's certificates, the first administrator's configuration
    directory, the server's configuration file and its database.
    """
    screen = standard_screen(json=options.json, verbose=options.verbose)
    new = NewProject(
        directory=directory, project=project, host=host or socket.getfqdn(), port=port, database=database
    )
    try:
        layout = make_project(new)
    except (AdminError, AuthorityError) as problem:
        raise Complaint(str(problem)) from None
    administrator = layout.user(new.administrator)
    screen.result(
        {
            "directory": str(layout.root),
            "project": project,
            "url": new.url,
            "config": str(layout.config),
            "administrator": str(administrator),
        }
    )
    screen.line(f"Project {project} is ready in {layout.root}; its server will be {new.url}")
    screen.line("Every user with a certificate of this project may submit to every application.")
    screen.line()
    screen.line("Start its services:")
    screen.line(f"  twistd -n lgi-server --config {layout.config}")
    screen.line(f"  twistd -n lgi-scheduler --config {layout.config}")
    screen.line("Then give it a resource, and users:")
    screen.line(f"  lgi ca --dir {layout.root} issue resource NAME@MACHINE --applications hello_world")
    screen.line(f"  lgi ca --dir {layout.root} issue user NAME@PLACE --groups GROUP")
    screen.line("Work as its first administrator:")
    screen.line(f"  lgi --config {administrator} resources")
