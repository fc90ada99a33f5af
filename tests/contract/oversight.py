"""The contract of what an administrator sees and does, and of the check of a database."""

from __future__ import annotations

from functools import partial

from sqlalchemy import delete, insert, update

from lgi.admin.layout import AdminError
from lgi.admin.oversight import abort, clear_lock, end, purge, requeue
from lgi.admin.snapshots import snapshots
from lgi.db.consistency import check_jobs, next_last, repair
from lgi.db.locks import lock_job
from lgi.db.oversight import jobs_over, list_events, list_jobs, list_locks, list_sessions
from lgi.db.schema import job_access, job_offers, job_queue
from lgi.db.sessions import start_session
from lgi.states import JobState
from tests.contract.case import NOW, RESOURCE, THREADS, ContractCase


class OversightContract(ContractCase):
    """On all databases."""

    def problems(self) -> list[tuple[int, str]]:
        """What the check finds, in batches of two."""
        found: list[tuple[int, str]] = []
        last = 0
        with snapshots(self.url) as look:
            while True:
                first = last + 1
                last, more = look(partial(next_last, after=last, batch=2))
                if not more:
                    return found
                problems, _names = look(partial(check_jobs, first=first, last=last))
                found += [(problem.job_id, problem.table) for problem in problems]

    def test_sights_and_changes(self) -> None:
        resource_id = self.register()
        queued, running, over = (
            self.submit(),
            self.submit(state=JobState.RUNNING),
            self.submit(state=JobState.FINISHED),
        )
        session = self.run_in(start_session, resource_id, NOW)
        self.run_in(lock_job, queued, resource_id=resource_id, session_id=session, now=NOW)
        (seen,) = self.run_in(list_sessions)
        self.assertEqual((seen.session_id, seen.resource_name, seen.locks), (session, RESOURCE, 1))
        (lock,) = self.run_in(list_locks)
        self.assertEqual((lock.job_id, lock.resource_name), (queued, RESOURCE))
        jobs = self.run_in(list_jobs, state="queued", application="hello_world", owner="theor", limit=9)
        self.assertEqual([job.job_id for job in jobs], [queued])
        self.assertEqual(self.run_in(jobs_over, ["finished"], NOW + 1, after=0, limit=9), [over])
        with self.assertRaises(AdminError):
            self.run_in(abort, queued, NOW)
        self.run_in(clear_lock, queued)
        self.assertEqual(self.run_in(end, session), [])
        self.assertEqual(self.run_in(abort, queued, NOW).state, JobState.ABORTED)
        again = self.run_in(requeue, running, RESOURCE, NOW)
        self.assertEqual((again.state, again.target_resources), (JobState.QUEUED, (RESOURCE,)))
        self.assertEqual(list(self.run_in(purge, [queued, running, over], NOW + 1, NOW)), [queued, over])
        self.assertTrue(self.run_in(list_events))
        self.assertEqual(self.problems(), [])

    def test_check_and_repair(self) -> None:
        jobs = [self.submit() for _ in range(5)]
        self.assertEqual(self.problems(), [])
        self.run_in(lambda by: by.execute(delete(job_offers).where(job_offers.c.job_id == jobs[0])))
        self.run_in(
            lambda by: by.execute(update(job_access).values(kind="r").filter_by(job_id=jobs[2], name="theor"))
        )
        self.run_in(lambda by: by.execute(insert(job_access).values(kind="r", name="x", job_id=jobs[-1] + 9)))
        self.run_in(lambda by: by.execute(update(job_queue).values(state="running").filter_by(job_id=jobs[4])))
        wrong = [
            (jobs[0], "job_offers"),
            (jobs[2], "job_access"),
            (jobs[4], "job_log"),
            (jobs[4], "job_offers"),
            (jobs[-1] + 9, "job_access"),
        ]
        self.assertEqual(self.problems(), wrong)
        for job_id, table in wrong:
            if table != "job_log":
                self.run_in(repair, job_id, table)
        self.assertEqual(self.problems(), [(jobs[4], "job_log")])

    def test_purge_by_many_at_once(self) -> None:
        """Each job is deleted, and recorded, once."""
        jobs = [self.submit(state=JobState.ABORTED) for _ in range(20)]
        deleted: list[int] = []
        self.at_once(4, lambda _index: deleted.extend(self.run_in(purge, jobs, NOW + 1, NOW)))
        self.assertEqual(sorted(deleted), jobs)
        self.assertEqual(self.problems(), [])

    def test_nothing_wrong_while_others_work(self) -> None:
        """A check that runs during changes sees each as a whole."""
        resource_id = self.register()
        session = self.run_in(start_session, resource_id, NOW)
        jobs = [self.submit() for _ in range(THREADS // 4)]
        found: list[tuple[int, str]] = []

        def work(index: int) -> None:
            for _ in range(10):
                if index == len(jobs):
                    found.extend(self.problems())
                else:
                    ids = {"resource_id": resource_id, "session_id": session}
                    self.run_in(lock_job, jobs[index], **ids, now=NOW)
                    self.run_in(clear_lock, jobs[index])

        self.at_once(len(jobs) + 1, work)
        self.assertEqual(found, [])
