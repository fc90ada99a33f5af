"""`lgi ca`: certificates of a project."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from lgi.admin.layout import AdminError, existing
from lgi.admin.members import Office, open_office
from lgi.ca import AuthorityError, Entry
from lgi.cli.complaint import Complaint
from lgi.cli.options import Options, common_options, pass_options
from lgi.cli.screen import standard_screen
from lgi.lists import decode_list

R = TypeVar("R")


@click.group()
@click.option(
    "--dir",
    "directory",
    default=".",
    envvar="LGI_PROJECT_DIR",
    show_default=True,
    type=click.Path(path_type=Path),
    help="The project's directory, as given to lgi init; or in LGI_PROJECT_DIR.",
)
@click.pass_context
def ca(context: click.Context, directory: Path) -> None:
    """Issue, list and revoke the certificates of a project."""
    context.meta["directory"] = directory


def _office(action: Callable[[Office], R]) -> R:
    try:
        return action(open_office(existing(click.get_current_context().meta["directory"])))
    except (AdminError, AuthorityError) as problem:
        raise Complaint(str(problem)) from None


@ca.command()
@click.argument("kind", type=click.Choice(["user", "resource", "server"]))
@click.argument("name")
@click.option("--groups", default="", metavar="A,B", help="Groups that a user may act for.")
@click.option("--projects", default="", metavar="A,B", help="Projects it is for; all of this server by default.")
@click.option(
    "--applications",
    default="hello_world",
    show_default=True,
    metavar="A,B",
    help="What a resource's LGI.cfg offers.",
)
@click.option("--days", default=730, show_default=True, type=click.IntRange(1, 7300), help="How long it is valid.")
@click.option("--renew", is_flag=True, help="A new certificate into the directory that is there already.")
@common_options
@pass_options
def issue(
    options: Options,
    kind: str,
    name: str,
    groups: str,
    projects: str,
    applications: str,
    days: int,
    renew: bool,
) -> None:
    """Issue a certificate to the KIND (user, resource or server) called NAME.

    A user gets a directory to be copied to ~/.LGI, a resource one with an LGI.cfg for the resource daemon; a resource
    is also registered. NAME is name@place for users and resources, a host name for servers.
    """
    screen = standard_screen(json=options.json, verbose=options.verbose)
    if groups and kind != "user":
        raise click.UsageError("--groups is for users; resources and servers have none")
    wanted = decode_list(projects)

    def action(office: Office) -> Path:
        match kind:
            case "user":
                return office.issue_user(name, groups=decode_list(groups), projects=wanted, days=days, renew=renew)
            case "resource":
                return office.issue_resource(
                    name, projects=wanted, applications=decode_list(applications), days=days, renew=renew
                )
            case _:
                return office.issue_server(name, projects=wanted, days=days, renew=renew)

    directory = _office(action)
    screen.result({"kind": kind, "name": name, "directory": str(directory)})
    match kind:
        case "user":
            screen.line(f"{name} may use the project with {directory}")
            screen.line(f"Hand it over safely, to be {name}'s ~/.LGI, or use it as it is: lgi --config {directory} …")
        case "resource":
            if renew:
                screen.line(f"{name} has a new certificate, and the old one is refused from now on")
                screen.line(f"Copy resource.crt and resource.key of {directory} to it, and send its daemon SIGHUP")
            else:
                screen.line(f"{name} is registered and offers {applications}; its directory is {directory}")
                screen.line("Start its daemon, here or where you copy the directory to:")
                screen.line(f"  twistd -n lgi-daemon --config {directory / 'LGI.cfg'}")
                shut = _shut(directory) if os.geteuid() == 0 else None
                if shut is not None:
                    screen.line(
                        f"Started by root, it runs jobs under uids of their own, which cannot enter {shut}: copy the "
                        "directory to where they can, or give --no-sandbox, and they run as root"
                    )
        case _:
            screen.line(f"Certificate and key of {name} are in {directory}")
            if renew:
                screen.line("Restart its services to use them")


@ca.command("list")
@common_options
@pass_options
def list_certificates(options: Options) -> None:
    """List all certificates that were issued, and which of them are revoked."""
    screen = standard_screen(json=options.json, verbose=options.verbose)
    entries = _office(lambda office: office.authority.list())
    screen.result([_record(entry) for entry in entries])
    screen.table(
        ["kind", "name", "valid until", "revoked", "serial"],
        [
            [
                entry.kind,
                entry.name,
                f"{entry.not_after:%Y-%m-%d}",
                f"{entry.revoked_at:%Y-%m-%d}" if entry.revoked_at else "",
                f"{entry.serial:x}",
            ]
            for entry in entries
        ],
    )


def _record(entry: Entry) -> dict[str, str | None]:
    return {
        "kind": entry.kind,
        "name": entry.name,
        "common_name": entry.common_name,
        "serial": f"{entry.serial:x}",
        "not_before": entry.not_before.isoformat(),
        "not_after": entry.not_after.isoformat(),
        "revoked_at": entry.revoked_at.isoformat() if entry.revoked_at else None,
    }


@ca.command()
@click.argument("name_or_serial")
@common_options
@pass_options
def revoke(options: Options, name_or_serial: str) -> None:
    """Revoke all valid certificates of a name, or the one with a serial number.

    The server refuses them from the next request on.
    """
    screen = standard_screen(json=options.json, verbose=options.verbose)
    entries = _office(lambda office: office.authority.revoke(name_or_serial))
    screen.result([_record(entry) for entry in entries])
    for entry in entries:
        screen.line(f"Revoked {entry.name} ({entry.kind}, serial {entry.serial:x})")


def _shut(directory: Path) -> Path | None:
    """The first directory on the way there that others cannot pass through."""
    for path in (*reversed(directory.absolute().parents), directory):
        if not path.stat().st_mode & stat.S_IXOTH:
            return path
    return None
