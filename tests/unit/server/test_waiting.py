"""The lines of resources that wait for work."""

from __future__ import annotations

from collections.abc import Callable, Collection

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lgi.errors import ErrorNumber, LGIError
from lgi.server.waiting import LINGER, RETELL, Offer, Waiting

HELLO, LJ = "hello_world", "lj_md"
BOTH = frozenset([HELLO, LJ])


class WaitingTests(SynchronousTestCase):
    """Who is told of what, and when."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.left, self.away = True, False
        self.looks: list[set[Offer]] = []
        self.waiting = Waiting(lambda: self.clock, self.on_offer)
        self.hang_up: dict[int, Callable[[], None]] = {}

    async def on_offer(self, offers: Collection[Offer]) -> Collection[Offer]:
        self.looks.append(set(offers))
        if self.away:
            raise LGIError(ErrorNumber.OVERLOADED)
        return offers if self.left else ()

    def wait(
        self, session_id: int, applications: frozenset[str] = BOTH, seconds: float = 60, name: str = ""
    ) -> Deferred[frozenset[str]]:
        def gone(action: Callable[[], None]) -> None:
            self.hang_up[session_id] = action

        name = name or f"r{session_id}@host"
        return Deferred.fromCoroutine(self.waiting.wait(session_id, name, applications, seconds, gone))

    def looked(
        self, session_id: int, applications: frozenset[str] = BOTH, name: str = ""
    ) -> Deferred[frozenset[str]]:
        """A session that has looked, and waits."""
        self.assertEqual(self.successResultOf(self.wait(session_id, applications, name=name)), applications)
        held = self.wait(session_id, applications, name=name)
        self.assertNoResult(held)
        return held

    def clean(self) -> None:
        """Nobody waits, and nothing is kept of those who did."""
        self.waiting.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual((self.waiting._places, self.waiting._lines, self.waiting._own_lines), ({}, {}, {}))
        self.assertEqual(self.waiting._rounds, {})

    def test_one_is_told_of_each_job(self) -> None:
        """In the order in which they began to wait."""
        held = [self.looked(number) for number in (1, 2, 3)]
        self.waiting.tell([(HELLO, "any")])
        self.assertEqual(self.successResultOf(held[0]), {HELLO})
        self.assertNoResult(held[1])
        self.waiting.tell([(LJ, "any"), (HELLO, "any")])
        self.assertEqual(self.successResultOf(held[1]), {LJ})
        self.assertEqual(self.successResultOf(held[2]), {HELLO})
        self.clean()

    def test_the_target_is_told(self) -> None:
        first, second = self.looked(1), self.looked(2)
        self.waiting.tell([(HELLO, "r2@host"), (HELLO, "r9@host")])
        self.assertNoResult(first)
        self.assertEqual(self.successResultOf(second), {HELLO})
        self.clean()

    def test_one_session_of_the_target_is_told(self) -> None:
        """The next one when that takes nothing; in the order in which they wait."""
        one = "r@host"
        held = [self.looked(number, name=one) for number in (1, 2)]
        self.looked(3)
        self.waiting.tell([(HELLO, one)])
        self.assertEqual(self.successResultOf(held[0]), {HELLO})
        self.assertNoResult(held[1])
        again = self.wait(1, name=one)
        self.waiting.tell([(HELLO, one)])
        self.assertEqual(self.successResultOf(held[1]), {HELLO})
        self.clock.advance(RETELL)
        self.assertEqual(self.looks, [{(HELLO, one)}])
        self.assertEqual(self.successResultOf(again), {HELLO})
        self.clean()

    def test_nothing_is_looked_at_where_nobody_else_could_be_told(self) -> None:
        held = self.looked(1)
        self.looked(2, frozenset([LJ]))
        self.waiting.tell([(HELLO, "r1@host"), (HELLO, "any")])
        self.assertEqual(self.successResultOf(held), {HELLO})
        self.assertEqual((self.waiting._rounds, self.looks), ({}, []))
        self.clean()

    def test_looks_are_made_together(self) -> None:
        names = [f"r{number}@host" for number in range(5)]
        for number in range(20):
            self.looked(number, name=names[number % 5])
        for name in names:
            self.waiting.tell([(HELLO, name)])
            self.clock.advance(0.01)
        self.left = False
        self.clock.advance(RETELL)
        self.assertEqual(self.looks, [{(HELLO, name) for name in names}])
        self.assertEqual(self.waiting._rounds, {})
        self.clean()

    def test_more_and_more_are_told_of_what_is_left(self) -> None:
        held = [self.looked(number) for number in range(16)]

        def told() -> int:
            return sum(one.called for one in held)

        self.waiting.tell([(HELLO, "any")])
        numbers = [told()]
        for _ in range(4):
            self.clock.advance(RETELL)
            numbers.append(told())
        self.assertEqual(numbers, [1, 2, 4, 8, 16])
        self.clean()

    def test_database_that_is_away(self) -> None:
        """Nobody is told in vain, and the next job is told of as ever."""
        held = [self.looked(number) for number in (1, 2)]
        self.away = True
        self.waiting.tell([(HELLO, "any")])
        self.clock.advance(RETELL)
        self.assertNoResult(held[1])
        self.assertEqual(self.waiting._rounds, {})
        self.away = False
        self.waiting.tell([(HELLO, "any")])
        self.assertEqual(self.successResultOf(held[1]), {HELLO})
        self.clean()

    def test_other_applications(self) -> None:
        held = self.looked(1, frozenset([LJ]))
        self.waiting.tell([(HELLO, "any"), (HELLO, "r1@host")])
        self.assertNoResult(held)
        self.clean()
        self.assertEqual(self.successResultOf(held), frozenset())

    def test_what_comes_while_it_looks_is_kept(self) -> None:
        held = self.looked(1)
        self.waiting.tell([(HELLO, "any")])
        self.successResultOf(held)
        self.waiting.tell([(LJ, "any"), (HELLO, "r1@host")])
        self.assertEqual(self.successResultOf(self.wait(1)), BOTH)
        self.assertNoResult(self.wait(1))
        self.clean()

    def test_who_takes_nothing_loses_it_to_the_next(self) -> None:
        held = [self.looked(number) for number in (1, 2, 3)]
        self.waiting.tell([(HELLO, "any")])
        self.successResultOf(held[0])
        again = self.wait(1)
        self.clock.advance(RETELL)
        self.assertEqual(self.successResultOf(held[1]), {HELLO})
        self.left = False
        self.clock.advance(RETELL)
        self.assertNoResult(held[2])
        self.assertNoResult(again)
        self.assertEqual(self.waiting._rounds, {})
        self.clean()

    def test_each_is_told_once_of_a_job_that_nobody_wants(self) -> None:
        held = [self.looked(number) for number in (1, 2)]
        self.waiting.tell([(HELLO, "any")])
        for number, one in enumerate(held, start=1):
            self.assertEqual(self.successResultOf(one), {HELLO})
            held[number - 1] = self.wait(number)
            self.clock.advance(RETELL)
        self.clock.advance(10 * RETELL)
        for one in held:
            self.assertNoResult(one)
        self.clean()

    def test_nothing_comes(self) -> None:
        held = self.looked(1)
        self.clock.advance(60)
        self.assertEqual(self.successResultOf(held), frozenset())
        self.clean()

    def test_another_application_makes_it_look(self) -> None:
        first = self.looked(1, frozenset([HELLO]))
        self.assertEqual(self.successResultOf(self.wait(1, BOTH)), {LJ})
        self.assertEqual(self.successResultOf(first), frozenset())
        self.assertNoResult(self.wait(1, frozenset([HELLO])))
        self.clean()

    def test_client_that_hangs_up_is_not_told(self) -> None:
        first, second = self.looked(1), self.looked(2)
        self.hang_up[1]()
        self.assertEqual(self.successResultOf(first), frozenset())
        self.waiting.tell([(HELLO, "any")])
        self.assertEqual(self.successResultOf(second), {HELLO})
        self.hang_up[2]()  # too late to matter
        self.assertEqual(self.successResultOf(self.wait(1)), BOTH)
        self.clean()

    def test_session_that_does_not_come_back_is_forgotten(self) -> None:
        self.successResultOf(self.wait(1))
        self.assertEqual(len(self.waiting), 1)
        self.clock.advance(LINGER)
        self.assertEqual(len(self.waiting), 0)
        self.assertEqual(self.successResultOf(self.wait(1)), BOTH)
        self.clean()

    def test_stopped(self) -> None:
        held = self.looked(1)
        self.waiting.stop()
        self.assertEqual(self.successResultOf(held), frozenset())
        self.successResultOf(self.wait(1))
        self.clean()
