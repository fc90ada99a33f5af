"""The private certificate authority: what it issues, what it refuses, what a crash leaves."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import hypothesis.strategies as st
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import assume, given, settings
from twisted.trial.unittest import SynchronousTestCase

from lgi.ca import AuthorityError, CertificateAuthority, Issued, fingerprint
from lgi.identity import Identity, parse_common_name


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def parsed(issued: Issued) -> x509.Certificate:
    return x509.load_pem_x509_certificate(issued.certificate_pem)


def revoked_serials(authority: CertificateAuthority) -> set[int]:
    crl = x509.load_pem_x509_crl(authority.crl_file.read_bytes())
    assert crl.is_signature_valid(authority.certificate.public_key())  # type: ignore[arg-type]
    return {entry.serial_number for entry in crl}


class AuthorityTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.directory = self.folder / "ca"

    def create(self) -> CertificateAuthority:
        return CertificateAuthority.create(self.directory, organisation="LGI")

    def refused(self, words: str, function: object, *args: object, **kwargs: object) -> str:
        assert callable(function)
        message = str(self.assertRaises(AuthorityError, function, *args, **kwargs))
        self.assertIn(words, message)
        self.assertNotIn("\n", message)
        return message

    def run_python(self, *lines: str) -> subprocess.Popen[str]:
        head = (
            "import os",
            "from pathlib import Path",
            "from datetime import datetime, UTC",
            "from lgi.ca import CertificateAuthority",
            f"directory = Path({str(self.directory)!r})",
        )
        return subprocess.Popen(
            [sys.executable, "-c", "\n".join(head + lines)], stderr=subprocess.PIPE, text=True, cwd=os.getcwd()
        )


class CreateTests(AuthorityTestCase):
    def test_modes(self) -> None:
        self.addCleanup(os.umask, os.umask(0))
        self.create()
        self.assertEqual(mode(self.directory), 0o700)
        self.assertEqual(mode(self.directory / "ca.key"), 0o600)
        self.assertEqual(mode(self.directory / "issued"), 0o700)
        self.assertEqual(sorted(os.listdir(self.folder)), ["ca"])

    def test_certificate(self) -> None:
        certificate = self.create().certificate
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        self.assertTrue(constraints.critical and constraints.value.ca)
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
        self.assertTrue(usage.critical and usage.value.key_cert_sign and usage.value.crl_sign)
        self.assertFalse(usage.value.digital_signature)
        certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        self.assertGreater(certificate.not_valid_after_utc, datetime.now(UTC) + timedelta(days=20 * 365))
        self.assertEqual(len(fingerprint(certificate)), 64)

    def test_first_list_is_empty_and_signed(self) -> None:
        authority = self.create()
        self.assertEqual(revoked_serials(authority), set())
        self.assertEqual(authority.list(), [])

    def test_nothing_is_overwritten(self) -> None:
        self.create()
        key = (self.directory / "ca.key").read_bytes()
        self.refused("already holds an authority", self.create)
        self.assertEqual((self.directory / "ca.key").read_bytes(), key)

    def test_an_empty_folder_will_do(self) -> None:
        self.directory.mkdir(mode=0o755)
        self.create()
        self.assertEqual(mode(self.directory), 0o700)

    def test_half_an_authority_is_not_completed(self) -> None:
        self.create()
        (self.directory / "ca.crt").unlink()
        self.refused("not ca.crt", self.create)
        self.refused("half-made or damaged authority, without ca.crt", CertificateAuthority.open, self.directory)

    def test_killed_while_creating(self) -> None:
        process = self.run_python(
            "CertificateAuthority.create(directory, organisation='LGI', clock=lambda: os._exit(9))",
        )
        process.communicate()
        self.assertEqual(process.returncode, 9)
        self.assertFalse(self.directory.exists())
        message = self.refused("half-made", self.create)
        self.assertIn(f"{self.directory}.partial", message)
        self.refused("no certificate authority there", CertificateAuthority.open, self.directory)
        shutil.rmtree(f"{self.directory}.partial")
        self.create()

    def test_failure_leaves_nothing(self) -> None:
        def clock() -> datetime:
            raise OSError(28, "No space left on device", "somewhere")

        self.refused(
            "somewhere: No space left on device",
            CertificateAuthority.create,
            self.directory,
            organisation="LGI",
            clock=clock,
        )
        self.assertEqual(os.listdir(self.folder), [])

    def test_folder_above_is_missing(self) -> None:
        self.directory = self.folder / "absent" / "ca"
        self.refused("absent/ca.partial: No such file or directory", self.create)

    def test_organisation(self) -> None:
        for organisation, words in {"": "empty", "x" * 60: "too long", "a\nb": "printed"}.items():
            self.refused(words, CertificateAuthority.create, self.directory, organisation=organisation)


class OpenTests(AuthorityTestCase):
    def test_key_of_another(self) -> None:
        self.create()
        other = CertificateAuthority.create(self.folder / "other", organisation="LGI")
        shutil.copy(other.directory / "ca.key", self.directory / "ca.key")
        self.refused("ca.key: does not belong to", CertificateAuthority.open, self.directory)

    def test_damaged_files(self) -> None:
        self.create()
        for name in ("ca.key", "ca.crt", "crl.pem"):
            path = self.directory / name
            whole = path.read_bytes()
            path.write_bytes(whole[: len(whole) // 2])
            self.refused(f"{path}: not ", CertificateAuthority.open, self.directory)
            path.write_bytes(whole)
        CertificateAuthority.open(self.directory)

    def test_list_of_another(self) -> None:
        self.create()
        other = CertificateAuthority.create(self.folder / "other", organisation="LGI")
        shutil.copy(other.crl_file, self.directory / "crl.pem")
        self.refused("crl.pem: not signed by", CertificateAuthority.open, self.directory)

    def test_key_not_readable(self) -> None:
        self.create()
        (self.directory / "ca.key").unlink()
        (self.directory / "ca.key").mkdir()
        self.refused("ca.key: Is a directory", CertificateAuthority.open, self.directory)

    def test_key_is_not_shown(self) -> None:
        authority = self.create()
        issued = authority.issue_resource("a@b", projects=["LGI"])
        self.assertNotIn("key=", repr(authority))
        self.assertNotIn("PRIVATE", repr(issued))


class IssueTests(AuthorityTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.authority = self.create()

    def usages(self, issued: Issued) -> set[x509.ObjectIdentifier]:
        return set(parsed(issued).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)

    def test_user(self) -> None:
        issued = self.authority.issue_user("mark@laptop", groups=["a", "b"], projects=["LGI"])
        self.assertEqual(issued.common_name, "mark@laptop; a, b; LGI")
        certificate = parsed(issued)
        certificate.verify_directly_issued_by(self.authority.certificate)
        self.assertEqual(certificate.serial_number, issued.serial)
        self.assertEqual(self.usages(issued), {ExtendedKeyUsageOID.CLIENT_AUTH})
        self.assertLess(issued.not_before, datetime.now(UTC) - timedelta(minutes=4))
        self.assertEqual(issued.not_after - issued.not_before, timedelta(days=730, minutes=5))
        key = serialization.load_pem_private_key(issued.key_pem, None)
        self.assertEqual(key.public_key(), certificate.public_key())
        [unit] = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
        self.assertEqual(unit.value, "user")

    def test_user_without_groups_has_two_parts(self) -> None:
        issued = self.authority.issue_user("mark@laptop", groups=[], projects=["LGI", "B"])
        self.assertEqual(issued.common_name, "mark@laptop; LGI, B")

    def test_resource(self) -> None:
        issued = self.authority.issue_resource("daemon@cluster", projects=["LGI"], days=3)
        self.assertEqual((issued.kind, issued.common_name), ("resource", "daemon@cluster; LGI"))
        self.assertEqual(self.usages(issued), {ExtendedKeyUsageOID.CLIENT_AUTH})

    def test_server(self) -> None:
        issued = self.authority.issue_server("grid.example.org", hosts=["localhost", "127.0.0.1", "::1", "LOCALHOST"])
        self.assertEqual(issued.common_name, "grid.example.org")
        names = parsed(issued).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(names.get_values_for_type(x509.DNSName), ["grid.example.org", "localhost"])
        self.assertEqual(names.get_values_for_type(x509.IPAddress), [ip_address("127.0.0.1"), ip_address("::1")])
        self.assertEqual(self.usages(issued), {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH})

    def test_server_with_projects(self) -> None:
        issued = self.authority.issue_server("LGI@grid", hosts=["grid"], projects=["LGI"])
        self.assertEqual(issued.common_name, "LGI@grid; LGI")
        self.refused("needs a host name", self.authority.issue_server, "LGI@grid", hosts=[])

    def test_bad_hosts(self) -> None:
        for host in ("", "a b", "999.1.1.1", "-a", "a..b", "grid.", "ä.org", "x" * 64, "fe80::1%eth0", "*.grid"):
            self.refused(f"host {host!r}", self.authority.issue_server, "grid", hosts=[host])

    def test_bad_words(self) -> None:
        bad = {
            "": "is empty",
            " a": "space",
            "a ": "space",
            "a;b": "contains ';'",
            "a,b": "contains ','",
            "a/b": "contains '/'",
            "a\x00b": "printed",
            "a\nb": "printed",
            "a\u2028b": "printed",
            "..": "folder",
        }
        for word, words in bad.items():
            self.refused(words, self.authority.issue_user, word, groups=[], projects=["LGI"])
            self.refused(words, self.authority.issue_user, "mark", groups=[word], projects=["LGI"])
            self.refused(words, self.authority.issue_user, "mark", groups=[], projects=[word])
            self.refused(words, self.authority.issue_resource, word, projects=["LGI"])
            self.refused(words, self.authority.issue_server, word, hosts=["grid"])
        for word in ("any", "Any"):
            self.refused("stands for everybody", self.authority.issue_user, word, groups=[], projects=["LGI"])
            self.refused("stands for everybody", self.authority.issue_resource, word, projects=["LGI"])
        self.refused("'a' is given twice", self.authority.issue_user, "m", groups=["a", "a"], projects=["LGI"])
        self.refused("at least one project", self.authority.issue_user, "m", groups=["a"], projects=[])
        self.assertEqual(self.authority.list(), [])

    def test_common_name_too_long(self) -> None:
        fits = "x" * (64 - len("; LGI"))
        self.authority.issue_resource(fits, projects=["LGI"])
        message = self.refused("65 bytes", self.authority.issue_resource, fits + "x", projects=["LGI"])
        self.assertIn("shorten the name or the projects", message)
        self.refused("the name, the groups or", self.authority.issue_user, "m", groups=["g" * 60], projects=["LGI"])
        self.refused("shorten the name", self.authority.issue_server, "h" * 60 + ".long", hosts=[])
        self.refused("bytes", self.authority.issue_resource, "é" * 31, projects=["LGI"])

    def test_days(self) -> None:
        for days in (0, -1, 20 * 365 + 10, 10**12):
            self.refused("days of validity", self.authority.issue_resource, "a", projects=["LGI"], days=days)
        self.assertEqual(self.authority.list(), [])

    def test_list_is_the_books(self) -> None:
        past = CertificateAuthority.open(self.directory, clock=lambda: datetime.now(UTC) - timedelta(days=30))
        user = self.authority.issue_user("mark@laptop", groups=["a"], projects=["LGI"])
        old = past.issue_resource("daemon@cluster", projects=["LGI"], days=10)
        entries = CertificateAuthority.open(self.directory).list()
        self.assertEqual([entry.serial for entry in entries], [old.serial, user.serial])
        self.assertEqual([entry.name for entry in entries], ["daemon@cluster", "mark@laptop"])
        self.assertEqual([entry.kind for entry in entries], ["resource", "user"])
        self.assertEqual([entry.revoked_at for entry in entries], [None, None])
        self.assertLess(entries[0].not_after, datetime.now(UTC))
        self.assertEqual(
            (self.directory / "issued" / f"{user.serial:x}.crt").read_bytes(),
            user.certificate_pem,
        )

    def test_damaged_books(self) -> None:
        path = self.directory / "issued" / "1.crt"
        path.write_text("nothing")
        self.refused(f"{path}: not a certificate", self.authority.list)

    def test_pkcs12(self) -> None:
        issued = self.authority.issue_user("mark@laptop", groups=[], projects=["LGI"])
        for password in (b"secret", None):
            loaded = pkcs12.load_pkcs12(issued.pkcs12(password, "LGI mark"), password)
            assert loaded.cert is not None and isinstance(loaded.key, ec.EllipticCurvePrivateKey)
            self.assertEqual(loaded.cert.certificate, parsed(issued))
            self.assertEqual(loaded.cert.friendly_name, b"LGI mark")
            self.assertEqual(loaded.key.public_key(), parsed(issued).public_key())
            self.assertEqual([more.certificate for more in loaded.additional_certs], [self.authority.certificate])
        self.assertRaises(ValueError, pkcs12.load_pkcs12, issued.pkcs12(b"secret"), b"wrong")

    def test_killed_while_issuing(self) -> None:
        process = self.run_python(
            "authority = CertificateAuthority.open(directory, clock=lambda: os._exit(9))",
            "authority.issue_resource('a@b', projects=['LGI'])",
        )
        process.communicate()
        self.assertEqual(process.returncode, 9)
        (self.directory / "issued" / ".1.crt.new").write_text("half")
        issued = self.authority.issue_resource("a@b", projects=["LGI"])
        self.assertEqual([entry.serial for entry in self.authority.list()], [issued.serial])


words = st.text(st.characters(exclude_characters=";,/"), min_size=1, max_size=20).filter(
    lambda word: word == word.strip() and word.isprintable() and word not in (".", "..")
)


class CommonNameTests(AuthorityTestCase):
    @settings(max_examples=60, deadline=None)
    @given(
        name=words.filter(lambda word: word.casefold() != "any"),
        groups=st.lists(words, unique=True, max_size=4),
        projects=st.lists(words, unique=True, min_size=1, max_size=4),
    )
    def test_what_is_issued_is_read_back(self, name: str, groups: list[str], projects: list[str]) -> None:
        assume(len("; ".join((name, ", ".join(groups), ", ".join(projects))).encode()) <= 64)
        if not self.directory.exists():
            self.create()
        authority = CertificateAuthority.open(self.directory)
        issued = authority.issue_user(name, groups=groups, projects=projects)
        [attribute] = parsed(issued).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        self.assertEqual(
            parse_common_name(str(attribute.value)),
            Identity(name=name, groups=tuple(groups), projects=tuple(projects)),
        )


class RevokeTests(AuthorityTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.authority = self.create()

    def number(self) -> int:
        crl = x509.load_pem_x509_crl(self.authority.crl_file.read_bytes())
        return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number

    def test_by_name_takes_all_valid_ones(self) -> None:
        past = CertificateAuthority.open(self.directory, clock=lambda: datetime.now(UTC) - timedelta(days=30))
        expired = past.issue_user("mark@laptop", groups=[], projects=["LGI"], days=10)
        mine = [self.authority.issue_user("mark@laptop", groups=[], projects=["LGI"]).serial for _ in range(2)]
        other = self.authority.issue_user("mark@laptop2", groups=[], projects=["LGI"])
        before = self.number()
        revoked = self.authority.revoke("mark@laptop")
        self.assertEqual({entry.serial for entry in revoked}, set(mine))
        self.assertEqual(revoked_serials(self.authority), set(mine))
        self.assertEqual(self.number(), before + 1)
        state = {entry.serial: entry.revoked_at for entry in self.authority.list()}
        self.assertIsNone(state[expired.serial])
        self.assertIsNone(state[other.serial])
        self.assertEqual([state[serial] for serial in mine], [entry.revoked_at for entry in revoked])
        self.refused("2 already revoked and 1 expired", self.authority.revoke, "mark@laptop")
        self.assertEqual(self.number(), before + 1)

    def test_by_serial(self) -> None:
        first, second = (self.authority.issue_resource("a@b", projects=["LGI"]).serial for _ in range(2))
        self.authority.revoke(f"{first:X}")
        self.assertEqual(revoked_serials(self.authority), {first})
        self.refused("1 already revoked", self.authority.revoke, f"{first:x}")
        digits = f"{second:040x}"
        self.authority.revoke(":".join(digits[i : i + 2] for i in range(0, 40, 2)))
        self.assertEqual(revoked_serials(self.authority), {first, second})

    def test_a_name_that_looks_like_a_serial(self) -> None:
        issued = self.authority.issue_server("cafe", hosts=[])
        self.assertEqual([entry.serial for entry in self.authority.revoke("cafe")], [issued.serial])

    def test_unknown(self) -> None:
        for selector in ("nobody@nowhere", "12ab", ""):
            self.refused("no certificate with this name", self.authority.revoke, selector)
        self.assertEqual(self.number(), 1)

    def test_a_damaged_list_is_not_replaced(self) -> None:
        self.authority.issue_resource("a@b", projects=["LGI"])
        self.authority.crl_file.write_bytes(b"half")
        self.refused("crl.pem: not a revocation list", self.authority.revoke, "a@b")
        self.assertEqual(self.authority.crl_file.read_bytes(), b"half")

    def test_a_crash_before_the_list_is_replaced(self) -> None:
        first = self.authority.issue_resource("first@b", projects=["LGI"]).serial
        second = self.authority.issue_resource("second@b", projects=["LGI"]).serial
        self.authority.revoke("first@b")
        (self.directory / ".crl.pem.new").write_bytes(self.authority.crl_file.read_bytes()[:50])
        authority = CertificateAuthority.open(self.directory)
        self.assertEqual(revoked_serials(authority), {first})
        authority.revoke("second@b")
        self.assertEqual(revoked_serials(authority), {first, second})
        self.assertNotIn(".crl.pem.new", os.listdir(self.directory))

    def test_several_processes(self) -> None:
        serials = [self.authority.issue_resource("a@b", projects=["LGI"]).serial for _ in range(24)]
        processes = [
            self.run_python(
                "authority = CertificateAuthority.open(directory)",
                f"for serial in {serials[start::4]}: authority.revoke(format(serial, 'x'))",
            )
            for start in range(4)
        ]
        for process in processes:
            _, errors = process.communicate()
            self.assertEqual((process.returncode, errors), (0, ""))
        self.assertEqual(revoked_serials(self.authority), set(serials))
        self.assertEqual(self.number(), 25)

    def test_several_threads(self) -> None:
        with ThreadPoolExecutor(8) as pool:
            serials = list(
                pool.map(lambda _: self.authority.issue_resource("a@b", projects=["LGI"]).serial, range(16))
            )
            list(pool.map(lambda serial: self.authority.revoke(f"{serial:x}"), serials))
        self.assertEqual(revoked_serials(self.authority), set(serials))
        self.assertEqual(self.number(), 17)

    def test_openssl_agrees(self) -> None:
        """The deployed clients and servers are built on OpenSSL, so its opinion of chain and list counts."""
        good, bad = (self.authority.issue_user(name, groups=[], projects=["LGI"]) for name in ("good", "bad"))
        server = self.authority.issue_server("grid", hosts=["127.0.0.1"])
        self.authority.revoke("bad")

        def verify(issued: Issued, purpose: str) -> subprocess.CompletedProcess[str]:
            path = self.folder / "leaf.crt"
            path.write_bytes(issued.certificate_pem)
            command = ["openssl", "verify", "-x509_strict", "-crl_check", "-purpose", purpose]
            command += ["-CAfile", str(self.authority.certificate_file), "-CRLfile", str(self.authority.crl_file)]
            return subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)

        self.assertEqual(verify(good, "sslclient").returncode, 0, verify(good, "sslclient"))
        self.assertEqual(verify(server, "sslserver").returncode, 0)
        self.assertEqual(verify(server, "sslclient").returncode, 0)
        self.assertIn("certificate revoked", verify(bad, "sslclient").stderr)
        self.assertNotEqual(verify(good, "sslserver").returncode, 0)
