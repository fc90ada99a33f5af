"""`lgi ca issue`: certificates with all that goes with them."""

from __future__ import annotations

from pathlib import Path
from unittest import mock
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from lgi.admin.layout import AdminError
from lgi.admin.members import Office, open_office
from lgi.admin.store import in_transaction
from lgi.ca import AuthorityError
from lgi.config import load_config
from lgi.daemon.config import read_config
from lgi.db.grants import fetch_grants
from lgi.db.resources import fetch_resource
from lgi.model import Resource, ServerFlag
from tests.unit.admin.case import AdminCase
from tests.unit.admin.test_project import certificate, common_name

MARK, RESOURCE = "mark@example.org", "cluster@example.org"


class OfficeCase(AdminCase):
    """A project with two projects in its configuration, as an administrator adds one by hand."""

    def setUp(self) -> None:
        super().setUp()
        layout = self.make()
        self.office: Office = open_office(layout)
        self.database = load_config(layout.config).projects["LGI"].database

    def user(self, name: str = MARK, *, renew: bool = False, projects: tuple[str, ...] = ()) -> Path:
        """Issue a user's certificate."""
        return self.office.issue_user(name, groups=["theor", "chem"], projects=projects, days=30, renew=renew)

    def resource(
        self, name: str = RESOURCE, *applications: str, renew: bool = False, projects: tuple[str, ...] = ()
    ) -> Path:
        """Issue a resource's certificate."""
        return self.office.issue_resource(name, projects=projects, applications=applications, days=30, renew=renew)

    def registered(self, name: str = RESOURCE) -> Resource | None:
        """A resource in the project's database."""
        return in_transaction(self.database, lambda connection: fetch_resource(connection, name))

    def refused(self, words: str, issue: object, *args: object, **kwargs: object) -> None:
        """Assert that a certificate is refused and no directory made."""
        before = {name for name in self.files() if not name.startswith("grid/ca/issued")}
        error = self.assertRaises((AdminError, AuthorityError), issue, *args, **kwargs)
        self.assertIn(words, str(error))
        after = {name for name in self.files() if not name.startswith("grid/ca/issued")}
        self.assertEqual(after, before)


class UserTests(OfficeCase):
    """LGI 1.41, Example user session: the directory `~/.LGI`."""

    def test_directory_is_ready_to_use(self) -> None:
        home = self.user()
        self.assertEqual(home, self.root / "users" / MARK)
        self.assertEqual(common_name(home / "certificate"), f"{MARK}; theor, chem; LGI")
        for name, value in (
            ("user", MARK),
            ("groups", "theor, chem"),
            ("defaultserver", "https://grid.example.org:8443/LGI"),
            ("defaultproject", "LGI"),
            ("defaultapplication", "hello_world"),
        ):
            self.assertEqual((home / name).read_text(), value + "\n", name)
        for name in ("privatekey", "certificate.p12", "certificate.p12.password"):
            self.assertEqual(self.mode(home / name), 0o600, name)
        self.assertEqual(self.mode(home), 0o700)

    def test_key_and_browsers_file_belong_to_the_certificate(self) -> None:
        home = self.user()
        key = serialization.load_pem_private_key((home / "privatekey").read_bytes(), None)
        self.assertEqual(key.public_key(), certificate(home / "certificate").public_key())
        password = (home / "certificate.p12.password").read_bytes().strip()
        _key, inside, chain = pkcs12.load_key_and_certificates((home / "certificate.p12").read_bytes(), password)
        self.assertEqual((inside, chain), (certificate(home / "certificate"), [certificate(home / "ca_chain")]))

    def test_user_without_groups_is_his_own(self) -> None:
        home = self.office.issue_user(MARK, groups=[], projects=[], days=30, renew=False)
        self.assertEqual(common_name(home / "certificate"), f"{MARK}; LGI")
        self.assertEqual((home / "groups").read_text(), MARK + "\n")

    def test_second_time_is_refused(self) -> None:
        home = self.user()
        before = (home / "privatekey").read_bytes()
        self.refused("exists already; nothing was changed", self.user)
        self.assertEqual((home / "privatekey").read_bytes(), before)

    def test_renewing_replaces_the_credentials_and_keeps_the_rest(self) -> None:
        home = self.user()
        old = certificate(home / "certificate")
        (home / "defaultapplication").write_text("lj_md\n")
        self.assertEqual(self.user(renew=True), home)
        new = certificate(home / "certificate")
        self.assertNotEqual(new.serial_number, old.serial_number)
        self.assertEqual(new.subject, old.subject)
        key = serialization.load_pem_private_key((home / "privatekey").read_bytes(), None)
        self.assertEqual(key.public_key(), new.public_key())
        self.assertEqual(self.mode(home / "privatekey"), 0o600)
        self.assertEqual((home / "defaultapplication").read_text(), "lj_md\n")

    def test_renewing_keeps_the_groups_unless_others_are_given(self) -> None:
        home = self.user()
        for groups, held in (([], "theor, chem"), (["physics"], "physics"), ([], "physics")):
            self.office.issue_user(MARK, groups=groups, projects=[], days=30, renew=True)
            self.assertIn(f"; {held}; ", common_name(home / "certificate"))
            self.assertEqual((home / "groups").read_text().strip(), held)

    def test_nothing_to_renew(self) -> None:
        self.refused("there is nothing to renew", self.user, renew=True)

    def test_the_servers_own_certificates_are_renewed_in_their_places(self) -> None:
        config, host = self.office.config, urlsplit(self.office.config.server.url).hostname
        assert host is not None
        files = (config.server.certificate, config.scheduler.certificate)
        old = [certificate(file) for file in files]
        key = config.scheduler.private_key.read_bytes()
        self.office.issue_server(host, projects=[], days=900, renew=True)
        new = [certificate(file) for file in files]
        for before, after in zip(old, new, strict=True):
            self.assertEqual(after.subject, before.subject)
            self.assertGreater(after.not_valid_after_utc, before.not_valid_after_utc)
        names = [cert.extensions.get_extension_for_class(x509.SubjectAlternativeName) for cert in (old[0], new[0])]
        self.assertEqual(names[0], names[1])
        self.assertNotEqual(config.scheduler.private_key.read_bytes(), key)
        self.assertEqual(self.mode(config.scheduler.private_key), 0o600)
        registered = self.registered(config.repository.location)
        assert registered is not None
        self.assertIn(files[1].read_text().strip(), registered.client_certificate)
        self.assertEqual(registered.project_server, ServerFlag.MASTER)

    def test_a_server_is_no_resource(self) -> None:
        self.refused("is a project server of LGI", self.resource, self.office.config.repository.location)

    def test_unknown_project(self) -> None:
        self.refused("there is no project other here; there are: LGI", self.user, projects=("LGI", "other"))

    def test_names_that_no_user_can_have(self) -> None:
        for name in (
            "",
            ".",
            "..",
            "a/b",
            "../../x",
            "/etc/x",
            "a;b",
            "a,b",
            "any",
            " a",
            "a\nb",
            "a\x00b",
            "x" * 65,
        ):
            self.refused("", self.user, name)

    def test_days_and_groups_that_cannot_be(self) -> None:
        for groups, days in ((["a;b"], 30), (["a", "a"], 30), ([""], 30), (["theor"], 0), (["theor"], 10**6)):
            self.refused("", self.office.issue_user, MARK, groups=groups, projects=[], days=days, renew=False)


class ResourceTests(OfficeCase):
    """A directory for the resource daemon, and the registration."""

    def test_directory_and_registration(self) -> None:
        place = self.resource()
        self.assertEqual(common_name(place / "resource.crt"), f"{RESOURCE}; LGI")
        self.assertEqual((self.mode(place), self.mode(place / "resource.key")), (0o711, 0o600))
        found = self.registered()
        assert found is not None
        self.assertEqual(found.client_certificate, (place / "resource.crt").read_text())
        self.assertEqual(found.url, RESOURCE)
        grants = in_transaction(self.database, lambda connection: fetch_grants(connection, [], [], "hello_world"))
        self.assertEqual(grants.offered_by, {RESOURCE})

    def test_configuration_is_one_that_the_daemon_takes(self) -> None:
        place = self.resource(RESOURCE, "lj_md", "hello_world")
        [project] = read_config(place / "LGI.cfg").projects
        self.assertEqual([application.name for application in project.applications], ["lj_md", "hello_world"])
        self.assertEqual((project.name, project.master_server), ("LGI", "https://grid.example.org:8443/LGI"))
        for script in (place / "applications" / "hello_world").glob("*_script"):
            self.assertEqual(self.mode(script) & 0o111, 0o111, script)

    def test_unknown_application(self) -> None:
        self.refused("there is no example application nonsense; there are: ", self.resource, RESOURCE, "nonsense")
        self.assertIsNone(self.registered())

    def test_unknown_project(self) -> None:
        self.refused("there is no project other here", self.resource, projects=("other",))
        self.assertIsNone(self.registered())

    def test_failing_registration_leaves_no_directory(self) -> None:
        problem = AdminError("the database cannot be used: it is away")
        with mock.patch("lgi.admin.members.on_project", side_effect=problem):
            self.refused("it is away", self.resource)
        self.assertIsNone(self.registered())
        self.resource()

    def test_database_that_is_gone_leaves_no_directory(self) -> None:
        (self.root / "db" / "LGI.sqlite").rename(self.root / "db" / "moved")
        self.assertRaises(AdminError, self.resource)
        self.assertFalse((self.root / "resources" / RESOURCE).exists())

    def test_renewing_registers_the_new_certificate(self) -> None:
        place = self.resource()
        before = self.registered()
        (place / "LGI.cfg").write_text("changed")
        self.assertEqual(self.resource(renew=True), place)
        after = self.registered()
        assert before is not None
        assert after is not None
        self.assertEqual(after.resource_id, before.resource_id)
        self.assertEqual(after.resource_capabilities, before.resource_capabilities)
        self.assertNotEqual(after.client_certificate, before.client_certificate)
        self.assertEqual(after.client_certificate, (place / "resource.crt").read_text())
        self.assertEqual((place / "LGI.cfg").read_text(), "changed")

    def test_nothing_to_renew(self) -> None:
        self.refused("there is nothing to renew", self.resource, renew=True)

    def test_second_time_is_refused_and_the_registration_stays(self) -> None:
        self.resource()
        before = self.registered()
        self.refused("exists already", self.resource)
        self.assertEqual(self.registered(), before)

    def test_names_that_no_resource_can_have(self) -> None:
        for name in ("", "..", "a/b", "a;b", "any"):
            self.refused("", self.resource, name)


class ServerTests(OfficeCase):
    """Another server of the project."""

    def test_certificate_is_good_for_its_host(self) -> None:
        place = self.office.issue_server("two.example.org", projects=[], days=30, renew=False)
        extension = certificate(place / "server.crt").extensions.get_extension_for_class(x509.SubjectAlternativeName)
        self.assertEqual(extension.value.get_values_for_type(x509.DNSName), ["two.example.org"])
        self.assertEqual(self.mode(place / "server.key"), 0o600)
        self.assertEqual(certificate(place / "ca.crt"), self.office.authority.certificate)

    def test_renewing(self) -> None:
        self.refused("nothing to renew", self.office.issue_server, "two.example.org", projects=[], days=3, renew=True)
        place = self.office.issue_server("two.example.org", projects=[], days=3, renew=False)
        old = certificate(place / "server.crt").serial_number
        self.office.issue_server("two.example.org", projects=[], days=3, renew=True)
        self.assertNotEqual(certificate(place / "server.crt").serial_number, old)

    def test_what_cannot_be_a_host(self) -> None:
        for name in ("", "a b", "a/b", "..", "any"):
            self.refused("", self.office.issue_server, name, projects=[], days=3, renew=False)


class OpenOfficeTests(AdminCase):
    """What an office needs."""

    def test_configuration_with_a_mistake(self) -> None:
        layout = self.make()
        layout.config.write_text(layout.config.read_text() + "\n[nonsense]\n")
        error = self.assertRaises(AdminError, open_office, layout)
        self.assertIn("unknown: nonsense", str(error))

    def test_authority_that_is_gone(self) -> None:
        layout = self.make()
        (layout.authority / "ca.key").unlink()
        error = self.assertRaises(AuthorityError, open_office, layout)
        self.assertIn("ca.key", str(error))
