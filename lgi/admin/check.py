"""Whether a server's configuration fits what it names: files, certificates, databases, registration."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Connection

from lgi.admin.layout import AdminError
from lgi.admin.store import in_transaction
from lgi.config import ConfigError, ServerConfig, load_config
from lgi.db.resources import list_servers
from lgi.model import Resource, ServerFlag
from lgi.sync import own_name
from lgi.tls import ClientPolicy, RevocationList, TLSFileError, load_credentials, server_context_factory


def check_config(file: Path) -> list[str]:
    """Everything that is wrong, a line each; empty when the services can start with it."""
    try:
        config = load_config(file)
    except ConfigError as problem:
        return str(problem).split("\n")
    return [*_files(config), *(line for name in config.projects for line in _project(config, name))]


def _files(config: ServerConfig) -> Iterator[str]:
    server, scheduler = config.server, config.scheduler

    def listen() -> None:
        server_context_factory(load_credentials(server.certificate, server.private_key), server.ca_certificate)

    def call() -> None:
        ClientPolicy(load_credentials(scheduler.certificate, scheduler.private_key), server.ca_certificate)

    def revoked() -> None:
        RevocationList(server.revoked, server.ca_certificate)

    for action in (listen, call, revoked):
        try:
            action()
        except TLSFileError as problem:
            yield str(problem)
    access = config.log.access
    if access is not None:
        # Its directory is made, but none above that.
        there = next((path for path in (access, access.parent, access.parent.parent) if path.exists()), None)
        if there is None or not os.access(there, os.W_OK) or (there != access) != there.is_dir():
            yield f"log.access {access}: it cannot be written"
    if not config.repository.directory.is_dir():
        yield f"{config.repository.directory}: no such directory"


def _project(config: ServerConfig, project: str) -> Iterator[str]:
    def servers(connection: Connection) -> list[Resource]:
        return list_servers(connection)

    try:
        known = in_transaction(config.projects[project].database, servers)
        name = own_name(config)
    except (AdminError, TLSFileError) as problem:
        yield f"project {project}: {problem}"
        return
    masters = sum(server.project_server is ServerFlag.MASTER for server in known)
    if masters != 1:
        yield f"project {project}: it has {masters} master servers, where it needs exactly one"
    own = next((server for server in known if server.resource_name == name), None)
    if own is None:
        yield f"project {project}: {name}, the name in the scheduler's certificate, is not a registered server"
        return
    if own.url.rstrip("/") != config.server.url.rstrip("/"):
        yield f"project {project}: {name} is registered as {own.url}, configured is {config.server.url}"
    registered = "".join(own.client_certificate.split())
    if registered not in "".join(config.scheduler.certificate.read_text("utf-8").split()):
        yield f"project {project}: {name} is registered with another certificate than {config.scheduler.certificate}"
