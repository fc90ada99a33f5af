"""A bell that is not heard in time, since its program is busy."""

from __future__ import annotations

from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from lgi.bell import Bell
from lgi.lists import ANY
from lgi.model import Changes

# More than the system keeps for anybody.
RINGS = 3000


class GatheringTests(TestCase):
    """Rings of a bell that much happens to."""

    async def test_together(self) -> None:
        """What changes at about the same time is one ring; closing keeps none back."""
        folder = Path(self.mktemp()).absolute()
        one, other = Bell(folder), Bell(folder)
        self.addCleanup(other.close)
        heard: list[tuple[str, Changes]] = []
        complete: Deferred[None] = Deferred()

        def hear(project: str, changes: Changes) -> None:
            heard.append((project, changes))
            if project == "last":
                complete.callback(None)

        other.heard = hear
        one.listen(reactor)
        other.listen(reactor)
        one.ring("LGI", Changes(jobs=frozenset([1])))
        one.ring("LGI", Changes(jobs=frozenset([2]), agenda=True))
        one.ring("last", Changes(agenda=True))
        one.close()
        await complete
        self.assertEqual(heard[0], ("LGI", Changes(jobs=frozenset([1, 2]), agenda=True)))
        self.assertEqual(len(heard), 2)


class BusyTests(TestCase):
    """Two bells in one process, of which one rings without letting the other hear."""

    timeout = 20

    async def test_nothing_is_lost(self) -> None:
        folder = Path(self.mktemp()).absolute()
        one, other = Bell(folder), Bell(folder)
        self.addCleanup(one.close)
        self.addCleanup(other.close)
        heard = Changes()
        rings = 0
        complete: Deferred[None] = Deferred()

        def hear(project: str, changes: Changes) -> None:
            nonlocal heard, rings
            self.assertEqual(project, "LGI")
            heard |= changes
            rings += 1
            if len(heard.jobs) == RINGS and not complete.called:
                complete.callback(None)

        other.heard = hear
        one.listen(reactor)
        other.listen(reactor)
        for number in range(RINGS):
            one.ring("LGI", Changes(jobs=frozenset([number]), offers=frozenset([("hello_world", ANY)])))
        await complete
        self.assertEqual(heard.offers, {("hello_world", ANY)})
        self.assertLess(rings, RINGS)

    async def test_gone_meanwhile(self) -> None:
        """What is late for one that has gone is forgotten."""
        folder = Path(self.mktemp()).absolute()
        one, other = Bell(folder), Bell(folder)
        self.addCleanup(one.close)
        one.listen(reactor)
        other.listen(reactor)
        for number in range(RINGS):
            one.ring("LGI", Changes(jobs=frozenset([number])))
            one._ring_all()
        other.close()
        self.assertTrue(one._late)
        one._again()
        self.assertEqual((one._late, one._timer), ({}, None))
