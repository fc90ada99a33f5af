"""Calls that cross on one job: what one has begun the other waits for, and then sees as it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from typing import Any

from sqlalchemy import Connection
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from lgi.admin.layout import AdminError
from lgi.admin.oversight import clear_lock
from lgi.db.consistency import check_counts, check_jobs
from lgi.db.jobs import update_job
from lgi.db.locks import fetch_lock, hold_locked_job, lock_job, locked_by_session
from lgi.db.log import entries_of_job
from lgi.db.measure import watchers
from lgi.db.pulses import write_pulses
from lgi.db.schema import job_log, job_offers, running_locks
from lgi.db.sessions import STAMP_SECONDS, end_session, hold_session_and_job, start_session
from lgi.errors import ErrorNumber, LGIError
from lgi.httpd.peer import Caller
from lgi.server import reports, sessions, work
from lgi.server.project import Project
from lgi.states import JobState
from tests.contract.case import APPLICATION, NOW, RESOURCE, call_in, rows
from tests.contract.load import LoadCase, caller, fill

OTHER = "resource2@localhost"
RUNNING = reports.JobChanges(state=JobState.RUNNING)
OTHER_SESSION = 4711
JOBS = 48
ROUNDS = 6
# What a call may be told whose lock an administrator has cleared.
_REFUSALS = {ErrorNumber.JOB_NOT_LOCKED, ErrorNumber.LOCK_MISSING, ErrorNumber.LOCK_OF_ANOTHER}


class CrossingContract(LoadCase):
    """A job that a session holds, and somebody who takes the lock off it."""

    def waits(self) -> bool:
        """Whether a transaction waits for another one."""
        raise NotImplementedError

    async def begin(self) -> None:
        """Have a resource hold a job."""
        self.resource_id, self.other_id = self.register(), self.register(OTHER)
        self.server = self.project()
        self.job_id = self.submit()
        self.session_id = await self.take(self.server, caller(RESOURCE))
        self.assertEqual(self.fetch(self.job_id).lock_state, 1)

    async def take(self, project: Project, client: Caller, limit: int = 1) -> int:
        """Start a session and lock jobs for it."""
        _resource, session_id = await sessions.sign_up(project, client, None)
        wanted = work.WorkRequest(session_id=session_id, application=APPLICATION, owners=(), start=0, limit=limit)
        await work.request_work(project, client, wanted)
        return session_id

    async def somebody_waits(self) -> None:
        """Return when a transaction waits for another one."""
        while not self.waits():
            await deferLater(reactor, 0.01)

    async def refused_after_clearing(self, number: ErrorNumber, call: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """A call that waits while an administrator clears the lock; nothing comes of it."""
        before = self.run_in(entries_of_job, self.job_id)
        with self.engine.begin() as administrator:
            clear_lock(administrator, self.job_id)
            calling = Deferred.fromCoroutine(call())
            await self.somebody_waits()
        with self.assertRaises(LGIError) as caught:
            await calling
        self.assertEqual(caught.exception.number, number)
        job = self.fetch(self.job_id)
        self.assertEqual((job.state, job.lock_state, job.daemon_pulse), (JobState.QUEUED, 0, 0))
        self.assertEqual(self.run_in(entries_of_job, self.job_id), before)
        self.assertEqual((self.run_in(rows, job_offers), self.run_in(rows, running_locks)), (1, 0))

    async def test_update_waits_and_is_refused_after_the_lock_was_cleared(self) -> None:
        await self.begin()
        await self.refused_after_clearing(
            ErrorNumber.JOB_NOT_LOCKED,
            lambda: reports.update(self.server, caller(RESOURCE), self.session_id, self.job_id, RUNNING),
        )

    async def test_unlock_waits_and_is_refused_after_the_lock_was_cleared(self) -> None:
        await self.begin()
        await self.refused_after_clearing(
            ErrorNumber.LOCK_MISSING,
            lambda: sessions.unlock(self.server, caller(RESOURCE), self.session_id, self.job_id),
        )

    async def held_by_another_in_time(self, connection: Connection, meanwhile: Callable[[], Any]) -> Any:
        """What comes of something that waits while the lock is cleared and given to another session."""
        with ThreadPoolExecutor(1) as pool, connection.begin():
            clear_lock(connection, self.job_id)
            lock_job(connection, self.job_id, resource_id=self.other_id, session_id=OTHER_SESSION, now=NOW)
            waiting = pool.submit(meanwhile)
            await self.somebody_waits()
            connection.commit()
            return waiting.result(30)

    async def test_session_that_ends_leaves_a_lock_that_is_another_s_by_now(self) -> None:
        await self.begin()
        with self.engine.connect() as administrator:
            freed = await self.held_by_another_in_time(
                administrator, lambda: self.run_in(end_session, self.session_id)
            )
        self.assertEqual(freed, [])
        lock = self.run_in(fetch_lock, self.job_id)
        assert lock is not None
        self.assertEqual((lock.resource_id, lock.session_id), (self.other_id, OTHER_SESSION))
        self.assertEqual(self.fetch(self.job_id).lock_state, 1)
        self.assertEqual(self.run_in(rows, job_offers), 0)

    async def test_clearing_a_lock_says_whose_it_was(self) -> None:
        await self.begin()
        with self.engine.connect() as administrator:
            cleared = await self.held_by_another_in_time(administrator, lambda: self.run_in(clear_lock, self.job_id))
        self.assertEqual(cleared.session_id, OTHER_SESSION)
        self.assertEqual((self.run_in(rows, job_offers), self.run_in(rows, running_locks)), (1, 0))

    async def test_clearing_a_lock_waits_for_an_update(self) -> None:
        await self.begin()
        with ThreadPoolExecutor(1) as pool:
            with self.engine.begin() as updating:
                held = hold_locked_job(
                    updating, self.job_id, resource_id=self.resource_id, session_id=self.session_id
                )
                clearing = pool.submit(self.run_in, clear_lock, self.job_id)
                await self.somebody_waits()
                self.assertTrue(update_job(updating, held, {"state": "running"}))
            self.assertEqual(clearing.result(30).session_id, self.session_id)
        job = self.fetch(self.job_id)
        self.assertEqual((job.state, job.lock_state), (JobState.RUNNING, 0))
        # It runs, so that nobody else may be given it.
        self.assertEqual((self.run_in(rows, job_offers), self.run_in(rows, running_locks)), (0, 0))

    async def test_unlocking_leaves_the_lock_of_another_alone(self) -> None:
        await self.begin()
        _resource, other = await sessions.sign_up(self.server, caller(OTHER), None)
        stolen: list[Future[None]] = []

        def steal() -> None:
            with suppress(AdminError):
                self.run_in(clear_lock, self.job_id)
            self.run_in(lock_job, self.job_id, resource_id=self.other_id, session_id=other, now=NOW)

        def between(connection: Connection, text: str, _parameters: Any) -> None:
            # The call has looked at the lock, and is about to take it off.
            taking_off = connection.engine is self.server.database.engine and text.startswith("UPDATE job_queue")
            if taking_off and not stolen:
                stolen.append(pool.submit(steal))
                deadline = time.monotonic() + 30
                while not stolen[0].done() and not self.waits() and time.monotonic() < deadline:
                    time.sleep(0.01)

        watchers.append(between)
        self.addCleanup(watchers.remove, between)
        with ThreadPoolExecutor(1) as pool:
            await sessions.unlock(self.server, caller(RESOURCE), self.session_id, self.job_id)
            stolen[0].result(30)
        lock = self.run_in(fetch_lock, self.job_id)
        assert lock is not None
        self.assertEqual((lock.resource_id, lock.session_id), (self.other_id, other))
        self.assertEqual((self.fetch(self.job_id).lock_state, self.run_in(rows, job_offers)), (1, 0))

    def test_calls_of_one_session_wait_and_those_of_others_do_not(self) -> None:
        if self.engine.dialect.name == "sqlite":
            # It has one writer.
            return
        resource_id = self.register()
        mine, other = (self.run_in(start_session, resource_id, NOW) for _ in range(2))
        with ThreadPoolExecutor(1) as pool:
            with self.engine.begin() as calling:
                call_in(calling, mine, NOW + STAMP_SECONDS)
                self.assertEqual(pool.submit(self.run_in, call_in, other, NOW).result(30).stamp, NOW)
                waiting = pool.submit(self.run_in, call_in, mine, NOW)
                while not self.waits():
                    self.assertFalse(waiting.done())
            # It sees what the one before it has written.
            self.assertEqual(waiting.result(30).stamp, NOW + STAMP_SECONDS)

    async def test_jobs_of_two_sessions_of_a_resource_are_held_at_once(self) -> None:
        if self.engine.dialect.name == "sqlite":
            return
        await self.begin()
        job_id = self.submit()
        session_id = await self.take(self.server, caller(RESOURCE))
        with ThreadPoolExecutor(1) as pool, self.engine.begin() as calling:
            self.assertIsNotNone(hold_session_and_job(calling, self.session_id, RESOURCE, self.job_id))
            meanwhile = pool.submit(self.run_in, hold_session_and_job, session_id, RESOURCE, job_id)
            self.assertIsNotNone(meanwhile.result(30))

    async def test_everything_at_once(self) -> None:
        """Updates, unlocking, the end of sessions, administrators and pulses: nobody is told of a deadlock."""
        names = (RESOURCE, OTHER)
        for name in names:
            self.register(name)
        self.run_in(fill, JOBS)
        projects = [self.project(), self.project()]
        refused: list[ErrorNumber] = []
        seconds = count(NOW + 1)

        async def allowing(call: Coroutine[Any, Any, object]) -> None:
            try:
                await call
            except AdminError:
                pass
            except LGIError as problem:
                if problem.number not in _REFUSALS:
                    raise
                refused.append(problem.number)

        async def live(project: Project, client: Caller) -> None:
            database = project.database
            for turn in range(ROUNDS):
                session_id = await self.take(project, client, 4)
                held = await database.read("held", locked_by_session, session_id)
                calls: list[Coroutine[Any, Any, object]] = []
                for job_id in held:
                    calls.append(reports.update(project, client, session_id, job_id, RUNNING))
                    if job_id % 3 == 0:
                        calls.append(database.run("clear", clear_lock, job_id))
                    calls.append(sessions.unlock(project, client, session_id, job_id))
                pulses = dict.fromkeys(range(JOBS, 0, -1), next(seconds))
                calls.append(database.run("pulses", write_pulses, pulses, {1: 5, 2: 5}))
                await gatherResults([Deferred.fromCoroutine(allowing(call)) for call in calls], consumeErrors=True)
                if turn % 2:
                    await sessions.sign_off(project, client, session_id)

        await gatherResults(
            [
                Deferred.fromCoroutine(live(project, caller(name)))
                for name in names
                for project in projects
                for _ in range(2)
            ],
            consumeErrors=True,
        )
        with self.engine.connect() as connection:
            problems, _repositories = check_jobs(connection, 1, JOBS)
            # Jobs that are there in bulk were never recorded.
            self.assertEqual([problem for problem in problems if problem.table != job_log.name], [])
            self.assertEqual(check_counts(connection), [])
