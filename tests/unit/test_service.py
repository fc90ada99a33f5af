"""Periodic work."""

from __future__ import annotations

from collections.abc import Awaitable

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from lgi.errors import ErrorNumber, LGIError
from lgi.service import Periodic


class PeriodicTests(SynchronousTestCase):
    """Again and again, at once when woken, not twice at a time."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.calls: list[float] = []
        self.pause = 5.0
        self.held: Deferred[float] | None = None
        self.service = Periodic(self.clock, "work", self.work, retry=7)

    def work(self) -> Awaitable[float]:
        self.calls.append(self.clock.seconds())
        if self.held is not None:
            return self.held
        return succeed(self.pause)

    def advance(self, seconds: int) -> None:
        """Let time pass second by second."""
        self.clock.pump([1.0] * seconds)

    def test_works_at_once_and_after_each_pause(self) -> None:
        self.service.startService()
        self.advance(4)
        self.assertEqual(self.calls, [0])
        self.advance(1)
        self.pause = 2
        self.advance(6)
        # The pause that a call asks for is the one after it.
        self.assertEqual(self.calls, [0, 5, 10])
        self.advance(2)
        self.assertEqual(self.calls, [0, 5, 10, 12])

    def test_waking_works_now_and_replaces_the_timer(self) -> None:
        self.service.startService()
        self.advance(3)
        self.service.wake()
        self.assertEqual(self.calls, [0, 3])
        self.advance(4)
        self.assertEqual(self.calls, [0, 3])
        self.advance(1)
        self.assertEqual(self.calls, [0, 3, 8])
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_waking_during_work_works_once_more_after_it(self) -> None:
        held: Deferred[float] = Deferred()
        self.held = held
        self.service.startService()
        for _ in range(3):
            self.service.wake()
        self.assertEqual(self.calls, [0])
        self.held = None
        held.callback(5.0)
        self.clock.advance(0)
        self.assertEqual(self.calls, [0, 0])
        self.advance(4)
        self.assertEqual(self.calls, [0, 0])

    def test_failing_work_is_logged_and_tried_again(self) -> None:
        self.held = Deferred()
        self.service.startService()
        self.held.errback(ZeroDivisionError("why"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.held = None
        self.advance(6)
        self.assertEqual(self.calls, [0])
        self.advance(1)
        self.assertEqual(self.calls, [0, 7])

    def test_what_is_expected_is_said_in_a_line(self) -> None:
        self.held = Deferred()
        self.service.startService()
        with capturedLogs() as events:
            self.held.errback(LGIError(ErrorNumber.OVERLOADED, "the database does not answer"))
        [event] = events
        self.assertEqual(event["log_level"], LogLevel.warn)
        self.assertIn("work is tried again in 7 s: ", formatEvent(event))
        self.held = None
        self.advance(7)
        self.assertEqual(self.calls, [0, 7])

    def test_work_that_fails_before_it_is_asynchronous(self) -> None:
        def fail() -> Awaitable[float]:
            raise ZeroDivisionError

        service = Periodic(self.clock, "work", fail, retry=7)
        service.startService()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIsNone(service.stopService())

    def test_stopping_between_two_calls_ends_it(self) -> None:
        self.service.startService()
        self.assertIsNone(self.service.stopService())
        self.service.wake()
        self.advance(20)
        self.assertEqual((self.calls, self.clock.getDelayedCalls()), ([0], []))

    def test_stopping_waits_for_work_under_way(self) -> None:
        held: Deferred[float] = Deferred()
        self.held = held
        self.service.startService()
        self.service.wake()
        stopped = self.service.stopService()
        assert stopped is not None
        self.assertNoResult(stopped)
        held.callback(5.0)
        self.assertIsNone(self.successResultOf(stopped))
        self.advance(20)
        self.assertEqual((self.calls, self.clock.getDelayedCalls()), ([0], []))

    def test_stopping_waits_for_work_that_fails_too(self) -> None:
        self.held = Deferred()
        self.service.startService()
        stopped = self.service.stopService()
        assert stopped is not None
        self.held.errback(ZeroDivisionError())
        self.successResultOf(stopped)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_waking_before_the_start_does_nothing(self) -> None:
        self.service.wake()
        self.assertEqual(self.calls, [])

    def test_it_can_be_started_again(self) -> None:
        self.service.startService()
        self.service.stopService()
        self.advance(1)
        self.service.startService()
        self.advance(5)
        self.assertEqual(self.calls, [0, 1, 6])
