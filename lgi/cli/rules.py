"""`lgi admin list`, `add` and `del`: who may submit what, and which resources there are.

LGI 1.41, Project management (ManageDB).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from lgi.admin.changes import RESOURCES, Administrator, administrator, list_rows, resource_row
from lgi.admin.layout import AdminError
from lgi.cli.complaint import Complaint
from lgi.cli.desk import ROLES, Desk, F, open_desk, server_options, update_value
from lgi.cli.options import Options, common_options, pass_options
from lgi.cli.show import moment
from lgi.db.managed import TABLES
from lgi.db.updates import concerns
from lgi.lists import decode_list, encode_list
from lgi.model import ServerFlag, Update
from lgi.wire.dialect import MalformedXML, parse_fragment

KINDS = ("users", "groups", "resources")
RULES = ("allowed", "denied")


def _table(kind: str, rule: str) -> str:
    if kind == "resources":
        if rule == "denied":
            raise click.UsageError("resources are allowed or not there: there is no 'resources denied'")
        return RESOURCES
    return f"{kind}_{rule}"


def _asked(value: str | None, option: str, what: str) -> str:
    if value is not None:
        return value
    if not sys.stdin.isatty():
        raise click.UsageError(f"{option} is missing: the {what}")
    answer: str = click.prompt(f"Enter {what}", err=True)
    return answer


def _number(text: str, option: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise click.UsageError(f"{option} is a whole number, not {text!r}") from None


def _unused(kind: str, **options: str | None) -> None:
    for name, value in options.items():
        if value is not None:
            raise click.UsageError(f"--{name} has no meaning for {kind}")


def rule_arguments(command: F) -> F:
    """Which table is meant."""
    command = click.argument("rule", type=click.Choice(RULES), default="allowed")(command)
    return click.argument("kind", type=click.Choice(KINDS))(command)


servers_option = click.option(
    "--servers", default="any", show_default=True, metavar="any|A,B", help="For which of the project's servers it is."
)


@click.command("list")
@rule_arguments
@server_options
@common_options
@pass_options
def list_(options: Options, kind: str, rule: str) -> None:
    """Show users or groups that are allowed or denied, or the resources."""
    table = _table(kind, rule)
    desk = open_desk(options)
    columns = [column.name for column in TABLES[table].c if column.name not in ("resource_id", "client_certificate")]
    rows = desk.run(lambda connection: list_rows(connection, table, columns))
    desk.screen.result(rows)
    if table == RESOURCES:
        headers = ["resource_name", "applications", "last_call", "server", "url"]
        desk.screen.table(headers, [_resource_cells(row) for row in rows])
    else:
        desk.screen.table(columns, [[str(row[name]) for name in columns] for row in rows])


def offered(capabilities: str) -> str:
    """The applications in capabilities, for people."""
    try:
        return ", ".join(str(child.tag) for child in parse_fragment(capabilities))
    except MalformedXML:
        return "?"


def _resource_cells(row: dict[str, Any]) -> list[str]:
    called = moment(row["last_call_time"]) if row["last_call_time"] else "never"
    offers = offered(row["resource_capabilities"])
    return [row["resource_name"], offers, called, ROLES[ServerFlag(row["project_server"])], row["url"]]


@click.command()
@rule_arguments
@click.option("--name", help="The user, group or resource; any stands for all users or groups.")
@click.option("--application", help="For users and groups; any stands for all.")
@click.option("--limit", help="Of allowed ones: how many jobs; below 0 queued and running ones, 0 is no limit.")
@click.option("--url", help="Of a resource: where it is; of a project server: its https address.")
@click.option("--certificate", metavar="FILE", help="Of a resource: its certificate, PEM.")
@click.option(
    "--server", "flag", type=click.Choice(["no", "slave"]), help="Whether the resource is a project server."
)
@servers_option
@server_options
@common_options
@pass_options
def add(
    options: Options,
    kind: str,
    rule: str,
    name: str | None,
    application: str | None,
    limit: str | None,
    url: str | None,
    certificate: str | None,
    flag: str | None,
    servers: str,
) -> None:
    """Allow or deny a user or group, or register a resource.

    On the master only; the project's other servers take the change over. What is not said is asked for on a terminal.
    """
    table = _table(kind, rule)
    desk = open_desk(options)
    who = _asked(name, "--name", f"{kind[:-1]} name")
    row: dict[str, Any]
    if table == RESOURCES:
        _unused(kind, application=application, limit=limit)
        url = _asked(url, "--url", "resource url")
        file = Path(_asked(certificate, "--certificate", "certificate file"))
        try:
            row = resource_row(
                name=who,
                certificate=file.read_bytes(),
                project=desk.project,
                url=url,
                flag=ServerFlag.SLAVE if flag == "slave" else ServerFlag.NONE,
            )
        except AdminError as problem:
            raise Complaint(f"{file}: {problem}") from None
    else:
        _unused(kind, url=url, certificate=certificate, server=flag)
        row = {f"{kind[:-1]}_name": who, "application": _asked(application, "--application", "application")}
        if rule == "allowed":
            row["job_limit"] = _number(_asked(limit, "--limit", "job limit"), "--limit")
        else:
            _unused(f"{kind} denied", limit=limit)
    _change(desk, servers, lambda by: by.add(table, row))


@click.command("del")
@rule_arguments
@click.option("--name", help="The user, group or resource.")
@click.option("--application", help="For users and groups.")
@servers_option
@server_options
@common_options
@pass_options
def delete(options: Options, kind: str, rule: str, name: str | None, application: str | None, servers: str) -> None:
    """Take back what was allowed or denied, or remove a resource.

    On the master only; the project's other servers take the change over. What is not said is asked for on a terminal.
    """
    table = _table(kind, rule)
    desk = open_desk(options)
    key = {f"{kind[:-1]}_name": _asked(name, "--name", f"{kind[:-1]} name")}
    if table == RESOURCES:
        _unused(kind, application=application)
    else:
        key["application"] = _asked(application, "--application", "application")
    _change(desk, servers, lambda by: by.remove(table, key))


@click.command("set-capabilities")
@click.argument("name")
@click.argument("capabilities")
@servers_option
@server_options
@common_options
@pass_options
def set_capabilities(options: Options, name: str, capabilities: str, servers: str) -> None:
    """Say what a project server offers: XML with an element for each application; "" for nothing.

    With '<file_storage> </file_storage>' the server keeps the files of jobs for file_storage for as long as those
    jobs are there. The daemon of a resource says what that one offers, each time that it signs up.

    On the master only; the project's other servers take the change over.
    """
    desk = open_desk(options)
    _change(desk, servers, lambda by: by.set_capabilities(name, capabilities))


def _change(desk: Desk, servers: str, action: Callable[[Administrator], Update]) -> None:
    wanted = decode_list(servers)
    if not wanted:
        raise click.UsageError("--servers names no server")
    own = desk.own_name()
    update = desk.run(lambda connection: action(administrator(connection, own, wanted)))
    desk.screen.result(update_value(update, own))
    here = "" if concerns(update, own) else "; not carried out here, as it is for others"
    desk.screen.line(f"Update {update.version} for {encode_list(update.servers)}{here}")
