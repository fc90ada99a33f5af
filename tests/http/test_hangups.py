"""Clients that never end, come slowly, or hang up in the middle, on real connections."""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from sqlalchemy import Connection, select
from twisted.internet import reactor, tcp
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from lgi.db.schema import job_queue, metadata
from lgi.httpd.channel import LINGER_SIZE
from tests.http.memory import Answer, Fields, multipart
from tests.http.tls import JOB, STATE, SUBMIT, Client, TLSCase

SUBMISSION: Fields = JOB | {"application": "hello_world"}
LIMIT = 1_000_000


def reset(sock: socket.socket) -> None:
    """Hang up so that nothing that was not read arrives any more."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    sock.close()


def head(path: str, *lines: str, method: str = "POST") -> bytes:
    """The beginning of a request."""
    return "\r\n".join([f"{method} /LGI/{path} HTTP/1.1", "Host: x", *lines, "", ""]).encode()


class HangUpCase(TLSCase):
    """What is left is nothing: no row, no file, no connection, no timer (which trial looks for by itself)."""

    edits: ClassVar[dict[str, object]] = {"max_request_size": LIMIT, "idle_timeout": 77}

    def setUp(self) -> None:
        super().setUp()
        self.root = self.folder / "grid" / "repository"
        self.before = self.rows()
        site = self.service._site
        assert site is not None
        self.assertEqual((site.timeOut, site.idle_timeout), (77, 77))

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """All rows of all tables."""

        def look(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
            return {
                table.name: [tuple(row) for row in connection.execute(select(table))]
                for table in metadata.sorted_tables
            }

        return self.change(look)

    def open_client(self) -> socket.socket:
        """A connection of mark's; blocks."""
        return Client(self.service.port, self._context).connect()

    async def connect(self) -> socket.socket:
        """A connection of mark's."""
        if not hasattr(self, "_context"):
            self._context: ssl.SSLContext = self.context(self.user())
        sock: socket.socket = await deferToThread(self.open_client)
        self.addCleanup(sock.close)
        return sock

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the reactor turn until something is so; the test's time-out ends it."""
        while not condition():
            await deferLater(reactor, 0.01)

    @staticmethod
    def connections() -> list[Any]:
        """The connections that the server holds."""
        readers: list[Any] = reactor.getReaders()
        return [reader for reader in readers if isinstance(reader, tcp.Server)]

    def open_files(self) -> list[str]:
        """The files of repositories that this process holds open."""
        found = []
        for number in os.listdir("/proc/self/fd"):
            try:
                target = os.readlink(f"/proc/self/fd/{number}")
            except OSError:
                continue
            if target.startswith(str(self.root)):
                found.append(target)
        return found

    async def nothing_left(self) -> None:
        """Wait until all connections are gone, and look for what they left."""
        await self.until(lambda: not self.connections() and not self.open_files())
        self.assertEqual(list((self.root / ".spool").iterdir()), [])
        self.assertEqual(self.rows(), self.before)
        self.assertEqual(self.flushLoggedErrors(), [])

    async def submitted(self, *files: tuple[str, bytes]) -> tuple[str, Path]:
        """A job of mark's: the path of its repository in addresses and on the disk."""
        client = self.client(self.user())
        answer: Answer = await deferToThread(client.post, SUBMIT, SUBMISSION, list(files))
        self.assertIsNone(answer.number(), answer.text)
        await deferToThread(client.close)
        path = urlsplit(answer.value("repository_url")).path.removeprefix("/LGI/")
        self.before = self.rows()
        return path, self.root / Path(path).relative_to("repository")


class EndlessTests(HangUpCase):
    """Bodies that never end."""

    async def test_chunks_without_end(self) -> None:
        """Answered where the limit is passed, and cut off soon after, however the client goes on."""
        kind, body = multipart(SUBMISSION, [("a", b"")])
        start = body.rpartition(b"\r\n--")[0]
        chunk = b"%X\r\n" % len(start) + start + b"\r\n"
        more = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"

        def pour(sock: socket.socket) -> int:
            sent = 0
            try:
                while sent < 20 * LINGER_SIZE:
                    sock.sendall(more)
                    sent += len(more)
            except OSError:
                pass
            return sent

        for path, content_type in ((SUBMIT, kind), (SUBMIT, "text/plain"), (f"repository/000/JOB_{'0' * 32}/a", "x")):
            sock = await self.connect()
            method = "POST" if path == SUBMIT else "PUT"
            sock.sendall(
                head(path, "Transfer-Encoding: chunked", f"Content-Type: {content_type}", method=method) + chunk
            )
            sent = await deferToThread(pour, sock)
            # What the system buffers comes on top.
            self.assertLess(sent, 3 * LINGER_SIZE)
            await self.nothing_left()

    async def test_reason_can_be_read(self) -> None:
        """By a client that stops when it is answered."""
        sock = await self.connect()
        sock.sendall(head(SUBMIT, "Transfer-Encoding: chunked", "Content-Type: application/x-www-form-urlencoded"))
        piece = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"

        def ask() -> bytes:
            for _ in range(LIMIT // 0x10000 + 1):
                sock.sendall(piece)
            received = b""
            while data := sock.recv(10_000):
                received += data
            return received

        received = await deferToThread(ask)
        self.assertTrue(received.startswith(b"HTTP/1.1 413 "), received)
        self.assertIn(b"<number> 65 </number>", received)
        sock.close()
        await self.nothing_left()

    async def test_line_without_end(self) -> None:
        """A first line or a header that goes on is answered with 400 or cut off."""
        for start in (b"", b"POST /LGI/x HTTP/1.1\r\nX: "):
            sock = await self.connect()

            def pour(sock: socket.socket = sock, start: bytes = start) -> int:
                sent = 0
                try:
                    sock.sendall(start)
                    while sent < 1 << 26:
                        sent += sock.send(b"x" * 10_000)
                except OSError:
                    pass
                return sent

            self.assertLess(await deferToThread(pour), 1 << 26)
            await self.nothing_left()


class SlowTests(HangUpCase):
    """Clients that take their time."""

    def setUp(self) -> None:
        super().setUp()
        # The configured time would make these tests long.
        site: Any = self.service._site
        site.timeOut = site.idle_timeout = 0.7

    async def test_silent(self) -> None:
        """At any place in a request, or before it: not waited for."""
        kind, body = multipart(SUBMISSION, [("a", b"1" * 100_000)])
        whole = head(SUBMIT, f"Content-Type: {kind}", f"Content-Length: {len(body)}") + body
        socks = []
        for cut in (0, 1, 30, len(whole) - len(body), len(whole) - 50_000, len(whole) - 1):
            sock = await self.connect()
            sock.sendall(whole[:cut])
            socks.append(sock)
        self.assertEqual([await deferToThread(sock.recv, 10) for sock in socks], [b""] * len(socks))
        for sock in socks:
            sock.close()
        await self.nothing_left()

    async def test_drop_by_drop(self) -> None:
        """Never silent for long, and never done."""
        kind, body = multipart(SUBMISSION, [("a", b"1" * 100_000)])
        start = head(SUBMIT, f"Content-Type: {kind}", f"Content-Length: {len(body)}")

        def drip(sock: socket.socket, data: bytes) -> float:
            began = time.monotonic()
            try:
                for byte in data[:300]:
                    sock.sendall(bytes([byte]))
                    time.sleep(0.05)
            except OSError:
                pass
            return time.monotonic() - began

        for before, slowly in ((b"", start), (start, body)):
            sock = await self.connect()
            sock.sendall(before)
            took = await deferToThread(drip, sock, slowly)
            self.assertLess(took, 5)
            sock.close()
            await self.nothing_left()


class GoneTests(HangUpCase):
    """Clients that are gone when their answer comes."""

    async def test_while_waiting_for_a_lock(self) -> None:
        """Whoever looked is forgotten; what was to be deleted is, when the lock goes."""
        path, directory = await self.submitted(("a", b"1"))
        self.assertTrue(path.startswith("repository/"))
        self.change(lambda connection: connection.execute(job_queue.update().values(lock_state=1)))
        self.before = self.rows()
        asked = JOB | {"job_id": self.before["job_queue"][0][0]}
        for call in (STATE, STATE.replace("job_state", "delete_job")):
            kind, body = multipart(asked)
            sock = await self.connect()
            sock.sendall(head(call, f"Content-Type: {kind}", f"Content-Length: {len(body)}") + body)
            await self.until(self.router_is_busy)
            reset(sock)
            await self.nothing_left()
        self.assertTrue(directory.is_dir())
        self.change(lambda connection: connection.execute(job_queue.update().values(lock_state=0)))
        await self.until(lambda: not self.rows()["job_queue"] and not directory.exists())
        self.assertEqual(self.flushLoggedErrors(), [])

    def router_is_busy(self) -> bool:
        """Whether a call has come whole and is being answered."""
        return any(one.protocol.wrappedProtocol._channel._handlingRequest for one in self.connections())

    async def test_who_does_not_read(self) -> None:
        """A download of which nothing is taken ends after the idle time-out."""
        path, directory = await self.submitted(("small", b"1"))
        with (directory / "large").open("wb") as file:
            file.truncate(200_000_000)
        assert self.service._site is not None
        self.service._site.idle_timeout = 1
        sock = await self.connect()
        sock.sendall(head(f"{path}/large", method="GET"))
        await self.until(lambda: bool(self.open_files()))
        # What it read before was not enough to go on with.
        self.assertTrue(await deferToThread(sock.recv, 1000))
        await self.nothing_left()

    async def test_while_downloading(self) -> None:
        path, directory = await self.submitted(("small", b"1"))
        # Put there by hand, since a request is limited here.
        with (directory / "large").open("wb") as file:
            file.truncate(200_000_000)
        for taken in (0, 1, 3_000_000):
            sock = await self.connect()
            sock.sendall(head(f"{path}/large", method="GET"))

            def take(sock: socket.socket = sock, taken: int = taken) -> int:
                received = 0
                while received < taken:
                    received += len(sock.recv(65_536))
                return received

            self.assertGreaterEqual(await deferToThread(take), taken)
            if taken:
                self.assertEqual(len(self.open_files()), 1)
            reset(sock)
            await self.nothing_left()

    async def test_within_headers_and_body(self) -> None:
        """A half request has no effect."""
        path, directory = await self.submitted(("small", b"1"))
        kind, body = multipart(SUBMISSION, [("a", b"1" * 100_000)])
        post = head(SUBMIT, f"Content-Type: {kind}", f"Content-Length: {len(body)}") + body
        put = head(f"{path}/small", "Content-Length: 100000", method="PUT") + b"2" * 100_000
        delete = head(f"{path}/small", "Content-Length: 1", method="DELETE") + b"x"
        for whole in (post, put, delete):
            start = whole.index(b"\r\n\r\n") + 4
            for cut in (1, start - 2, start, (start + len(whole)) // 2, len(whole) - 1):
                sock = await self.connect()
                sock.sendall(whole[:cut])
                reset(sock)
            await self.nothing_left()
        self.assertEqual((directory / "small").read_bytes(), b"1")
