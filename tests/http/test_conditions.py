"""Conditions, ranges and digests of files over HTTP, each right, wrong and malformed (RFC 9110, RFC 9530)."""

from __future__ import annotations

import os
from email.utils import formatdate

from tests.http.memory import MARK, Answer
from tests.http.repository import RepositoryCase
from tests.http.test_repository_parts import digest

# The date of one.txt, long ago, and what is a day before and after it.
WHEN = 1_000_000_000
DAY = 86_400


def date(seconds: int) -> str:
    """A date as headers have it."""
    return formatdate(seconds, usegmt=True)


class ReadCase(RepositoryCase):
    """A file of ten bytes that is long there."""

    async def prepare(self) -> None:
        await super().prepare()
        file = self.directory / "one.txt"
        file.write_bytes(b"0123456789")
        os.utime(file, (WHEN, WHEN))

    async def tag(self, name: str = "one.txt") -> str:
        """The entity tag of a file."""
        return (await self.ask("HEAD", name)).headers["etag"]

    async def says(self, code: int, body: bytes, name: str = "one.txt", **headers: str) -> Answer:
        """Check what a GET is answered."""
        answer = await self.ask("GET", name, headers={key.replace("_", "-"): value for key, value in headers.items()})
        self.assertEqual((answer.code, answer.body if code < 400 else b""), (code, body), headers)
        return answer


class ConditionTests(ReadCase):
    """Reading what is, or is not, as it was."""

    async def test_tag(self) -> None:
        """Strong, the same for as long as the file is, and another one for content of the same size and date."""
        tag = await self.tag()
        self.assertRegex(tag, r'\A"[!#-~]+"\Z')
        self.assertEqual((await self.ask("GET", "one.txt")).headers["etag"], tag)
        self.assertNotEqual(await self.tag("two words & more.dat"), tag)
        for number in range(5):
            before = await self.tag()
            await self.status(200, self.ask("PUT", "one.txt", b"x%09d" % number))
            os.utime(self.directory / "one.txt", (WHEN, WHEN))
            self.assertNotEqual(await self.tag(), before)

    async def test_none_match(self) -> None:
        tag = await self.tag()
        whole = b"0123456789"
        for condition in (tag, f"W/{tag}", f'"x", {tag}', f'"a,b",{tag},"c"', "*"):
            for method in ("GET", "HEAD"):
                answer = await self.ask(method, "one.txt", headers={"If-None-Match": condition})
                self.assertEqual((answer.code, answer.body, answer.headers["etag"]), (304, b"", tag), condition)
                self.assertEqual(answer.headers["last-modified"], date(WHEN))
                self.assertNotIn("content-type", answer.headers)
        for condition in ('"x"', tag.strip('"'), "nonsense", ""):
            await self.says(200, whole, If_None_Match=condition)
        # It alone counts where both are sent.
        await self.says(200, whole, If_None_Match='"x"', If_Modified_Since=date(WHEN))
        await self.says(304, b"", If_None_Match=tag, If_Modified_Since=date(0))
        await self.says(404, b"", "nothing", If_None_Match="*")

    async def test_dates(self) -> None:
        for since, code in (
            (date(WHEN), 304),
            (date(WHEN + DAY), 304),
            (date(WHEN - 1), 200),
            ("Sunday, 09-Sep-01 01:46:40 GMT", 304),
            ("yesterday", 200),
            ("", 200),
            ("Mon, 99 Foo 2001 01:46:40 GMT", 200),
            ("Mon, 01 Jan 99999 00:00:00 GMT", 200),
        ):
            await self.says(code, b"0123456789" if code == 200 else b"", If_Modified_Since=since)
        for since, code in ((date(WHEN), 200), (date(WHEN - 1), 412), ("yesterday", 200)):
            await self.says(code, b"0123456789" if code == 200 else b"", If_Unmodified_Since=since)

    async def test_match(self) -> None:
        tag = await self.tag()
        for condition in (tag, f'"x", {tag}', "*"):
            await self.says(200, b"0123456789", If_Match=condition, If_Unmodified_Since=date(0))
        for condition in ('"x"', f"W/{tag}", tag.strip('"'), ""):
            answer = await self.says(412, b"", If_Match=condition)
            self.assertEqual((answer.value("number"), answer.headers["etag"]), ("412", tag))
            # Before anything else is looked at.
            await self.says(412, b"", If_Match=condition, If_None_Match=tag, Range="bytes=0-1")
        head = await self.ask("HEAD", "one.txt", headers={"If-Match": '"x"'})
        self.assertEqual((head.code, head.body), (412, b""))

    async def test_if_range(self) -> None:
        """A part of the file that is known, or the whole of the one that is there now."""
        tag = await self.tag()
        for condition in ('"x"', f"W/{tag}", tag.strip('"'), "*", f'{tag}, "x"', date(WHEN - 1), date(WHEN), "x"):
            answer = await self.says(200, b"0123456789", Range="bytes=4-", If_Range=condition)
            self.assertNotIn("content-range", answer.headers)
        await self.says(206, b"456789", Range="bytes=4-", If_Range=tag)
        # A range that is not there is none where the file is another one.
        await self.says(416, b"", Range="bytes=10-", If_Range=tag)
        await self.says(200, b"0123456789", Range="bytes=10-", If_Range='"x"')
        await self.says(200, b"0123456789", If_Range=tag)
        await self.status(200, self.ask("PUT", "one.txt", b"abcdefghij"))
        await self.says(200, b"abcdefghij", Range="bytes=4-", If_Range=tag)


class RangeTests(ReadCase):
    """Parts of a file."""

    async def test_forms(self) -> None:
        for wanted, code, first, last in (
            ("bytes=2-4", 206, 2, 4),
            ("bytes=0-0", 206, 0, 0),
            ("bytes=9-9", 206, 9, 9),
            ("bytes=3-", 206, 3, 9),
            ("bytes=0-", 206, 0, 9),
            ("bytes=-2", 206, 8, 9),
            ("bytes=-10", 206, 0, 9),
            ("bytes=-11", 206, 0, 9),
            ("bytes=8-100", 206, 8, 9),
            ("BYTES=2-4", 206, 2, 4),
            ("bytes=10-", 416, 0, 0),
            ("bytes=10-20", 416, 0, 0),
            ("bytes=-0", 416, 0, 0),
            ("bytes=999999999999999999-", 416, 0, 0),
        ):
            answer = await self.says(code, b"0123456789"[first : last + 1] if code == 206 else b"", Range=wanted)
            described = f"bytes {first}-{last}/10" if code == 206 else "bytes */10"
            self.assertEqual(answer.headers["content-range"], described, wanted)
            self.assertEqual(answer.headers["content-length"], str(last - first + 1 if code == 206 else 0), wanted)

    async def test_that_do_not_count(self) -> None:
        """Nonsense, other units and several ranges: all of the file."""
        for wanted in (
            "bytes=4-2",
            "bytes=-",
            "bytes=",
            "bytes",
            "bytes=a-b",
            "bytes=--2",
            "bytes=-2-4",
            "bytes=1.5-2",
            "bytes=+1-2",
            "bytes=٣-٤",
            "lines=1-2",
            "bytes=0-1,4-5",
            "bytes=0-1, 0-1, 0-1",
            "bytes=0-" + "9" * 5000,
            "",
        ):
            answer = await self.says(200, b"0123456789", Range=wanted)
            self.assertNotIn("content-range", answer.headers)
            self.assertEqual(answer.headers["accept-ranges"], "bytes")

    async def test_empty_file(self) -> None:
        await self.status(200, self.ask("PUT", "empty", b""))
        await self.says(200, b"", "empty")
        for wanted in ("bytes=0-", "bytes=0-0", "bytes=-1"):
            answer = await self.says(416, b"", "empty", Range=wanted)
            self.assertEqual(answer.headers["content-range"], "bytes */0")

    async def test_head_is_as_get(self) -> None:
        tag = await self.tag()
        for headers in (
            {},
            {"Range": "bytes=2-4"},
            {"Range": "bytes=20-"},
            {"Range": "bytes=2-4", "If-Range": '"x"'},
            {"If-None-Match": tag},
            {"If-Match": '"x"'},
            {"Want-Repr-Digest": "sha-256=1"},
        ):
            get, head = [await self.ask(method, "one.txt", headers=headers) for method in ("GET", "HEAD")]
            for answer in (get, head):
                answer.headers.pop("date")
            self.assertEqual((head.code, head.headers, head.body), (get.code, get.headers, b""), headers)

    async def test_digest(self) -> None:
        """Of the whole file, whichever part of it is sent, for who wants it."""
        right = digest(b"0123456789")
        for wanted in ("sha-256=1", "sha-512=10, sha-256=3", "sha-256", " sha-256 = 10 "):
            for more in ({}, {"Range": "bytes=2-4"}):
                for method in ("HEAD", "GET"):
                    answer = await self.ask(method, "one.txt", headers={"Want-Repr-Digest": wanted} | more)
                    self.assertEqual(answer.headers.get("repr-digest"), right, wanted)
        for wanted in ("sha-256=0", "sha-512=1", "md5", "xsha-256=1", "sha-2567=1", ""):
            answer = await self.ask("HEAD", "one.txt", headers={"Want-Repr-Digest": wanted})
            self.assertEqual((answer.code, answer.headers.get("repr-digest")), (200, None), wanted)
        await self.status(200, self.ask("PUT", "empty", b""))
        empty = await self.ask("HEAD", "empty", headers={"Want-Repr-Digest": "sha-256=1"})
        self.assertEqual(empty.headers["repr-digest"], digest(b""))


class ChangeTests(ReadCase):
    """Changes that depend on what is there."""

    async def test_that_must_not_be_made(self) -> None:
        tag = await self.tag()
        await self.freeze()
        for name, headers in (
            ("one.txt", {"If-None-Match": "*"}),
            ("one.txt", {"If-None-Match": tag}),
            ("one.txt", {"If-None-Match": f"W/{tag}"}),
            ("one.txt", {"If-Match": '"x"'}),
            ("one.txt", {"If-Match": f"W/{tag}"}),
            ("one.txt", {"If-Unmodified-Since": date(WHEN - 1)}),
            ("new", {"If-Match": "*"}),
            ("new", {"If-Match": tag}),
            ("new/below", {"If-Match": "*"}),
        ):
            for body in (b"", b"changed", b"x" * 300_000):
                await self.unchanged(412, self.ask("PUT", name, body, headers=headers))
            part = {"Content-Range": "bytes 0-6/7"} | headers
            await self.unchanged(412, self.ask("PUT", name, b"changed", headers=part))
            await self.unchanged(412, self.ask("DELETE", name, headers=headers))
        # Who may not change a file does not learn what it is.
        await self.unchanged(403, self.ask("PUT", "one.txt", b"x", who="y@x; LGI", headers={"If-Match": tag}))
        await self.unchanged(403, self.ask("DELETE", "one.txt", who="y@x; LGI", headers={"If-Match": '"x"'}))
        self.assertEqual(list(self.server.repositories.unfinished._directory.iterdir()), [])

    async def test_that_are_made(self) -> None:
        await self.status(200, self.ask("PUT", "new", b"1", headers={"If-None-Match": "*"}))
        await self.status(412, self.ask("PUT", "new", b"2", headers={"If-None-Match": "*"}))
        for headers in ({"If-Match": await self.tag()}, {"If-Match": "*"}, {"If-None-Match": '"x"'}):
            await self.status(200, self.ask("PUT", "one.txt", b"changed", headers=headers))
        tag = await self.tag()
        part = {"Content-Range": "bytes 0-3/4", "If-Match": tag}
        await self.status(200, self.ask("PUT", "one.txt", b"part", headers=part))
        # It is another file now.
        await self.status(412, self.ask("DELETE", "one.txt", headers={"If-Match": tag}))
        await self.status(200, self.ask("DELETE", "one.txt", headers={"If-Match": await self.tag()}))
        await self.status(412, self.ask("DELETE", "one.txt", headers={"If-Match": "*"}))
        await self.status(404, self.ask("DELETE", "one.txt", headers={"If-None-Match": "*"}))

    async def test_changed_while_it_came(self) -> None:
        """What holds when the headers have come has to hold at the end too."""
        protocol, transport = self.server.connect(MARK)
        head = f"PUT /LGI/{self.path('one.txt')} HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nIf-Match: {{}}\r\n\r\n"
        protocol.dataReceived(head.format(await self.tag()).encode() + b"ab")
        await self.server.until(lambda: not protocol._channel._held)
        await self.status(200, self.ask("PUT", "one.txt", b"of another"))
        protocol.dataReceived(b"cd")
        self.assertEqual((await transport.answered).code, 412)
        await self.server.turn()
        self.server.hang_up(protocol)
        self.assertEqual((self.directory / "one.txt").read_bytes(), b"of another")
        self.assertEqual(self.spooled(), [])

    async def test_digest(self) -> None:
        await self.freeze()
        wrong = digest(b"x")
        for value, code in (
            (wrong, 422),
            (f"sha-512=:AAAA:, {wrong}", 422),
            ("sha-256=:AAAA:", 400),
            (wrong.strip(":"), 400),
            (wrong.replace(":", '"'), 400),
            (wrong.replace("=:", "=:*"), 400),
            (wrong.replace("sha-256", "sha-512"), 400),
            ("sha-256=::", 400),
            ("sha-256", 400),
            ("", 400),
        ):
            for name in ("one.txt", "new", "new/below"):
                await self.unchanged(code, self.ask("PUT", name, b"changed", headers={"Repr-Digest": value}))
        for body in (b"", b"changed", b"x" * 300_000):
            for value in (digest(body), f"sha-512=:AAAA:, {digest(body)}", f"{digest(body)};q=1"):
                await self.status(200, self.ask("PUT", "new", body, headers={"Repr-Digest": value}))
            self.assertEqual((self.directory / "new").read_bytes(), body)
