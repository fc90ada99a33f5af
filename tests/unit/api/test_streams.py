"""A file that is read as it comes."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.web.server import NOT_DONE_YET, Request

from lgi.api.errors import ClientClosed
from lgi.api.streams import HELD, Download
from lgi.client.answers import ServerRefused, ServerUnreachable
from lgi.client.attempts import Patience as Attempts
from lgi.client.patience import Patience
from lgi.client.wire import Wire
from tests.unit.client.fakes import STORE, ServerTestCase, reactor

CONTENT = bytes(range(256)) * 64


class Broken:
    """A server that breaks off after `most` bytes, and goes on from where it is asked to."""

    def __init__(self, content: bytes, *, most: int, mark: str = '"one"') -> None:
        self.content = content
        self.most = most
        self.mark = mark
        self.asked: list[tuple[str, str]] = []

    def __call__(self, request: Request) -> Any:
        span, condition = (request.getHeader(name) or "" for name in ("range", "if-range"))
        self.asked.append((span, condition))
        start = int(found[1]) if (found := re.fullmatch(r"bytes=(\d+)-", span)) and condition == self.mark else 0
        rest = self.content[start:]
        request.setResponseCode(206 if start else 200)
        if self.mark:
            request.setHeader("etag", self.mark)
        request.setHeader("content-length", str(len(rest)))
        request.write(rest[: self.most])
        if len(rest) > self.most:
            assert request.channel is not None
            request.channel.loseConnection()
        else:
            request.finish()
        return NOT_DONE_YET


class DownloadTests(ServerTestCase):
    """From a server on the loopback."""

    def open(self, name: str = "big", patience: float = 5.0) -> Download:
        url = f"{self.url}/repository/b07/{STORE}"
        client: Any = self.http
        wire = Wire(agent=client.agent, reactor=reactor, url=url, timeout=10, patience=Attempts())
        return Download(wire, name, Patience(reactor, busy=patience, unreachable=patience))

    async def whole(self, download: Download) -> bytes:
        pieces = []
        while piece := await download.read():
            pieces.append(piece)
        return b"".join(pieces)

    def script(self, answer: Any) -> Any:
        self.fake.script[f"repository/b07/{STORE}/big"] = [answer]
        return answer

    async def test_whole_files_and_empty_ones(self) -> None:
        self.fake.files.update(big=CONTENT, empty=b"")
        self.assertEqual(await self.whole(self.open()), CONTENT)
        self.assertEqual(await self.whole(self.open("empty")), b"")
        with self.assertRaises(ServerRefused) as caught:
            await self.open("nothing").read()
        self.assertEqual(caught.exception.number, 404)

    async def test_it_goes_on_where_the_connection_was_lost(self) -> None:
        server = self.script(Broken(CONTENT, most=6000))
        self.assertEqual(await self.whole(self.open()), CONTENT)
        self.assertEqual(server.asked, [("", ""), ("bytes=6000-", '"one"'), ("bytes=12000-", '"one"')])

    async def test_another_file_is_not_taken_for_the_rest(self) -> None:
        server = self.script(Broken(CONTENT, most=6000))
        download = self.open()
        await download.read()
        server.mark = '"two"'
        with self.assertRaises(ServerUnreachable) as caught:
            await self.whole(download)
        self.assertIn("has changed", str(caught.exception))

    async def test_without_a_mark_nothing_is_added(self) -> None:
        server = self.script(Broken(CONTENT, most=6000, mark=""))
        with self.assertRaises(ServerUnreachable):
            await self.whole(self.open())
        self.assertEqual(len(server.asked), 1)

    async def test_what_nobody_takes_is_not_fetched(self) -> None:
        size = 40 * HELD
        sent = 0
        ended: Deferred[None] = Deferred()

        class Producer:
            def __init__(self, request: Request) -> None:
                self.request = request

            def resumeProducing(self) -> None:
                nonlocal sent
                sent += HELD
                self.request.write(bytes(HELD))

            def stopProducing(self) -> None:
                ended.callback(None)

            def pauseProducing(self) -> None:
                pass

        def endless(request: Request) -> Any:
            request.setHeader("content-length", str(size))
            producer: Any = Producer(request)
            request.registerProducer(producer, False)
            return NOT_DONE_YET

        self.script(endless)
        download = self.open()
        await download.read()
        for _ in range(50):
            await deferLater(reactor, 0.002)
        self.assertLess(sent, size / 2)  # what the kernel holds, and little more
        await download.close()
        await ended
        with self.assertRaises(ClientClosed):
            await download.read()
