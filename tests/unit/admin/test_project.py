"""`lgi init`: everything a project needs, or nothing at all."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from unittest import mock

from cryptography import x509
from cryptography.x509.oid import NameOID
from sqlalchemy import inspect

from lgi.admin.layout import AdminError, Layout, existing
from lgi.admin.project import make_project
from lgi.admin.store import describe_database, in_transaction
from lgi.ca import AuthorityError, CertificateAuthority
from lgi.config import load_config
from lgi.db.database import database_url, make_engine
from lgi.db.events import REPOSITORY_RESOURCES, due
from lgi.db.grants import fetch_grants
from lgi.db.resources import list_servers
from lgi.db.upgrade import check_schema
from lgi.model import Grant, ServerFlag
from tests import mariadb
from tests.unit.admin.case import AdminCase


def certificate(path: Path) -> x509.Certificate:
    """A certificate in a file."""
    return x509.load_pem_x509_certificate(path.read_bytes())


def common_name(path: Path) -> str:
    """Whom a certificate in a file names."""
    [attribute] = certificate(path).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(attribute.value)


class MakeProjectTests(AdminCase):
    """What is there afterwards."""

    def test_configuration_is_what_was_asked_for(self) -> None:
        config = load_config(self.make(port=9443).config)
        self.assertEqual((config.server.url, config.server.port), ("https://grid.example.org:9443/LGI", 9443))
        self.assertEqual(list(config.projects), ["LGI"])
        self.assertEqual(config.projects["LGI"].database, f"sqlite:///{self.root}/db/LGI.sqlite")
        for path in (
            config.server.certificate,
            config.server.private_key,
            config.server.ca_certificate,
            config.server.revoked,
            config.scheduler.certificate,
            config.scheduler.private_key,
        ):
            self.assertTrue(path.is_file(), path)
        self.assertTrue(config.repository.directory.is_dir())

    def test_database_is_described_without_its_password(self) -> None:
        layout = self.make()
        self.assertEqual(describe_database(layout.config, "LGI"), f"sqlite:///{self.root}/db/LGI.sqlite")
        text = layout.config.read_text()
        for kind in ("mariadb", "mysql", "postgresql"):
            url = f"{kind}://lgi:S3cret@db.example.org:3307/grid"
            layout.config.write_text(text.replace("sqlite:///../db/LGI.sqlite", url))
            self.assertEqual(describe_database(layout.config, "LGI"), f"{kind}://lgi:***@db.example.org:3307/grid")
        layout.config.write_text("no TOML")
        with self.assertRaises(AdminError):
            describe_database(layout.config, "LGI")

    def test_secrets_are_readable_by_their_owner_only(self) -> None:
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        layout = self.make()
        self.assertEqual(self.mode(self.root), 0o700)
        keys = [
            path for path in self.root.rglob("*") if b"PRIVATE KEY" in (path.read_bytes() if path.is_file() else b"")
        ]
        self.assertEqual(len(keys), 4, keys)
        home = layout.user("admin@grid.example.org")
        for path in (*keys, layout.config, home / "certificate.p12", home / "certificate.p12.password"):
            self.assertEqual(self.mode(path), 0o600, path)
        for path in (home, layout.authority, self.root / "db"):
            self.assertEqual(self.mode(path), 0o700, path)

    def test_certificates_name_their_holders(self) -> None:
        layout = self.make()
        self.assertEqual(common_name(layout.server / "server.crt"), "grid.example.org")
        self.assertEqual(common_name(layout.server / "scheduler.crt"), "LGI@grid.example.org; LGI")
        self.assertEqual(
            common_name(layout.user("admin@grid.example.org") / "certificate"), "admin@grid.example.org; admin; LGI"
        )

    def test_servers_certificate_is_good_for_the_host_and_the_machine_itself(self) -> None:
        for host, names, addresses in (
            ("grid.example.org", ["grid.example.org", "localhost"], ["127.0.0.1", "::1"]),
            ("192.0.2.7", ["localhost"], ["127.0.0.1", "192.0.2.7", "::1"]),
            ("2001:db8::7", ["localhost"], ["127.0.0.1", "2001:db8::7", "::1"]),
            ("localhost", ["localhost"], ["127.0.0.1", "::1"]),
        ):
            root = self.folder / host.replace(":", "_")
            layout = make_project(self.new(directory=root, host=host))
            extension = certificate(layout.server / "server.crt").extensions.get_extension_for_class(
                x509.SubjectAlternativeName
            )
            self.assertEqual(sorted(extension.value.get_values_for_type(x509.DNSName)), names)
            found = sorted(map(str, extension.value.get_values_for_type(x509.IPAddress)))
            self.assertEqual(found, sorted(str(ipaddress.ip_address(address)) for address in addresses))
            place = f"[{host}]" if ":" in host else host
            self.assertEqual(load_config(layout.config).server.url, f"https://{place}:8443/LGI")

    def test_database_has_schema_master_server_grant_and_event(self) -> None:
        layout = self.make()
        database = load_config(layout.config).projects["LGI"].database
        in_transaction(database, check_schema)
        [server] = in_transaction(database, list_servers)
        self.assertEqual((server.resource_name, server.project_server), ("LGI@grid.example.org", ServerFlag.MASTER))
        self.assertEqual(server.url, "https://grid.example.org:8443/LGI")
        self.assertEqual(server.client_certificate, (layout.server / "scheduler.crt").read_text())
        grants = in_transaction(database, lambda connection: fetch_grants(connection, ["mark"], [], "hello_world"))
        self.assertEqual(grants.users_allowed, (Grant(name="any", application="any", job_limit=0),))
        events = in_transaction(database, lambda connection: due(connection, 1 << 40, 9))
        self.assertIn(REPOSITORY_RESOURCES, [event for _at, event in events])

    def test_administrators_directory_is_ready(self) -> None:
        home = self.make().user("admin@grid.example.org")
        for name, value in (
            ("user", "admin@grid.example.org"),
            ("groups", "admin"),
            ("defaultproject", "LGI"),
            ("defaultserver", "https://grid.example.org:8443/LGI"),
        ):
            self.assertEqual((home / name).read_text(), value + "\n")
        self.assertEqual(certificate(home / "ca_chain"), CertificateAuthority.open(self.root / "ca").certificate)

    def test_an_empty_directory_is_filled(self) -> None:
        self.root.mkdir()
        self.assertEqual(self.make(), Layout(self.root))
        self.assertEqual(existing(self.root), Layout(self.root))

    def test_directories_above_are_made(self) -> None:
        self.assertTrue(self.make(directory=self.folder / "a" / "b" / "grid").config.is_file())

    def test_nothing_but_the_project_is_left(self) -> None:
        self.make()
        self.assertEqual([path.name for path in self.folder.iterdir()], ["grid"])
        self.assertFalse(
            [name for name in self.files() if ".new" in name or ".partial" in name or name.endswith("-wal")]
        )


class RefusalTests(AdminCase):
    """What cannot be made is said, and leaves what was there."""

    def refused(self, words: str, **changes: object) -> None:
        """Assert that nothing is made."""
        before = self.files()
        error = self.assertRaises((AdminError, AuthorityError), self.make, **changes)
        self.assertIn(words, str(error))
        self.assertEqual(self.files(), before)

    def test_directory_that_is_not_empty(self) -> None:
        self.root.mkdir()
        (self.root / "precious").write_text("x")
        self.refused("exists already; nothing was changed")
        self.assertEqual((self.root / "precious").read_text(), "x")

    def test_file_in_the_place_of_the_directory(self) -> None:
        self.root.write_text("x")
        self.refused("exists already")
        self.refused("Not a directory", directory=self.root / "below")

    def test_second_project_in_the_same_place(self) -> None:
        self.make()
        self.refused("exists already", project="other")

    def test_names_that_no_project_can_have(self) -> None:
        for project in (
            "",
            " ",
            "a b",
            "any",
            "a;b",
            "a,b",
            "a.b",
            "[x]",
            "é",
            "x" * 33,
            "-",
            "_",
            "-a",
            "a/b",
            "a\nb",
            '"',
        ):
            self.refused("cannot be the name of a project", project=project)

    def test_hosts_that_cannot_be(self) -> None:
        for host in ("", "a b", "a;b", "a/b", "http://a", "1.2.3.400", "-"):
            self.assertRaises((AdminError, AuthorityError), self.make, host=host)
            self.assertEqual(self.files(), set())

    def test_port_that_cannot_be(self) -> None:
        self.refused("server.port", port=65536)

    def test_databases_that_cannot_be_used(self) -> None:
        for database, words in (
            ("nonsense", "a database URL looks like"),
            ("oracle://a:S3cret@b/c", "'oracle'"),
            ("mariadb://lgi:S3cret@127.0.0.1:1/lgi", "the database cannot be used"),
            (f"sqlite:///{self.folder}/none/x.sqlite", "the database cannot be used"),
        ):
            self.refused(words, database=database)

    def test_sqlite_database_that_is_not_empty(self) -> None:
        file = self.folder / "other.sqlite"
        url = f"sqlite:///{file}"
        engine = make_engine(database_url(url))
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE letters (letter TEXT)")
        engine.dispose()
        self.refused("the database is not empty (it has a table letters)", database=url)
        engine = make_engine(database_url(url))
        self.assertEqual(inspect(engine).get_table_names(), ["letters"])
        engine.dispose()

    def test_mariadb_database_that_is_not_empty(self) -> None:
        server = mariadb.server()
        url = server.create_database()
        self.addCleanup(server.drop_database, url)
        self.make(database=url)
        self.refused("the database is not empty", database=url, directory=self.folder / "second")
        in_transaction(url, check_schema)

    def test_failure_at_the_end_leaves_nothing(self) -> None:
        with mock.patch("lgi.admin.project.allow_user", side_effect=OSError(28, "No space left on device", "x")):
            self.refused("No space left on device")
        self.make()

    def test_interruption_leaves_nothing(self) -> None:
        with mock.patch("lgi.admin.project.allow_user", side_effect=KeyboardInterrupt):
            self.assertRaises(KeyboardInterrupt, self.make, directory=self.folder / "a" / "b")
        self.assertEqual(self.files(), set())

    def test_what_is_no_project_is_said(self) -> None:
        error = self.assertRaises(AdminError, existing, self.folder)
        self.assertIn(f"{self.folder} is not the directory of a project; make one with: lgi init", str(error))
