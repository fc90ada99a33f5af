"""Issuing certificates to users, resources and servers of a project, ready to use."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import attrs
from cryptography import x509
from sqlalchemy import Connection

from lgi.admin.changes import administrator, name_of, resource_row
from lgi.admin.folder import PRIVATE, appearing, write_text
from lgi.admin.layout import AdminError, Layout
from lgi.admin.resourcedir import HELLO, check_examples, write_resource_credentials, write_resource_directory
from lgi.admin.store import offered, on_project, project_database
from lgi.admin.userdir import write_credentials, write_user_directory
from lgi.ca import CertificateAuthority, Issued
from lgi.config import ConfigError, ServerConfig, load_config
from lgi.db.mysqltext import Value
from lgi.db.resources import fetch_resource
from lgi.durable import write_atomically
from lgi.lists import decode_list, encode_list
from lgi.model import ServerFlag
from lgi.sync import own_name
from lgi.tls import TLSFileError


@attrs.frozen(kw_only=True)
class Office:
    """A project's authority and configuration, from which certificates are handed out.

    Every method raises AdminError or AuthorityError and then leaves no directory behind.
    """

    layout: Layout
    config: ServerConfig
    authority: CertificateAuthority

    def _projects(self, posted: Sequence[str]) -> list[str]:
        projects = list(posted or self.config.projects)
        for project in projects:
            project_database(self.config, project)
        return projects

    def issue_user(
        self, name: str, *, groups: Sequence[str], projects: Sequence[str], days: int, renew: bool
    ) -> Path:
        """A certificate for a user and, unless it is renewed, his configuration directory; returns that."""
        projects = self._projects(projects)
        target = self.layout.user(name)
        if renew:
            self._require(target)
            held = groups or self._groups_of(target, name)
            write_credentials(target, self.authority.issue_user(name, groups=held, projects=projects, days=days))
            if groups:
                write_text(target / "groups", encode_list(groups) + "\n")
            return target
        with appearing(target) as draft:
            issued = self.authority.issue_user(name, groups=groups, projects=projects, days=days)
            write_user_directory(
                draft,
                issued,
                authority=self.authority.certificate_pem,
                server=self.config.server.url,
                project=projects[0],
                groups=groups,
            )
        return target

    def issue_resource(
        self,
        name: str,
        *,
        projects: Sequence[str],
        applications: Sequence[str],
        days: int,
        renew: bool,
    ) -> Path:
        """A certificate for a resource, its registration and, unless it is renewed, its directory; returns that."""
        projects = self._projects(projects)
        check_examples(applications)
        self._require_no_server(name, projects)
        target = self.layout.resource(name)
        if renew:
            self._require(target)
            issued = self.authority.issue_resource(name, projects=projects, days=days)
            self._register(issued, projects)
            write_resource_credentials(target, issued)
            return target
        with appearing(target) as draft:
            issued = self.authority.issue_resource(name, projects=projects, days=days)
            write_resource_directory(
                draft,
                issued,
                authority=self.authority.certificate_pem,
                server=self.config.server.url,
                project=projects[0],
                applications=applications or [HELLO],
            )
            self._register(issued, projects, applications or [HELLO])
        return target

    def issue_server(self, name: str, *, projects: Sequence[str], days: int, renew: bool) -> Path:
        """Certificate and key of another server of the project; returns their directory.

        Renewing those of this server itself, by its host name, renews the scheduler's too, in their places.
        """
        projects = self._projects(projects)
        if renew and name == urlsplit(self.config.server.url).hostname:
            self._renew_own(name, days)
            return self.config.server.certificate.parent
        target = self.layout.issued_server(name)
        if renew:
            self._require(target)
            self._write_server(target, self.authority.issue_server(name, hosts=[name], days=days))
            return target
        with appearing(target) as draft:
            self._write_server(draft, self.authority.issue_server(name, hosts=[name], days=days))
            write_text(draft / "ca.crt", self.authority.certificate_pem.decode())
        return target

    def _renew_own(self, host: str, days: int) -> None:
        section, scheduler = self.config.server, self.config.scheduler
        try:
            old = x509.load_pem_x509_certificate(section.certificate.read_bytes())
            name = own_name(self.config)
        except (OSError, ValueError, TLSFileError) as problem:
            raise AdminError(f"what is to be renewed cannot be read: {problem}") from None
        alternatives = old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        issued = self.authority.issue_resource(name, projects=list(self.config.projects), days=days)
        for project in self.config.projects:
            on_project(self.config, project, partial(self._record_own, issued, project))
        write_atomically(scheduler.private_key, issued.key_pem, mode=PRIVATE)
        write_text(scheduler.certificate, issued.certificate_pem.decode())
        fresh = self.authority.issue_server(host, hosts=[str(entry.value) for entry in alternatives], days=days)
        write_atomically(section.private_key, fresh.key_pem, mode=PRIVATE)
        write_text(section.certificate, fresh.certificate_pem.decode())

    def _record_own(self, issued: Issued, project: str, connection: Connection) -> None:
        found = fetch_resource(connection, issued.name)
        if found is None:
            raise AdminError(f"{issued.name} is not registered in project {project}")
        row = resource_row(
            name=issued.name,
            certificate=issued.certificate_pem,
            project=project,
            url=found.url,
            flag=found.project_server,
        )
        self._record(row, connection)

    @staticmethod
    def _write_server(directory: Path, issued: Issued) -> None:
        write_atomically(directory / "server.key", issued.key_pem, mode=PRIVATE)
        write_text(directory / "server.crt", issued.certificate_pem.decode())

    def _require_no_server(self, name: str, projects: Sequence[str]) -> None:
        for project in projects:
            found = on_project(self.config, project, lambda connection: fetch_resource(connection, name))
            if found is not None and found.project_server is not ServerFlag.NONE:
                raise AdminError(f"{name} is a project server of {project}; give the resource another name")

    @staticmethod
    def _groups_of(target: Path, name: str) -> list[str]:
        """The groups that a user's directory was made for; a user without any has his own name there."""
        try:
            return [group for group in decode_list((target / "groups").read_text("utf-8")) if group != name]
        except OSError as problem:
            raise AdminError(f"{target / 'groups'}: {problem.strerror}; say the groups with --groups") from None

    @staticmethod
    def _require(target: Path) -> None:
        if not target.is_dir():
            raise AdminError(f"there is nothing to renew: {target} does not exist")

    def _register(self, issued: Issued, projects: Sequence[str], applications: Sequence[str] = ()) -> None:
        for project in projects:
            row = resource_row(
                name=issued.name,
                certificate=issued.certificate_pem,
                project=project,
                url=issued.name,
                capabilities=offered(applications) if applications else None,
            )
            on_project(self.config, project, partial(self._record, row))

    def _record(self, row: dict[str, Value], connection: Connection) -> None:
        administrator(connection, name_of(self.config)).register(row)


def open_office(layout: Layout) -> Office:
    """The office of a project; raises AdminError or AuthorityError."""
    try:
        config = load_config(layout.config)
    except ConfigError as problem:
        raise AdminError(str(problem)) from None
    return Office(layout=layout, config=config, authority=CertificateAuthority.open(layout.authority))
