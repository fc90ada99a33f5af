"""Waiting for a job to change."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lgi.server.news import RECHECK, News


class NewsTests(SynchronousTestCase):
    """Waiters, and who wakes them."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.news = News(self.clock)

    def wait(self, job_id: int, seconds: float = 30) -> Deferred[None]:
        return Deferred.fromCoroutine(self.news.wait(job_id, seconds))

    def clean(self) -> None:
        """Nobody waits, and nothing is kept of those who did."""
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.news._waiting, {})

    def test_told(self) -> None:
        """All who wait for the job are woken at once, nobody else is."""
        first, second, other = self.wait(1), self.wait(1), self.wait(2)
        self.news.tell([1, 3])
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertNoResult(other)
        self.news.tell([2])
        self.successResultOf(other)
        self.clean()

    def test_not_told(self) -> None:
        """Another process may have made the change: look again before long."""
        waiting = self.wait(1)
        self.clock.advance(RECHECK / 2)
        self.assertNoResult(waiting)
        self.clock.advance(RECHECK / 2)
        self.successResultOf(waiting)
        self.clean()

    def test_short(self) -> None:
        waiting = self.wait(1, RECHECK / 4)
        self.clock.advance(RECHECK / 4)
        self.successResultOf(waiting)
        self.clean()

    def test_one_of_two_gives_up(self) -> None:
        first, second = self.wait(1, 0.1), self.wait(1, 0.5)
        self.clock.advance(0.1)
        self.successResultOf(first)
        self.assertNoResult(second)
        self.news.tell([1])
        self.successResultOf(second)
        self.clean()

    def test_cancelled(self) -> None:
        waiting = self.wait(1)
        waiting.cancel()
        self.failureResultOf(waiting)
        self.news.tell([1])
        self.clean()

    def test_stopped(self) -> None:
        waiting = [self.wait(number) for number in (1, 1, 2)]
        self.news.stop()
        for one in waiting:
            self.successResultOf(one)
        self.assertTrue(self.news.stopped)
        self.clean()
