"""TLS at both ends, with real handshakes on the loopback interface."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import SSL4ServerEndpoint, TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IProtocolNegotiationFactory
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import Certificate, CertificateOptions, trustRootFromCertificates
from twisted.internet.testing import StringTransport
from twisted.internet.threads import deferToThread
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import Agent, readBody
from twisted.web.resource import Resource
from twisted.web.server import Request, Site
from zope.interface import implementer

from lgi.ca import CertificateAuthority, Issued
from lgi.tls import (
    ClientPolicy,
    Credentials,
    RevocationList,
    TLSFileError,
    common_name,
    load_credentials,
    peer_certificate,
    server_context_factory,
)

reactor: Any = _reactor


def long_ago() -> datetime:
    return datetime.now(UTC) - timedelta(days=30)


@contextmanager
def nobody() -> Iterator[None]:
    """Without the superuser's right to read everything."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if user == 0:
            os.seteuid(user)


class Files:
    """Two authorities of the same name, and certificates of both as files."""

    def __init__(self, test: SynchronousTestCase | TestCase) -> None:
        self.folder = Path(tempfile.mkdtemp())
        test.addCleanup(shutil.rmtree, self.folder)
        self.ca = CertificateAuthority.create(self.folder / "ca", organisation="LGI")
        self.other = CertificateAuthority.create(self.folder / "other", organisation="LGI")

    def save(self, issued: Issued, name: str = "") -> Credentials:
        certificate_file, key_file = self.write(issued, name)
        return load_credentials(certificate_file, key_file, clock=lambda: issued.not_before + timedelta(hours=1))

    def write(self, issued: Issued, name: str = "") -> tuple[Path, Path]:
        certificate_file = self.folder / f"{name or issued.name}.crt"
        key_file = self.folder / f"{name or issued.name}.key"
        certificate_file.write_bytes(issued.certificate_pem)
        key_file.write_bytes(issued.key_pem)
        key_file.chmod(0o600)
        return certificate_file, key_file

    def user(self, name: str = "mark@laptop") -> Credentials:
        return self.save(self.ca.issue_user(name, groups=["a"], projects=["LGI"]))

    def server(self, *hosts: str) -> Credentials:
        return self.save(self.ca.issue_server("grid.example.org", hosts=hosts))


class Answering(Protocol):
    """Tells each client the common name in its certificate."""

    transport: Any = None  # mypy takes zope's interfaces for classes

    def dataReceived(self, data: bytes) -> None:
        assert isinstance(self.factory, AnsweringFactory)
        certificate = peer_certificate(self.transport)
        assert certificate is not None
        self.factory.served.append(common_name(certificate))
        self.transport.write(common_name(certificate).encode() + b"\n")


@implementer(IProtocolNegotiationFactory)
class AnsweringFactory(Factory):
    """A factory that, as a web site with h2 at hand does, would like to speak HTTP/2."""

    protocol = Answering

    def __init__(self) -> None:
        self.served: list[str] = []

    def acceptableProtocols(self) -> list[bytes]:
        return [b"h2", b"http/1.1"]


class Asking(Protocol):
    """Asks once, and reports the answer or why there was none."""

    transport: Any = None

    def __init__(self) -> None:
        self.result: Deferred[bytes] = Deferred()
        self.ended: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(b"who am I?\n")

    def dataReceived(self, data: bytes) -> None:
        self.transport.loseConnection()
        self.result.callback(data)

    def connectionLost(self, reason: Failure = Failure(ConnectionError())) -> None:  # noqa: B008
        if not self.result.called:
            self.result.errback(reason)
        self.ended.callback(None)


class TLSTestCase(TestCase):
    timeout = 20

    def setUp(self) -> None:
        self.files = Files(self)

    async def listen(self, *hosts: str) -> int:
        return await self.listen_with(self.files.server(*(hosts or ("localhost", "127.0.0.1", "::1"))))

    async def listen_with(self, credentials: Credentials) -> int:
        options = server_context_factory(credentials, self.files.ca.certificate_file)
        self.factory = AnsweringFactory()
        endpoint = SSL4ServerEndpoint(reactor, 0, options, interface="127.0.0.1")
        port = await endpoint.listen(self.factory)
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    async def ask(self, port: int, creator: Any) -> str:
        plain: Any = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        endpoint: Any = wrapClientTLS(creator, plain)
        protocol = await endpoint.connect(Factory.forProtocol(Asking))
        assert isinstance(protocol, Asking)
        try:
            answer = await protocol.result
        finally:
            await protocol.ended
        return answer.decode().strip()

    def policy(self, credentials: Credentials, ca: CertificateAuthority | None = None, strict: bool = True) -> Any:
        ca_file = (ca or self.files.ca).certificate_file
        return ClientPolicy(credentials, ca_file, strict_hostname=strict)

    async def ask_as(self, credentials: Credentials, port: int, host: bytes = b"localhost", **more: Any) -> str:
        return await self.ask(port, self.policy(credentials, **more).creatorForNetloc(host, port))

    async def refused(self, words: str, asking: Any) -> None:
        """The handshake must fail for this reason, and the server must have served nobody."""
        try:
            answer = await asking
        except Exception as error:
            self.assertIn(words, repr(error))
        else:
            self.fail(f"answered {answer!r}")
        self.assertEqual(self.factory.served, [])


class HandshakeTests(TLSTestCase):
    async def test_both_known(self) -> None:
        port = await self.listen()
        self.assertEqual(await self.ask_as(self.files.user(), port), "mark@laptop; a; LGI")

    async def test_no_client_certificate(self) -> None:
        port = await self.listen()
        root = trustRootFromCertificates([Certificate(X509.from_cryptography(self.files.ca.certificate))])
        await self.refused("certificate required", self.ask(port, CertificateOptions(trustRoot=root)))

    async def test_client_of_another_authority(self) -> None:
        port = await self.listen()
        stranger = self.files.save(self.files.other.issue_user("mark@laptop", groups=["a"], projects=["LGI"]))
        await self.refused("unknown ca", self.ask_as(stranger, port))

    async def test_expired_client(self) -> None:
        port = await self.listen()
        past = CertificateAuthority.open(self.files.ca.directory, clock=long_ago)
        expired = self.files.save(past.issue_user("mark@laptop", groups=[], projects=["LGI"], days=7))
        await self.refused("certificate expired", self.ask_as(expired, port))

    async def test_server_of_another_authority(self) -> None:
        port = await self.listen()
        await self.refused(
            "certificate verify failed", self.ask_as(self.files.user(), port, ca=self.files.other, strict=False)
        )

    async def test_expired_server(self) -> None:
        past = CertificateAuthority.open(self.files.ca.directory, clock=long_ago)
        port = await self.listen_with(self.files.save(past.issue_server("localhost", hosts=[], days=7)))
        await self.refused("certificate verify failed", self.ask_as(self.files.user(), port, strict=False))

    async def test_a_user_is_no_server(self) -> None:
        port = await self.listen_with(self.files.user("localhost"))
        await self.refused("certificate verify failed", self.ask_as(self.files.user(), port, strict=False))

    async def test_wrong_host_name(self) -> None:
        port = await self.listen("localhost")
        user = self.files.user()
        await self.refused("DNSMismatch", self.ask_as(user, port, b"elsewhere.example.org"))
        await self.refused("IPAddressMismatch", self.ask_as(user, port, b"127.0.0.1"))

    async def test_wrong_host_name_with_less_strict_checks(self) -> None:
        port = await self.listen("localhost")
        user = self.files.user()
        for host in (b"elsewhere.example.org", b"127.0.0.1"):
            self.assertEqual(await self.ask_as(user, port, host, strict=False), "mark@laptop; a; LGI")

    async def test_addresses(self) -> None:
        port = await self.listen()
        policy = self.policy(self.files.user())
        for host in (b"127.0.0.1", b"::1", b"[::1]", b"localhost", b"grid.example.org", b"127.0.0.1"):
            self.assertEqual(await self.ask(port, policy.creatorForNetloc(host, port)), "mark@laptop; a; LGI")

    async def test_through_an_agent(self) -> None:
        """The policy is what twisted.web's client takes, and a request knows its peer."""

        class WhoAmI(Resource):
            isLeaf = True

            def render_GET(self, request: Request) -> bytes:
                certificate = peer_certificate(request.transport)
                assert certificate is not None
                return common_name(certificate).encode()

        options = server_context_factory(self.files.server("127.0.0.1"), self.files.ca.certificate_file)
        port = reactor.listenSSL(0, Site(WhoAmI()), options, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        agent = Agent(reactor, self.policy(self.files.user()))
        response = await agent.request(b"GET", b"https://127.0.0.1:%d/" % port.getHost().port)
        self.assertEqual(await readBody(response), b"mark@laptop; a; LGI")


@attrs.frozen(kw_only=True)
class Talk:
    """What a blocking client has seen."""

    answer: bytes
    protocol: str | None
    session: ssl.SSLSession | None
    resumed: bool | None


class OtherClientTests(TLSTestCase):
    """Clients that are not Twisted: Python's ssl, blocking, in a thread."""

    def context(self, *versions: ssl.TLSVersion) -> ssl.SSLContext:
        user = self.files.ca.issue_user("mark@laptop", groups=["a"], projects=["LGI"])
        context = ssl.create_default_context(cafile=str(self.files.ca.certificate_file))
        context.load_cert_chain(*self.files.write(user))
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        if versions:
            with warnings.catch_warnings(record=True):  # Python advises against the old ones, too
                context.minimum_version, context.maximum_version = versions[0], versions[-1]
        return context

    async def talk(self, port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> Talk:
        def blocking() -> Talk:
            with (
                socket.create_connection(("127.0.0.1", port), 10) as plain,
                context.wrap_socket(plain, server_hostname="localhost", session=session) as connection,
            ):
                connection.sendall(b"who am I?\n")
                return Talk(
                    answer=connection.recv(1000),
                    protocol=connection.selected_alpn_protocol(),
                    session=connection.session,
                    resumed=connection.session_reused,
                )

        talk: Talk = await deferToThread(blocking)
        return talk

    async def test_versions(self) -> None:
        port = await self.listen()
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            talk = await self.talk(port, self.context(version))
            self.assertEqual(talk.answer, b"mark@laptop; a; LGI\n")

    async def test_old_version(self) -> None:
        port = await self.listen()
        context = self.context(ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1)
        context.set_ciphers("ALL:@SECLEVEL=0")
        await self.refused("TLSV1_ALERT_PROTOCOL_VERSION", self.talk(port, context))

    def test_old_versions_are_off_whatever_openssl_allows(self) -> None:
        """OpenSSL's security level refuses them today as well, and may be lowered for a whole machine."""
        options = server_context_factory(self.files.server(), self.files.ca.certificate_file)
        flags = options.getContext().set_options(0)
        self.assertTrue(flags & SSL.OP_NO_TLSv1 and flags & SSL.OP_NO_TLSv1_1 and flags & SSL.OP_NO_SSLv3)
        self.assertFalse(flags & (SSL.OP_NO_TLSv1_2 | SSL.OP_NO_TLSv1_3))

    async def test_a_session_offered_again(self) -> None:
        """A client that wants its session resumed gets a full handshake, not a refusal."""
        port = await self.listen()
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = self.context(version)
            first = await self.talk(port, context)
            assert first.session is not None
            second = await self.talk(port, context, first.session)
            self.assertEqual((second.answer, second.resumed), (b"mark@laptop; a; LGI\n", False))

    async def test_http_1_1_only(self) -> None:
        port = await self.listen()
        for offered, chosen in ((["h2", "http/1.1"], "http/1.1"), (["h2"], None)):
            context = self.context()
            context.set_alpn_protocols(offered)
            self.assertEqual((await self.talk(port, context)).protocol, chosen)


class CredentialsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.files = Files(self)
        self.issued = self.files.ca.issue_user("mark@laptop", groups=[], projects=["LGI"])
        self.certificate_file, self.key_file = self.files.write(self.issued)

    def refused(self, words: str, function: Callable[..., object], *args: object, **kwargs: object) -> None:
        message = str(self.assertRaises(TLSFileError, function, *args, **kwargs))
        self.assertIn(words, message)
        self.assertNotIn("\n", message)

    def load(self, **more: Any) -> Credentials:
        return load_credentials(self.certificate_file, self.key_file, **more)

    def test_chain(self) -> None:
        self.certificate_file.write_bytes(self.issued.certificate_pem + self.files.ca.certificate_pem)
        credentials = self.load()
        self.assertEqual(credentials.certificate.serial_number, self.issued.serial)
        self.assertEqual(credentials.chain, (self.files.ca.certificate,))
        self.assertNotIn("key=", repr(credentials))

    def test_missing(self) -> None:
        for path in (self.certificate_file, self.key_file):
            moved = path.rename(path.with_suffix(".moved"))
            self.refused(f"{path}: no such file", self.load)
            moved.rename(path)

    def test_not_readable(self) -> None:
        self.files.folder.chmod(0o755)
        self.key_file.chmod(0o200)
        with nobody():
            self.refused(f"{self.key_file}: not readable by ", self.load)
            self.refused("and has mode 0200", self.load)
        self.files.folder.chmod(0)
        with nobody():
            self.refused("may not enter a folder above it", self.load)
        self.files.folder.chmod(0o700)
        self.refused(
            f"{self.files.folder}: Is a directory", load_credentials, self.certificate_file, self.files.folder
        )

    def test_not_pem(self) -> None:
        for path, words in ((self.certificate_file, "not a certificate"), (self.key_file, "not a private key")):
            whole = path.read_bytes()
            for wrong in (b"", whole[:-100], b"\x00\xff" * 50):
                path.write_bytes(wrong)
                self.refused(f"{path}: {words}", self.load)
            path.write_bytes(whole)
        self.key_file.write_bytes(self.issued.certificate_pem)
        self.refused("not a private key", self.load)

    def test_encrypted(self) -> None:
        key = serialization.load_pem_private_key(self.issued.key_pem, None)
        encryption = serialization.BestAvailableEncryption(b"secret")
        self.key_file.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        )
        self.refused(f"{self.key_file}: private key is encrypted", self.load)

    def test_key_of_another(self) -> None:
        other = self.files.ca.issue_user("other", groups=[], projects=["LGI"])
        self.key_file.write_bytes(other.key_pem)
        self.refused(f"{self.key_file}: does not belong to the certificate in {self.certificate_file}", self.load)

    def test_dates(self) -> None:
        end = self.issued.not_after
        self.load(clock=lambda: end - timedelta(seconds=1))
        self.refused(f"{self.certificate_file}: expired since {end:%Y-%m-%d %H:%M} UTC", self.load, clock=lambda: end)
        self.refused("not valid before", self.load, clock=long_ago)

    def test_key_readable_by_others(self) -> None:
        with capturedLogs() as logs:
            self.load()
        self.assertEqual(logs, [])
        self.key_file.chmod(0o640)
        with capturedLogs() as logs:
            self.load()
        [event] = logs
        self.assertEqual(
            (event["log_level"], event["file"], event["mode"]), (LogLevel.warn, str(self.key_file), "0640")
        )

    def test_authority_files(self) -> None:
        credentials = self.load()
        missing = self.files.folder / "missing.crt"
        for make in (server_context_factory, ClientPolicy):
            self.refused(f"{missing}: no such file", make, credentials, missing)
            self.refused("ca.key: not a certificate", make, credentials, self.files.ca.directory / "ca.key")

    def test_expired_authority(self) -> None:
        old = CertificateAuthority.create(
            self.files.folder / "old",
            organisation="LGI",
            clock=lambda: datetime.now(UTC) - timedelta(days=30 * 365),
        )
        self.refused("ca.crt: expired since", server_context_factory, self.load(), old.certificate_file)
        both = self.files.folder / "both.crt"
        both.write_bytes(old.certificate_pem + self.files.ca.certificate_pem)
        server_context_factory(self.load(), both)

    def test_a_key_that_openssl_finds_too_short(self) -> None:
        key = rsa.generate_private_key(65537, 1024)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "short")])
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(long_ago())
            .not_valid_after(datetime.now(UTC) + timedelta(days=1))
            .sign(key, hashes.SHA256())
        )
        credentials = Credentials(certificate_file=Path("short.crt"), certificate=certificate, key=key)
        for make in (server_context_factory, ClientPolicy):
            self.refused("short.crt: refused by OpenSSL: ", make, credentials, self.files.ca.certificate_file)


class RevocationListTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.files = Files(self)
        self.ca = self.files.ca
        self.first, self.second = (
            self.ca.issue_user(name, groups=[], projects=["LGI"]).serial for name in ("first", "second")
        )
        self.revocations = RevocationList(self.ca.crl_file, self.ca.certificate_file)

    def state(self) -> tuple[bool, bool]:
        return self.revocations.is_revoked(self.first), self.revocations.is_revoked(self.second)

    def complaints(self) -> list[str]:
        """What asking three times logs as errors."""
        with capturedLogs() as logs:
            for _ in range(3):
                self.state()
        return [formatEvent(event) for event in logs if event["log_level"] is LogLevel.error]

    def test_seen_at_the_next_question(self) -> None:
        self.assertEqual(self.state(), (False, False))
        self.ca.revoke("first")
        self.assertEqual(self.state(), (True, False))
        self.ca.revoke("second")
        self.assertEqual(self.state(), (True, True))
        self.assertEqual(self.complaints(), [])

    def test_read_once_for_each_change(self) -> None:
        self.ca.revoke("first")
        with capturedLogs() as logs:
            for _ in range(5):
                self.state()
        self.assertEqual([event["count"] for event in logs], [1])

    def test_a_damaged_list_forgets_nothing(self) -> None:
        self.ca.revoke("first")
        self.assertEqual(self.state(), (True, False))
        whole = self.ca.crl_file.read_bytes()
        for number, wrong in enumerate((b"", whole[: len(whole) // 2], whole[:-40], self.ca.certificate_pem)):
            self.ca.crl_file.write_bytes(wrong)
            os.utime(self.ca.crl_file, (number, number))
            [complaint] = self.complaints()
            self.assertIn(f"{self.ca.crl_file}: not a whole revocation list", complaint)
            self.assertEqual(self.state(), (True, False))
        self.ca.crl_file.write_bytes(whole)
        self.ca.revoke("second")
        self.assertEqual(self.state(), (True, True))

    def test_a_missing_list_forgets_nothing(self) -> None:
        self.ca.revoke("first")
        self.assertEqual(self.state(), (True, False))
        moved = self.ca.crl_file.rename(self.files.folder / "moved.pem")
        [complaint] = self.complaints()
        self.assertIn("crl.pem: no such file; the revocation list known before stays in force", complaint)
        self.assertEqual(self.state(), (True, False))
        moved.rename(self.ca.crl_file)
        self.assertEqual(self.complaints(), [])

    def test_a_list_of_another_authority(self) -> None:
        self.ca.revoke("first")
        self.assertEqual(self.state(), (True, False))
        shutil.copy(self.files.other.crl_file, self.ca.crl_file)
        [complaint] = self.complaints()
        self.assertIn("not signed by the certificate authority", complaint)
        self.assertEqual(self.state(), (True, False))

    def test_an_older_list(self) -> None:
        older = self.ca.crl_file.read_bytes()
        self.ca.revoke("first")
        self.assertEqual(self.state(), (True, False))
        self.ca.crl_file.write_bytes(older)
        [complaint] = self.complaints()
        self.assertIn("revocation list 1 is older than 2", complaint)
        self.assertEqual(self.state(), (True, False))

    def test_unusable_at_the_start(self) -> None:
        def refused(words: str, path: Path) -> None:
            error = self.assertRaises(TLSFileError, RevocationList, path, self.ca.certificate_file)
            self.assertIn(words, str(error))

        refused("absent.pem: no such file", self.files.folder / "absent.pem")
        refused("not a whole revocation list", self.ca.certificate_file)
        refused("not signed by", self.files.other.crl_file)


class NamesTests(SynchronousTestCase):
    def certificate(self, *names: str) -> x509.Certificate:
        key = rsa.generate_private_key(65537, 2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one) for one in names])
        return (
            x509.CertificateBuilder(name, name, key.public_key(), 1)
            .not_valid_before(long_ago())
            .not_valid_after(datetime.now(UTC))
            .sign(key, hashes.SHA256())
        )

    def test_common_name(self) -> None:
        self.assertEqual(common_name(self.certificate("a; b; c")), "a; b; c")
        for names in ((), ("a", "b")):
            error = self.assertRaises(ValueError, common_name, self.certificate(*names))
            self.assertIn(f"{len(names)} common names", str(error))

    def test_no_tls(self) -> None:
        self.assertIsNone(peer_certificate(object()))

    def test_no_certificate(self) -> None:
        transport = StringTransport()
        transport.getPeerCertificate = lambda: None  # type: ignore[attr-defined]
        self.assertIsNone(peer_certificate(transport))
