"""Files up and down, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.web.server import NOT_DONE_YET, Request

from lgi.client.answers import AnswerMalformed, ServerRefused, ServerUnreachable
from lgi.client.repository import Patience, checked_name
from tests.unit.client import fakes
from tests.unit.client.fakes import STORE, ServerTestCase

LISTING = "repository/repository_content.php"


class Repository(ServerTestCase):
    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.target = self.folder / "x"
        self.store = attrs.evolve(self.store, patience=Patience(tries=1, jitter=lambda low, _high: low))

    def script(self, name: str, answer: fakes.Scripted) -> None:
        self.fake.script[f"repository/b07/{STORE}/{name}"] = [answer]

    async def fails(self, kind: type[Exception], pattern: str, call: Any) -> None:
        try:
            await call
        except kind as problem:
            self.assertRegex(str(problem), pattern)
        else:
            self.fail(f"no {kind.__name__}")

    async def test_list(self) -> None:
        self.fake.files = {"b.csv": b"12", "a b.txt": b"1"}
        self.assertEqual([(f.name, f.size) for f in await self.store.list()], [("a b.txt", 1), ("b.csv", 2)])
        self.assertEqual(self.fake.seen, [("GET", f"/LGI/{LISTING}?repository={STORE}")])

    async def test_list_without_fan_out(self) -> None:
        store = attrs.evolve(self.store, url=f"{self.url}/repository/{STORE}/")
        await store.list()
        self.assertEqual(self.fake.seen, [("GET", f"/LGI/{LISTING}?repository={STORE}")])

    async def test_half_a_listing(self) -> None:
        self.fake.script[LISTING] = [b"<repository_content> <repository_name> JOB_1 </repository_name> "]
        await self.fails(AnswerMalformed, "breaks off", self.store.list())

    async def test_listing_that_is_an_error(self) -> None:
        self.fake.script[LISTING] = [b"<status> <number> 500 </number> <message> no </message> </status>"]
        await self.fails(AnswerMalformed, "not <repository_content>", self.store.list())

    async def test_get(self) -> None:
        self.fake.files["a b+c%.csv"] = data = bytes(range(256)) * 1000
        moved: list[int] = []
        self.assertEqual(await self.store.get("a b+c%.csv", self.target, moved.append), len(data))
        self.assertEqual(self.target.read_bytes(), data)
        self.assertEqual(sum(moved), len(data))
        self.assertEqual(self.fake.seen, [("GET", f"/LGI/repository/b07/{STORE}/a%20b%2Bc%25.csv")])
        self.assertFalse(self.target.stat().st_mode & 0o111)

    async def test_get_an_empty_file(self) -> None:
        self.fake.files["x"] = b""
        self.assertEqual(await self.store.get("x", self.target), 0)
        self.assertEqual(self.target.read_bytes(), b"")

    async def test_missing(self) -> None:
        self.target.write_text("old")
        await self.fails(ServerRefused, "it is not here .error 404", self.store.get("x", self.target))
        self.assertEqual(self.target.read_text(), "old")
        self.assertEqual([path.name for path in self.folder.iterdir()], ["x"])

    async def test_download_cut_in_the_middle_leaves_nothing(self) -> None:
        self.script("x", fakes.cut)
        moved: list[int] = []
        await self.fails(ServerUnreachable, "closed", self.store.get("x", self.target, moved.append))
        self.assertEqual((moved, len(self.fake.seen)), ([4, -4, 4], 2))
        self.assertEqual(list(self.folder.iterdir()), [])

    async def test_download_of_unknown_length_is_not_believed(self) -> None:
        def unending(request: Request) -> Any:
            request.clientproto = b"HTTP/1.0"
            request.write(b"half")
            assert request.channel is not None
            request.channel.loseConnection()
            return NOT_DONE_YET

        self.script("x", unending)
        await self.fails(ServerUnreachable, "no end", self.store.get("x", self.target))
        self.assertEqual(list(self.folder.iterdir()), [])

    async def test_stalled_download(self) -> None:
        def stall(request: Request) -> Any:
            request.setHeader(b"content-length", b"10")
            request.write(b"half")
            return NOT_DONE_YET

        self.script("x", stall)
        store = attrs.evolve(self.store, timeout=0.05)
        await self.fails(ServerUnreachable, "no answer in time", store.get("x", self.target))
        self.assertEqual(list(self.folder.iterdir()), [])

    async def test_cancelled_download_leaves_nothing(self) -> None:
        def stall(request: Request) -> Any:
            request.setHeader(b"content-length", b"10")
            request.write(b"half")
            return NOT_DONE_YET

        self.script("x", stall)
        started: Deferred[int] = Deferred()
        getting = Deferred.fromCoroutine(self.store.get("x", self.target, started.callback))
        await started
        getting.cancel()
        await self.assertFailure(getting, CancelledError)
        self.assertEqual(list(self.folder.iterdir()), [])

    async def test_trouble_with_the_local_disk_is_no_outage(self) -> None:
        self.fake.files["x"] = b"data"
        self.target.mkdir()
        await self.fails(IsADirectoryError, "directory", self.store.get("x", self.target))
        self.assertEqual([path.name for path in self.folder.iterdir()], ["x"])

        def full(_count: int) -> None:
            raise OSError(28, "No space left on device")

        await self.fails(OSError, "No space", self.store.get("x", self.folder / "y", full))
        self.assertEqual([path.name for path in self.folder.iterdir()], ["x"])

    async def test_put_and_delete(self) -> None:
        source = self.folder / "s"
        source.write_bytes(bytes(800_000))
        moved: list[int] = []
        await self.store.put(source, "new one", moved.append)
        self.assertEqual(self.fake.files, {"new one": bytes(800_000)})
        self.assertEqual(sum(moved), 800_000)
        self.assertGreater(len(moved), 2)
        await self.store.delete("new one")
        self.assertEqual(self.fake.files, {})

    async def test_put_an_empty_file(self) -> None:
        source = self.folder / "empty"
        source.touch()
        await self.store.put(source)
        self.assertEqual(self.fake.files, {"empty": b""})

    async def test_refused_put(self) -> None:
        source = self.folder / "s"
        source.write_text("x")

        def refuse(request: Request) -> bytes:
            request.setResponseCode(403)
            return b"<status> <number> 403 </number> <message> not yours </message> </status>"

        self.script("s", refuse)
        await self.fails(ServerRefused, "not yours .error 403", self.store.put(source))

    async def test_names_that_leave_the_repository(self) -> None:
        for name in (
            "",
            ".LGI_repository_write_access",
            "..",
            "/a",
            "a/",
            "a//b",
            "a/../b",
            "a/.b",
            "a\\b",
            "a\nb",
            "/".join("a" * 33),
            "repository_content.php",
            "x" * 256,
            "\udcff",
        ):
            self.assertRaises(ValueError, checked_name, name)
            await self.fails(ValueError, "repository", self.store.get(name, self.target))
            await self.fails(ValueError, "repository", self.store.delete(name))
        self.assertEqual((self.fake.seen, list(self.folder.iterdir())), ([], []))
