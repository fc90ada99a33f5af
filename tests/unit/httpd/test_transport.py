"""TLS of large bodies, in memory: both ends are OpenSSL, and what lies between is looked at."""

from __future__ import annotations

import secrets
import ssl
from pathlib import Path
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from lgi.ca import CertificateAuthority, Issued
from lgi.httpd.transport import tls_factory
from lgi.tls import load_credentials, server_context_factory

MIB = 1 << 20


class Counting(StringTransport):
    """Keeps what was written in one call together."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        if data:
            self.writes.append(data)


class Talking(Protocol):
    """Says at once what it has to, and keeps what it hears."""

    def __init__(self, first: bytes) -> None:
        self.first = first
        self.heard: list[bytes] = []

    def connectionMade(self) -> None:
        if self.first:
            self.transport.write(self.first)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self.heard.append(data)


@implementer(IPushProducer)
class Producer:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


class TransportTests(SynchronousTestCase):
    """A server's side, and a client of Python's ssl."""

    def setUp(self) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        self.ca = CertificateAuthority.create(folder / "ca", organisation="LGI")
        self.folder = folder
        credentials = load_credentials(*self.files(self.ca.issue_server("grid.example.org", hosts=["localhost"])))
        self.options = server_context_factory(credentials, self.ca.certificate_file)

    def files(self, issued: Issued) -> tuple[Path, Path]:
        certificate, key = self.folder / f"{issued.serial}.crt", self.folder / f"{issued.serial}.key"
        certificate.write_bytes(issued.certificate_pem)
        key.write_bytes(issued.key_pem)
        key.chmod(0o600)
        return certificate, key

    def begin(self, first: bytes = b"", version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> None:
        context = ssl.create_default_context(cafile=str(self.ca.certificate_file))
        context.load_cert_chain(*self.files(self.ca.issue_user("mark@laptop", groups=["a"], projects=["LGI"])))
        context.minimum_version = context.maximum_version = version
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self.protocol = Talking(first)
        talking: Any = Factory.forProtocol(lambda: self.protocol)
        talking.reactor = self.clock = Clock()
        factory = tls_factory(self.options, talking)
        self.lower = Counting()
        self.server: Any = factory.buildProtocol(None)
        self.server.makeConnection(self.lower)

    def shake_hands(self) -> None:
        while True:
            try:
                self.client.do_handshake()
            except ssl.SSLWantReadError:
                self.exchange()
            else:
                break
        self.exchange()

    def exchange(self) -> None:
        if data := self.outgoing.read():
            self.server.dataReceived(data)
        self.incoming.write(b"".join(self.lower.writes))
        self.lower.writes.clear()

    def received(self) -> bytes:
        """What the client can read of what was written until now."""
        self.exchange()
        found: list[bytes] = []
        while True:
            try:
                data = self.client.read(MIB)
            except ssl.SSLWantReadError:
                data = b""
            if not data:
                # Nothing more has come, or TLS has ended.
                return b"".join(found)
            found.append(data)

    def test_together(self) -> None:
        """Small writes are one, in the next turn; at once where they are flushed, or the connection is closed."""
        self.begin()
        self.shake_hands()
        self.server.write(b"a")
        self.server.writeSequence([b"b", b"c"])
        self.assertEqual(self.lower.writes, [])
        self.clock.advance(0)
        self.assertEqual((len(self.lower.writes), self.received()), (1, b"abc"))
        self.server.gathering = True
        self.server.write(b"d")
        self.server.write(b"e")
        self.server.gathering = False
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.server.flush()
        self.assertEqual((len(self.lower.writes), self.received()), (1, b"de"))
        self.server.write(b"f")
        self.server.loseConnection()
        self.assertEqual(self.received(), b"f")
        self.server.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_gone(self) -> None:
        """What was to be written to a connection that is gone goes nowhere; there is no more than the end of TLS."""
        self.begin()
        self.shake_hands()
        self.server.write(bytes(1000))
        self.server.connectionLost(Failure(ConnectionDone()))
        self.clock.advance(0)
        self.assertLess(sum(map(len, self.lower.writes)), 100)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_pieces(self) -> None:
        """Much at once is all there, and goes to the socket in few large pieces."""
        content = secrets.token_bytes(2 * MIB + 12345)
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            self.begin(version=version)
            self.shake_hands()
            for size, most in ((1, 1), (MIB // 2, 1), (len(content), 5)):
                self.server._write(content[:size])
                self.assertLessEqual(len(self.lower.writes), most, size)
                self.assertTrue(self.received() == content[:size], (version, size))

    def test_one_call(self) -> None:
        """A piece of a file is encrypted in one call of OpenSSL, not in one for each record."""
        self.begin()
        self.shake_hands()
        self.assertEqual(self.server.getHandle().send(bytes(MIB // 2)), MIB // 2)

    def test_before_the_handshake(self) -> None:
        """What is written too early waits, with its producer, and comes in order."""
        content = secrets.token_bytes(MIB)
        self.begin(content)
        producer = Producer()
        self.server.registerProducer(producer, True)
        self.server._write(b"and more")
        self.assertEqual(producer.told, ["pause"])
        self.shake_hands()
        self.assertTrue(self.received() == content + b"and more")
        self.assertEqual(producer.told, ["pause", "resume"])

    def test_heard(self) -> None:
        """Many records that come at once are handed up in few pieces, and all of them."""
        content = secrets.token_bytes(MIB)
        self.begin()
        self.shake_hands()
        self.client.write(content)
        self.exchange()
        self.assertTrue(b"".join(self.protocol.heard) == content)
        self.assertLess(len(self.protocol.heard), 12)
