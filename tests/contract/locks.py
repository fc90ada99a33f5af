"""The contract of locks and sessions: one holder to a job, and nothing stays held when a session is over."""

from __future__ import annotations

import attrs
from sqlalchemy import select

from lgi.db.jobs import fetch_job, update_job
from lgi.db.locks import (
    claim_offers,
    fetch_lock,
    held_lock,
    hold_locked_job,
    hold_locked_jobs,
    lock_job,
    locked_by_session,
    session_holds_locks,
    unlock_jobs,
)
from lgi.db.schema import job_offers, job_queue, running_locks, running_sessions
from lgi.db.sessions import SESSION_SECONDS, end_session, stale_sessions, start_session
from lgi.errors import ErrorNumber, LGIError
from lgi.model import Job, Lock
from tests.contract.case import APPLICATION, NOW, RESOURCE, THREADS, ContractCase, keep_session, rows


class LocksContract(ContractCase):
    """See `DatabaseContract`."""

    def lock(self, job_id: int, resource_id: int = 1, session_id: int = 1) -> Lock:
        """Lock a job."""
        return self.run_in(lock_job, job_id, resource_id=resource_id, session_id=session_id, now=NOW)

    def offered(self) -> list[int]:
        """The jobs that a resource would get now, without getting them."""
        with self.engine.connect() as connection, connection.begin() as transaction:
            jobs = claim_offers(
                connection,
                application=APPLICATION,
                resource_name=RESOURCE,
                resource_id=9,
                session_id=9,
                start=0,
                limit=99,
                now=NOW,
            )
            transaction.rollback()
        return [job.job_id for job in jobs]

    def refused(self, number: ErrorNumber, function: object, *args: object, **kwargs: object) -> None:
        """Assert that a function is refused with this number."""
        error = self.assertRaises(LGIError, self.run_in, function, *args, **kwargs)
        self.assertEqual(error.number, number)

    def test_locked_job_is_held_and_no_longer_on_offer(self) -> None:
        job_id = self.submit()
        self.assertEqual(self.offered(), [job_id])
        lock = self.lock(job_id, 3, 4)
        self.assertEqual((lock.job_id, lock.resource_id, lock.session_id, lock.lock_time), (job_id, 3, 4, NOW))
        self.assertEqual(self.run_in(fetch_lock, job_id), lock)
        self.assertEqual(self.run_in(held_lock, job_id, resource_id=3, session_id=4), lock)
        self.assertEqual(self.fetch(job_id).lock_state, 1)
        self.assertEqual(self.offered(), [])

    def test_a_job_has_one_lock(self) -> None:
        job_id = self.submit()
        first = self.lock(job_id)
        self.refused(ErrorNumber.LOCK_REFUSED, lock_job, job_id, resource_id=1, session_id=1, now=NOW)
        self.refused(ErrorNumber.LOCK_REFUSED, lock_job, job_id, resource_id=2, session_id=2, now=NOW)
        self.assertEqual(self.run_in(fetch_lock, job_id), first)
        self.assertEqual((self.run_in(rows, running_locks), self.fetch(job_id).lock_state), (1, 1))

    def test_who_changes_jobs_holds_them_and_their_locks(self) -> None:
        """Nobody else gets at them until the end: neither an administrator nor the scheduler."""
        mine, other = self.submit(), self.submit()
        self.lock(mine, 3, 4)
        self.lock(other, 5, 6)
        free = {
            table: select(table.c.job_id).order_by(table.c.job_id).with_for_update(skip_locked=True)
            for table in (job_queue, running_locks)
        }
        ours = {"resource_id": 3, "session_id": 4}
        for hold in (
            lambda connection: held_lock(connection, mine, **ours),
            lambda connection: hold_locked_job(connection, mine, **ours),
            lambda connection: hold_locked_jobs(connection, [mine], inputs=False, **ours),
        ):
            with self.engine.begin() as connection:
                hold(connection)
                if connection.dialect.name == "sqlite":
                    # There all others wait.
                    self.assertTrue(connection.connection.dbapi_connection.in_transaction)  # type: ignore[union-attr]
                    continue
                for table, statement in free.items():
                    found = self.run_in(lambda by, statement=statement: list(by.scalars(statement)))
                    self.assertEqual(found, [other], table.name)

    def test_several_jobs_are_held_or_said_not_to_be(self) -> None:
        jobs = [self.submit(input=b"in", output=b"out") for _ in range(4)]
        for job_id in jobs[:2]:
            self.lock(job_id, 3, 4)
        self.lock(jobs[2], 3, 5)
        for inputs in (True, False):
            found = self.run_in(hold_locked_jobs, [*reversed(jobs), 77], resource_id=3, session_id=4, inputs=inputs)
            self.assertEqual(set(found), {*jobs, 77})
            for job_id in jobs[:2]:
                whole = self.fetch(job_id)
                self.assertEqual(found[job_id], attrs.evolve(whole, input=b"in" if inputs else None, output=None))
            refused = [found[job_id] for job_id in (*jobs[2:], 77)]
            self.assertEqual(
                [one.number for one in refused if isinstance(one, LGIError)],
                [ErrorNumber.JOB_NOT_LOCKED, ErrorNumber.JOB_NOT_LOCKED, ErrorNumber.JOB_UNKNOWN],
            )
        self.assertEqual(self.run_in(hold_locked_jobs, [], resource_id=3, session_id=4, inputs=True), {})

    def test_job_that_is_not_there_cannot_be_locked(self) -> None:
        self.refused(ErrorNumber.LOCK_REFUSED, lock_job, 77, resource_id=1, session_id=1, now=NOW)
        self.assertEqual(self.run_in(rows, running_locks), 0)

    def test_many_lock_one_job_and_one_gets_it(self) -> None:
        job_id = self.submit()
        won: list[int] = []

        def fight(index: int) -> None:
            try:
                self.lock(job_id, index, index)
            except LGIError as problem:
                assert problem.number is ErrorNumber.LOCK_REFUSED
            else:
                won.append(index)

        self.at_once(THREADS, fight)
        self.assertEqual(len(won), 1)
        held = self.run_in(fetch_lock, job_id)
        assert held is not None
        self.assertEqual([held.session_id], won)

    def test_a_lock_is_held_by_its_own_session_only(self) -> None:
        job_id = self.submit()
        self.refused(ErrorNumber.LOCK_MISSING, held_lock, job_id, resource_id=1, session_id=1)
        self.lock(job_id, 1, 1)
        self.refused(ErrorNumber.LOCK_OF_ANOTHER, held_lock, job_id, resource_id=1, session_id=2)
        self.refused(ErrorNumber.LOCK_OF_ANOTHER, held_lock, job_id, resource_id=2, session_id=1)
        self.run_in(unlock_jobs, [job_id])
        self.refused(ErrorNumber.LOCK_MISSING, held_lock, job_id, resource_id=1, session_id=1)

    def test_unlocked_queued_job_is_offered_again_to_the_same_targets(self) -> None:
        job_id = self.submit(target_resources=(RESOURCE, "other@host"))
        before = self.run_in(lambda connection: connection.execute(job_offers.select()).all())
        self.lock(job_id)
        self.assertEqual(self.run_in(rows, job_offers), 0)
        self.run_in(unlock_jobs, [job_id])
        after = self.run_in(lambda connection: connection.execute(job_offers.select()).all())
        self.assertEqual(sorted(map(tuple, after)), sorted(map(tuple, before)))
        self.assertEqual((self.run_in(fetch_lock, job_id), self.fetch(job_id).lock_state), (None, 0))

    def test_unlocked_job_that_is_not_queued_is_not_offered(self) -> None:
        job_id = self.submit()
        self.lock(job_id)
        self.run_in(update_job, self.fetch(job_id), {"state": "running"})
        self.run_in(unlock_jobs, [job_id])
        self.assertEqual(self.offered(), [])

    def test_unlocking_an_offered_job_does_no_harm(self) -> None:
        # The scheduler queues a lost job again while its resource is about to lock it: it is on offer already then.
        job_id = self.submit()
        self.run_in(unlock_jobs, [job_id])
        self.assertEqual(self.offered(), [job_id])

    def test_unlocking_nothing_does_nothing(self) -> None:
        self.run_in(unlock_jobs, [])
        self.run_in(unlock_jobs, [12345])
        self.assertEqual(self.run_in(rows, job_queue), 0)

    def test_session_knows_its_locks(self) -> None:
        mine, others = [self.submit(), self.submit()], self.submit()
        for job_id in mine:
            self.lock(job_id, 1, 5)
        self.lock(others, 1, 6)
        self.assertEqual(sorted(self.run_in(locked_by_session, 5)), mine)
        self.assertTrue(self.run_in(session_holds_locks, 5))
        self.assertFalse(self.run_in(session_holds_locks, 7))

    def test_ended_session_frees_its_jobs_and_no_others(self) -> None:
        session_id = self.run_in(start_session, self.register(), NOW)
        mine, others = self.submit(), self.submit()
        self.lock(mine, 1, session_id)
        self.lock(others, 1, session_id + 1)
        self.assertEqual(self.run_in(end_session, session_id), [mine])
        self.assertEqual(self.offered(), [mine])
        self.assertIsNotNone(self.run_in(fetch_lock, others))
        self.refused(ErrorNumber.SESSION_ENDED, keep_session, session_id, RESOURCE, NOW)
        self.assertEqual(self.run_in(end_session, session_id), [])

    def test_session_lasts_thirty_minutes_from_its_last_call(self) -> None:
        self.assertEqual(SESSION_SECONDS, 1800)
        session_id = self.run_in(start_session, self.register(), NOW)
        last = NOW + 1799
        self.run_in(keep_session, session_id, RESOURCE, last)
        self.assertEqual(self.run_in(stale_sessions, last + 1799, 99), [])
        self.run_in(keep_session, session_id, RESOURCE, last)
        self.assertEqual(self.run_in(stale_sessions, last + 1800, 99), [session_id])
        self.refused(ErrorNumber.SESSION_ENDED, keep_session, session_id, RESOURCE, last + 1800)
        # Being refused does not keep it alive.
        self.assertEqual(self.run_in(stale_sessions, last + 1800, 99), [session_id])

    def test_session_is_its_resources_own(self) -> None:
        session_id = self.run_in(start_session, self.register(), NOW)
        self.register("resource2@localhost")
        for name in ("resource2@localhost", "nobody"):
            self.refused(ErrorNumber.SESSION_ENDED, keep_session, session_id, name, NOW)
        self.refused(ErrorNumber.SESSION_ENDED, keep_session, session_id + 1, RESOURCE, NOW)
        self.run_in(keep_session, session_id, RESOURCE, NOW)

    def test_calls_in_the_same_second_keep_the_session(self) -> None:
        session_id = self.run_in(start_session, self.register(), NOW)
        for _ in range(3):
            self.run_in(keep_session, session_id, RESOURCE, NOW)

    def test_sessions_have_numbers_of_their_own(self) -> None:
        first = self.run_in(start_session, 1, NOW)
        self.run_in(end_session, first)
        self.assertGreater(self.run_in(start_session, 1, NOW), first)
        self.assertEqual(self.run_in(rows, running_sessions), 1)

    def test_stale_sessions_come_in_batches(self) -> None:
        sessions = {self.run_in(start_session, 1, NOW) for _ in range(5)}
        self.assertLess(set(self.run_in(stale_sessions, NOW + 1800, 2)), sessions)
        self.assertEqual(set(self.run_in(stale_sessions, NOW + 1800, 99)), sessions)

    def test_locking_keeps_the_job_as_it_is(self) -> None:
        job_id = self.submit(output=b"out")
        before: Job | None = self.run_in(fetch_job, job_id, blobs=True)
        self.lock(job_id)
        self.run_in(unlock_jobs, [job_id])
        self.assertEqual(self.fetch(job_id), before)
