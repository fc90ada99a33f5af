"""Making a project: authority, certificates, configuration, database, first grants, first administrator."""

from __future__ import annotations

import json
import re
from pathlib import Path

import attrs
from alembic.util.exc import CommandError
from sqlalchemy import Connection, inspect

from lgi.admin.folder import PRIVATE, appearing, write_text
from lgi.admin.layout import AdminError, Layout
from lgi.admin.store import in_transaction, register_resource
from lgi.admin.userdir import write_user_directory
from lgi.ca import CertificateAuthority, Issued
from lgi.config import ConfigError, load_config
from lgi.db.grants import allow_user
from lgi.db.upgrade import upgrade_schema
from lgi.durable import write_atomically
from lgi.lists import ANY
from lgi.model import Grant, ServerFlag
from lgi.repository.access import RESOURCE_LIST, encode_access

ADMIN_GROUP = "admin"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
SERVER_SECTION = """\
# The project server and its scheduler: twistd -n lgi-server --config THIS, twistd -n lgi-scheduler --config THIS.
# Relative paths count from the directory of this file.

[server]
url = {url}                    # what clients call this server
port = {port}
interface = ""                 # an address to listen on; empty is all of them
certificate = "../server/server.crt"
private_key = "../server/server.key"
ca_certificate = "../ca/ca.crt"
revoked = "../ca/crl.pem"      # lgi ca revoke writes it, the server looks at every request
ca_certificate_url = {ca_url}
# idle_timeout = 120           # seconds that a client may keep silent, and a slow one beside 1 s for 1,000 bytes
# processes = 0                # that share the port; 0: one for each core, or 1 with SQLite. See docs/operations.md
# run_directory = "../run"     # where the server and its scheduler wake each other
# bell = "192.0.2.7:8444"      # UDP, where servers on other machines with the same database wake this one
# look = 1.0                   # seconds between looks for what others have changed

[repository]
directory = "../repository"
location = {location}
# max_file_size = 68719476736     # bytes
# max_request_size = 68719476736
# max_repository_size = 1099511627776   # bytes, of all files of a job together
# max_user_size = 0               # bytes, of all files of a user's jobs together; 0 for no limit
# storage = "local"               # or "sftp://repo@host:22/var/lib/lgi", see docs/operations.md
# storage_key = "…"               # the server's own key if it is not said
# storage_known_hosts = "…"
# url = "…"                       # of the repository, where another server gives it out

[scheduler]
certificate = "../server/scheduler.crt"
private_key = "../server/scheduler.key"
# interval = 60                # seconds between regular cycles
# pulse_timeout = 3600         # seconds after which a job that no daemon looks after is queued again
# record_days = 400            # for so long what happened to a deleted job can be looked up

# What follows has its section's line commented out too.
# [limits]
# work_default = 32            # jobs that one request for work gets
# list_default = 128           # jobs that one list shows
# lock_wait = 30               # seconds that a call waits for a locked job
# requests = 256               # calls at the same time; more are told to come back later
# work_wait = 240              # seconds for which a resource may wait for work in one call
# job_wait = 240               # seconds for which a user may wait for changes of jobs in one call
# waiting = 4096               # resources, and users, that may wait; more are told to come back later

# [metrics]
# listen = "127.0.0.1:9464"    # for Prometheus; none if it is not said. See docs/monitoring.md

# [log]
# access = "../log/access.log" # a line for each request; none if it is not said
# slow_call = 1.0              # seconds after which a call is told of; 0 for none

[projects.{project}]
database = {database}
# threads = 8                  # transactions at the same time
"""


@attrs.frozen(kw_only=True)
class NewProject:
    """What `lgi init` is told; `database` empty for SQLite under the directory, `name` for `LGI@host`."""

    directory: Path
    project: str
    host: str
    port: int
    database: str = ""
    name: str = ""

    @property
    def url(self) -> str:
        """The server's address."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{self.port}/LGI"

    @property
    def administrator(self) -> str:
        """The first user."""
        return f"admin@{self.host}"

    @property
    def server_name(self) -> str:
        """The server's name as a resource (LGI 1.41, Project server synchronization API)."""
        return self.name or f"LGI@{self.host}"

    @property
    def hosts(self) -> list[str]:
        """Under which names and addresses the server's certificate is good."""
        return list(dict.fromkeys([self.host, "localhost", "127.0.0.1", "::1"]))


def check_name(name: str) -> None:
    """Raise AdminError unless this can be the name of a project."""
    # A table of the configuration file and a part of common names.
    if _NAME.fullmatch(name) is None or name == ANY:
        raise AdminError(
            f"{name!r} cannot be the name of a project: letters, digits, - and _, at most 32, a letter or digit first"
        )


def make_project(new: NewProject) -> Layout:
    """Make everything under the directory, which appears whole or not at all; raises AdminError, AuthorityError."""
    check_name(new.project)
    target = new.directory.absolute()
    with appearing(target) as draft:
        layout = Layout(draft)
        authority = CertificateAuthority.create(layout.authority, organisation=f"LGI project {new.project}")
        scheduler = write_server(layout, new, authority)
        try:
            config = load_config(layout.config)
        except ConfigError as problem:
            raise AdminError(str(problem).replace(str(layout.config), "what was asked for")) from None
        administrator = authority.issue_user(new.administrator, groups=[ADMIN_GROUP], projects=[new.project])
        home = layout.user(new.administrator)
        home.mkdir(parents=True, mode=0o700)
        write_user_directory(
            home,
            administrator,
            authority=authority.certificate_pem,
            server=new.url,
            project=new.project,
            groups=[ADMIN_GROUP],
        )
        database = config.projects[new.project].database
        try:
            in_transaction(
                database,
                lambda connection: _fill(connection, new, scheduler),
                checked=False,
            )
        except CommandError as problem:
            raise AdminError(f"the database cannot be prepared: {problem}") from None
    return Layout(target)


def _fill(connection: Connection, new: NewProject, scheduler: Issued) -> None:
    make_schema(connection)
    register_resource(
        connection,
        name=new.server_name,
        certificate=scheduler.certificate_pem,
        url=new.url,
        project_server=ServerFlag.MASTER,
    )
    # Whoever gets a certificate of this project may submit; an administrator who wants it narrower changes this row.
    allow_user(connection, Grant(name=ANY, application=ANY, job_limit=0))


def make_schema(connection: Connection) -> None:
    """Make all tables in an empty database; raises AdminError for one that is not."""
    tables = inspect(connection).get_table_names()
    if tables:
        raise AdminError(f"the database is not empty (it has a table {tables[0]}); give each project one of its own")
    upgrade_schema(connection)


def write_server(layout: Layout, new: NewProject, authority: CertificateAuthority) -> Issued:
    """What a server has of its own: certificates, configuration file, repository; returns what others know it by."""
    layout.server.mkdir()
    _write_pair(layout.server, "server", authority.issue_server(new.host, hosts=new.hosts))
    scheduler = authority.issue_resource(new.server_name, projects=[new.project])
    _write_pair(layout.server, "scheduler", scheduler)
    write_text(layout.config, config_text(new), mode=PRIVATE)
    layout.repository.mkdir(mode=0o750)
    write_atomically(layout.repository / RESOURCE_LIST, encode_access([new.server_name]), mode=0o640)
    (layout.root / "db").mkdir(mode=0o700)
    return scheduler


def _write_pair(directory: Path, name: str, issued: Issued) -> None:
    write_atomically(directory / f"{name}.key", issued.key_pem, mode=PRIVATE)
    write_text(directory / f"{name}.crt", issued.certificate_pem.decode())


def config_text(new: NewProject) -> str:
    """The text of the server's configuration file."""
    # A JSON string is a TOML string.
    return SERVER_SECTION.format(
        url=json.dumps(new.url),
        port=new.port,
        ca_url=json.dumps(f"{new.url}/ca.crt"),
        location=json.dumps(new.server_name),
        project=new.project,
        database=json.dumps(new.database or f"sqlite:///../db/{new.project}.sqlite"),
    )
