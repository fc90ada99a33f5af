"""Functions on a grid that is not there: what becomes of futures."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from lgi.api.calls import CALL, FORMAT
from lgi.api.errors import JobFailed, NoReactor
from lgi.api.executor import Executor, GridFuture
from lgi.api.values import Found, Place
from lgi.client.answers import ServerRefused, ServerUnreachable
from lgi.states import JobState
from tests.unit.api.test_follower import answer

SERVER = "https://a.example/LGI"


class FakeCore:
    """Jobs that go on when the test says so."""

    def __init__(self) -> None:
        self.calls: dict[int, bytes] = {}
        self.inputs: list[bytes] = []
        self.deleted: list[tuple[int, bool]] = []
        self.over_of: dict[int, Deferred[Found | None]] = {}
        self.seen: dict[int, Callable[[JobState], None]] = {}
        self.states: dict[int, JobState] = {}
        self.results: dict[int, bytes] = {}
        self.refuse: Exception | None = None
        self.closed = False

    def found(self, job_id: int, state: JobState) -> Found:
        return Found(place=Place(server=SERVER, job_id=job_id), reference=f"{job_id}@a", answer=answer(job_id, state))

    async def submit(self, application: str, **more: Any) -> Found:
        if self.refuse is not None:
            raise self.refuse
        job_id = len(self.calls) + 1
        self.calls[job_id] = dict(more["files"])[CALL].read_bytes()
        self.inputs.append(more["input"])
        self.states[job_id] = JobState.QUEUED
        return self.found(job_id, JobState.QUEUED)

    async def over(self, found: Found, timeout: float | None = None, seen: Any = None) -> Found | None:
        job_id = found.place.job_id
        if seen is not None:
            self.seen[job_id] = seen
        waiting = self.over_of[job_id] = Deferred()
        try:
            return await waiting
        finally:
            if self.over_of.get(job_id) is waiting:
                del self.over_of[job_id]

    async def delete(self, place: Place, *, cancel: bool = False) -> Found:
        self.deleted.append((place.job_id, cancel))
        running = self.states[place.job_id] is JobState.RUNNING
        return self.found(place.job_id, JobState.ABORTING if running else JobState.DELETED)

    async def fetch(self, found: Found, name: str, target: Path) -> None:
        if found.place.job_id not in self.results:
            raise ServerRefused(404, "there is no such file")
        target.write_bytes(self.results[found.place.job_id])

    async def close(self) -> None:
        self.closed = True

    def run(self, job_id: int) -> None:
        """Let a job run."""
        self.states[job_id] = JobState.RUNNING
        self.seen[job_id](JobState.RUNNING)

    def finish(self, job_id: int, state: JobState = JobState.FINISHED, *, result: bool = True) -> None:
        """Let a job end, with what its function returns."""
        if result:
            function, calls = pickle.loads(self.calls[job_id].partition(b"\n")[2])
            head = f'{{"format": {FORMAT}, "kind": "values"}}\n'.encode()
            self.results[job_id] = head + cloudpickle.dumps([function(*one, **more) for one, more in calls])
        self.states[job_id] = state
        self.over_of.pop(job_id).callback(self.found(job_id, state))


class ExecutorTests(TestCase):
    """In the reactor, as a Twisted program would use it."""

    timeout = 20

    async def setUp(self) -> None:  # type: ignore[override]
        await deferLater(reactor, 0)  # from here on the reactor runs
        home = Path(self.mktemp())
        home.mkdir()
        for name, text in {"defaultserver": SERVER, "defaultproject": "LGI", "user": "u", "groups": "g"}.items():
            (home / name).write_text(text)
        for name in ("certificate", "privatekey", "ca_chain"):
            (home / name).touch()
        self.home = home
        self.core = FakeCore()
        self.executor = self.make()

    def make(self, **more: Any) -> Executor:
        executor = Executor(self.home, **more)
        core: Any = self.core
        executor._core = core
        self.addCleanup(lambda: Deferred.fromCoroutine(self.end(executor)))
        return executor

    async def end(self, executor: Executor) -> None:
        """Not from outside the reactor, which it would start."""
        await deferLater(reactor, 0)
        executor.shutdown(wait=False, cancel_futures=True)
        for waiting in list(self.core.over_of.values()):
            waiting.cancel()
        await self.until(lambda: executor._ended and not executor._work)

    async def until(self, true: Callable[[], object]) -> None:
        while not true():
            await deferToThread(lambda: None)

    async def following(self, job_id: int) -> None:
        await self.until(lambda: job_id in self.core.over_of)

    async def test_a_function_s_life(self) -> None:
        future = self.executor.submit(divmod, 7, 2)
        await self.following(1)
        self.assertEqual((future.job, future.running(), future.done()), ("1@a", False, False))
        self.core.run(1)
        self.assertTrue(future.running())
        self.assertFalse(future.cancel())
        self.core.finish(1)
        self.assertEqual(await deferToThread(future.result, 5), (3, 1))
        await self.until(lambda: self.core.deleted)
        self.assertEqual(self.core.deleted, [(1, False)])
        self.assertEqual(self.core.inputs, [b"divmod\n"])

    async def test_what_waits_is_cancelled_and_deleted(self) -> None:
        future = self.executor.submit(divmod, 7, 2)
        await self.following(1)
        self.assertTrue(future.cancel())
        await self.until(lambda: self.core.deleted)
        early = self.executor.submit(divmod, 7, 2)
        self.assertTrue(early.cancel())  # before it has been submitted
        await self.until(lambda: early not in self.executor._work)
        self.assertEqual((self.core.deleted, len(self.core.calls)), ([(1, False)], 1))

    async def test_one_that_began_as_it_was_cancelled_is_aborted_and_deleted(self) -> None:
        future = self.executor.submit(divmod, 7, 2)
        await self.following(1)
        self.core.states[1] = JobState.RUNNING  # which nobody has been told
        self.assertTrue(future.cancel())
        await self.until(lambda: self.core.deleted)
        await self.following(1)
        self.core.finish(1, JobState.ABORTED, result=False)
        await self.until(lambda: len(self.core.deleted) == 2)
        self.assertTrue(future.cancelled())

    async def test_one_that_runs_is_aborted_on_request(self) -> None:
        future = self.executor.submit(divmod, 7, 2)
        await self.following(1)
        self.core.run(1)
        future.abort()
        await self.until(lambda: self.core.deleted)
        self.assertEqual(self.core.deleted, [(1, True)])  # one that is over by then is not deleted
        self.core.finish(1, JobState.ABORTED, result=False)
        problem = await deferToThread(future.exception, 5)
        self.assertIsInstance(problem, JobFailed)
        self.assertEqual(str(problem), "job 1@a was aborted")

    async def test_jobs_that_leave_no_result_or_are_gone(self) -> None:
        futures = [self.executor.submit(divmod, 7, 2) for _ in range(2)]
        await self.following(2)
        self.core.finish(1, result=False)
        self.core.over_of[2].callback(None)
        texts = [str(await deferToThread(future.exception, 5)) for future in futures]
        self.assertEqual(texts, ["job 1@a has left no result", "job 2@a was deleted"])
        await self.until(lambda: not self.executor._work)
        self.assertEqual(self.core.deleted, [(1, False)])

    async def test_a_server_out_of_reach_costs_no_job(self) -> None:
        future = self.executor.submit(divmod, 7, 2)
        await self.following(1)
        self.core.over_of.pop(1).errback(ServerUnreachable("no answer"))
        self.assertIsInstance(await deferToThread(future.exception, 5), ServerUnreachable)
        await self.until(lambda: not self.executor._work)
        self.assertEqual((self.core.deleted, future.job), ([], "1@a"))
        self.core.refuse = ServerRefused(70, "not configured")
        future = self.executor.submit(divmod, 7, 2)
        self.assertIsInstance(await deferToThread(future.exception, 5), ServerRefused)
        self.assertIsNone(future.job)

    async def test_map_in_chunks(self) -> None:
        results = self.executor.map(pow, [1, 2, 3, 4, 5], [2] * 5, chunksize=2)
        for job_id in (1, 2, 3):
            await self.following(job_id)
        self.assertEqual(self.core.inputs[0], b"pow (2 calls)\n")
        for job_id in (3, 1, 2):
            self.core.finish(job_id)
        self.assertEqual(await deferToThread(list, results), [1, 4, 9, 16, 25])
        late = self.executor.map(pow, [1], [2], timeout=0)
        await self.following(4)
        with self.assertRaises(TimeoutError):
            await deferToThread(list, late)
        await self.until(lambda: (4, False) in self.core.deleted)
        self.assertRaises(ValueError, self.executor.map, pow, [1], [2], chunksize=0)

    async def test_kept_jobs_and_refused_files(self) -> None:
        executor = self.make(keep=True)
        future = executor.submit(divmod, 7, 2)
        await self.following(1)
        self.core.finish(1)
        await deferToThread(future.result, 5)
        await self.until(lambda: not executor._work)
        self.assertEqual(self.core.deleted, [])
        for name in ("LGI_input", "call", "result", "runner.py"):
            self.assertRaises(ValueError, self.make, files={name: "x"})

    async def test_shutdown_waits_and_takes_no_more(self) -> None:
        one, two = self.executor.submit(divmod, 7, 2), self.executor.submit(divmod, 7, 2)
        await self.following(2)
        self.core.run(1)
        self.assertRaises(NoReactor, self.executor.shutdown)
        ending = deferToThread(self.executor.shutdown, cancel_futures=True)
        await self.until(two.cancelled)
        self.assertNotIn(True, [ending.called, self.core.closed])
        self.core.finish(1)
        await ending
        self.assertEqual(one.result(), (3, 1))
        await self.until(lambda: self.core.closed)
        self.assertRaises(RuntimeError, self.executor.submit, divmod, 7, 2)
        self.assertFalse(self.executor._directory.exists())

    async def test_ctrl_c_leaves_nothing_on_the_grid(self) -> None:
        futures: list[GridFuture[Any]] = []

        def work() -> None:
            with self.executor as executor:
                futures.extend(executor.submit(divmod, 7, 2) for _ in range(2))
                while not {1, 2} <= set(self.core.over_of):
                    pass
                self.core.run(1)
                raise KeyboardInterrupt

        def swallow() -> str:
            try:
                work()
            except KeyboardInterrupt:
                return "interrupted"
            return ""

        ending = deferToThread(swallow)
        await self.until(lambda: (1, True) in self.core.deleted and (2, False) in self.core.deleted)
        self.core.finish(1, JobState.ABORTED, result=False)
        self.assertEqual(await ending, "interrupted")
        self.assertTrue(futures[1].cancelled())
        self.assertIsInstance(futures[0].exception(), JobFailed)

    async def test_what_cannot_be_sent_is_no_future(self) -> None:
        with Path(self.mktemp()).open("w") as stream:
            self.assertRaises(pickle.PicklingError, self.executor.submit, print, stream)
        self.assertEqual((self.executor._work, list(self.executor._directory.iterdir())), ({}, []))
