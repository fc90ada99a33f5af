"""Files in parts: what contradicts itself, what others do meanwhile, and faults at each step."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path
from typing import Any, ClassVar
from unittest import SkipTest

from lgi.errors import ErrorNumber, LGIError
from lgi.repository.files import UNFINISHED
from lgi.repository.keeper import Keeper
from tests.http.memory import MARK, RESOURCE
from tests.http.test_repository_parts import DATA, PartCase, digest

FRIEND = "x@localhost; friends; LGI"


class PartTests(PartCase):
    """Files in parts that contradict themselves, each other, or what is there."""

    edits: ClassVar[dict[str, object]] = {"max_file_size": 100_000}

    async def test_what_is_no_part(self) -> None:
        await self.freeze()
        for span in (
            "0-9/0",
            "0-0/0",
            "0-10/1024",
            "1-9/1024",
            "-9/1024",
            "0-/1024",
            "0-9/-1024",
            "0-9/1e3",
            "+0-9/1024",
            "٠-٩/1024",
            "0-9",
            "*/*",
            "*",
            "",
            "1020-1029/1024",
            "0-9/1024;x",
        ):
            await self.unchanged(400, self.send(span, DATA[:10]))
        for unit in ("lines 0-9/1024", "bytes=0-9/1024", "0-9/1024"):
            await self.unchanged(400, self.ask("PUT", "big", DATA[:10], headers={"Content-Range": unit}))
        for body in (b"", b"x" * 9, b"x" * 11, b"x" * 60_000):
            await self.unchanged(400, self.send("0-9/1024", body))
        for span in ("*/100001", "0-9/100001", f"0-9/{'9' * 18}"):
            answer = await self.answers(413, None, self.send(span, b"" if "*" in span else DATA[:10]))
            self.assertIn("max_file_size", answer.text)
        self.assertEqual((await self.state(), self.parts()), (self._frozen, []))

    async def test_of_nothing(self) -> None:
        """An empty file is put whole; to ask is no harm."""
        await self.answers(202, 0, self.send("*/0"))
        self.assertFalse((self.directory / "big").exists())
        await self.status(200, self.ask("PUT", "big", b""))
        self.assertEqual(self.parts(), [])

    async def test_without_a_length(self) -> None:
        """Chunked: what came counts, and no more than was said is taken."""
        head = f"PUT /LGI/{self.path('big')} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        span = "Content-Range: bytes {}/1024\r\n\r\n"

        async def chunked(code: int, offset: int, said: str, body: bytes) -> None:
            chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
            await self.answers(code, offset, self.server.send(MARK, (head + span.format(said)).encode() + chunk))

        await chunked(202, 4, "0-9", DATA[:4])
        await chunked(413, 4, "4-9", DATA[4:11])
        await chunked(202, 10, "4-9", DATA[4:10])
        await chunked(200, 1024, "10-1023", DATA[10:])
        self.assertEqual((self.directory / "big").read_bytes(), DATA)

    async def test_offsets(self) -> None:
        await self.answers(202, 100, self.send("0-99/1024", DATA[:100]))
        for first in (1, 99, 101, 1023):
            await self.answers(416, 100, self.send(f"{first}-{first}/1024", b"x"))
            # A large one is refused before it has come.
            await self.answers(416, 0, self.send(f"{first}-99999/100000", b"x" * (100_000 - first)))
        await self.answers(202, 100, self.send("*/1024"))
        await self.answers(200, 1024, self.send("100-1023/1024", DATA[100:], Repr_Digest=digest(DATA)))
        self.assertEqual((self.directory / "big").read_bytes(), DATA)

    async def test_of_two(self) -> None:
        """Of another certificate, or of another content by what its client says: they never mix."""
        uploads = list(enumerate(((MARK, ""), (MARK, "one"), (MARK, "two"), (FRIEND, ""), (FRIEND, "one")), start=1))
        for number, (who, key) in uploads:
            await self.answers(202, 0, self.send("*/1024", who=who, Upload_Key=key))
            part = bytes([number]) * 10 * number
            sending = self.send(f"0-{len(part) - 1}/1024", part, who=who, Upload_Key=key)
            await self.answers(202, len(part), sending)
        self.assertEqual(sorted(self.parts()), [10, 20, 30, 40, 50])
        for number, (who, key) in reversed(uploads):
            offset = 10 * number
            await self.answers(202, offset, self.send("*/1024", who=who, Upload_Key=key))
            rest = bytes([number]) * (1024 - offset)
            await self.answers(200, 1024, self.send(f"{offset}-1023/1024", rest, who=who, Upload_Key=key))
            self.assertEqual((self.directory / "big").read_bytes(), bytes([number]) * 1024)
        self.assertEqual(self.parts(), [])

    async def test_something_in_the_way(self) -> None:
        """A directory where the file is to be: said at its end, and what has come can still be put there then."""
        (self.directory / "big").mkdir()
        await self.status(409, self.send("0-1023/1024", DATA))
        await self.answers(202, 1023, self.send("*/1024"))
        (self.directory / "big").rmdir()
        await self.answers(200, 1024, self.send("1023-1023/1024", DATA[1023:], Repr_Digest=digest(DATA)))

    async def test_repository_that_is_removed(self) -> None:
        """Before, between and during parts: nothing of them is left, and nothing new begins."""
        await self.answers(202, 10, self.send("0-9/1024", DATA[:10], "other", RESOURCE))
        protocol, transport = self.server.connect(RESOURCE)
        head = f"PUT /LGI/{self.path('big')} HTTP/1.1\r\nHost: x\r\nContent-Length: 1024\r\n"
        protocol.dataReceived(head.encode() + b"Content-Range: bytes 0-1023/1024\r\n\r\n" + DATA[:700])
        await self.server.until(lambda: not protocol._channel._held)
        await self.server.user("delete_job", job_id=1)
        self.assertEqual((self.stored(), self.parts()), ({}, []))
        protocol.dataReceived(DATA[700:])
        self.assertEqual((await transport.answered).code, 404)
        await self.server.turn()
        self.server.hang_up(protocol)
        for who, code in ((MARK, 403), (RESOURCE, 404)):
            await self.answers(code, None, self.send("*/1024", who=who))
            await self.answers(code, None, self.send("0-9/1024", DATA[:10], who=who))
            await self.answers(code, None, self.send("10-19/1024", DATA[:10], "other", who))
        self.assertEqual((self.stored(), self.spooled(), self.parts()), ({}, [], []))

    async def test_fault_when_it_is_opened(self) -> None:
        """Nothing stays locked, and the next request finds it as it was."""
        await self.answers(202, 10, self.send("0-9/1024", DATA[:10]))
        [path] = (self.root / UNFINISHED).iterdir()
        # As a server leaves it that is killed when all has come.
        path.write_bytes(DATA)

        def broken(*_arguments: Any) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        truncate = os.truncate
        self.patch(os, "truncate", broken)
        await self.status(500, self.send("1023-1023/1024", DATA[1023:]))
        self.patch(os, "truncate", truncate)
        await self.answers(202, 1023, self.send("*/1024"))
        await self.answers(200, 1024, self.send("1023-1023/1024", DATA[1023:], Repr_Digest=digest(DATA)))

    async def test_fault_when_it_is_in_place(self) -> None:
        """The answer says that something failed, but nobody ever sees less than the whole file."""
        sync = os.fsync

        def broken(descriptor: int) -> None:
            if Path(f"/proc/self/fd/{descriptor}").readlink() == self.directory.resolve():
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            sync(descriptor)

        self.patch(os, "fsync", broken)
        await self.status(500, self.send("0-1023/1024", DATA))
        self.assertEqual((self.directory / "big").read_bytes(), DATA)
        self.patch(os, "fsync", sync)
        self.assertEqual(self.parts(), [])
        await self.answers(200, 1024, self.send("0-1023/1024", DATA[::-1], Repr_Digest=digest(DATA[::-1])))
        self.assertEqual((self.directory / "big").read_bytes(), DATA[::-1])

    async def test_account_that_fails_when_it_is_in_place(self) -> None:
        keep = Keeper.keep

        async def broken(*arguments: Any) -> None:
            await keep(*arguments)
            raise LGIError(ErrorNumber.DATABASE_UNREACHABLE)

        self.patch(Keeper, "keep", broken)
        await self.status(503, self.send("0-1023/1024", DATA))
        self.assertEqual(((self.directory / "big").read_bytes(), self.parts()), (DATA, []))


class FullDiskTests(PartCase):
    """A real file system without room."""

    def mktemp(self) -> str:
        """The server's directory, with a small file system for its repositories."""
        if os.geteuid() != 0:
            raise SkipTest("only root may mount a small file system to fill")
        name = super().mktemp()
        disk = Path(name).absolute() / "repository"
        disk.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={4 << 20}", "tmpfs", str(disk)]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            raise SkipTest(f"no file system can be mounted here: {done.stderr.decode(errors='replace').strip()}")
        self.addCleanup(subprocess.run, ["umount", "--lazy", str(disk)], check=True)
        return str(name)

    async def test_in_the_making(self) -> None:
        """What found room stays, is told, and it goes on from there when there is room."""
        data = os.urandom(2 << 20)
        filler = self.root / ".filler"
        filler.write_bytes(b"x" * (3 << 20))
        answer = await self.send(f"0-{len(data) - 1}/{len(data)}", data)
        offset = int(answer.headers["upload-offset"])
        self.assertEqual(answer.code, 507)
        self.assertIn("No space left", answer.text)
        self.assertGreater(offset, 500_000)
        self.assertLess(offset, len(data))
        await self.answers(202, offset, self.send(f"*/{len(data)}"))
        await self.answers(507, offset, self.send(f"{offset}-{len(data) - 1}/{len(data)}", data[offset:]))
        self.assertEqual(((self.directory / "big").exists(), self.parts()), (False, [offset]))
        filler.unlink()
        rest = self.send(f"{offset}-{len(data) - 1}/{len(data)}", data[offset:], Repr_Digest=digest(data))
        await self.answers(200, len(data), rest)
        self.assertEqual(((self.directory / "big").read_bytes(), self.parts()), (data, []))
