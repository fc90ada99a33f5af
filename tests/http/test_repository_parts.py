"""Files sent in parts: what a cut connection, a full disk and a killed server leave, and how it goes on."""

from __future__ import annotations

import base64
import errno
import fcntl
import hashlib
import os
from typing import Any, ClassVar

from twisted.internet.defer import Deferred

from lgi.httpd.spool import LEFTOVER_SECONDS
from lgi.repository import unfinished
from lgi.repository.files import UNFINISHED
from tests.http.memory import MARK, PIET, Answer
from tests.http.repository import RepositoryCase

DATA = bytes(range(256)) * 4


def digest(data: bytes) -> str:
    """What Repr-Digest says of it."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


class PartCase(RepositoryCase):
    """A file that is sent in parts."""

    def send(
        self, span: str, body: bytes = b"", name: str = "big", who: str = MARK, **headers: str
    ) -> Deferred[Answer]:
        more = {key.replace("_", "-"): value for key, value in headers.items()}
        return self.ask("PUT", name, body, who=who, headers={"Content-Range": f"bytes {span}"} | more)

    async def answers(self, code: int, offset: int | None, answering: Deferred[Answer]) -> Answer:
        """Check the status and how much is there."""
        answer = await self.status(code, answering)
        self.assertEqual(answer.headers.get("upload-offset"), None if offset is None else str(offset))
        return answer

    def parts(self) -> list[int]:
        """The sizes of the uploads in the making."""
        return [path.stat().st_size for path in (self.root / UNFINISHED).iterdir()]


class PartTests(PartCase):
    """Parts that arrive."""

    async def test_in_parts(self) -> None:
        await self.answers(202, 0, self.send("*/1024"))
        await self.answers(202, 500, self.send("0-499/1024", DATA[:500]))
        self.assertFalse((self.directory / "big").exists())
        await self.answers(202, 500, self.send("*/1024"))
        await self.answers(202, 501, self.send("500-500/1024", DATA[500:501]))
        await self.answers(200, 1024, self.send("501-1023/1024", DATA[501:], Repr_Digest=digest(DATA)))
        self.assertEqual((self.directory / "big").read_bytes(), DATA)
        self.assertEqual((self.directory / "big").stat().st_mode & 0o777, 0o640)
        self.assertEqual((self.parts(), self.spooled()), ([], []))
        await self.answers(202, 0, self.send("*/1024"))

    async def test_at_once(self) -> None:
        """As libcurl's -C sends it from the beginning; over an older file, which stays until then."""
        await self.answers(200, 1024, self.send("0-1023/1024", DATA, "one.txt", Repr_Digest=digest(DATA)))
        self.assertEqual((self.directory / "one.txt").read_bytes(), DATA)

    async def test_wrong_place(self) -> None:
        """Only what follows what is there is taken; the beginning begins anew."""
        await self.answers(416, 0, self.send("1-9/1024", DATA[1:10]))
        await self.answers(202, 10, self.send("0-9/1024", DATA[:10]))
        for first in (5, 11):
            await self.answers(416, 10, self.send(f"{first}-{first}/1024", b"x"))
        await self.answers(202, 3, self.send("0-2/1024", DATA[:3]))
        self.assertEqual(self.parts(), [3])

    async def test_different_uploads(self) -> None:
        """Of another name, size, user or content."""
        await self.answers(202, 10, self.send("0-9/1024", DATA[:10], Upload_Key="a b"))
        key = {"Content-Range": "bytes */1024", "Upload-Key": "a b"}
        await self.answers(202, 0, self.ask("PUT", "other", headers=key))
        await self.answers(202, 0, self.ask("PUT", "big", who="x@localhost; friends; LGI", headers=key))
        await self.answers(202, 0, self.ask("PUT", "big", headers=key | {"Upload-Key": "b"}))
        await self.answers(202, 0, self.send("*/1024"))
        await self.answers(202, 0, self.send("*/1025", Upload_Key="a b"))
        await self.answers(202, 10, self.send("*/1024", Upload_Key="a b"))

    async def test_bad_requests(self) -> None:
        await self.freeze()
        for span in ("0-9", "0-9/*", "9-0/1024", "0-8/1024", "0-9/9", "x", "0-9/1024, 0-9/1024", f"0-9/{'1' * 19}"):
            await self.unchanged(400, self.send(span, DATA[:10]))
        await self.unchanged(400, self.send("0-9/1024"))
        await self.unchanged(400, self.send("*/1024", b"x"))
        for key in ("\x7f", "é", "x" * 129):
            await self.unchanged(400, self.send("0-9/1024", DATA[:10], Upload_Key=key))
        for wrong in ("sha-256=:AAAA:", "md5=:AAAA:", "nonsense"):
            await self.unchanged(400, self.send("0-9/1024", DATA[:10], Repr_Digest=wrong))
        await self.unchanged(403, self.send("0-9/1024", DATA[:10], who=PIET))
        await self.unchanged(403, self.send("*/1024", who=PIET))
        self.assertEqual(self.parts(), [])

    async def test_wrong_digest(self) -> None:
        """Nothing changes, and nothing of it is kept; whole or in parts."""
        await self.freeze()
        await self.unchanged(422, self.ask("PUT", "one.txt", DATA, headers={"Repr-Digest": digest(b"x")}))
        await self.answers(202, 10, self.send("0-9/1024", DATA[:10]))
        await self.answers(422, 0, self.send("10-1023/1024", DATA[10:], Repr_Digest=digest(b"x")))
        await self.answers(422, 0, self.send("0-1023/1024", DATA, Repr_Digest=digest(b"x")))
        self.assertEqual((await self.state(), self.parts()), (self._frozen, []))
        await self.status(200, self.ask("PUT", "one.txt", DATA, headers={"Repr-Digest": digest(DATA)}))

    async def test_job_that_is_deleted(self) -> None:
        """What was coming for it goes as well."""
        await self.answers(202, 10, self.send("0-9/1024", DATA[:10]))
        await self.server.user("delete_job", job_id=1)
        self.assertEqual(self.parts(), [])

    async def test_nobody_comes_back(self) -> None:
        """Removed after a week, and not a day before."""
        for name in ("old", "young"):
            await self.answers(202, 10, self.send("0-9/1024", DATA[:10], name))
        for path in (self.root / UNFINISHED).iterdir():
            old = path.stat().st_mtime - LEFTOVER_SECONDS
            os.utime(path, (old - 10, old - 10))
        [*_, young] = (self.root / UNFINISHED).iterdir()
        os.utime(young, (old + 100, old + 100))
        self.server.repositories.prepare()
        self.assertEqual(list((self.root / UNFINISHED).iterdir()), [young])


class FaultTests(PartCase):
    """Parts that do not arrive whole."""

    def begin(self, span: str, size: int) -> tuple[Any, Any]:
        """A connection on which the headers of a part have come."""
        protocol, transport = self.server.connect(MARK)
        head = f"PUT /LGI/{self.path('big')} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n"
        protocol.dataReceived(head.encode() + f"Content-Range: bytes {span}\r\n\r\n".encode())
        return protocol, transport

    async def held(self, size: int) -> None:
        """Wait until an upload in the making is so large, and nobody has it."""

        def free() -> bool:
            [path] = (self.root / UNFINISHED).iterdir()
            with path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return False
            return path.stat().st_size == size

        await self.server.until(free)

    async def test_cut(self) -> None:
        """What had arrived is there, and it goes on from there."""
        protocol, _ = self.begin("0-1023/1024", 1024)
        protocol.dataReceived(DATA[:700])
        await self.server.until(lambda: not protocol._channel._held)
        self.server.hang_up(protocol)
        await self.held(700)
        await self.answers(202, 700, self.send("*/1024"))
        await self.answers(200, 1024, self.send("700-1023/1024", DATA[700:], Repr_Digest=digest(DATA)))
        self.assertEqual((self.directory / "big").read_bytes(), DATA)

    async def test_cut_while_it_is_asked(self) -> None:
        """The client is gone before it is known whether its upload is welcome: nothing stays locked."""
        protocol, _ = self.begin("0-1023/1024", 1024)
        self.server.hang_up(protocol)
        await self.server.until(lambda: bool(self.parts()))
        await self.held(0)

    async def test_two_at_once(self) -> None:
        protocol, _ = self.begin("0-1023/1024", 1024)
        protocol.dataReceived(DATA[:700])
        await self.server.until(lambda: not protocol._channel._held)
        await self.answers(409, None, self.send("0-1023/1024", DATA))
        self.server.hang_up(protocol)
        await self.held(700)
        await self.answers(200, 1024, self.send("700-1023/1024", DATA[700:]))

    async def test_full_disk(self) -> None:
        """What found room stays."""
        await self.answers(202, 10, self.send("0-9/1024", DATA[:10]))
        written: list[int] = []
        writev = os.writev

        def full(descriptor: int, pieces: Any) -> int:
            if written:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written.append(writev(descriptor, [bytes(pieces[0])[:100]]))
            return written[0]

        self.patch(os, "writev", full)
        answer = await self.answers(507, 110, self.send("10-1023/1024", DATA[10:]))
        self.assertIn("No space left", answer.text)
        self.patch(os, "writev", writev)
        await self.answers(202, 110, self.send("*/1024"))
        await self.answers(200, 1024, self.send("110-1023/1024", DATA[110:], Repr_Digest=digest(DATA)))

    async def test_not_put_in_place(self) -> None:
        """All of it came, and then the disk was full: the last byte is sent again, and with it all is tried again."""

        def full(*_arguments: Any, **_more: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        keep = unfinished.Part.keep
        self.patch(unfinished.Part, "keep", full)
        await self.status(507, self.send("0-1023/1024", DATA))
        await self.answers(202, 1023, self.send("*/1024"))
        self.patch(unfinished.Part, "keep", keep)
        await self.answers(200, 1024, self.send("1023-1023/1024", DATA[1023:], Repr_Digest=digest(DATA)))
        self.assertEqual((self.directory / "big").read_bytes(), DATA)

    async def test_stranger_sends_much(self) -> None:
        """Refused when the headers have come, with or without asking; nothing is stored, it is hung up."""
        await self.freeze()
        for more in ("", "Expect: 100-continue\r\n", "Content-Range: bytes 0-4294967295/4294967296\r\n"):
            protocol, transport = self.server.connect(PIET)
            head = f"PUT /LGI/{self.path('big')} HTTP/1.1\r\nHost: x\r\nContent-Length: 4294967296\r\n{more}\r\n"
            protocol.dataReceived(head.encode() + b"x" * 100_000)
            answer = await transport.answered
            self.assertEqual((answer.code, answer.headers["connection"]), (403, "close"))
            await self.server.turn()
            protocol.dataReceived(b"x" * 100_000)
            self.assertTrue(transport.disconnecting)
            self.assertEqual(transport.value().count(b"HTTP/1.1"), 1)
            self.assertEqual((await self.state(), self.spooled(), self.parts()), (self._frozen, [], []))
            self.server.hang_up(protocol)

    async def test_body_that_comes_with_the_headers(self) -> None:
        """It waits until it is welcome, and so does the next request on the connection."""
        protocol, transport = self.server.connect(MARK)
        body = b"n" * 300_000
        head = f"PUT /LGI/{self.path('new')} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        get = f"GET /LGI/{self.path('new')} HTTP/1.1\r\nHost: x\r\n\r\n"
        protocol.dataReceived(head.encode() + body + get.encode())
        await self.server.until(lambda: transport.value().endswith(b"n" * 300_000))
        self.assertEqual(transport.value().count(b"HTTP/1.1 200"), 2)
        self.server.hang_up(protocol)


class LimitTests(PartCase):
    """Files that are too large, one by one or together."""

    edits: ClassVar[dict[str, object]] = {"max_file_size": "1000\nmax_repository_size = 900"}

    async def test_file(self) -> None:
        answer = await self.answers(413, None, self.send("0-9/1001", DATA[:10]))
        self.assertIn("max_file_size", answer.text)
        self.assertIn("1000", answer.text)
        self.assertEqual(self.parts(), [])

    async def test_repository(self) -> None:
        """The files of a repository together; what replaces a file counts by the difference."""
        there = sum(file.size for file in self.server.repositories.list(self.name) if not file.name.startswith("."))
        await self.status(200, self.ask("PUT", "filler", b"x" * (800 - there)))
        await self.status(200, self.ask("PUT", "a", b"x" * 60))
        answer = await self.status(413, self.ask("PUT", "b", b"x" * 41))
        self.assertIn("max_repository_size", answer.text)
        self.assertIn("900", answer.text)
        await self.status(200, self.ask("PUT", "a", b"x" * 100))
        await self.status(413, self.ask("PUT", "a", b"x" * 101))
        self.assertEqual((self.directory / "a").read_bytes(), b"x" * 100)
        await self.status(200, self.ask("DELETE", "a"))
        await self.status(413, self.send("0-100/101", b"x" * 101))
        await self.status(200, self.send("0-99/100", b"x" * 100))

    async def test_submission(self) -> None:
        await self.freeze()
        answer: Answer = await self.server.user(
            "submit_job",
            application="hello_world",
            target_resources="any",
            files=[("a", b"x" * 860), ("b", b"x" * 41)],
        )
        self.assertEqual(answer.number(), 64)
        self.assertIn("max_repository_size", answer.text)
        self.assertEqual((await self.state(), self.spooled()), (self._frozen, []))
