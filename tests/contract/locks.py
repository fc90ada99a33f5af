"""The contract of locks and sessions: one holder to a job, and nothing stays held when a session is over."""

from __future__ import annotations

from sqlalchemy import Engine, insert

from lgi.db.jobs import fetch_job, update_job
from lgi.db.locks import (
    claim_offers,
    fetch_lock,
    give_back,
    hold_locked_job,
    lock_job,
    locked_by_session,
    session_holds_locks,
    unlock_jobs,
)
from lgi.db.schema import job_offers, job_queue, running_locks, running_sessions
from lgi.db.sessions import (
    SESSION_SECONDS,
    STAMP_SECONDS,
    end_held_session,
    end_session,
    hold_session,
    stale_sessions,
    start_session,
)
from lgi.errors import ErrorNumber, LGIError
from lgi.model import Job, Lock
from tests.contract.case import APPLICATION, NOW, RESOURCE, THREADS, ContractCase, call_in, rows

_KEY = "uq_running_locks_job_id"


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
        self.assertEqual(self.fetch(job_id).lock_state, 1)
        self.assertEqual(self.offered(), [])

    def test_lock_that_is_given_back_is_gone_and_its_queued_job_on_offer(self) -> None:
        job_id = self.submit(target_resources=(RESOURCE, "other@host"))
        before = self.run_in(lambda connection: connection.execute(job_offers.select()).all())
        lock = self.lock(job_id, 3, 4)
        self.assertEqual(self.run_in(give_back, job_id, resource_id=3, session_id=4), lock)
        after = self.run_in(lambda connection: connection.execute(job_offers.select()).all())
        self.assertEqual(sorted(map(tuple, after)), sorted(map(tuple, before)))
        self.assertEqual((self.run_in(rows, running_locks), self.fetch(job_id).lock_state), (0, 0))

    def test_job_that_is_not_queued_is_given_back_and_not_offered(self) -> None:
        job_id = self.submit()
        self.lock(job_id, 3, 4)
        self.run_in(update_job, self.fetch(job_id), {"state": "running"})
        self.run_in(give_back, job_id, resource_id=3, session_id=4)
        self.assertEqual(self.offered(), [])
        self.assertEqual((self.run_in(rows, running_locks), self.fetch(job_id).lock_state), (0, 0))

    def test_a_job_has_one_lock(self) -> None:
        job_id = self.submit()
        first = self.lock(job_id)
        self.refused(ErrorNumber.LOCK_REFUSED, lock_job, job_id, resource_id=1, session_id=1, now=NOW)
        self.refused(ErrorNumber.LOCK_REFUSED, lock_job, job_id, resource_id=2, session_id=2, now=NOW)
        self.assertEqual(self.run_in(fetch_lock, job_id), first)
        self.assertEqual((self.run_in(rows, running_locks), self.fetch(job_id).lock_state), (1, 1))

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

    def test_a_lock_is_given_back_by_its_own_session_only(self) -> None:
        job_id = self.submit()
        self.refused(ErrorNumber.LOCK_MISSING, give_back, job_id, resource_id=1, session_id=1)
        self.lock(job_id, 1, 1)
        self.refused(ErrorNumber.LOCK_OF_ANOTHER, give_back, job_id, resource_id=1, session_id=2)
        self.refused(ErrorNumber.LOCK_OF_ANOTHER, give_back, job_id, resource_id=2, session_id=1)
        self.assertEqual((self.run_in(rows, running_locks), self.fetch(job_id).lock_state), (1, 1))
        self.run_in(give_back, job_id, resource_id=1, session_id=1)
        self.refused(ErrorNumber.LOCK_MISSING, give_back, job_id, resource_id=1, session_id=1)

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

    def test_a_job_is_changed_by_the_session_that_holds_it(self) -> None:
        job_id = self.submit(output=b"out")
        self.lock(job_id, 3, 4)
        held = self.run_in(hold_locked_job, job_id, resource_id=3, session_id=4)
        self.assertEqual(held, self.fetch(job_id))
        self.assertEqual((held.output, held.lock_state), (b"out", 1))

    def test_a_job_is_not_changed_by_others(self) -> None:
        job_id, free = self.submit(), self.submit()
        self.lock(job_id, 3, 4)
        number = ErrorNumber.JOB_NOT_LOCKED
        self.refused(number, hold_locked_job, job_id, resource_id=3, session_id=5)
        self.refused(number, hold_locked_job, job_id, resource_id=2, session_id=4)
        self.refused(number, hold_locked_job, free, resource_id=3, session_id=4)
        self.run_in(unlock_jobs, [job_id])
        self.refused(number, hold_locked_job, job_id, resource_id=3, session_id=4)
        self.refused(ErrorNumber.JOB_UNKNOWN, hold_locked_job, free + 1, resource_id=3, session_id=4)

    def test_a_job_with_two_locks_is_nobodys(self) -> None:
        job_id = self.submit()
        self.lock(job_id, 3, 4)
        lift_key(self.engine)
        self.addCleanup(restore_key, self.engine)
        values = {"job_id": job_id, "resource_id": 3, "lock_time": NOW, "session_id": 5}
        self.run_in(lambda connection: connection.execute(insert(running_locks), values))
        for session_id in (4, 5, 6):
            self.refused(ErrorNumber.SEVERAL_LOCKS, hold_locked_job, job_id, resource_id=3, session_id=session_id)
        self.refused(ErrorNumber.SEVERAL_LOCKS, fetch_lock, job_id)

    def session(self, name: str = RESOURCE) -> int:
        """Start a session of a resource."""
        return self.run_in(start_session, self.register(name), NOW)

    def test_ended_session_frees_its_jobs_and_no_others(self) -> None:
        session_id = self.session()
        mine, others = self.submit(), self.submit()
        self.lock(mine, 1, session_id)
        self.lock(others, 1, session_id + 1)
        self.assertEqual(self.run_in(end_session, session_id), [mine])
        self.assertEqual(self.offered(), [mine])
        self.assertIsNotNone(self.run_in(fetch_lock, others))
        self.refused(ErrorNumber.SESSION_ENDED, call_in, session_id, NOW)
        self.assertEqual(self.run_in(end_session, session_id), [])

    def test_held_session_ends_with_or_without_locks(self) -> None:
        for locks in (0, 2):
            session_id = self.session(f"resource{locks}@host")
            mine = [self.submit() for _ in range(locks)]
            for job_id in mine:
                self.lock(job_id, 1, session_id)
            self.assertEqual(sorted(self.run_in(end_held_session, session_id)), mine)
            self.assertEqual((self.run_in(rows, running_sessions), self.run_in(rows, running_locks)), (0, 0))
            self.assertEqual(self.offered(), mine)

    def test_session_lasts_thirty_minutes_from_its_last_call(self) -> None:
        self.assertEqual(SESSION_SECONDS, 1800)
        session_id = self.session()
        last = NOW + 1799
        self.assertEqual(self.run_in(call_in, session_id, last).stamp, last)
        self.assertEqual(self.run_in(stale_sessions, last + 1799, 99), [])
        self.run_in(call_in, session_id, last)
        self.assertEqual(self.run_in(stale_sessions, last + 1800, 99), [session_id])
        self.refused(ErrorNumber.SESSION_ENDED, call_in, session_id, last + 1800)
        # Being refused does not keep it alive.
        self.assertEqual(self.run_in(stale_sessions, last + 1800, 99), [session_id])

    def test_session_is_its_resources_own(self) -> None:
        session_id, other = self.session(), "other@host"
        self.register(other)
        self.refused(ErrorNumber.SESSION_ENDED, call_in, session_id, NOW, other)
        self.refused(ErrorNumber.SESSION_ENDED, call_in, session_id, NOW, "unknown@host")
        self.refused(ErrorNumber.SESSION_ENDED, call_in, session_id + 1, NOW)
        held = self.run_in(call_in, session_id, NOW)
        self.assertEqual((held.session_id, held.resource.resource_name), (session_id, RESOURCE))

    def test_session_holds_locks_or_not(self) -> None:
        session_id = self.session()
        job_id, others = self.submit(), self.submit()
        self.lock(others, 1, session_id + 1)
        self.assertFalse(self.run_in(session_holds_locks, session_id))
        self.lock(job_id, 1, session_id)
        self.assertTrue(self.run_in(session_holds_locks, session_id))

    def test_calls_in_the_same_second_keep_the_session(self) -> None:
        session_id = self.session()
        for _ in range(3):
            self.assertEqual(self.run_in(call_in, session_id, NOW).stamp, NOW)

    def test_time_of_a_call_is_written_now_and_then(self) -> None:
        session_id = self.session()

        def stamp() -> int:
            held = self.run_in(hold_session, session_id, RESOURCE)
            assert held is not None
            return held.stamp

        self.run_in(call_in, session_id, NOW + STAMP_SECONDS - 1)
        self.assertEqual(stamp(), NOW)
        self.run_in(call_in, session_id, NOW + STAMP_SECONDS)
        self.assertEqual(stamp(), NOW + STAMP_SECONDS)

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


def lift_key(engine: Engine) -> None:
    """Take away what keeps a job from having two locks, as it was in databases of former programs."""
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            [text] = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE name = 'running_locks'").one()
            found = connection.execute(running_locks.select()).mappings().all()
            running_locks.drop(connection)
            connection.exec_driver_sql(text.replace(f"CONSTRAINT {_KEY} UNIQUE", "CHECK"))
            connection.execute(insert(running_locks), [dict(row) for row in found])
        elif engine.dialect.name == "postgresql":
            connection.exec_driver_sql(f"ALTER TABLE running_locks DROP CONSTRAINT {_KEY}")
        else:
            connection.exec_driver_sql(f"ALTER TABLE running_locks DROP INDEX {_KEY}")


def restore_key(engine: Engine) -> None:
    """The tables of servers serve later tests."""
    if engine.dialect.name == "sqlite":
        return
    with engine.begin() as connection:
        connection.execute(running_locks.delete())
        connection.exec_driver_sql(f"ALTER TABLE running_locks ADD CONSTRAINT {_KEY} UNIQUE (job_id)")
