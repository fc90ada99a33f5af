"""Bells in one directory, with real sockets."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from lgi.bell import GATHER_SECONDS, LONG_GATHER_SECONDS, Bell, decode, encode
from lgi.model import Changes

OFFERS = frozenset([("hello_world", "any"), ("é", "r1@host")])
CHANGES = Changes(jobs=frozenset([1, 10**12]), offers=OFFERS, agenda=True)
# Longer than a socket's address may be.
DEEP = "deeper" * 20


class BellTests(TestCase):
    """Who rings is heard by all others, and never waits."""

    timeout = 20

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute() / DEEP
        self.folder.parent.mkdir(parents=True)
        self.heard: list[tuple[str, str, Changes]] = []
        self.next: Deferred[None] = Deferred()

    def bell(self, name: str) -> Bell:
        """A bell that listens."""
        bell = Bell(self.folder)

        def hear(project: str, changes: Changes) -> None:
            self.heard.append((name, project, changes))
            if not self.next.called:
                self.next.callback(None)

        bell.heard = hear
        bell.listen(reactor)
        self.addCleanup(bell.close)
        return bell

    async def count(self, number: int) -> list[tuple[str, str, Changes]]:
        """So many rings, in order of who heard them."""
        while len(self.heard) < number:
            self.next = Deferred()
            await self.next
        return sorted(self.heard, key=lambda one: one[0])

    async def test_all_others_hear(self) -> None:
        first, _second, _third = self.bell("a"), self.bell("b"), self.bell("c")
        first.ring("LGI", CHANGES)
        self.assertEqual(await self.count(2), [("b", "LGI", CHANGES), ("c", "LGI", CHANGES)])

    async def test_who_does_not_listen_may_ring(self) -> None:
        self.bell("a")
        passing = Bell(self.folder)
        passing.ring("LGI", Changes(agenda=True))
        passing.close()
        self.assertEqual(await self.count(1), [("a", "LGI", Changes(agenda=True))])

    def test_nobody_is_there(self) -> None:
        alone = Bell(self.folder)
        alone.ring("LGI", CHANGES)
        self.assertFalse(self.folder.exists())
        alone.close()
        alone.close()

    def test_one_that_was_killed_is_cleared_away(self) -> None:
        ringing = self.bell("a")
        dead = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        place = os.open(self.folder, os.O_RDONLY)
        dead.bind(f"/proc/self/fd/{place}/1-dead.bell")
        dead.close()
        os.close(place)
        other = self.folder / "kept"
        other.write_text("")
        self.assertEqual(len(list(self.folder.iterdir())), 3)
        ringing.ring("LGI", CHANGES)
        ringing._ring_all()
        self.assertNotIn(self.folder / "1-dead.bell", list(self.folder.iterdir()))
        self.assertTrue(other.exists())

    def test_one_that_does_not_read_is_not_waited_for(self) -> None:
        # Its reactor does not turn during this test.
        self.bell("busy")
        ringing = self.bell("a")
        for number in range(5000):
            ringing.ring("LGI", Changes(jobs=frozenset([number])))

    async def test_what_is_not_understood_is_left(self) -> None:
        listening = self.bell("a")
        place = os.open(self.folder, os.O_RDONLY)
        stranger = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        for datagram in (b"", b"x", b"[]", b"{}", encode("LGI", CHANGES)[:-3], b"\xff", encode("LGI", CHANGES)):
            stranger.sendto(datagram, f"/proc/self/fd/{place}/{listening._name}")
        stranger.close()
        os.close(place)
        self.assertEqual(await self.count(1), [("a", "LGI", CHANGES)])

    def test_closing_leaves_nothing(self) -> None:
        bell = self.bell("a")
        self.assertEqual(self.folder.stat().st_mode & 0o777, 0o700)
        bell.close()
        self.assertEqual(list(self.folder.iterdir()), [])
        self.assertEqual(bell.fileno(), -1)

    def test_there_and_back(self) -> None:
        self.assertEqual(decode(encode("LGI", CHANGES)), ("LGI", CHANGES))
        self.assertEqual(decode(encode("é", Changes())), ("é", Changes()))


class Turning(Clock):
    """A reactor for bells that are told by hand when something has come."""

    def addReader(self, reader: object) -> None:
        """Watch nothing."""

    removeReader = addReader


class GatherTests(SynchronousTestCase):
    """What changes at about the same time is one ring."""

    def setUp(self) -> None:
        self.clock = Turning()
        self.heard: list[Changes] = []
        folder = Path(self.mktemp()).absolute()
        self.ringing, self.listening = Bell(folder), Bell(folder)
        self.listening.heard = lambda _project, changes: self.heard.append(changes)
        for bell in (self.ringing, self.listening):
            bell.listen(self.clock)
            self.addCleanup(bell.close)

    def heard_after(self, seconds: float) -> list[Changes]:
        """What has been heard when so much more time has passed."""
        self.clock.advance(seconds)
        self.listening.doRead()
        return self.heard

    def test_work_is_told_of_soon(self) -> None:
        for job_id in (1, 2):
            self.ringing.ring("LGI", Changes(jobs=frozenset([job_id]), offers=OFFERS))
        self.assertEqual(self.heard_after(0), [])
        self.assertEqual(self.heard_after(GATHER_SECONDS), [Changes(jobs=frozenset([1, 2]), offers=OFFERS)])

    def test_changed_jobs_take_longer(self) -> None:
        self.ringing.ring("LGI", Changes(jobs=frozenset([1])))
        self.assertEqual(self.heard_after(0.6 * LONG_GATHER_SECONDS), [])
        self.ringing.ring("LGI", Changes(jobs=frozenset([2])))
        self.assertEqual(self.heard_after(0.6 * LONG_GATHER_SECONDS), [Changes(jobs=frozenset([1, 2]))])

    def test_work_takes_along_what_waits(self) -> None:
        for changes in (Changes(jobs=frozenset([1])), Changes(agenda=True), Changes(jobs=frozenset([2]))):
            self.ringing.ring("LGI", changes)
        self.assertEqual(self.heard_after(GATHER_SECONDS), [Changes(jobs=frozenset([1, 2]), agenda=True)])
        self.assertEqual(len(self.heard_after(2 * LONG_GATHER_SECONDS)), 1)

    def test_what_comes_late_does_not_put_off(self) -> None:
        self.ringing.ring("LGI", Changes(jobs=frozenset([1])))
        self.clock.advance(LONG_GATHER_SECONDS - GATHER_SECONDS / 2)
        self.ringing.ring("LGI", Changes(offers=OFFERS))
        self.assertEqual(self.heard_after(GATHER_SECONDS / 2), [Changes(jobs=frozenset([1]), offers=OFFERS)])
