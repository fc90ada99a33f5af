"""Requests that are no whole form, or too big, and paths that are none."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import ClassVar

from twisted.internet.defer import Deferred

from tests.http.case import JOB, WHOLE, ServerCase, without
from tests.http.memory import MARK, Answer, Fields


class FormTests(ServerCase):
    """Requests that are no whole form."""

    path = "interfaces/interface_submit_job.php"

    def send(self, content_type: str, body: bytes, path: str = path) -> Deferred[Answer]:
        return self.server.request(MARK, "POST", path, body, {"Content-Type": content_type})

    async def test_no_form(self) -> None:
        await self.freeze()
        await self.refuses(68, self.send("application/json", b"{}"), "not a posted form")
        await self.refuses(68, self.send("text/plain", b"x" * 100_000))
        await self.refuses(68, self.send("multipart/form-data", b"x"))
        await self.refuses(68, self.send("multipart/form-data; boundary=", b"x"))
        await self.refuses(68, self.server.request(MARK, "POST", self.path))
        for body in (b"", b"x", b"--b\r\n", b"--b-", b"--c--\r\n"):
            await self.refuses(68, self.send("multipart/form-data; boundary=b", body))

    async def test_strange_content_type(self) -> None:
        """Bytes that are no text in any code are answered too, and nothing is logged."""
        await self.freeze()
        for content_type in (b"\xff\xfe", b"multipart/form-data; boundary=\xe2\x82\xac", b'a; boundary="'):
            request = (
                b"POST /LGI/" + self.path.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Type: "
            ) + content_type
            await self.refuses(68, self.server.send(MARK, request + b"\r\n\r\nabc"))

    async def test_broken_multipart(self) -> None:
        await self.freeze()
        head = b'--b\r\nContent-Disposition: form-data; name="uploaded_file_1"; filename="a"\r\n\r\n'
        for body in (
            head,
            head + b"cut off",
            head + b"x\r\n--b",
            head + b"x\r\n--bogus\r\n",
            b"--b\r\nno header\r\n\r\nx\r\n--b--\r\n",
            b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n--b--\r\n",
            b"--b\r\nContent-Disposition: attachment; name=x\r\n\r\nx\r\n--b--\r\n",
            b"--b\r\n" + b"X" * 5000 + b": y\r\n\r\nx\r\n--b--\r\n",
            b"--b\r\n" + b"X-A: y\r\n" * 20 + b"\r\nx\r\n--b--\r\n",
            b'--b\r\nContent-Disposition: form-data; name="\xff"\r\n\r\nx\r\n--b--\r\n',
        ):
            await self.refuses(68, self.send("multipart/form-data; boundary=b", body))

    async def test_number_of_fields(self) -> None:
        await self.freeze()
        own = [f"{name}={value}" for name, value in WHOLE.items()]
        urlencoded = "application/x-www-form-urlencoded"
        body = "&".join([f"a{number}=" for number in range(1001 - len(own))] + own)
        await self.refuses(68, self.send(urlencoded, body.encode()))

        def parts(count: int) -> bytes:
            fields = [(f"a{number}", "") for number in range(count - len(WHOLE))] + list(WHOLE.items())
            return (
                b"".join(
                    f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value!s}\r\n'.encode()
                    for name, value in fields
                )
                + b"--b--\r\n"
            )

        await self.refuses(68, self.send("multipart/form-data; boundary=b", parts(1001)))
        taken = await self.send("multipart/form-data; boundary=b", parts(1000))
        self.assertIsNone(taken.number(), taken.text)
        taken = await self.send(urlencoded, body.partition("&")[2].encode())
        self.assertIsNone(taken.number(), taken.text)

    async def test_size_of_all_fields(self) -> None:
        """Many fields of a size that each may have do not fill the memory."""
        await self.freeze()
        fields: Fields = {f"a{number}": "x" * 100_000 for number in range(60)}
        await self.refuses(65, self.server.post(MARK, self.path, WHOLE | fields))
        body = "&".join(f"{name}={value}" for name, value in fields.items())
        await self.refuses(65, self.send("application/x-www-form-urlencoded", body.encode()))

    async def test_urlencoded_that_is_no_text(self) -> None:
        await self.freeze()
        await self.refuses(68, self.send("application/x-www-form-urlencoded", b"user=%FF"))
        await self.refuses(68, self.send("application/x-www-form-urlencoded", b"user=\xff"))

    async def test_duplicates(self) -> None:
        """Of fields posted twice the last one counts, in both encodings."""
        own = "&".join(f"{name}={value}" for name, value in WHOLE.items())
        kind = "application/x-www-form-urlencoded"
        taken = await self.send(kind, f"application=nosuchapp&{own}".encode())
        self.assertIsNone(taken.number())
        await self.freeze()
        await self.refuses(70, self.send(kind, f"{own}&application=nosuchapp".encode()))
        await self.refuses(18, self.send(kind, f"{own}&application=".encode()))
        fields = [*WHOLE.items(), ("application", "nosuchapp")]
        body = "".join(f'--b\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v!s}\r\n' for n, v in fields)
        await self.refuses(70, self.send("multipart/form-data; boundary=b", f"{body}--b--\r\n".encode()))

    async def test_query_string_does_not_count(self) -> None:
        await self.freeze()
        own = "&".join(f"{name}={value}" for name, value in without(WHOLE, "application").items())
        kind = "application/x-www-form-urlencoded"
        await self.refuses(18, self.send(kind, own.encode(), f"{self.path}?application=hello_world"))
        query = f"{self.path}?{own}&application=hello_world"
        await self.refuses(32, self.send(kind, b"", query))

    async def test_other_methods_and_paths(self) -> None:
        await self.freeze()
        for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS"):
            answer = await self.server.request(MARK, method, self.path)
            self.assertEqual(answer.code, 405, method)
        for path in ("", "x", "interfaces/", "interfaces/interface_nothing.php", f"{self.path}/x", f"x/{self.path}"):
            self.assertEqual((await self.server.request(MARK, "POST", path)).code, 404, path)
        self.assertEqual(await self.state(), self._frozen)

    async def test_every_answer_has_each_header_once(self) -> None:
        """Whichever way its path is found, and whatever it is asked to do with the connection."""
        for path in (self.path, f"/{self.path}"):
            for version, asked in (("1.1", ""), ("1.1", "Connection: close\r\n"), ("1.0", "")):
                protocol, transport = self.server.connect(MARK)
                head = f"POST /LGI/{path} HTTP/{version}\r\nHost: x\r\n{asked}Content-Length: 0\r\n\r\n"
                protocol.dataReceived(head.encode())
                answer = await transport.answered
                lines = transport.value().partition(b"\r\n\r\n")[0].decode().split("\r\n")
                self.assertEqual(lines[0], f"HTTP/{version} 200 OK")
                names = sorted(line.partition(": ")[0].lower() for line in lines[1:])
                wanted = ["connection"] if asked else []
                self.assertEqual(names, [*wanted, "content-length", "content-type", "date", "server"])
                self.assertEqual(answer.headers["content-type"], "text/xml; charset=UTF-8")
                self.assertLess(abs(parsedate_to_datetime(answer.headers["date"]).timestamp() - time.time()), 60)
                await self.server.turn()
                self.server.hang_up(protocol)

    async def test_paths_that_are_no_text(self) -> None:
        """Answered, and not logged."""
        for head in (b"POST /LGI/%ff HTTP/1.1\r\nHost: x", b"POST /LGI/x HTTP/1.1\r\nHost: \xff"):
            answer = await self.server.send(MARK, head + b"\r\nContent-Length: 0\r\n\r\n")
            self.assertEqual(answer.code, 400)

    async def test_doubled_slashes(self) -> None:
        """An address with a slash at its end is configured easily."""
        for path in ("/interfaces/interface_job_state.php", "interfaces//interface_job_state.php"):
            answer = await self.server.post(MARK, path, WHOLE)
            self.assertEqual((answer.code, answer.number()), (200, None))
        listing = await self.server.request(MARK, "GET", "/repository/repository_content.php?repository=x")
        self.assertEqual((listing.code, listing.value("number")), (400, "400"))

    async def test_authority(self) -> None:
        """The authority's certificate is there to be fetched."""
        (self.server.config.server.ca_certificate).write_bytes(b"the certificate")
        answer = await self.server.request(MARK, "GET", "ca.crt")
        self.assertEqual((answer.code, answer.body), (200, b"the certificate"))


class SizeTests(ServerCase):
    """Requests and files over the configured sizes."""

    path = "interfaces/interface_submit_job.php"
    edits: ClassVar[dict[str, object]] = {"max_file_size": 1000, "max_request_size": 20_000}

    async def test_file(self) -> None:
        await self.freeze()
        big = [("small", b"x"), ("big", b"x" * 1001)]
        await self.refuses(64, self.server.user("submit_job", files=big, **JOB), "1000")
        fits = [("big", b"x" * 1000)]
        self.assertIsNone((await self.server.user("submit_job", files=fits, **JOB)).number())

    async def test_announced(self) -> None:
        """Said at once, before any of it comes, and nothing that comes is looked at."""
        await self.freeze()
        head = "POST /LGI/{} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nContent-Type: {}\r\n\r\n"
        kind = "application/x-www-form-urlencoded"
        answer = await self.server.send(MARK, head.format(self.path, 20_001, kind).encode())
        self.assertEqual((answer.code, answer.number(), answer.headers["connection"]), (413, 65, "close"))
        own = "&".join(f"{name}={value}" for name, value in WHOLE.items()).ljust(20_001, "&").encode()
        answer = await self.server.send(MARK, head.format(self.path, 20_001, kind).encode() + own)
        self.assertEqual(answer.code, 413)
        self.assertEqual(answer.body.count(b"<LGI>"), 1)
        self.assertEqual(await self.state(), self._frozen)
        self.assertEqual(self.spooled(), [])

    async def test_not_announced(self) -> None:
        """Answered where it passes the limit, whether or not it ends, and the connection closed."""
        await self.freeze()
        chunk = b"3E8\r\n" + b"x" * 1000 + b"\r\n"
        for kind in ("multipart/form-data; boundary=b", "application/x-www-form-urlencoded", "text/plain"):
            head = (
                f"POST /LGI/{self.path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
                f"Content-Type: {kind}\r\n\r\n"
            ).encode()
            for end in (b"", b"0\r\n\r\n", b"0\r\n\r\n" + head):
                protocol, transport = self.server.connect(MARK)
                protocol.dataReceived(head + chunk * 21 + end)
                answer = await transport.answered
                self.assertEqual((answer.code, answer.number(), answer.headers["connection"]), (413, 65, "close"))
                self.assertIn("20000", answer.value("message"))
                self.assertTrue(transport.disconnecting)
                protocol.dataReceived(chunk * 50)
                self.assertEqual(transport.value().count(b"HTTP/1.1"), 1)
                self.server.hang_up(protocol)
                self.assertEqual((await self.state(), self.spooled()), (self._frozen, []))
