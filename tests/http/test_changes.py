"""Changing the files of jobs over HTTP: who may, what with, and what is left when it fails."""

from __future__ import annotations

from typing import ClassVar

from twisted.internet.defer import Deferred, gatherResults

from lgi.repository.access import ACCESS_FILE, RESOURCE_LIST
from tests.http.memory import MARK, OTHER_RESOURCE, RESOURCE, Answer, FullSpool
from tests.http.repository import NOBODY, RepositoryCase


class ChangeTests(RepositoryCase):
    """PUT and DELETE."""

    async def test_put(self) -> None:
        for name, data in (
            ("new.txt", b"x"),
            ("one.txt", b"second, and longer\n"),
            ("empty", b""),
            ("naïve file.bin", bytes(range(256)) * 1000),
            ("x" * 255, b"long"),
            ("100%25", b"percent"),
        ):
            answer = await self.status(200, self.ask("PUT", name, data))
            self.assertIn(str(len(data)), answer.value("message"))
            self.assertEqual((self.directory / name).read_bytes(), data)
            self.assertEqual((self.directory / name).stat().st_mode & 0o777, 0o640)
            self.assertEqual((await self.ask("GET", name)).body, data)
        self.assertEqual(self.spooled(), [])

    async def test_delete(self) -> None:
        await self.status(200, self.ask("DELETE", "one.txt"))
        self.assertFalse((self.directory / "one.txt").exists())
        await self.status(404, self.ask("DELETE", "one.txt"))

    async def test_who_may(self) -> None:
        """The access file's users and groups, admin, and resources of the list."""
        for who in (MARK, "x@localhost; friends; LGI", "boss@localhost; admin; LGI", RESOURCE, "LGI@localhost; LGI"):
            await self.status(200, self.ask("PUT", "new", b"x", who=who))
            await self.status(200, self.ask("DELETE", "new", who=who))

    async def test_who_may_not(self) -> None:
        await self.freeze()
        for who in (NOBODY, OTHER_RESOURCE, "piet@localhost; theor; LGI", "mark@localhost.org; LGI", "x; any; LGI"):
            for name in ("one.txt", "new"):
                await self.unchanged(403, self.ask("PUT", name, b"changed", who=who))
                await self.unchanged(403, self.ask("DELETE", name, who=who))

    async def test_groups_are_no_resources(self) -> None:
        """A group of a user's certificate that is called like a resource does not make him one."""
        await self.freeze()
        for who in ("x@localhost; resource1@localhost; LGI", "x@localhost; LGI@localhost, resource1@localhost; LGI"):
            await self.unchanged(403, self.ask("PUT", "one.txt", b"changed", who=who))

    async def test_resource_list(self) -> None:
        """Missing, empty or with strange words it allows nobody."""
        file = self.root / RESOURCE_LIST
        file.unlink()
        await self.freeze()
        await self.unchanged(403, self.ask("PUT", "new", b"x", who=RESOURCE))
        for content in ("", ",,", "any", "resource1", "resource2@localhost"):
            file.write_text(content)
            await self.unchanged(403, self.ask("PUT", "new", b"x", who=RESOURCE))
        file.write_text("a , resource1@localhost,b")
        await self.status(200, self.ask("PUT", "new", b"x", who=RESOURCE))

    async def test_access_file(self) -> None:
        """It decides; a repository without one is the resources' alone."""
        file = self.directory / ACCESS_FILE
        file.write_text("chem, any")
        await self.status(200, self.ask("PUT", "new", b"x", who=NOBODY))
        file.unlink()
        await self.freeze()
        await self.unchanged(403, self.ask("PUT", "new", b"x"))
        await self.status(200, self.ask("PUT", "new", b"x", who=RESOURCE))

    async def test_unknown_repository(self) -> None:
        """Who may change nothing does not learn whether there is one."""
        await self.freeze()
        path = "repository/000/JOB_" + "0" * 32 + "/a"
        for method in ("PUT", "DELETE"):
            await self.unchanged(403, self.server.request(MARK, method, path, b"x"))
            await self.unchanged(404, self.server.request(RESOURCE, method, path, b"x"))

    async def test_after_the_job(self) -> None:
        await self.server.user("delete_job", job_id=1)
        for method in ("GET", "PUT", "DELETE"):
            await self.status(404, self.ask(method, "one.txt", b"x", who=RESOURCE))
        self.assertEqual(self.stored(), {})

    async def test_server_files(self) -> None:
        """What starts with a dot is the server's, for everybody."""
        await self.freeze()
        for name in (ACCESS_FILE, RESOURCE_LIST, ".htaccess", ".", "..", "repository_content.php"):
            for method in ("PUT", "DELETE", "GET"):
                if (method, name) != ("GET", "repository_content.php"):
                    await self.unchanged(400, self.ask(method, name, b"any", who=RESOURCE))

    async def test_traversal(self) -> None:
        """Every way to write what is above a repository."""
        (self.root.parent / "secret").write_bytes(b"secret")
        await self.freeze()
        inside = f"/LGI/repository/{self.name[-3:]}/{self.name}/".encode()
        for up in (
            b"../secret",
            b"../../../secret",
            b"..%2f..%2f..%2fsecret",
            b"..%2F" + ACCESS_FILE.encode(),
            b"%2e%2e/%2e%2e/%2e%2e/secret",
            b"%2e%2e%2f%2e%2e%2f%2e%2e%2fsecret",
            b"%252e%252e%252fsecret%00/..",
            b"..%5c..%5csecret",
            b"..\\secret",
            b"one.txt%00",
            b"%00",
            b"%c0%ae%c0%ae/secret",
            b"%c0%ae%c0%ae%2fsecret",
            b"%ff",
            b"\xff",
            b"./one.txt",
            b"%2e",
            b"/one.txt",
            b"one.txt/",
            b"one.txt/.",
            b"one%0d%0a.txt",
            b"%e2%80%ae",
            b"",
        ):
            for method in ("GET", "PUT", "DELETE"):
                answer = await self.raw(method, inside + up, who=RESOURCE)
                self.assertIn(answer.code, (400, 404), (method, up))
                self.assertNotIn(b"secret", answer.body.replace(up, b""))
        for path in (
            b"/LGI/repository/../../secret",
            b"/LGI/repository/%2e%2e/JOB_x/secret",
            b"/LGI/repository/../etc/lgi-server.toml",
            b"/LGI/../LGI/repository/" + RESOURCE_LIST.encode(),
            b"/LGI/repository/" + RESOURCE_LIST.encode(),
            b"/LGI/repository/a/b/" + RESOURCE_LIST.encode(),
            b"/LGI%2frepository/x/y/z",
            b"//LGI//repository",
            b"repository",
            b"*",
        ):
            for method in ("GET", "PUT", "DELETE"):
                answer = await self.raw(method, path, who=RESOURCE)
                self.assertIn(answer.code, (400, 404, 405), (method, path))
        self.assertEqual(await self.state(), self._frozen)
        self.assertEqual((self.root.parent / "secret").read_bytes(), b"secret")

    async def test_long_names(self) -> None:
        await self.freeze()
        for name in ("x" * 256, "é" * 128):
            await self.unchanged(400, self.ask("PUT", name, b"x"))
            await self.unchanged(400, self.ask("GET", name))
        # A line of this length is no request at all.
        protocol, transport = self.server.connect(MARK)
        protocol.dataReceived(f"PUT /LGI/{self.path('x' * 20_000)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        self.assertTrue(transport.disconnecting)
        self.server.hang_up(protocol)
        self.assertEqual(await self.state(), self._frozen)

    async def test_form(self) -> None:
        await self.freeze()
        for kind in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=b"):
            await self.unchanged(415, self.ask("PUT", "new", b"a=b", headers={"Content-Type": kind}))
            await self.unchanged(403, self.ask("PUT", "new", b"a=b", who=NOBODY, headers={"Content-Type": kind}))
        await self.status(200, self.ask("PUT", "new", b"a=b", headers={"Content-Type": "text/plain"}))

    async def test_other_methods(self) -> None:
        await self.freeze()
        for method in ("POST", "PATCH", "OPTIONS", "MKCOL", "PROPFIND"):
            answer = await self.ask(method, "one.txt", b"x")
            self.assertEqual(answer.code, 405)
            self.assertEqual(answer.headers["allow"], "GET, HEAD, PUT, DELETE")
        self.assertEqual(await self.state(), self._frozen)

    async def test_put_that_breaks_off(self) -> None:
        """The old file stays, whole, and nothing is left of the new one."""
        await self.freeze()
        for sent in (0, 1, 99_999):
            protocol, _transport = self.server.connect(MARK)
            head = f"PUT /LGI/{self.path('one.txt')} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
            protocol.dataReceived(head.encode() + b"n" * sent)
            await self.server.until(lambda sent=sent: len(self.spooled()) == int(sent > 0))  # type: ignore[misc]
            self.server.hang_up(protocol)
            self.assertEqual(self.spooled(), [])
            self.assertEqual(await self.state(), self._frozen)
        self.assertEqual((await self.ask("GET", "one.txt")).body, b"first\n")

    async def test_put_that_nobody_waits_for(self) -> None:
        """A client that hangs up after its last byte: the file is there, whole."""
        protocol, transport = self.server.connect(MARK)
        head = f"PUT /LGI/{self.path('one.txt')} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
        protocol.dataReceived(head.encode() + b"n" * 100_000)
        await self.server.until(lambda: bool(self.spooled()))
        self.server.hang_up(protocol)
        await self.server.until(lambda: not self.spooled())
        self.assertEqual((await self.ask("GET", "one.txt")).body, b"n" * 100_000)
        self.assertEqual(transport.value(), b"")

    async def test_puts_at_once(self) -> None:
        """Of several, one is there in the end, whole."""
        bodies = [bytes([65 + number]) * 50_000 for number in range(8)]
        await gatherResults([self.status_of(self.ask("PUT", "one.txt", body)) for body in bodies])
        self.assertIn((self.directory / "one.txt").read_bytes(), bodies)
        self.assertEqual(self.spooled(), [])

    def status_of(self, answering: Deferred[Answer]) -> Deferred[Answer]:
        return Deferred.fromCoroutine(self.status(200, answering))

    async def test_kept_connection(self) -> None:
        """Several requests on one connection, one after the other."""
        protocol, transport = self.server.connect(MARK)
        for data in (b"a", b"bb"):
            protocol.dataReceived(
                f"PUT /LGI/{self.path('new')} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode()
                + data
            )
        protocol.dataReceived(f"GET /LGI/{self.path('new')} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = await transport.answered
        self.assertEqual(answer.code, 200)
        await self.server.until(lambda: transport.value().endswith(b"\r\n\r\nbb"))
        self.server.hang_up(protocol)

    async def test_expect(self) -> None:
        """A client that asks whether to send its body is told to, also twice."""
        protocol, transport = self.server.connect(MARK)
        head = f"PUT /LGI/{self.path('new')} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n"
        protocol.dataReceived(head.encode())
        await self.server.until(lambda: transport.value() == b"HTTP/1.1 100 Continue\r\n\r\n")
        protocol.dataReceived(b"x")
        self.assertEqual((await transport.answered).code, 200)
        await self.server.turn()
        self.server.hang_up(protocol)

    async def test_full_disk(self) -> None:
        """Whether it fills up while the file comes or at its end, the old file stays."""
        await self.freeze()
        spool = self.server.site._spool
        self.server.site._spool = FullSpool(self.root / ".spool")
        for size in (10, 1_000_000):
            await self.unchanged(507, self.ask("PUT", "one.txt", b"x" * size))
        self.server.site._spool = spool
        await self.status(200, self.ask("PUT", "one.txt", b"new"))

    async def test_something_in_the_way(self) -> None:
        """A directory where a file is to be, and the reverse."""
        (self.directory / "folder").mkdir()
        await self.status(409, self.ask("PUT", "folder", b"x"))
        await self.status(404, self.ask("DELETE", "folder"))
        await self.status(409, self.server.request(MARK, "PUT", self.path("one.txt") + "/below", b"x"))
        await self.status(404, self.server.request(MARK, "DELETE", self.path("one.txt") + "/below"))
        self.assertEqual((self.directory / "one.txt").read_bytes(), b"first\n")
        self.assertEqual(self.spooled(), [])


class SizeTests(RepositoryCase):
    """Files over the configured size."""

    edits: ClassVar[dict[str, object]] = {"max_file_size": 1000, "max_request_size": 2000}

    async def test_announced(self) -> None:
        """Refused before any of it comes, and the connection closed."""
        await self.freeze()
        for size in (1001, 2001, 10**15):
            protocol, transport = self.server.connect(MARK)
            head = f"PUT /LGI/{self.path('one.txt')} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"
            protocol.dataReceived(head.encode())
            answer = await transport.answered
            self.assertEqual((answer.code, answer.number(), answer.headers["connection"]), (413, 65, "close"))
            self.assertTrue(transport.disconnecting)
            protocol.dataReceived(b"x" * size if size < 10_000 else b"x" * 5000)
            self.assertEqual(transport.value().count(b"HTTP/1.1"), 1)
            self.server.hang_up(protocol)
            self.assertEqual(await self.state(), self._frozen)
            self.assertEqual(self.spooled(), [])
        await self.status(200, self.ask("PUT", "one.txt", b"x" * 1000))

    async def test_chunked(self) -> None:
        head = f"PUT /LGI/{self.path('one.txt')} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        await self.freeze()
        chunk = b"1F4\r\n" + b"y" * 500 + b"\r\n"
        answer = await self.server.send(MARK, head.encode() + chunk * 3 + b"0\r\n\r\n")
        self.assertEqual((answer.code, answer.number(), answer.headers["connection"]), (413, 65, "close"))
        self.assertEqual((await self.state(), self.spooled()), (self._frozen, []))
        await self.status(200, self.server.send(MARK, head.encode() + chunk * 2 + b"0\r\n\r\n"))
        self.assertEqual((self.directory / "one.txt").read_bytes(), b"y" * 1000)

    async def test_bad_chunks(self) -> None:
        await self.freeze()
        head = f"PUT /LGI/{self.path('one.txt')} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        answer = await self.server.send(MARK, head.encode() + b"5\r\nabc\r\nxyz\r\n")
        self.assertEqual(answer.code, 400)
        self.assertEqual(await self.state(), self._frozen)
