"""The real service on a real port: certificates, protocols, and clients that hang up."""

from __future__ import annotations

import http.client
import socket
import ssl
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select
from twisted.internet.defer import gatherResults
from twisted.internet.threads import deferToThread

from lgi.ca import CertificateAuthority
from lgi.db.schema import job_queue
from tests.http.memory import multipart
from tests.http.tls import JOB, STATE, SUBMIT, Client, TLSCase


class ServiceTests(TLSCase):
    """Connections and what is agreed on them."""

    async def test_call(self) -> None:
        """Submit with a file, fetch it, change it, list it: all on one connection."""
        client = self.client(self.user())
        answer = await self.submit(client, ("a file", b"x" * 300_000))
        self.assertIsNone(answer.number(), answer.text)
        first = client.local_port
        path = answer.value("repository_url").partition("/LGI/")[2]
        fetched = await deferToThread(client.request, "GET", f"{path}/a%20file")
        self.assertEqual((fetched.code, fetched.body), (200, b"x" * 300_000))
        self.assertEqual((await deferToThread(client.request, "PUT", f"{path}/b", b"2")).code, 200)
        seen = await deferToThread(client.post, STATE, JOB | {"job_id": 1})
        self.assertIn("<file_name> b </file_name> <size> 1 </size>", seen.text)
        authority = await deferToThread(client.request, "GET", "ca.crt")
        self.assertEqual(authority.body, self.ca.certificate_pem)
        self.assertEqual(client.local_port, first)

    async def test_too_big(self) -> None:
        """Told before anything of it is sent, and the connection closed."""
        user = self.context(self.user())

        def ask() -> bytes:
            client = Client(self.service.port, user)
            with client.connect() as sock:
                sock.sendall(b"PUT /LGI/repository/x/y/z HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\n")
                received = b""
                while piece := sock.recv(10_000):
                    received += piece
                return received

        received = await deferToThread(ask)
        self.assertTrue(received.startswith(b"HTTP/1.1 413 "))
        self.assertIn(b"<number> 65 </number>", received)

    async def test_protocol(self) -> None:
        """HTTP/1.1 over TLS 1.2 or 1.3; HTTP/2 is never agreed on."""
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = self.context(self.user(f"{version.name}@localhost"))
            context.minimum_version = context.maximum_version = version
            context.set_alpn_protocols(["h2", "http/1.1"])
            client = self.client(None, context)
            sock: Any = await deferToThread(client.connect)
            self.assertEqual(
                (sock.selected_alpn_protocol(), sock.version()), ("http/1.1", version.name.replace("_", "."))
            )

    async def test_revoked(self) -> None:
        """From the next request on, on the connection that is there, in both parts of the server."""
        client, other = self.client(self.user()), self.client(self.user("piet@localhost"))
        answer = await self.submit(client, ("a", b"1"))
        path = answer.value("repository_url").partition("/LGI/")[2]
        first = client.local_port
        await deferToThread(self.ca.revoke, "mark@localhost")
        for refused in (
            await deferToThread(client.post, STATE, JOB),
            await self.submit(client, ("a", b"2" * 1000)),
        ):
            self.assertEqual((refused.code, refused.number()), (200, 2), refused.text)
            self.assertIn("revoked", refused.value("message"))
        for method in ("GET", "PUT", "DELETE"):
            refused = await deferToThread(client.request, method, f"{path}/a", b"2")
            self.assertEqual((refused.code, refused.value("number")), (403, "403"))
        self.assertEqual(client.local_port, first)
        fetched = await deferToThread(other.request, "GET", f"{path}/a")
        self.assertEqual(fetched.body, b"1")
        self.assertEqual(len(self.change(lambda connection: connection.execute(select(job_queue.c.job_id)).all())), 1)
        self.assertEqual(list((self.folder / "grid" / "repository" / ".spool").iterdir()), [])

    async def fails(self, client: Client) -> None:
        """There is no connection to make a request on."""
        try:
            answer = await deferToThread(client.post, STATE, JOB)
        except (ssl.SSLError, ConnectionError, http.client.RemoteDisconnected):
            return
        self.fail(f"answered: {answer}")

    async def test_no_certificate(self) -> None:
        await self.fails(self.client(None))

    async def test_certificate_of_another_authority(self) -> None:
        """Also one that has the same name."""
        (self.folder / "other").mkdir()
        other = CertificateAuthority.create(self.folder / "other" / "ca", organisation="LGI project LGI")
        self.assertEqual(other.certificate.subject, self.ca.certificate.subject)
        await self.fails(self.client(other.issue_user("mark@localhost", groups=["theor"], projects=["LGI"])))

    async def test_expired(self) -> None:
        before = CertificateAuthority.open(
            self.ca.directory, clock=lambda: datetime.now(UTC) - timedelta(days=1, seconds=10)
        )
        issued = before.issue_user("mark@localhost", groups=["theor"], projects=["LGI"], days=1)
        self.assertLess(issued.not_after, datetime.now(UTC))
        await self.fails(self.client(issued))

    async def test_old_tls(self) -> None:
        context = self.context(self.user())
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        await self.fails(self.client(None, context))

    async def test_plain_http(self) -> None:
        """Somebody who speaks no TLS hears nothing of use."""

        def ask() -> bytes:
            with socket.create_connection(("127.0.0.1", self.service.port), timeout=20) as plain:
                plain.sendall(b"GET /LGI/ca.crt HTTP/1.1\r\nHost: x\r\n\r\n")
                return plain.recv(1000)

        self.assertNotIn(b"HTTP", await deferToThread(ask))

    async def test_hanging_up(self) -> None:
        """At any byte of a submission: there is a whole job then, or none."""
        kind, body = multipart(JOB | {"application": "hello_world"}, [("a", b"1" * 200_000), ("b", b"2")])
        head = (
            f"POST /LGI/{SUBMIT} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        whole = head.encode() + body
        context = self.context(self.user())
        cuts = [10, len(head), len(head) + 500, 100_000, len(whole) - 1, *[len(whole)] * 5]

        def send(cut: int) -> None:
            client = Client(self.service.port, context)
            sock = client.connect()
            sock.sendall(whole[:cut])
            # Reset, not closed: nothing of an answer can be read.
            linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            sock.close()

        await gatherResults([deferToThread(send, cut) for cut in cuts])
        # Once more, and wait: by then all the others have been seen to.
        client = self.client(self.user("piet@localhost"))
        await deferToThread(client.post, STATE, JOB | {"user": "piet@localhost"})
        await deferToThread(client.close)
        await self.service.stopService()
        root = self.folder / "grid" / "repository"
        names = self.change(lambda connection: connection.execute(select(job_queue.c.repository)).scalars().all())
        self.assertLessEqual(len(names), 5)
        for name in names:
            files = root / name[-3:] / name
            self.assertEqual(((files / "a").read_bytes(), (files / "b").read_bytes()), (b"1" * 200_000, b"2"))
        self.assertEqual(sorted(path.name for path in root.glob("*/JOB_*")), sorted(names))
        self.assertEqual(list((root / ".spool").iterdir()), [])
        self.service.startService()
