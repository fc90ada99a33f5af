"""Waiting for jobs of one server together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lgi.api.follower import Follower
from lgi.client.answers import JobAnswer, ServerUnreachable
from lgi.client.watch import Followed
from lgi.model import Job
from lgi.states import JobState


def answer(job_id: int, state: JobState) -> JobAnswer:
    """A job in a state."""
    return JobAnswer(
        job=Job(
            job_id=job_id,
            state=state,
            application="hello_world",
            target_resources=(),
            owners=(),
            read_access=(),
            write_access=(),
            state_time_stamp=0,
        )
    )


class FakeWatch:
    """Remembers what it was asked to follow; the test says what happens."""

    def __init__(self) -> None:
        self.rounds: list[tuple[dict[int, Followed], Callable[[Followed], None], Deferred[None]]] = []

    async def follow(self, followed: Iterable[Followed], changed: Callable[[Followed], None]) -> None:
        end: Deferred[None] = Deferred()
        self.rounds.append(({one.job_id: one for one in followed}, changed, end))
        await end

    def tell(self, job_id: int, state: JobState) -> None:
        jobs, changed, end = self.rounds[-1]
        jobs[job_id].answer = answer(job_id, state)
        changed(jobs[job_id])
        if all(one.over for one in jobs.values()):
            end.callback(None)


class FollowerTests(SynchronousTestCase):
    """Many wait, one asks."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.watch = FakeWatch()
        watch: Any = self.watch
        self.follower = Follower(self.clock, "https://a.example/LGI", watch)

    def wait(self, job_id: int, seen: Any = None) -> Deferred[Followed]:
        return Deferred.fromCoroutine(self.follower.over(job_id, seen))

    def test_all_who_come_together_are_one_question(self) -> None:
        waiting = [self.wait(1), self.wait(2), self.wait(1)]
        self.clock.advance(1)
        self.assertEqual([set(jobs) for jobs, _, _ in self.watch.rounds], [{1, 2}])
        self.watch.tell(1, JobState.FINISHED)
        for one in (0, 2):
            self.assertIs(self.successResultOf(waiting[one]).state, JobState.FINISHED)
        self.assertNoResult(waiting[1])
        self.watch.tell(2, JobState.ABORTED)
        self.assertIs(self.successResultOf(waiting[1]).state, JobState.ABORTED)
        self.clock.advance(1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_who_comes_later_is_asked_for_with_what_is_known(self) -> None:
        seen: list[JobState] = []
        first = self.wait(1, seen.append)
        self.clock.advance(1)
        self.watch.tell(1, JobState.RUNNING)
        late: list[JobState] = []
        self.wait(1, late.append)
        self.wait(2)
        self.clock.advance(1)
        jobs, _, _ = self.watch.rounds[-1]
        self.assertEqual({job_id: one.state for job_id, one in jobs.items()}, {1: JobState.RUNNING, 2: None})
        self.assertEqual((seen, late), ([JobState.RUNNING], [JobState.RUNNING]))
        self.watch.tell(1, JobState.FINISHED)
        self.successResultOf(first)

    def test_what_nobody_waits_for_is_not_asked_for(self) -> None:
        one, two = self.wait(1), self.wait(2)
        self.clock.advance(1)
        one.cancel()
        self.failureResultOf(one, CancelledError)
        self.wait(3)
        self.clock.advance(1)
        self.assertEqual(set(self.watch.rounds[-1][0]), {2, 3})
        two.cancel()
        self.failureResultOf(two, CancelledError)

    def test_a_failure_is_everybody_s_and_does_not_last(self) -> None:
        again: list[Deferred[Followed]] = []
        waiting = [self.wait(1), self.wait(2)]
        waiting[0].addErrback(lambda _: again.append(self.wait(1)))
        self.clock.advance(1)
        self.watch.rounds[-1][2].errback(ServerUnreachable("gone"))
        self.failureResultOf(waiting[1], ServerUnreachable)
        self.clock.advance(1)
        self.watch.tell(1, JobState.FINISHED)
        self.successResultOf(again[0])

    def test_the_end_tells_all_who_wait(self) -> None:
        waiting = [self.wait(1), self.wait(2)]
        self.clock.advance(1)
        self.follower.close()
        for one in waiting:
            self.failureResultOf(one, CancelledError)
        self.clock.advance(1)
        self.assertEqual(len(self.watch.rounds), 1)
