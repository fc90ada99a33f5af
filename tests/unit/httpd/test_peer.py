"""Who calls, out of real certificates."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID
from OpenSSL.crypto import FILETYPE_ASN1, X509, load_certificate
from OpenSSL.crypto import Error as CryptoError
from twisted.trial.unittest import SynchronousTestCase

from lgi.ca import CertificateAuthority
from lgi.errors import ErrorNumber, LGIError
from lgi.httpd.peer import Peers
from lgi.identity import Identity
from lgi.tls import RevocationList


class Connection:
    """A connection whose other side has proved to own this certificate."""

    def __init__(self, der: bytes | None) -> None:
        self._der = der
        self.asked = 0

    def getPeerCertificate(self) -> X509 | None:
        self.asked += 1
        return None if self._der is None else load_certificate(FILETYPE_ASN1, self._der)


def named(*attributes: x509.NameAttribute[str]) -> bytes:
    """A certificate (DER) with this subject, which nobody but a test accepts."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name(list(attributes)))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )


def common(name: str, kind: _ASN1Type = _ASN1Type.UTF8String) -> x509.NameAttribute[str]:
    return x509.NameAttribute(NameOID.COMMON_NAME, name, kind, _validate=False)


class PeerTests(SynchronousTestCase):
    """Connections and their callers."""

    # What cryptography says of names of a length that is against the standard.
    suppress: ClassVar[list[Any]] = [((), {"action": "ignore", "category": UserWarning})]

    def setUp(self) -> None:
        folder = Path(self.mktemp()).absolute()
        self.ca = CertificateAuthority.create(folder, organisation="LGI")
        self.now = time.time()
        revocations = RevocationList(self.ca.crl_file, self.ca.certificate_file)
        self.peers = Peers(revocations, clock=lambda: self.now)

    def connection(self, name: str = "mark@localhost") -> Connection:
        issued = self.ca.issue_user(name, groups=["theor", "chem"], projects=["LGI"], days=10)
        self.pem = issued.certificate_pem
        return Connection(x509.load_pem_x509_certificate(issued.certificate_pem).public_bytes(Encoding.DER))

    def refused(self, connection: Connection, saying: str = "") -> None:
        problem = self.assertRaises(LGIError, self.peers.identify, connection)
        self.assertEqual(problem.number, ErrorNumber.CERTIFICATE_REFUSED)
        self.assertIn(saying, problem.message)

    def test_caller(self) -> None:
        """Name, groups and projects, and the certificate as it was issued; read once for a connection."""
        connection = self.connection()
        caller = self.peers.identify(connection)
        self.assertEqual(
            caller.identity, Identity(name="mark@localhost", groups=("theor", "chem"), projects=("LGI",))
        )
        self.assertEqual(caller.certificate.encode(), self.pem)
        self.assertNotIn("BEGIN", repr(caller))
        for _ in range(3):
            self.assertIs(self.peers.identify(connection), caller)
        self.assertEqual(connection.asked, 1)

    def test_revoked_while_connected(self) -> None:
        connection, other = self.connection(), self.connection("piet@localhost")
        for one in (connection, other):
            self.peers.identify(one)
        self.ca.revoke("mark@localhost")
        self.refused(connection, "revoked")
        self.refused(connection, "revoked")
        self.assertEqual(self.peers.identify(other).identity.name, "piet@localhost")
        # A new certificate of the same name is another one.
        self.assertEqual(self.peers.identify(self.connection()).identity.name, "mark@localhost")

    def test_expired_while_connected(self) -> None:
        connection = self.connection()
        self.peers.identify(connection)
        self.now += timedelta(days=9, hours=23).total_seconds()
        self.peers.identify(connection)
        self.now += timedelta(hours=2).total_seconds()
        self.refused(connection, "expired")

    def test_none(self) -> None:
        self.refused(Connection(None), "none")
        self.refused(object())  # type: ignore[arg-type]

    def test_odd_names(self) -> None:
        """Whatever an authority was made to sign, it is an identity or it is refused."""
        for attributes in (
            [],
            [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "LGI")],
            [common("mark@localhost; LGI"), common("admin@localhost; LGI")],
            [common("")],
            [common("   ")],
            [common("; theor; LGI")],
            [common(";")],
            [common("a; b; c; d")],
            [common("any; LGI")],
            [common("a, b; LGI")],
            [common("mark\x00@localhost; LGI")],
            [common("mark@localhost; LGI\n")],
            [common("mark\u202e@localhost; LGI")],
            [common("mark\x00; LGI", _ASN1Type.BMPString)],
        ):
            self.refused(Connection(named(*attributes)))

    def test_kinds_of_text(self) -> None:
        """A name of every kind that ASN.1 has, as far as OpenSSL takes it: an identity, or refused."""
        name = b"mark@localhost; LGI"
        der = named(common(name.decode()))
        utf8 = bytes([_ASN1Type.UTF8String.value, len(name)]) + name
        outcomes = set()
        for text in (name, name.replace(b"m", b"\xff")):
            for kind in range(1, 31):
                odd = der.replace(utf8, bytes([kind, len(text)]) + text)
                try:
                    load_certificate(FILETYPE_ASN1, odd)
                except CryptoError:
                    continue
                try:
                    outcomes.add(self.peers.identify(Connection(odd)).identity.name)
                except LGIError as problem:
                    outcomes.add(problem.number.name)
        self.assertEqual(outcomes, {"mark@localhost", "CERTIFICATE_REFUSED"})

    def test_long_name(self) -> None:
        """Longer than the standard's 64 characters is no reason to refuse."""
        name = f"{'x' * 200}@localhost"
        self.assertEqual(self.peers.identify(Connection(named(common(f"{name}; LGI")))).identity.name, name)
