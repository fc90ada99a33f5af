"""What is added to a file, and its last lines."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.server import Request

from lgi.client.answers import ServerRefused, ServerUnreachable
from lgi.client.tail import Tail, last
from tests.unit.client import fakes
from tests.unit.client.fakes import STORE, ServerTestCase

NAME = "run1/job.log"
PATH = f"repository/b07/{STORE}/{NAME}"


class Tails(ServerTestCase):
    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.content = b""
        self.ranges: list[bytes | None] = []
        self.fake.script[PATH] = [self.say]
        self.came: list[bytes] = []
        self.tail = Tail(self.store._wire, NAME, self.came.append)

    def say(self, request: Request) -> bytes:
        """As a server does that knows ranges."""
        asked = request.getHeader(b"range")
        self.ranges.append(asked)
        found = re.fullmatch(rb"bytes=(\d+)-", asked or b"")
        if found is None:
            return self.content
        start = int(found[1])
        if start >= len(self.content):
            request.setResponseCode(416)
            return b"<status> <number> 416 </number> <message> no </message> </status>"
        request.setResponseCode(206)
        request.setHeader(b"content-range", b"bytes %d-%d/%d" % (start, len(self.content) - 1, len(self.content)))
        return self.content[start:]

    async def test_only_what_is_new_is_asked_for(self) -> None:
        for content in (b"one\n", b"one\ntwo\n", b"one\ntwo\n", b"one\ntwo\nthree"):
            self.content = content
            await self.tail.read_on()
        self.assertEqual(b"".join(self.came), self.content)
        self.assertEqual(self.ranges, [None, b"bytes=4-", b"bytes=8-", b"bytes=8-"])

    async def test_server_without_ranges(self) -> None:
        self.content = b"one\n"
        await self.tail.read_on()
        self.fake.script[PATH] = [b"one\ntwo\n"]
        await self.tail.read_on()
        self.assertEqual(b"".join(self.came), b"one\ntwo\n")

    async def test_range_that_is_not_the_one(self) -> None:
        def wrong(request: Request) -> bytes:
            request.setResponseCode(206)
            request.setHeader(b"content-range", b"bytes 0-3/8")
            return b"one\n"

        self.content = b"one\n"
        await self.tail.read_on()
        self.fake.script[PATH] = [wrong]
        await self.assertFailure(Deferred.fromCoroutine(self.tail.read_on()), ServerRefused)
        self.assertEqual(self.came, [b"one\n"])

    async def test_goes_on_after_a_cut(self) -> None:
        self.fake.script[PATH] = [fakes.cut, self.say]
        self.content = b"half a line\n"
        await self.assertFailure(Deferred.fromCoroutine(self.tail.read_on()), ServerUnreachable)
        await self.tail.read_on()
        self.assertEqual(b"".join(self.came), self.content)

    async def test_not_there(self) -> None:
        del self.fake.script[PATH]
        problem: Any = await self.assertFailure(Deferred.fromCoroutine(self.tail.read_on()), ServerRefused)
        self.assertEqual(problem.number, 404)

    async def test_last_lines_of_much(self) -> None:
        self.content = b"".join(b"line %d %s\n" % (number, b"x" * 2000) for number in range(100))
        await self.tail.last_lines(len(self.content), 3)
        self.assertEqual(
            [line[:7] for line in b"".join(self.came).splitlines()], [b"line 97", b"line 98", b"line 99"]
        )
        self.content += b"more\n"
        await self.tail.read_on()
        self.assertEqual(self.came[-1], b"more\n")
        self.assertNotIn(None, self.ranges)

    async def test_none_of_the_lines(self) -> None:
        self.content = b"a\nb\n"
        await self.tail.last_lines(4, 0)
        self.content += b"c\n"
        await self.tail.read_on()
        self.assertEqual(self.came, [b"c\n"])


class Lines(SynchronousTestCase):
    def test_last(self) -> None:
        for data, lines, expected in (
            (b"", 3, b""),
            (b"a\nb\nc\n", 2, b"b\nc\n"),
            (b"a\nb\nc", 2, b"b\nc"),
            (b"a\n\n\n", 2, b"\n\n"),
            (b"a\nb", 9, b"a\nb"),
            (b"a\nb\n", 0, b""),
        ):
            self.assertEqual(last(data, lines), expected, (data, lines))
