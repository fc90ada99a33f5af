"""Many files at once: into the right places, on disk, and nothing else is touched."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from lgi.client.landing import land
from lgi.client.part import Small
from lgi.client.places import Target, place_of
from lgi.client.repository import Patience
from lgi.client.tree import Problem, Stopped, Tree, at_once
from lgi.client.walk import find_files
from tests.unit.client.fakes import STORE, ServerTestCase, never
from tests.unit.client.resumable import Resumable


class Watch:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.problems: dict[str, Problem] = {}
        self.bytes = 0

    def started(self, name: str, size: int) -> Any:
        return self._count

    def _count(self, count: int) -> None:
        self.bytes += count

    def done(self, name: str, size: int) -> None:
        self.ended.append(name)

    def failed(self, name: str, problem: Problem) -> None:
        self.problems[name] = problem


class Trees(ServerTestCase):
    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.repository = Resumable()
        self._factory.wrappedFactory.resource = self.repository
        store = attrs.evolve(self.store, patience=Patience(tries=1, jitter=lambda low, _high: low))
        self.watch = Watch()
        self.tree = Tree(store=store, watcher=self.watch, count=4)
        self.to = Path(self.mktemp())

    def target(self, **more: Any) -> Target:
        target = Target(self.to, **more)
        self.addCleanup(target.close)
        return target

    @staticmethod
    def failing(call: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(call)

    async def get(self, **more: Any) -> None:
        await self.tree.get(await self.tree.store.list(), self.target(**more))

    async def test_there_and_back(self) -> None:
        self.repository.files = {f"d{i % 5}/e/f{i}": bytes([i]) * i * 100 for i in range(60)}
        expected = dict(self.repository.files)
        await self.get()
        self.assertEqual((len(self.watch.ended), self.watch.problems), (60, {}))
        self.assertEqual(self.watch.bytes, sum(map(len, expected.values())))
        found = find_files([self.to / name for name in os.listdir(self.to)], recursive=True)
        self.repository.files = {}
        await self.tree.put(found.files)
        self.assertEqual(self.repository.files, expected)
        await self.tree.remove(await self.tree.store.list())
        self.assertEqual(self.repository.files, {})

    async def test_nothing_is_written_through_links_or_outside(self) -> None:
        self.to.mkdir()
        outside = Path(self.mktemp())
        outside.mkdir()
        (outside / "victim").write_text("precious")
        (self.to / "d").symlink_to(outside.absolute())
        (self.to / "f").symlink_to((outside / "victim").absolute())
        (self.to / "plain").write_text("x")
        names = ("d/victim", "f", "plain/x", "../victim", "a/../../victim", "a/.hidden", "ok/x")
        self.repository.files = dict.fromkeys(names, b"new")
        await self.get()
        self.assertEqual(sorted(self.watch.ended), ["f", "ok/x"])
        refused = ["a/../../victim", "a/.hidden", "d/victim", "plain/x"]
        self.assertEqual(sorted(self.watch.problems), refused)
        # What begins with a dot is not even listed.
        self.assertEqual([path.name for path in outside.iterdir()], ["victim"])
        self.assertEqual((outside / "victim").read_text(), "precious")
        self.assertEqual(((self.to / "f").read_bytes(), (self.to / "f").is_symlink()), (b"new", False))
        self.assertIn("symbolic link", str(self.watch.problems["d/victim"]))
        self.assertEqual(sorted(os.listdir(self.to)), ["d", "f", "ok", "plain"])

    async def test_reserved_names(self) -> None:
        self.repository.files = {"LGI_key_file": b"x", "a/LGI_x": b"x"}
        await self.get(reserved="LGI_")
        self.assertEqual((self.watch.ended, list(self.watch.problems)), (["a/LGI_x"], ["LGI_key_file"]))

    async def test_one_that_fails_stops_no_other(self) -> None:
        self.repository.files = {f"f{i}": b"x" for i in range(10)}
        files = await self.tree.store.list()
        del self.repository.files["f3"]
        await self.tree.get(files, self.target())
        self.assertEqual((len(self.watch.ended), list(self.watch.problems)), (9, ["f3"]))

    async def test_server_that_goes_away_stops_all(self) -> None:
        self.repository.files = {f"f{i}": b"x" for i in range(50)}
        files = await self.tree.store.list()
        await self.stop_listening()
        await self.pool.closeCachedConnections()
        stopped: Any = await self.assertFailure(self.failing(self.tree.get(files, self.target())), Stopped)
        self.assertGreaterEqual(stopped.left, 46)
        self.assertLessEqual(len(self.watch.problems), 4)
        self.assertEqual(os.listdir(self.to), [])

    async def test_full_disk_stops_all(self) -> None:
        self.repository.files = {f"f{i}": b"x" for i in range(500)}

        def full(_self: Small) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        self.patch(Small, "stage", full)
        stopped: Any = await self.assertFailure(self.failing(self.get()), Stopped)
        self.assertEqual((stopped.why.errno, os.listdir(self.to)), (errno.ENOSPC, []))
        self.assertGreater(stopped.left, 0)

    async def test_cancelled(self) -> None:
        self.repository.files = {f"f{i}": b"x" for i in range(5)}
        files = await self.tree.store.list()
        self.repository.script = {f"repository/b07/{STORE}/f{i}": [never] for i in range(5)}
        getting = Deferred.fromCoroutine(self.tree.get(files, self.target()))
        while len(self.repository.seen) < 5:
            await _turn()
        getting.cancel()
        await self.assertFailure(getting, CancelledError)
        self.assertEqual(os.listdir(self.to), [])

    async def test_no_more_than_so_many_at_once(self) -> None:
        running = most = 0

        async def work(_item: int) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await _turn()
            running -= 1

        await at_once(3, range(20), work)
        self.assertEqual((running, most), (0, 3))


class Landings(SynchronousTestCase):
    def test_what_fails_leaves_nothing_and_the_others_appear(self) -> None:
        folder = Path(self.mktemp())
        (folder / "taken").mkdir(parents=True)
        files = []
        for name in ("a", "taken", "b"):
            with place_of(folder / name) as place:
                files.append(Small(place, name.encode()))
        first, second, third = land(files)
        self.assertEqual((first, third), (None, None))
        self.assertIsInstance(second, IsADirectoryError)
        self.assertEqual(sorted(os.listdir(folder)), ["a", "b", "taken"])
        self.assertEqual((folder / "b").read_bytes(), b"b")


async def _turn() -> None:
    from twisted.internet.task import deferLater

    from tests.unit.client.fakes import reactor

    await deferLater(reactor, 0.01)
