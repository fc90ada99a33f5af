"""Waiting for a job to change."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lgi.errors import LGIError
from lgi.server.news import RECHECK, Ear, News


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

    def heard(self, ear: Ear, seconds: float = 30) -> Deferred[None]:
        return Deferred.fromCoroutine(ear.heard(seconds))

    def test_ear_for_several_jobs(self) -> None:
        with self.news.listening([1, 2]) as ear, self.news.listening([2, 3]) as other:
            first, second = self.heard(ear), self.heard(other)
            self.news.tell([3])
            self.assertNoResult(first)
            self.successResultOf(second)
            self.news.tell([1, 2])
            self.successResultOf(first)
            # What came meanwhile is heard of once, however often it came.
            self.successResultOf(self.heard(other))
            again = self.heard(other, 2)
            self.assertNoResult(again)
            self.clock.advance(2)
            self.successResultOf(again)
        self.clean()

    def test_ear_hears_before_it_is_asked(self) -> None:
        with self.news.listening([1]) as ear:
            self.news.tell([1])
            self.successResultOf(self.heard(ear))
            self.assertNoResult(waiting := self.heard(ear))
            self.news.stop()
            self.successResultOf(waiting)
        self.clean()

    def test_crowd(self) -> None:
        with self.news.crowd(2, 9), self.news.crowd(2, 9):
            error = self.assertRaises(LGIError, self.news.crowd(2, 9).__enter__)
            self.assertEqual((error.number, error.timeout), (1, 9))
        with self.news.crowd(1, 9):
            self.assertEqual(self.news.crowded, 1)
        self.assertEqual(self.news.crowded, 0)
