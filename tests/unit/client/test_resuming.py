"""Transfers that are cut, and go on where they stopped."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.web.server import NOT_DONE_YET, Request

from lgi.client.answers import AnswerMalformed, ServerRefused, ServerUnreachable
from lgi.client.repository import FileChanged, Patience, RepositoryClient
from tests.unit.client.fakes import ServerTestCase
from tests.unit.client.resumable import Resumable

SIZE = 9 << 20  # more than what goes in one request


def leap(low: float, _high: float) -> float:
    """No waiting between attempts."""
    return low


class _Case(ServerTestCase):
    server_class = Resumable

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.repository = Resumable()
        self._factory.wrappedFactory.resource = self.repository
        self.store = attrs.evolve(self.store, patience=Patience(tries=2, jitter=leap))
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.local = self.folder / "big"
        self.data = random.Random(1).randbytes(SIZE)
        self.moved = 0

    def progress(self, count: int) -> None:
        self.moved += count

    @property
    def here(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())

    def fresh(self) -> RepositoryClient:
        """As another process has it."""
        return attrs.evolve(self.store)

    async def fails(self, kind: type[Exception], pattern: str, call: Any) -> None:
        failing: Deferred[Any] = Deferred.fromCoroutine(call)
        self.assertRegex(str(await self.assertFailure(failing, kind)), pattern)


class Downloads(_Case):
    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.repository.files["run1/big"] = self.data

    def get(self, **more: Any) -> Any:
        return self.store.get("run1/big", self.local, self.progress, **more)

    async def test_cut_again_and_again_while_it_gets_further(self) -> None:
        self.repository.cuts = [1_000_000] * 8
        self.assertEqual(await self.get(), SIZE)
        self.assertEqual((self.local.read_bytes() == self.data, self.moved, self.here), (True, SIZE, ["big"]))
        spans = [span for _, _, span in self.repository.log]
        self.assertEqual(spans[:3], ["", "bytes=1000000-", "bytes=2000000-"])
        self.assertEqual(self.local.stat().st_mode & 0o777, 0o666 & ~_umask())

    async def test_no_progress_ends_it_and_the_next_process_goes_on(self) -> None:
        self.repository.cuts = [5_000_000, 0, 0]
        await self.fails(ServerUnreachable, "closed", self.get())
        [part] = self.here
        self.assertRegex(part, r"^\.big\.[0-9a-f]{32}\.lgi-part$")
        status = (self.folder / part).stat()
        self.assertEqual((status.st_size, status.st_mode & 0o777), (5_000_000, 0o600))
        self.repository.log.clear()
        self.moved = 0
        self.assertEqual(await self.get(), SIZE)
        self.assertEqual((self.local.read_bytes() == self.data, self.moved, self.here), (True, SIZE, ["big"]))
        self.assertEqual(self.repository.log[1], ("GET", "run1/big", "bytes=5000000-"))

    async def test_part_that_is_damaged_is_not_believed(self) -> None:
        self.repository.cuts = [5_000_000, 0, 0]
        await self.fails(ServerUnreachable, "closed", self.get())
        (self.folder / self.here[0]).write_bytes(bytes(5_000_000))
        await self.get()
        self.assertEqual((self.local.read_bytes() == self.data, self.here), (True, ["big"]))

    async def test_part_that_is_whole_already(self) -> None:
        self.repository.cuts = [5_000_000, 0, 0]
        await self.fails(ServerUnreachable, "closed", self.get())
        (self.folder / self.here[0]).write_bytes(self.data)
        await self.get()
        self.assertEqual((self.local.read_bytes() == self.data, self.here), (True, ["big"]))
        self.assertEqual([method for method, _, _ in self.repository.log[-2:]], ["GET", "HEAD"])

    async def test_file_that_changed_begins_anew_and_leaves_no_old_part(self) -> None:
        self.repository.cuts = [5_000_000, 0, 0]
        await self.fails(ServerUnreachable, "closed", self.get())
        self.repository.files["run1/big"] = self.data = self.data[::-1]
        await self.get()
        self.assertEqual((self.local.read_bytes() == self.data, self.here), (True, ["big"]))

    async def test_file_that_changes_between_two_attempts(self) -> None:
        other = self.data[::-1]

        def change(count: int) -> None:
            self.progress(count)
            if self.moved == 5_000_000:
                self.repository.files["run1/big"] = other

        self.repository.cuts = [5_000_000]
        self.assertEqual(await self.store.get("run1/big", self.local, change), SIZE)
        self.assertEqual((self.local.read_bytes() == other, self.moved, self.here), (True, SIZE, ["big"]))

    async def test_server_without_marks(self) -> None:
        self.repository.marks = False
        self.repository.cuts = [5_000_000]
        self.assertEqual(await self.get(), SIZE)
        self.assertEqual((self.local.read_bytes() == self.data, self.moved, self.here), (True, SIZE, ["big"]))
        self.assertEqual([span for _, _, span in self.repository.log], ["", ""])
        await self.fails(AnswerMalformed, "no digest", self.get(verify=True))

    async def test_two_processes_at_once(self) -> None:
        asked: Deferred[None] = Deferred()

        def started(_count: int) -> None:
            if not asked.called:
                asked.callback(None)

        def half(request: Request) -> Any:
            request.setHeader("etag", '"x"')
            request.setHeader("content-length", str(SIZE))
            request.write(b"half" * 100_000)
            return NOT_DONE_YET

        self.repository.script["repository/b07/" + self.store.url.rsplit("/", 1)[-1] + "/run1/big"] = [half]
        first = Deferred.fromCoroutine(self.store.get("run1/big", self.local, started))
        await asked
        second = Deferred.fromCoroutine(self.fresh().get("run1/big", self.local))
        while len(self.repository.seen) < 2 or len(self.here) < 2:
            await _turn()
        self.assertEqual(len(self.here), 2)
        for one in (first, second):
            one.cancel()
            await self.assertFailure(one, CancelledError)
        self.assertEqual(len(self.here), 1)

    async def test_verified(self) -> None:
        await self.get(verify=True)
        self.assertEqual([method for method, _, _ in self.repository.log], ["GET", "HEAD"])

    async def test_link_for_a_part_is_not_written_through(self) -> None:
        self.repository.cuts = [5_000_000, 0, 0]
        await self.fails(ServerUnreachable, "closed", self.get())
        part = self.folder / self.here[0]
        victim = Path(self.mktemp())
        victim.write_text("precious")
        part.unlink()
        part.symlink_to(victim.absolute())
        await self.get()
        self.assertEqual((victim.read_text(), self.local.read_bytes() == self.data), ("precious", True))
        self.local.unlink()
        os.link(victim, part)
        await self.get()
        self.assertEqual((victim.read_text(), self.local.read_bytes() == self.data), ("precious", True))


class Uploads(_Case):
    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.local.write_bytes(self.data)

    def put(self, **more: Any) -> Any:
        return self.store.put(self.local, "run1/big", self.progress, **more)

    def arrived(self) -> bool:
        return self.repository.files.get("run1/big") == self.data

    async def test_cut_again_and_again_while_it_gets_further(self) -> None:
        self.repository.cuts = [1_000_000] * 8
        self.assertEqual(await self.put(verify=True), SIZE)
        self.assertEqual((self.arrived(), self.moved, self.repository.held), (True, SIZE, {}))
        pieces = [span for _, name, span in self.repository.log if name == "run1/big" and "*" not in span]
        self.assertEqual(pieces[1], f"bytes 1000000-{SIZE - 65537}/{SIZE}")

    async def test_no_progress_ends_it_and_the_next_process_goes_on(self) -> None:
        self.repository.cuts = [5_000_000, 0, 0, 0]
        await self.fails(ServerUnreachable, "closed", self.put())
        self.assertEqual(self.repository.files, {})
        self.repository.log.clear()
        self.moved = 0
        await self.fresh().put(self.local, "run1/big", self.progress)
        self.assertEqual((self.arrived(), self.moved), (True, SIZE))
        self.assertIn(("PUT", "run1/big", f"bytes 5000000-{SIZE - 65537}/{SIZE}"), self.repository.log)

    async def test_another_version_does_not_go_on_with_the_first(self) -> None:
        self.repository.cuts = [5_000_000, 0, 0, 0]
        await self.fails(ServerUnreachable, "closed", self.put())
        self.data = self.data[::-1]
        self.local.write_bytes(self.data)
        os.utime(self.local, (1, 1))
        await self.put()
        self.assertTrue(self.arrived())

    async def test_damaged_on_the_server_begins_anew(self) -> None:
        self.repository.cuts = [5_000_000, 0, 0, 0]
        await self.fails(ServerUnreachable, "closed", self.put())
        self.repository.held = {key: bytes(len(value)) for key, value in self.repository.held.items()}
        self.moved = 0
        await self.put()
        self.assertEqual((self.arrived(), self.moved), (True, SIZE))

    async def test_lost_answer_to_the_last_piece(self) -> None:
        self.repository.lost_answers = 1
        await self.put()
        self.assertEqual((self.arrived(), self.moved), (True, SIZE))
        sent = [span for _, name, span in self.repository.log if name == "run1/big" and "-" in span]
        self.assertEqual(len(sent), 2)

    async def test_server_that_knows_no_pieces_keeps_the_old_file_until_the_new_one_is_there(self) -> None:
        self.repository.marks = False
        self.repository.files["run1/big"] = b"old"
        await self.put()
        self.assertEqual((self.arrived(), list(self.repository.files), self.moved), (True, ["run1/big"], SIZE))
        methods = [(method, name.startswith("lgi-probe-")) for method, name, _ in self.repository.log]
        self.assertEqual(methods, [("PUT", True), ("DELETE", True), ("PUT", False)])

    async def test_server_that_refuses_pieces(self) -> None:
        for code in (400, 500, 501):
            self.repository.weather = [code]
            self.repository.files = {}
            await self.fresh().put(self.local, "run1/big")
            self.assertTrue(self.arrived(), code)

    async def test_refused_for_good(self) -> None:
        for code in (403, 413, 507):
            self.repository.weather = [code]
            await self.fails(ServerRefused, f"error {code}", self.fresh().put(self.local, "run1/big"))
        self.assertEqual(len(self.repository.log), 3)

    async def test_bad_weather_passes(self) -> None:
        self.repository.weather = [503, 502]
        await self.put()
        self.assertTrue(self.arrived())
        small = self.folder / "small"
        small.write_bytes(b"x")
        self.repository.weather = [503, 500]
        await self.store.put(small)
        self.assertEqual(self.repository.files["small"], b"x")
        self.repository.weather = [503, 500, 503]
        await self.fails(ServerRefused, "503", self.store.put(small))

    async def test_another_connection_is_at_it(self) -> None:
        self.repository.busy = 2
        await self.put()
        self.assertTrue(self.arrived())
        self.repository.busy = 1
        self.store = attrs.evolve(self.store, patience=Patience(busy=0))
        await self.fails(ServerRefused, "409", self.put())

    async def test_file_that_shrinks(self) -> None:
        def shrink(_count: int) -> None:
            self.local.write_bytes(self.data[:100])

        await self.fails(FileChanged, "changed while it was being sent", self.store.put(self.local, "x", shrink))
        self.assertEqual(self.repository.files, {})

    async def test_file_that_is_replaced(self) -> None:
        def replace(_count: int) -> None:
            other = self.folder / "other"
            other.write_bytes(self.data)
            other.replace(self.local)

        await self.fails(FileChanged, "changed while it was being sent", self.store.put(self.local, "x", replace))
        self.assertEqual(self.repository.files, {})

    async def test_what_is_no_file(self) -> None:
        os.mkfifo(self.folder / "pipe")
        await self.fails(OSError, "not a regular file", self.store.put(self.folder / "pipe"))
        await self.fails(OSError, "not a regular file", self.store.put(self.folder))
        self.assertEqual(self.repository.log, [])


def _umask() -> int:
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


async def _turn() -> None:
    from twisted.internet.task import deferLater

    from tests.unit.client.fakes import reactor

    await deferLater(reactor, 0.01)


del _Case
