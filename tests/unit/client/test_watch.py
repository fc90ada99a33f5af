"""Following jobs: told by servers that can tell, asked for at the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lgi.client.answers import JobAnswer, ServerRefused
from lgi.client.patience import Patience
from lgi.client.watch import AT_ONCE, Followed, Watch
from lgi.errors import ErrorNumber
from lgi.states import JobState
from tests.unit.client.test_grid import UNKNOWN, job

QUEUED, RUNNING, FINISHED = JobState.QUEUED, JobState.RUNNING, JobState.FINISHED


@attrs.frozen(kw_only=True)
class News:
    jobs: tuple[JobAnswer, ...] = ()
    gone: tuple[int, ...] = ()


class FakeServer:
    def __init__(self) -> None:
        self.states: dict[int, JobState | Exception] = {}
        self.waiting: list[tuple[Mapping[int, JobState | None], Deferred[News]]] = []
        self.looks = 0

    async def job(self, job_id: int) -> JobAnswer:
        self.looks += 1
        state = self.states.get(job_id, UNKNOWN)
        if isinstance(state, Exception):
            raise state
        return job(job_id, state)

    async def changed(self, known: Mapping[int, JobState | None], wait: int) -> News:
        held: Deferred[News] = Deferred()
        self.waiting.append((known, held))
        self.tell()
        return await held

    def tell(self) -> None:
        for entry in list(self.waiting):
            known, held = entry
            found = tuple(
                job(number, state)
                for number in known
                if isinstance(state := self.states.get(number), JobState) and state is not known[number]
            )
            gone = tuple(number for number in known if not isinstance(self.states.get(number), JobState))
            if found or gone:
                self.waiting.remove(entry)
                held.callback(News(jobs=found, gone=gone))


class WatchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.server = FakeServer()
        self.seen: list[tuple[int, JobState | None]] = []

    def follow(self, *job_ids: int, wait: int = 240) -> tuple[list[Followed], Deferred[None]]:
        async def job_wait(_server: str) -> int:
            return wait

        watch = Watch(
            reactor=self.clock,
            connect=lambda _server: self.server,  # type: ignore[arg-type, return-value]
            job_wait=job_wait,
            patience=Patience(self.clock, busy=5),
        )
        followed = [Followed(server="a", job_id=job_id) for job_id in job_ids]
        done: Any = watch.follow(followed, lambda one: self.seen.append((one.job_id, one.state)))
        return followed, Deferred.fromCoroutine(done)

    def set(self, **states: JobState | Exception) -> None:
        self.server.states.update({int(name[1:]): state for name, state in states.items()})
        self.server.tell()

    def test_told_of_each_change_once(self) -> None:
        self.set(j1=QUEUED, j2=RUNNING)
        followed, done = self.follow(1, 2)
        self.set(j1=RUNNING)
        self.set(j2=FINISHED)
        self.assertNoResult(done)
        self.set(j1=FINISHED)
        self.successResultOf(done)
        self.assertEqual(self.seen, [(1, QUEUED), (2, RUNNING), (1, RUNNING), (2, FINISHED), (1, FINISHED)])
        self.assertEqual((self.server.looks, self.clock.getDelayedCalls()), (2, []))
        self.assertTrue(all(one.over for one in followed))

    def test_thousands_in_few_calls(self) -> None:
        numbers = range(1, 2 * AT_ONCE + 2)
        self.server.states = dict.fromkeys(numbers, RUNNING)
        _, done = self.follow(*numbers)
        self.assertEqual(len(self.server.waiting), 3)
        self.server.states = dict.fromkeys(numbers, FINISHED)
        self.server.tell()
        self.successResultOf(done)

    def test_deleted_while_it_is_followed(self) -> None:
        self.set(j1=RUNNING)
        followed, done = self.follow(1)
        self.set(j1=UNKNOWN)
        self.successResultOf(done)
        self.assertEqual((followed[0].gone, followed[0].refused), (True, None))

    def test_never_there(self) -> None:
        self.set(j2=FINISHED)
        followed, done = self.follow(1, 2)
        self.successResultOf(done)
        self.assertEqual((followed[0].refused, followed[1].state), (UNKNOWN, FINISHED))

    def test_asked_for_where_the_server_cannot_tell(self) -> None:
        self.set(j1=QUEUED)
        _, done = self.follow(1, wait=0)
        self.clock.pump([0.2, 0.3, 0.4])
        self.set(j1=FINISHED)
        self.clock.pump([0.6])
        self.successResultOf(done)
        self.assertEqual(self.seen, [(1, QUEUED), (1, FINISHED)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_refusal_of_everything(self) -> None:
        refused = ServerRefused(ErrorNumber.CERTIFICATE_REFUSED, "revoked")
        for wait in (0, 240):
            self.set(j1=refused)
            _, done = self.follow(1, wait=wait)
            self.assertIs(self.failureResultOf(done).value, refused)

    def test_cancelling(self) -> None:
        for wait in (0, 240):
            self.set(j1=RUNNING)
            _, done = self.follow(1, wait=wait)
            done.cancel()
            self.failureResultOf(done, CancelledError)
            self.assertEqual(self.clock.getDelayedCalls(), [])
